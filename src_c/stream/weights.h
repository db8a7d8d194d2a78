/* SPDX-License-Identifier: MIT
 * stream/weights.h: a model's parameters, packed from the arrays of a configuration, unpacked into such arrays, and
 * compared with them. */
#ifndef CRNN_STREAM_WEIGHTS_H
#define CRNN_STREAM_WEIGHTS_H

#include <string.h>

#include "stream/model.h"

/* What is done with each parameter of a model and of a config, which has it unpacked. */
typedef enum { PACK, UNPACK, COMPARE } exchange;

/* 0: they differ. */
static int exchange_matrix(const crnn_model *model, exchange action, const crnn_packed *w, const void *values,
                           crnn_dim ldw)
{
    if (action == PACK)
        crnn_pack(w, &model->kernels, values, ldw);
    else if (action == UNPACK)
        crnn_unpack(w, (void *)values, ldw);
    return action != COMPARE || crnn_packed_equals(w, &model->kernels, values, ldw);
}

static int exchange_transposed(const crnn_model *model, exchange action, const crnn_packed *w, const void *values,
                               crnn_dim ldw)
{
    if (action == PACK)
        crnn_pack_transposed(w, &model->kernels, values, ldw);
    else if (action == UNPACK)
        crnn_unpack_transposed(w, (void *)values, ldw);
    return action != COMPARE || crnn_packed_equals_transposed(w, &model->kernels, values, ldw);
}

/* Arrays that are not there are NULL in both. */
static int exchange_array(exchange action, void *own, const void *values, crnn_dim count, size_t size)
{
    const size_t bytes = (size_t)count * size;
    if (!own || !values)
        return own == values;
    if (action == PACK)
        memcpy(own, values, bytes);
    else if (action == UNPACK)
        memcpy((void *)values, own, bytes);
    return action != COMPARE || memcmp(own, values, bytes) == 0;
}

static int exchange_layer(const crnn_model *model, exchange action, const model_layer *l, const crnn_layer_weights *w)
{
    const crnn_cell *cell = l->cell;
    const crnn_dim H = l->H, ldw = cell->recurrent_gates * H;
    int same = exchange_matrix(model, action, &l->W_xh, w->W_xh, l->W_xh.N);
    if (cell->packed_gates)
        same = same && exchange_matrix(model, action, &l->W_hh, w->W_hh, ldw);
    if (cell->recurrent_gates > cell->packed_gates)
        same = same && exchange_matrix(model, action, &l->W_hn, element(model, w->W_hh, cell->packed_gates * H), ldw);
    same = same && exchange_array(action, l->b_h, w->b_h, l->W_xh.N, model->size);
    for (int v = 0; cell->vectors[v]; ++v)
        same = same && exchange_array(action, l->vectors[v], w->vectors[v], H, model->size);
    same = same && exchange_array(action, l->h0, w->h0, H, model->size);
    return same && (!cell->has_c || exchange_array(action, l->c0, w->c0, H, model->size));
}

/* Every parameter of a model, with the config's array of the same shape. 0: COMPARE has found a difference. */
static int exchange_all(const crnn_model *model, exchange action, const crnn_model_config *c)
{
    const crnn_dim D = model->input_size, E = model->embedding_size, columns = model->W_hy.N;
    int same = 1;
    for (crnn_dim i = 0; i < model->num_layers; ++i)
        same = same && exchange_layer(model, action, &model->layers[i], &c->layers[i]);
    if (model->tie_weights)
        same = same && exchange_transposed(model, action, &model->W_hy, c->embedding, E);
    else {
        same = same && exchange_array(action, model->embedding, c->embedding, D * E, model->size);
        same = same && (!model->has_head || exchange_matrix(model, action, &model->W_hy, c->W_hy, columns));
    }
    same = same && (!model->has_head || exchange_array(action, model->b_y, c->b_y, columns, model->size));
    for (crnn_dim i = 0; i < model->num_tails; ++i) {
        const model_tail *tail = &model->tails[i];
        same = same && exchange_matrix(model, action, &tail->W_hp, c->tails[i].W_hp, tail->W_hp.N);
        same = same && exchange_matrix(model, action, &tail->W_py, c->tails[i].W_py, tail->W_py.N);
    }
    same = same && exchange_array(action, model->x_mean, c->x_mean, D, sizeof(double));
    same = same && exchange_array(action, model->x_std, c->x_std, D, sizeof(double));
    same = same && exchange_array(action, model->y_mean, c->y_mean, model->y_columns, sizeof(double));
    return same && exchange_array(action, model->y_std, c->y_std, model->y_columns, sizeof(double));
}

/* Whether a config describes a model of this shape. */
static int same_shape(const crnn_model *model, const crnn_model_config *c)
{
    if (!valid_config(c, &model->kernels) || c->input_size != model->input_size || c->num_layers != model->num_layers ||
        c->embedding_size != model->embedding_size || !c->tie_weights != !model->tie_weights ||
        c->pooling != model->pooling || !c->dense_layers != !model->dense_size)
        return 0;
    for (crnn_dim i = 0; i < c->num_layers; ++i) {
        const crnn_layer_weights *l = &c->layers[i];
        const model_layer *own = &model->layers[i];
        if (l->hidden_size != own->H || cell_of(&model->kernels, l->cell) != own->cell ||
            format_of(&model->kernels, l->W_xh_format) != (int)own->W_xh.format ||
            (own->cell->recurrent_gates && format_of(&model->kernels, l->W_hh_format) != (int)own->W_hh.format))
            return 0;
    }
    for (crnn_dim i = 0; c->num_tails == model->num_tails && i < c->num_tails; ++i) {
        const crnn_tail_weights *w = &c->tails[i];
        const model_tail *own = &model->tails[i];
        if (w->size != own->W_py.N || w->projection_size != own->W_hp.N ||
            format_of(&model->kernels, w->W_hp_format) != (int)own->W_hp.format ||
            format_of(&model->kernels, w->W_py_format) != (int)own->W_py.format)
            return 0;
    }
    if (model->has_head && format_of(&model->kernels, c->W_hy_format) != (int)model->W_hy.format)
        return 0;
    return c->num_tails == model->num_tails && c->output_size == (model->has_head ? model->output_size : 0) &&
           (c->y_mean ? c->y_columns : 0) == model->y_columns;
}

#endif
