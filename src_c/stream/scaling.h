/* SPDX-License-Identifier: MIT
 * stream/scaling.h: numbers on their way in and out: standardised inputs, outputs in their units, and whether
 * inputs are finite. */
#ifndef CRNN_STREAM_SCALING_H
#define CRNN_STREAM_SCALING_H

#include <string.h>

#include "stream/model.h"

/* Element d of one step's x, standardised. */
static inline double scaled(const crnn_model *model, const double *x, crnn_dim d)
{
    return model->x_mean ? (x[d] - model->x_mean[d]) / model->x_std[d] : x[d];
}

/* 1: NaN or infinite. By the exponent, because comparisons would depend on compiler flags and raise exceptions. */
static inline uint32_t not_finite_f32(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (bits & 0x7f800000u) == 0x7f800000u;
}

static inline uint64_t not_finite_f64(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (bits & 0x7ff0000000000000u) == 0x7ff0000000000000u;
}

/* Whether element d of x (D), one step's input, is not finite as the layers get it. */
static inline int not_finite(const crnn_model *model, const void *x, crnn_dim d)
{
    if (!model->standardises)
        return model->format == CRNN_FORMAT_F32 ? (int)not_finite_f32(((const float *)x)[d])
                                                : (int)not_finite_f64(((const double *)x)[d]);
    const double value = scaled(model, x, d);
    return model->format == CRNN_FORMAT_F32 ? (int)not_finite_f32((float)value) : (int)not_finite_f64(value);
}

/* Whether all of n elements of x, not standardised, are finite. */
static int all_finite(const crnn_model *model, const void *x, crnn_dim n)
{
    return model->format == CRNN_FORMAT_F32 ? model->kernels.f32->all_finite(x, n) : model->kernels.f64->all_finite(x, n);
}

/* out (n, D), in the model's precision, = (x - x_mean) / x_std, computed in double. */
static void standardise(const crnn_model *model, void *out, const double *x, crnn_dim n)
{
    const crnn_dim D = model->input_size;
    const float_mode mode = ieee_floats(); /* as NumPy computes it for whole sequences */
    for (crnn_dim i = 0; i < n; ++i, x += D) {
        float *f32 = element(model, out, i * D);
        double *f64 = element(model, out, i * D);
        if (model->format == CRNN_FORMAT_F32)
            for (crnn_dim d = 0; d < D; ++d)
                f32[d] = (float)scaled(model, x, d);
        else
            for (crnn_dim d = 0; d < D; ++d)
                f64[d] = scaled(model, x, d);
    }
    ieee_floats_end(mode);
}

/* y (n, output) = raw * y_std + y_mean, computed in double, in blocks of y_columns columns. raw may be y. */
static void restore_units(const crnn_model *model, double *y, const void *raw, crnn_dim n)
{
    const double *mean = model->y_mean, *std = model->y_std;
    const crnn_dim V = model->output_size, columns = mean ? model->y_columns : V;
    const float_mode mode = ieee_floats();
    for (crnn_dim i = 0; i < n; ++i)
        for (crnn_dim j = 0, column = 0; j < V; ++j, ++column) {
            const void *from = element(model, raw, i * V + j);
            const double value = model->format == CRNN_FORMAT_F32 ? *(const float *)from : *(const double *)from;
            column = column == columns ? 0 : column;
            y[i * V + j] = mean ? value * std[column] + mean[column] : value;
        }
    ieee_floats_end(mode);
}

#endif
