/* SPDX-License-Identifier: MIT
 * stream/streams.h: a set of streams: its states, its scratch memory, and what lies where in it. */
#ifndef CRNN_STREAM_STREAMS_H
#define CRNN_STREAM_STREAMS_H

#include <math.h>
#include <string.h>

#include "stream/model.h"

typedef struct {
    void *h, *c;     /* (N, H); c: has_c */
    crnn_layer call; /* arguments of the cell's forward; those that change from call to call are set by run_cell */
} stream_layer;

struct crnn_streams {
    const crnn_model *model;
    crnn_dim N, block;
    /* Scratch, `block` rows each. */
    void *x;            /* input in the model's precision, standardised; or rows of the embedding */
    void *y;            /* output in the model's precision; NULL if y has it */
    void *gates;        /* x @ W_xh + b_h, then the gates */
    void *h, *hn;       /* a layer's output, and its hn */
    void *below;        /* with dense layers, h of all layers so far side by side */
    void *h_before, *c; /* gathered from rows that are not contiguous; c also of several steps */
    void *scores;       /* of an adaptive softmax: h @ W_hy + b_y, (block, its columns) */
    void *projected, *of_tail; /* h @ W_hp and that @ W_py */
    void *scratch;      /* for products with quantised weights; NULL: there are none */
    stream_layer *layers;
    void *pooled; /* (N, pooled_size); NULL without pooling */
};

/* Bytes of scratch that the largest product of `block` rows needs. */
static size_t scratch_size(const crnn_model *model, crnn_dim block)
{
    size_t most = model->has_head ? crnn_packed_scratch(&model->W_hy, block) : 0;
    for (crnn_dim i = 0; i < model->num_tails; ++i) {
        const size_t of_hp = crnn_packed_scratch(&model->tails[i].W_hp, block);
        const size_t of_py = crnn_packed_scratch(&model->tails[i].W_py, block);
        most = of_hp > most ? of_hp : most;
        most = of_py > most ? of_py : most;
    }
    for (crnn_dim i = 0; i < model->num_layers; ++i) {
        const model_layer *l = &model->layers[i];
        const size_t of_xh = crnn_packed_scratch(&l->W_xh, block);
        const size_t of_hh = l->cell->recurrent_gates ? crnn_packed_scratch(&l->W_hh, block) : 0;
        most = of_xh > most ? of_xh : most;
        most = of_hh > most ? of_hh : most;
    }
    return most;
}

/* The states of a layer, and what all calls of its cell share. */
static stream_layer lay_out_states(arena *a, const crnn_streams *streams, const model_layer *of)
{
    const crnn_model *model = streams->model;
    const size_t state = times((size_t)streams->N, model->size);
    stream_layer layer = {.call = {.H = of->H, .w_hh = of->W_hh.data, .w_hn = of->W_hn.data, .xw = streams->gates}};
    layer.h = allot(a, state, (size_t)of->H);
    layer.c = of->cell->has_c ? allot(a, state, (size_t)of->H) : NULL;
    layer.call.quantised = crnn_quantised_of(&of->W_hh, &model->kernels);
    layer.call.scratch = streams->scratch;
    layer.call.gates = of->cell->arrays & CRNN_USES_GATES ? streams->gates : NULL;
    layer.call.hn = of->cell->arrays & CRNN_USES_HN ? streams->hn : NULL;
    for (int v = 0; of->cell->vectors[v]; ++v)
        layer.call.vectors[v] = of->vectors[v];
    return layer;
}

/* NULL where the arena only counts. */
static crnn_streams *lay_out_streams(arena *a, const crnn_model *model, crnn_dim N, crnn_dim block)
{
    crnn_streams *memory = allot(a, 1, sizeof(crnn_streams)), streams = {.model = model, .N = N, .block = block};
    const size_t row = times((size_t)block, model->size);
    streams.layers = allot(a, (size_t)model->num_layers, sizeof(stream_layer));
    if (model->standardises || model->embedding_size)
        streams.x = allot(a, row, (size_t)(model->embedding_size ? model->embedding_size : model->input_size));
    if (model->io_size != model->size)
        streams.y = allot(a, row, (size_t)model->output_size);
    streams.gates = allot(a, row, (size_t)model->max_columns);
    streams.h = allot(a, row, (size_t)model->max_H);
    if (model->dense_size)
        streams.below = allot(a, row, (size_t)model->dense_size);
    if (model->any_hn)
        streams.hn = allot(a, row, (size_t)model->max_H);
    if (block > 1) {
        streams.h_before = allot(a, row, (size_t)model->max_H);
        if (model->any_c)
            streams.c = allot(a, row, (size_t)model->max_H);
    }
    if (model->num_tails) {
        streams.scores = allot(a, row, (size_t)model->W_hy.N);
        streams.projected = allot(a, row, (size_t)model->max_projection);
        streams.of_tail = allot(a, row, (size_t)model->max_tail);
    }
    const size_t scratch = scratch_size(model, block);
    if (scratch)
        streams.scratch = allot(a, 1, scratch);
    for (crnn_dim i = 0; i < model->num_layers; ++i) {
        const stream_layer layer = lay_out_states(a, &streams, &model->layers[i]);
        if (streams.layers)
            streams.layers[i] = layer;
    }
    if (model->pooled_size)
        streams.pooled = allot(a, times((size_t)N, model->size), (size_t)model->pooled_size);
    if (memory)
        *memory = streams;
    return memory;
}

/* state (H) = start, or zero where that is NULL. */
static void set_start(const crnn_model *model, void *state, const void *start, crnn_dim H)
{
    if (start)
        copy(model, state, start, H);
    else
        memset(state, 0, (size_t)H * model->size);
}

/* The pooled state before the first step. */
static void set_pooled_start(const crnn_model *model, void *pooled)
{
    if (model->pooling != CRNN_POOL_MAX)
        memset(pooled, 0, (size_t)model->pooled_size * model->size);
    else
        for (crnn_dim j = 0; j < model->pooled_size; ++j)
            if (model->format == CRNN_FORMAT_F32)
                ((float *)pooled)[j] = -INFINITY;
            else
                ((double *)pooled)[j] = -INFINITY;
}

static crnn_dim state_parts(const crnn_model *model) { return 2 * model->num_layers + 1; }

/* Part i of a row's state, i < state_parts, in the order of its vector: (size), or NULL: there is no c or pooling. */
static void *state_part(const crnn_streams *s, crnn_dim i, crnn_dim row, crnn_dim *size)
{
    const crnn_dim L = s->model->num_layers;
    const stream_layer *own = &s->layers[i % L];
    void *array = i < L ? own->h : i < 2 * L ? own->c : s->pooled;
    *size = i < 2 * L ? s->model->layers[i % L].H : s->model->pooled_size;
    return array ? element(s->model, array, row * *size) : NULL;
}

#endif
