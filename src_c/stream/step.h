/* SPDX-License-Identifier: MIT
 * stream/step.h: one pass through the weights, for one step of several streams or several steps of one. */
#ifndef CRNN_STREAM_STEP_H
#define CRNN_STREAM_STEP_H

#include <assert.h>

#include "stream/scaling.h"
#include "stream/streams.h"

/* to[i, :] = from[rows[i], :], i < n. */
static void gather(const crnn_model *model, void *to, const void *from, const int32_t *rows, crnn_dim n, crnn_dim H)
{
    for (crnn_dim i = 0; i < n; ++i)
        copy(model, element(model, to, i * H), element(model, from, rows[i] * H), H);
}

/* to[rows[i], :] = from[i, :], i < n. */
static void scatter(const crnn_model *model, void *to, const void *from, const int32_t *rows, crnn_dim n, crnn_dim H)
{
    for (crnn_dim i = 0; i < n; ++i)
        copy(model, element(model, to, rows[i] * H), element(model, from, i * H), H);
}

/* x (n, E): rows of the embedding. */
static const void *embedded(const crnn_streams *s, const int32_t *ids, crnn_dim n)
{
    const crnn_model *model = s->model;
    const crnn_dim E = model->embedding_size;
    if (model->embedding && n == 1)
        return element(model, model->embedding, *ids * E);
    for (crnn_dim i = 0; i < n; ++i)
        if (model->embedding)
            copy(model, element(model, s->x, i * E), element(model, model->embedding, ids[i] * E), E);
        else
            crnn_packed_column(&model->W_hy, element(model, s->x, i * E), ids[i]);
    return s->x;
}

/* s->gates = x @ W_xh + b_h, or the rows of W_xh that ids select, plus b_h. */
static void input_product(const crnn_streams *s, const model_layer *l, const void *x, const int32_t *ids,
                          const crnn_rows *rows)
{
    const crnn_model *model = s->model;
    if (x)
        crnn_packed_product(&l->W_xh, &model->kernels, s->gates, x, l->b_h, s->scratch, rows);
    else
        for (crnn_dim i = 0; i < rows->T * rows->B; ++i)
            crnn_packed_row(&l->W_xh, &model->kernels, element(model, s->gates, i * l->W_xh.N), ids[i], l->b_h);
}

/* One step more in the count of a mean. Returns 1 / the number of steps, in the model's precision. */
static double count_step(const crnn_model *model, void *count)
{
    float *f32 = count;
    double *f64 = count;
    const int single = model->format == CRNN_FORMAT_F32;
    double a = single ? f32[0] : f64[0], b = (single ? f32[1] : f64[1]) + 1.0;
    if (b >= COUNT_UNIT) {
        a += 1;
        b = 0;
    }
    if (single) {
        f32[0] = (float)a;
        f32[1] = (float)b;
    } else {
        f64[0] = a;
        f64[1] = b;
    }
    const double steps = a * COUNT_UNIT + b;
    return single ? 1 / (float)steps : 1 / steps;
}

/* x (n, H), what the head would read, OVERWRITTEN with the pooled vectors of the sequences so far. Rows as in
 * advance. */
static void pool(const crnn_streams *s, void *x, crnn_dim first, const int32_t *scattered, const crnn_rows *rows)
{
    const crnn_model *model = s->model;
    const crnn_kernels_f32 *f32 = model->kernels.f32;
    const crnn_kernels_f64 *f64 = model->kernels.f64;
    const crnn_dim H = model->W_hy.K;
    for (crnn_dim i = 0; i < rows->T * rows->B; ++i) {
        const crnn_dim row = scattered ? scattered[i] : first + i % rows->B;
        void *x_i = element(model, x, i * H), *pooled = element(model, s->pooled, row * model->pooled_size);
        if (model->pooling == CRNN_POOL_MAX) {
            if (f32)
                f32->pool_max_step(x_i, pooled, x_i, H);
            else
                f64->pool_max_step(x_i, pooled, x_i, H);
        } else {
            const double factor = count_step(model, element(model, pooled, H));
            if (f32)
                f32->pool_mean_step(x_i, pooled, x_i, (float)factor, H);
            else
                f64->pool_mean_step(x_i, pooled, x_i, factor, H);
        }
    }
}

/* Layer i, whose input product is in s->gates: out (n, H) OVERWRITTEN with its h, and the states of the rows with those
 * after the steps. Rows as in advance. */
static void run_cell(crnn_streams *s, crnn_dim i, void *out, crnn_dim first, const int32_t *scattered,
                     const crnn_rows *rows)
{
    const crnn_model *model = s->model;
    const crnn_dim n = rows->T * rows->B, H = model->layers[i].H;
    stream_layer *own = &s->layers[i];
    crnn_layer *call = &own->call;
    void *h = element(model, own->h, first * H), *c = own->c ? element(model, own->c, first * H) : NULL;
    call->rows = *rows;
    call->h = out; /* not into the state itself: while h is written the product still reads h' */
    if (scattered) {
        gather(model, s->h_before, h, scattered, n, H);
        call->h0 = s->h_before;
        if (c)
            gather(model, s->c, c, scattered, n, H);
        call->c0 = call->c = s->c;
    } else {
        call->h0 = h;
        call->c0 = c;
        call->c = rows->T == 1 ? c : s->c;
    }
    model->layers[i].cell->forward(call);
    if (scattered) {
        scatter(model, h, out, scattered, n, H);
        if (c)
            scatter(model, c, s->c, scattered, n, H);
    } else {
        copy(model, h, element(model, out, (n - rows->B) * H), rows->B * H);
        if (c && rows->T > 1)
            copy(model, c, element(model, s->c, (n - 1) * H), H);
    }
}

/* to (n, K + H): below (n, K) and h (n, H) side by side. `to` may be `below`. */
static void append_columns(const crnn_model *model, void *to, const void *below, crnn_dim K, const void *h, crnn_dim H,
                           crnn_dim n)
{
    for (crnn_dim i = n - 1; i >= 0; --i) { /* in this order no row is overwritten before it has moved */
        memmove(element(model, to, i * (K + H)), element(model, below, i * K), (size_t)K * model->size);
        copy(model, element(model, to, i * (K + H) + K), element(model, h, i * H), H);
    }
}

/* y (n rows, ldy apart) = log softmax(scores (n, V)) + start, element `start` of each row of scores of the head, or 0. */
static void log_softmax(const crnn_streams *s, void *y, crnn_dim ldy, const void *scores, const void *start, crnn_dim n,
                        crnn_dim V)
{
    const crnn_model *model = s->model;
    if (model->kernels.f32)
        model->kernels.f32->log_softmax(y, ldy, scores, start, model->W_hy.N, n, V);
    else
        model->kernels.f64->log_softmax(y, ldy, scores, start, model->W_hy.N, n, V);
}

/* y (n, V) = the log-probabilities of an adaptive softmax that reads x (n, H). */
static void adaptive_softmax(const crnn_streams *s, void *y, const void *x, const crnn_rows *rows)
{
    const crnn_model *model = s->model;
    const crnn_dim n = rows->T * rows->B, V = model->output_size, S = model->W_hy.N, shortlist = S - model->num_tails;
    crnn_packed_product(&model->W_hy, &model->kernels, s->scores, x, model->b_y, s->scratch, rows);
    log_softmax(s, s->scores, S, s->scores, NULL, n, S);
    for (crnn_dim i = 0; i < n; ++i)
        copy(model, element(model, y, i * V), element(model, s->scores, i * S), shortlist);
    for (crnn_dim i = 0; i < model->num_tails; ++i) {
        const model_tail *tail = &model->tails[i];
        crnn_packed_product(&tail->W_hp, &model->kernels, s->projected, x, NULL, s->scratch, rows);
        crnn_packed_product(&tail->W_py, &model->kernels, s->of_tail, s->projected, NULL, s->scratch, rows);
        log_softmax(s, element(model, y, tail->first), V, s->of_tail, element(model, s->scores, shortlist + i), n,
                    tail->W_py.N);
    }
}

/* One pass through the weights: one step of rows->B streams, or rows->T steps of one; at most s->block, of x or ids.
 * scattered: their rows; NULL: rows first, first + 1, ... With `check`, returns 0 and changes nothing where the layers'
 * input is not finite. The check comes after the first product, whose work hides its latency. */
static int advance(crnn_streams *s, void *y, const void *x, const int32_t *ids, crnn_dim first,
                   const int32_t *scattered, const crnn_rows *rows, int check)
{
    const crnn_model *model = s->model;
    const crnn_dim n = rows->T * rows->B;
    assert(0 < n && n <= s->block && !(model->embedding_size && x));
    if (x && model->standardises) {
        standardise(model, s->x, x, n);
        x = s->x;
    } else if (model->embedding_size)
        x = embedded(s, ids, n);
    void *const raw = s->y ? s->y : y;
    const int dense = model->dense_size > 0;
    void *const read = dense ? s->below : s->h; /* by the next layer, or the head */
    crnn_dim below = 0;                         /* columns of s->below */
    const float_mode mode = kernel_floats(); /* once for all kernels */
    for (crnn_dim i = 0; i < model->num_layers; ++i) {
        void *const after = i + 1 < model->num_layers || model->has_head ? read : raw;
        void *const out = dense ? s->h : after;
        input_product(s, &model->layers[i], x, ids, rows);
        if (check && i == 0 && !all_finite(model, x, n * model->input_size)) {
            float_mode_restore(mode);
            return 0;
        }
        run_cell(s, i, out, first, scattered, rows);
        if (dense) {
            append_columns(model, after, s->below, below, out, model->layers[i].H, n);
            below += model->layers[i].H;
        }
        x = after;
    }
    if (model->pooled_size)
        pool(s, read, first, scattered, rows);
    if (model->num_tails)
        adaptive_softmax(s, raw, x, rows);
    else if (model->has_head)
        crnn_packed_product(&model->W_hy, &model->kernels, raw, x, model->b_y, s->scratch, rows);
    float_mode_restore(mode);
    if (model->standardises)
        restore_units(model, y, raw, n);
    return 1;
}

#endif
