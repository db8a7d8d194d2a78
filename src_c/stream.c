/* SPDX-License-Identifier: MIT
 * stream.c: the functions of crnn_stream.h, on the kernels of crnn.h. One text for both precisions, and one translation
 * unit with the files of stream/. Never allocates; refuses what crnn_model_size refuses. */
#include "crnn_stream.h"

#include "stream/step.h"
#include "stream/weights.h"

/* ---- models -------------------------------------------------------------------------------------------------------- */

static size_t model_size(const crnn_model_config *config, const crnn_tables *kernels)
{
    arena count = {NULL, 0};
    if ((!kernels->f32 && !kernels->f64) || !valid_config(config, kernels))
        return 0;
    lay_out_model(&count, config, kernels);
    return total(&count);
}

static crnn_model *model_init(void *memory, const crnn_model_config *config, const crnn_tables *kernels)
{
    arena a = {memory, 0};
    if (!is_aligned(memory) || model_size(config, kernels) == 0)
        return NULL;
    crnn_model *model = lay_out_model(&a, config, kernels);
    exchange_all(model, PACK, config);
    return model;
}

size_t crnn_model_size(const crnn_model_config *config, const crnn_kernels_f32 *kernels)
{
    return model_size(config, &(crnn_tables){.f32 = kernels});
}

size_t crnn_model_size_f64(const crnn_model_config *config, const crnn_kernels_f64 *kernels)
{
    return model_size(config, &(crnn_tables){.f64 = kernels});
}

crnn_model *crnn_model_init(void *memory, const crnn_model_config *config, const crnn_kernels_f32 *kernels)
{
    return model_init(memory, config, &(crnn_tables){.f32 = kernels});
}

crnn_model *crnn_model_init_f64(void *memory, const crnn_model_config *config, const crnn_kernels_f64 *kernels)
{
    return model_init(memory, config, &(crnn_tables){.f64 = kernels});
}

int crnn_model_equals(const crnn_model *model, const crnn_model_config *config)
{
    return same_shape(model, config) && exchange_all(model, COMPARE, config);
}

int crnn_model_unpack(const crnn_model *model, const crnn_model_config *config)
{
    return same_shape(model, config) && exchange_all(model, UNPACK, config);
}

crnn_dim crnn_model_input_size(const crnn_model *model) { return model->input_size; }
crnn_dim crnn_model_output_size(const crnn_model *model) { return model->output_size; }
crnn_dim crnn_model_state_size(const crnn_model *model) { return model->state_size; }
int crnn_model_takes_ids_only(const crnn_model *model) { return model->embedding_size != 0; }
int crnn_model_standardises(const crnn_model *model) { return model->standardises; }

crnn_dim crnn_model_first_not_finite(const crnn_model *model, const void *x, crnn_dim n)
{
    const crnn_dim D = model->input_size;
    if (!model->standardises && all_finite(model, x, n * D))
        return n * D;
    const float_mode mode = ieee_floats();
    crnn_dim i = 0;
    while (i < n * D && !not_finite(model, io_element(model, x, i / D * D), i % D))
        ++i;
    ieee_floats_end(mode);
    return i;
}

/* ---- streams ------------------------------------------------------------------------------------------------------- */

size_t crnn_streams_size(const crnn_model *model, crnn_dim N, crnn_dim block)
{
    arena count = {NULL, 0};
    if (!model || !valid_size(N) || !valid_size(block))
        return 0;
    lay_out_streams(&count, model, N, block);
    return total(&count);
}

crnn_streams *crnn_streams_init(void *memory, const crnn_model *model, crnn_dim N, crnn_dim block)
{
    arena a = {memory, 0};
    if (!is_aligned(memory) || crnn_streams_size(model, N, block) == 0)
        return NULL;
    crnn_streams *streams = lay_out_streams(&a, model, N, block);
    crnn_streams_reset(streams, NULL, N);
    return streams;
}

static int are_contiguous(const int32_t *rows, crnn_dim n)
{
    for (crnn_dim i = 1; i < n; ++i)
        if (rows[i] != rows[0] + i)
            return 0;
    return 1;
}

static void step(crnn_streams *s, void *y, const void *x, const int32_t *ids, const int32_t *rows, crnn_dim M)
{
    const crnn_model *model = s->model;
    for (crnn_dim i = 0; i < M; i += s->block) {
        const crnn_dim n = M - i < s->block ? M - i : s->block;
        const crnn_rows slice = {.T = 1, .B = n, .b0 = 0, .b1 = n};
        const int contiguous = !rows || are_contiguous(rows + i, n);
        advance(s, io_element(model, y, i * model->output_size), x ? io_element(model, x, i * model->input_size) : NULL,
                ids ? ids + i : NULL, !rows ? i : contiguous ? rows[i] : 0, contiguous ? NULL : rows + i, &slice, 0);
    }
}

void crnn_streams_step(crnn_streams *streams, void *y, const void *x, const int32_t *rows, crnn_dim M)
{
    step(streams, y, x, NULL, rows, M);
}

int crnn_streams_try_step(crnn_streams *streams, void *y, const void *x)
{
    const crnn_rows slice = {.T = 1, .B = 1, .b0 = 0, .b1 = 1};
    return advance(streams, y, x, NULL, 0, NULL, &slice, 1);
}

void crnn_streams_step_ids(crnn_streams *streams, void *y, const int32_t *ids, const int32_t *rows, crnn_dim M)
{
    step(streams, y, NULL, ids, rows, M);
}

static void run(crnn_streams *s, void *y, const void *x, const int32_t *ids, crnn_dim T, crnn_dim row)
{
    const crnn_model *model = s->model;
    for (crnn_dim t = 0; t < T; t += s->block) {
        const crnn_dim n = T - t < s->block ? T - t : s->block;
        const crnn_rows slice = {.T = n, .B = 1, .b0 = 0, .b1 = 1};
        advance(s, io_element(model, y, t * model->output_size), x ? io_element(model, x, t * model->input_size) : NULL,
                ids ? ids + t : NULL, row, NULL, &slice, 0);
    }
}

void crnn_streams_run(crnn_streams *streams, void *ys, const void *xs, crnn_dim T, crnn_dim row)
{
    run(streams, ys, xs, NULL, T, row);
}

void crnn_streams_run_ids(crnn_streams *streams, void *ys, const int32_t *ids, crnn_dim T, crnn_dim row)
{
    run(streams, ys, NULL, ids, T, row);
}

/* ---- states -------------------------------------------------------------------------------------------------------- */

void crnn_streams_reset(crnn_streams *streams, const int32_t *rows, crnn_dim M)
{
    const crnn_model *model = streams->model;
    for (crnn_dim i = 0; i < model->num_layers; ++i) {
        const model_layer *l = &model->layers[i];
        const stream_layer *own = &streams->layers[i];
        for (crnn_dim m = 0; m < M; ++m) {
            const crnn_dim offset = (rows ? rows[m] : m) * l->H;
            set_start(model, element(model, own->h, offset), l->h0, l->H);
            if (own->c)
                set_start(model, element(model, own->c, offset), l->c0, l->H);
        }
    }
    for (crnn_dim m = 0; model->pooled_size && m < M; ++m)
        set_pooled_start(model, element(model, streams->pooled, (rows ? rows[m] : m) * model->pooled_size));
}

void crnn_streams_get_state(const crnn_streams *streams, void *state, crnn_dim row)
{
    const crnn_model *model = streams->model;
    crnn_dim size, offset = 0;
    for (crnn_dim i = 0; i < state_parts(model); ++i) {
        const void *part = state_part(streams, i, row, &size);
        if (part) {
            copy(model, element(model, state, offset), part, size);
            offset += size;
        }
    }
}

void crnn_streams_set_state(crnn_streams *streams, const void *state, crnn_dim row)
{
    const crnn_model *model = streams->model;
    crnn_dim size, offset = 0;
    for (crnn_dim i = 0; i < state_parts(model); ++i) {
        void *part = state_part(streams, i, row, &size);
        if (part) {
            copy(model, part, element(model, state, offset), size);
            offset += size;
        }
    }
}

void crnn_streams_copy(crnn_streams *streams, crnn_dim row, const crnn_streams *from, crnn_dim from_row)
{
    crnn_dim size;
    if (streams == from && row == from_row)
        return;
    for (crnn_dim i = 0; i < state_parts(streams->model); ++i) {
        void *part = state_part(streams, i, row, &size);
        if (part)
            copy(streams->model, part, state_part(from, i, from_row, &size), size);
    }
}
