/* SPDX-License-Identifier: MIT
 * stream.c: models and streams of crnn_stream.h, on the kernels of crnn.h. One text for both precisions: arrays of a
 * model's precision are void *, and element() finds their elements. How packed weights are stored only packing.h knows.
 * Never allocates; refuses what crnn_model_size refuses. */
#include "crnn_stream.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "simd/compat.h"
#include "linalg/packing.h"

static const size_t MAX_BYTES = (size_t)-1 / 4;
static const crnn_dim MAX_SIZE = (crnn_dim)1 << 28; /* ids and rows are int32_t, and G*H must fit into one too */

/* The number of steps a * COUNT_UNIT + b of a mean, as two elements a, b: a float counts to 2^24 only. */
enum { COUNT_SIZE = 2, COUNT_UNIT = 1 << 24 };

/* ---- the caller's memory ------------------------------------------------------------------------------------------- */

/* Allots memory from `base` on; with base NULL it only counts. used > MAX_BYTES: more than memory could hold. */
typedef struct {
    char *base;
    size_t used;
} arena;

static size_t times(size_t a, size_t b) { return b && a > MAX_BYTES / b ? MAX_BYTES + 1 : a * b; }

static void *allot(arena *a, size_t count, size_t size)
{
    const size_t bytes = times(count, size);
    void *memory = a->base ? a->base + a->used : NULL;
    if (bytes > MAX_BYTES || a->used > MAX_BYTES)
        a->used = MAX_BYTES + 1;
    else
        a->used += (bytes + CRNN_LINE_BYTES - 1) / CRNN_LINE_BYTES * CRNN_LINE_BYTES;
    return memory;
}

/* Memory for an array like `values`; NULL if that is NULL. */
static void *allot_like(arena *a, const void *values, crnn_dim count, size_t size)
{
    return values ? allot(a, (size_t)count, size) : NULL;
}

static crnn_packed allot_packed(arena *a, crnn_dim K, crnn_dim N, crnn_dim gates, crnn_format format)
{
    crnn_packed w = {.K = K, .N = N, .gates = gates, .format = format};
    w.data = allot(a, 1, crnn_packed_size(&w));
    return w;
}

static size_t total(const arena *a) { return a->used > MAX_BYTES ? 0 : a->used; }
static int is_aligned(const void *memory) { return memory && (uintptr_t)memory % CRNN_LINE_BYTES == 0; }

/* ---- models -------------------------------------------------------------------------------------------------------- */

typedef struct {
    const crnn_cell *cell;
    crnn_dim H;
    crnn_packed W_xh, W_hh, W_hn; /* W_hh: the packed_gates; W_hn: a last recurrent gate that is not among them */
    void *b_h, *h0, *c0, *vectors[CRNN_CELL_VECTORS];
} model_layer;

struct crnn_model {
    crnn_tables kernels; /* of the model's precision; the other table is NULL */
    crnn_format format;
    size_t size;    /* of an element: a float or a double */
    size_t io_size; /* of an element of x and y: a double in a model that standardises */
    int standardises;
    crnn_dim input_size, output_size, state_size, num_layers, embedding_size, y_columns;
    int has_head, tie_weights, pooling;
    crnn_dim pooled_size; /* elements of a stream's pooled state: maxima; or sums and COUNT_SIZE for the steps; or 0 */
    void *embedding; /* (D, E); NULL with tie_weights: then it is read from the columns of W_hy */
    crnn_packed W_hy;
    void *b_y;
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
    default: return -1;
    }
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
    const crnn_dim H = c->layers[c->num_layers - 1].hidden_size, E = c->embedding_size, V = c->output_size;
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
    return !c->y_mean || valid_size(c->y_columns);
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
        K = H;
    }
    model.has_head = c->output_size > 0;
    model.output_size = model.has_head ? c->output_size : K;
    if (model.has_head) {
        model.W_hy = allot_packed(a, K, c->output_size, 1, format_of(kernels, c->W_hy_format));
        model.b_y = allot_like(a, c->b_y, c->output_size, model.size);
    }
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
    const crnn_dim D = model->input_size, E = model->embedding_size, V = model->output_size;
    int same = 1;
    for (crnn_dim i = 0; i < model->num_layers; ++i)
        same = same && exchange_layer(model, action, &model->layers[i], &c->layers[i]);
    if (model->tie_weights)
        same = same && exchange_transposed(model, action, &model->W_hy, c->embedding, E);
    else {
        same = same && exchange_array(action, model->embedding, c->embedding, D * E, model->size);
        same = same && (!model->has_head || exchange_matrix(model, action, &model->W_hy, c->W_hy, V));
    }
    same = same && (!model->has_head || exchange_array(action, model->b_y, c->b_y, V, model->size));
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
        c->pooling != model->pooling)
        return 0;
    for (crnn_dim i = 0; i < c->num_layers; ++i) {
        const crnn_layer_weights *l = &c->layers[i];
        const model_layer *own = &model->layers[i];
        if (l->hidden_size != own->H || cell_of(&model->kernels, l->cell) != own->cell ||
            format_of(&model->kernels, l->W_xh_format) != (int)own->W_xh.format ||
            (own->cell->recurrent_gates && format_of(&model->kernels, l->W_hh_format) != (int)own->W_hh.format))
            return 0;
    }
    if (model->has_head && format_of(&model->kernels, c->W_hy_format) != (int)model->W_hy.format)
        return 0;
    return c->output_size == (model->has_head ? model->output_size : 0) &&
           (c->y_mean ? c->y_columns : 0) == model->y_columns;
}

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

/* ---- inputs -------------------------------------------------------------------------------------------------------- */

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

/* Of n elements of x that are not standardised. */
static int all_finite(const crnn_model *model, const void *x, crnn_dim n)
{
    return model->format == CRNN_FORMAT_F32 ? model->kernels.f32->all_finite(x, n) : model->kernels.f64->all_finite(x, n);
}

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

typedef struct {
    void *h, *c;     /* (N, H); c: has_c */
    crnn_layer call; /* arguments of the cell's forward; those that change from call to call are set in advance() */
} stream_layer;

struct crnn_streams {
    const crnn_model *model;
    crnn_dim N, block;
    /* Scratch, `block` rows each. */
    void *x;            /* input in the model's precision, standardised; or rows of the embedding */
    void *y;            /* output in the model's precision; NULL if y has it */
    void *gates;        /* x @ W_xh + b_h, then the gates */
    void *h, *hn;       /* a layer's output, and its hn */
    void *h_before, *c; /* gathered from rows that are not contiguous; c also of several steps */
    void *scratch;      /* for products with quantised weights; NULL: there are none */
    stream_layer *layers;
    void *pooled; /* (N, pooled_size); NULL without pooling */
};

/* Bytes of scratch that the largest product of `block` rows needs. */
static size_t scratch_size(const crnn_model *model, crnn_dim block)
{
    size_t most = model->has_head ? crnn_packed_scratch(&model->W_hy, block) : 0;
    for (crnn_dim i = 0; i < model->num_layers; ++i) {
        const model_layer *l = &model->layers[i];
        const size_t of_xh = crnn_packed_scratch(&l->W_xh, block);
        const size_t of_hh = l->cell->recurrent_gates ? crnn_packed_scratch(&l->W_hh, block) : 0;
        most = of_xh > most ? of_xh : most;
        most = of_hh > most ? of_hh : most;
    }
    return most;
}

/* NULL where the arena only counts. */
static crnn_streams *lay_out_streams(arena *a, const crnn_model *model, crnn_dim N, crnn_dim block)
{
    crnn_streams *memory = allot(a, 1, sizeof(crnn_streams)), streams = {.model = model, .N = N, .block = block};
    const size_t row = times((size_t)block, model->size), state = times((size_t)N, model->size);
    streams.layers = allot(a, (size_t)model->num_layers, sizeof(stream_layer));
    if (model->standardises || model->embedding_size)
        streams.x = allot(a, row, (size_t)(model->embedding_size ? model->embedding_size : model->input_size));
    if (model->io_size != model->size)
        streams.y = allot(a, row, (size_t)model->output_size);
    streams.gates = allot(a, row, (size_t)model->max_columns);
    streams.h = allot(a, row, (size_t)model->max_H);
    if (model->any_hn)
        streams.hn = allot(a, row, (size_t)model->max_H);
    if (block > 1) {
        streams.h_before = allot(a, row, (size_t)model->max_H);
        if (model->any_c)
            streams.c = allot(a, row, (size_t)model->max_H);
    }
    const size_t scratch = scratch_size(model, block);
    if (scratch)
        streams.scratch = allot(a, 1, scratch);
    for (crnn_dim i = 0; i < model->num_layers; ++i) {
        const model_layer *of = &model->layers[i];
        stream_layer layer = {.call = {.H = of->H, .w_hh = of->W_hh.data, .w_hn = of->W_hn.data, .xw = streams.gates}};
        layer.h = allot(a, state, (size_t)of->H);
        layer.c = of->cell->has_c ? allot(a, state, (size_t)of->H) : NULL;
        layer.call.quantised = crnn_quantised_of(&of->W_hh, &model->kernels);
        layer.call.scratch = streams.scratch;
        layer.call.gates = of->cell->arrays & CRNN_USES_GATES ? streams.gates : NULL;
        layer.call.hn = of->cell->arrays & CRNN_USES_HN ? streams.hn : NULL;
        for (int v = 0; of->cell->vectors[v]; ++v)
            layer.call.vectors[v] = of->vectors[v];
        if (streams.layers)
            streams.layers[i] = layer;
    }
    if (model->pooled_size)
        streams.pooled = allot(a, state, (size_t)model->pooled_size);
    if (memory)
        *memory = streams;
    return memory;
}

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

static void copy(const crnn_model *model, void *to, const void *from, crnn_dim count)
{
    memcpy(to, from, (size_t)count * model->size);
}

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

/* s->x (n, D) = (x - x_mean) / x_std, computed in double. */
static const void *standardised(const crnn_streams *s, const double *x, crnn_dim n)
{
    const crnn_model *model = s->model;
    const crnn_dim D = model->input_size;
    const float_mode mode = ieee_floats(); /* as NumPy computes it for whole sequences */
    for (crnn_dim i = 0; i < n; ++i, x += D) {
        float *to = element(model, s->x, i * D);
        double *to_f64 = element(model, s->x, i * D);
        if (model->format == CRNN_FORMAT_F32)
            for (crnn_dim d = 0; d < D; ++d)
                to[d] = (float)scaled(model, x, d);
        else
            for (crnn_dim d = 0; d < D; ++d)
                to_f64[d] = scaled(model, x, d);
    }
    ieee_floats_end(mode);
    return s->x;
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

/* x (n, H), outputs of the top layer, OVERWRITTEN with the pooled vectors of the sequences so far. Rows as in
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

/* One pass through the weights: one step of rows->B streams, or rows->T steps of one; at most s->block, of x or ids.
 * scattered: their rows; NULL: rows first, first + 1, ... With `check`, returns 0 and changes nothing where the layers'
 * input is not finite. The check comes after the first product, whose work hides its latency. */
static int advance(crnn_streams *s, void *y, const void *x, const int32_t *ids, crnn_dim first,
                   const int32_t *scattered, const crnn_rows *rows, int check)
{
    const crnn_model *model = s->model;
    const crnn_dim n = rows->T * rows->B;
    assert(0 < n && n <= s->block && !(model->embedding_size && x));
    if (x && model->standardises)
        x = standardised(s, x, n);
    else if (model->embedding_size)
        x = embedded(s, ids, n);
    void *const raw = s->y ? s->y : y;
    const float_mode mode = kernel_floats(); /* once for all kernels */
    for (crnn_dim i = 0; i < model->num_layers; ++i) {
        const model_layer *l = &model->layers[i];
        stream_layer *own = &s->layers[i];
        crnn_layer *call = &own->call;
        const crnn_dim H = l->H;
        void *h = element(model, own->h, first * H), *c = own->c ? element(model, own->c, first * H) : NULL;
        void *out = i + 1 < model->num_layers || model->has_head ? s->h : raw;
        input_product(s, l, x, ids, rows);
        if (check && i == 0 && !all_finite(model, x, n * model->input_size)) {
            float_mode_restore(mode);
            return 0;
        }
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
        l->cell->forward(call);
        if (scattered) {
            scatter(model, h, out, scattered, n, H);
            if (c)
                scatter(model, c, s->c, scattered, n, H);
        } else {
            copy(model, h, element(model, out, (n - rows->B) * H), rows->B * H);
            if (c && rows->T > 1)
                copy(model, c, element(model, s->c, (n - 1) * H), H);
        }
        x = out;
    }
    if (model->pooled_size)
        pool(s, s->h, first, scattered, rows);
    if (model->has_head)
        crnn_packed_product(&model->W_hy, &model->kernels, raw, x, model->b_y, s->scratch, rows);
    float_mode_restore(mode);
    if (model->standardises)
        restore_units(model, y, raw, n);
    return 1;
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
