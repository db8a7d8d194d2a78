/* SPDX-License-Identifier: MIT
 * stream/model.h: what a model has, which configurations are valid, and what lies where in a model's memory. Arrays of
 * the model's precision are void *, and element() finds their elements. */
#ifndef CRNN_STREAM_MODEL_H
#define CRNN_STREAM_MODEL_H

#include <string.h>

#include "stream/memory.h"

static const crnn_dim MAX_SIZE = (crnn_dim)1 << 28; /* ids and rows are int32_t, and G*H must fit into one too */

/* The number of steps a * COUNT_UNIT + b of a mean, as two elements a, b: a float counts to 2^24 only. */
enum { COUNT_SIZE = 2, COUNT_UNIT = 1 << 24 };

typedef struct {
    const crnn_cell *cell;
    crnn_dim H;
    crnn_packed W_xh, W_hh, W_hn; /* W_hh: the packed_gates; W_hn: a last recurrent gate that is not among them */
    void *b_h, *h0, *c0, *vectors[CRNN_CELL_VECTORS];
} model_layer;

/* A tail of an adaptive softmax: its outputs are first, first + 1, ... */
typedef struct {
    crnn_packed W_hp, W_py;
    crnn_dim first;
} model_tail;

struct crnn_model {
    crnn_tables kernels; /* of the model's precision; the other table is NULL */
    crnn_format format;
    size_t size;    /* of an element: a float or a double */
    size_t io_size; /* of an element of x and y: a double in a model that standardises */
    int standardises;
    crnn_dim input_size, output_size, state_size, num_layers, embedding_size, y_columns;
    int has_head, tie_weights, pooling;
    crnn_dim dense_size; /* sum of all H where layers read those of all layers below; 0: only that of the last one */
    crnn_dim pooled_size; /* elements of a stream's pooled state: maxima; or sums and COUNT_SIZE for the steps; or 0 */
    void *embedding; /* (D, E); NULL with tie_weights: then it is read from the columns of W_hy */
    crnn_packed W_hy;
    void *b_y;
    crnn_dim num_tails, max_projection, max_tail; /* the last two: over the tails */
    model_tail *tails;
    double *x_mean, *x_std, *y_mean, *y_std;
    crnn_dim max_H, max_columns; /* over the layers: H, G*H */
    int any_c, any_hn;           /* whether any layer has them */
    model_layer *layers;
};

static void *element(const crnn_model *model, const void *array, crnn_dim index)
{
    return (char *)array + index * (crnn_dim)model->size;
}

/* The same in an x or y. */
static void *io_element(const crnn_model *model, const void *array, crnn_dim index)
{
    return (char *)array + index * (crnn_dim)model->io_size;
}

static void copy(const crnn_model *model, void *to, const void *from, crnn_dim count)
{
    memcpy(to, from, (size_t)count * model->size);
}

static int valid_size(crnn_dim size) { return 0 < size && size <= MAX_SIZE; }

/* NULL: there is no cell of this number. */
static const crnn_cell *cell_of(const crnn_tables *kernels, int number)
{
    const crnn_cell *const *cell = kernels->f32 ? kernels->f32->cells : kernels->f64->cells;
    for (; *cell && number > 0; --number)
        ++cell;
    return number == 0 ? *cell : NULL;
}

/* The format of a matrix; -1: there is no such format for this precision. */
static int format_of(const crnn_tables *kernels, int format)
{
    switch (format) {
    case CRNN_AS_ARRAYS: return kernels->f32 ? CRNN_FORMAT_F32 : CRNN_FORMAT_F64;
    case CRNN_BF16: return kernels->f32 ? CRNN_FORMAT_BF16 : -1;
    case CRNN_INT8: return kernels->f32 ? CRNN_FORMAT_INT8 : -1;
    case CRNN_INT4: return kernels->f32 ? CRNN_FORMAT_INT4 : -1;
    default: return -1;
    }
}

/* How many outputs the tails have; -1: one is not valid. */
static crnn_dim outputs_of_tails(const crnn_model_config *c, const crnn_tables *kernels)
{
    crnn_dim outputs = 0;
    for (crnn_dim i = 0; i < c->num_tails; ++i) {
        const crnn_tail_weights *tail = &c->tails[i];
        if (!valid_size(tail->size) || !valid_size(tail->projection_size) || !tail->W_hp || !tail->W_py ||
            format_of(kernels, tail->W_hp_format) < 0 || format_of(kernels, tail->W_py_format) < 0)
            return -1;
        outputs += tail->size;
        if (outputs > MAX_SIZE)
            return -1;
    }
    return outputs;
}

static int valid_tails(const crnn_model_config *c, const crnn_tables *kernels)
{
    if (c->num_tails == 0)
        return !c->tails;
    if (!valid_size(c->num_tails) || !c->tails || c->tie_weights || c->pooling != CRNN_POOL_LAST || c->y_mean)
        return 0;
    const crnn_dim outputs = outputs_of_tails(c, kernels);
    return outputs >= 0 && outputs < c->output_size;
}

/* Elements of what comes after the layers: h of the top layer, or of all. */
static crnn_dim size_above(const crnn_model_config *c)
{
    crnn_dim sum = 0;
    for (crnn_dim i = c->dense_layers ? 0 : c->num_layers - 1; i < c->num_layers; ++i)
        sum += c->layers[i].hidden_size;
    return sum;
}

static int valid_config(const crnn_model_config *c, const crnn_tables *kernels)
{
    if (!c || !valid_size(c->input_size) || !valid_size(c->num_layers) || !c->layers)
        return 0;
    for (crnn_dim i = 0; i < c->num_layers; ++i) {
        const crnn_layer_weights *l = &c->layers[i];
        const crnn_cell *cell = cell_of(kernels, l->cell);
        if (!cell || !valid_size(l->hidden_size) || !l->W_xh || !l->b_h || !l->W_hh != !cell->recurrent_gates)
            return 0;
        for (int v = 0; cell->vectors[v]; ++v)
            if (!l->vectors[v])
                return 0;
        if (format_of(kernels, l->W_xh_format) < 0 || format_of(kernels, l->W_hh_format) < 0)
            return 0;
    }
    const crnn_dim H = size_above(c), E = c->embedding_size, V = c->output_size;
    if (!valid_size(H))
        return 0;
    if (E ? !valid_size(E) || !c->embedding : c->embedding || c->tie_weights)
        return 0;
    if (V ? !valid_size(V) || !c->b_y || !c->W_hy != !!c->tie_weights : c->tie_weights)
        return 0;
    if (format_of(kernels, c->W_hy_format) < 0)
        return 0;
    if (c->pooling < CRNN_POOL_LAST || c->pooling > CRNN_POOL_MEAN || (c->pooling != CRNN_POOL_LAST && !V))
        return 0;
    if (c->tie_weights && (E != H || V != c->input_size))
        return 0;
    if (!c->x_mean != !c->x_std || !c->y_mean != !c->y_std)
        return 0;
    return valid_tails(c, kernels) && (!c->y_mean || valid_size(c->y_columns));
}

static model_layer lay_out_layer(arena *a, const crnn_model *model, const crnn_layer_weights *w, crnn_dim K)
{
    const crnn_cell *cell = cell_of(&model->kernels, w->cell);
    const crnn_dim H = w->hidden_size;
    const crnn_format of_xh = format_of(&model->kernels, w->W_xh_format);
    const crnn_format of_hh = format_of(&model->kernels, w->W_hh_format);
    model_layer layer = {.cell = cell, .H = H};
    layer.W_xh = allot_packed(a, K, cell->gates * H, 1, of_xh);
    if (cell->packed_gates)
        layer.W_hh = allot_packed(a, H, H, cell->packed_gates, of_hh);
    if (cell->recurrent_gates > cell->packed_gates)
        layer.W_hn = allot_packed(a, H, H, 1, of_hh);
    layer.b_h = allot_like(a, w->b_h, cell->gates * H, model->size);
    for (int v = 0; cell->vectors[v]; ++v)
        layer.vectors[v] = allot_like(a, w->vectors[v], H, model->size);
    layer.h0 = allot_like(a, w->h0, H, model->size);
    layer.c0 = cell->has_c ? allot_like(a, w->c0, H, model->size) : NULL;
    return layer;
}

/* The tails of an adaptive softmax that reads K elements. */
static void lay_out_tails(arena *a, crnn_model *model, const crnn_model_config *c, crnn_dim K)
{
    crnn_dim first = c->output_size - outputs_of_tails(c, &model->kernels);
    model->num_tails = c->num_tails;
    model->tails = allot(a, (size_t)c->num_tails, sizeof(model_tail));
    for (crnn_dim i = 0; i < c->num_tails; ++i) {
        const crnn_tail_weights *w = &c->tails[i];
        const crnn_dim P = w->projection_size;
        model_tail tail = {.first = first};
        tail.W_hp = allot_packed(a, K, P, 1, format_of(&model->kernels, w->W_hp_format));
        tail.W_py = allot_packed(a, P, w->size, 1, format_of(&model->kernels, w->W_py_format));
        if (model->tails)
            model->tails[i] = tail;
        model->max_projection = P > model->max_projection ? P : model->max_projection;
        model->max_tail = w->size > model->max_tail ? w->size : model->max_tail;
        first += w->size;
    }
}

/* Sizes and memory of a model; no values yet. NULL where the arena only counts. */
static crnn_model *lay_out_model(arena *a, const crnn_model_config *c, const crnn_tables *kernels)
{
    crnn_model *memory = allot(a, 1, sizeof(crnn_model)), model = {.kernels = *kernels};
    model.format = kernels->f32 ? CRNN_FORMAT_F32 : CRNN_FORMAT_F64;
    model.size = crnn_element_size(model.format);
    model.standardises = c->x_mean || c->y_mean;
    model.io_size = model.standardises ? sizeof(double) : model.size;
    model.layers = allot(a, (size_t)c->num_layers, sizeof(model_layer));
    model.input_size = c->input_size;
    model.num_layers = c->num_layers;
    model.embedding_size = c->embedding_size;
    model.tie_weights = c->tie_weights;
    crnn_dim K = c->embedding_size ? c->embedding_size : c->input_size;
    for (crnn_dim i = 0; i < c->num_layers; ++i) {
        const model_layer layer = lay_out_layer(a, &model, &c->layers[i], K);
        const crnn_dim H = layer.H, columns = layer.W_xh.N;
        model.any_c |= layer.cell->has_c;
        model.any_hn |= (layer.cell->arrays & CRNN_USES_HN) != 0;
        model.state_size += layer.cell->has_c ? 2 * H : H;
        model.max_H = H > model.max_H ? H : model.max_H;
        model.max_columns = columns > model.max_columns ? columns : model.max_columns;
        if (model.layers)
            model.layers[i] = layer;
        K = c->dense_layers && i ? K + H : H;
    }
    model.dense_size = c->dense_layers ? K : 0;
    model.has_head = c->output_size > 0;
    model.output_size = model.has_head ? c->output_size : K;
    if (model.has_head) {
        const crnn_dim columns = c->output_size - outputs_of_tails(c, kernels) + c->num_tails;
        model.W_hy = allot_packed(a, K, columns, 1, format_of(kernels, c->W_hy_format));
        model.b_y = allot_like(a, c->b_y, columns, model.size);
    }
    if (c->num_tails)
        lay_out_tails(a, &model, c, K);
    model.pooling = c->pooling;
    if (c->pooling != CRNN_POOL_LAST)
        model.pooled_size = c->pooling == CRNN_POOL_MEAN ? K + COUNT_SIZE : K;
    model.state_size += model.pooled_size;
    if (!c->tie_weights)
        model.embedding = allot_like(a, c->embedding, c->input_size, times((size_t)c->embedding_size, model.size));
    model.x_mean = allot_like(a, c->x_mean, c->input_size, sizeof(double));
    model.x_std = allot_like(a, c->x_std, c->input_size, sizeof(double));
    model.y_columns = c->y_mean ? c->y_columns : 0;
    model.y_mean = allot_like(a, c->y_mean, c->y_columns, sizeof(double));
    model.y_std = allot_like(a, c->y_std, c->y_columns, sizeof(double));
    if (memory)
        *memory = model;
    return memory;
}

#endif
