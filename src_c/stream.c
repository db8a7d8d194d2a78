/* SPDX-License-Identifier: MIT
 * stream.c: models and streams of crnn_stream.h, on the kernels of crnn.h. The only place that knows how a model's
 * weights are stored: as float32, in packed panels. Never allocates; refuses what crnn_model_size refuses. */
#include "crnn_stream.h"

#include <assert.h>
#include <string.h>

#include "simd/compat.h"

enum { LINE = CRNN_LINE(float) };
static const size_t MOST_BYTES = (size_t)-1 / 4;
static const crnn_dim MOST_UNITS = (crnn_dim)1 << 28; /* ids and rows are int32_t, and G*H is to be one too */

/* ---- memory that is dealt out -------------------------------------------------------------------------------------- */

/* Without a base it only counts. More than MOST_BYTES is too much. */
typedef struct {
    char *base;
    size_t used;
} arena;

static size_t times(size_t a, size_t b) { return b && a > MOST_BYTES / b ? MOST_BYTES + 1 : a * b; }

static void *take(arena *a, size_t count, size_t size)
{
    const size_t bytes = times(count, size);
    void *taken = a->base ? a->base + a->used : NULL;
    if (bytes > MOST_BYTES || a->used > MOST_BYTES)
        a->used = MOST_BYTES + 1;
    else
        a->used += (bytes + CRNN_LINE_BYTES - 1) / CRNN_LINE_BYTES * CRNN_LINE_BYTES;
    return taken;
}

static size_t total(const arena *a) { return a->used > MOST_BYTES ? 0 : a->used; }
static int is_aligned(const void *memory) { return memory && (uintptr_t)memory % CRNN_LINE_BYTES == 0; }

static float *take_floats(arena *a, size_t rows, crnn_dim columns)
{
    return take(a, times(rows, (size_t)columns), sizeof(float));
}

/* A copy, or NULL of NULL. */
static void *take_copy(arena *a, const void *values, crnn_dim count, size_t size)
{
    if (!values)
        return NULL;
    void *copy = take(a, (size_t)count, size);
    if (copy)
        memcpy(copy, values, (size_t)count * size);
    return copy;
}

/* ---- weights ------------------------------------------------------------------------------------------------------- */

/* A matrix (K, N) for products with it from the left. */
typedef struct {
    const float *packed;
    crnn_dim K, N;
} matrix;

/* w: its `gates` blocks of N columns are packed side by side, from rows of ldw; or the transpose of w (N, K). */
static float *take_packed(arena *a, const crnn_kernels_f32 *kernels, const float *w, crnn_dim ldw, crnn_dim K, crnn_dim N,
                          crnn_dim gates, int transposed)
{
    float *packed = take_floats(a, times((size_t)CRNN_PANELS(float, N) * (size_t)gates, (size_t)K), LINE);
    if (packed && transposed)
        kernels->pack_transposed(packed, w, ldw, K, N);
    else if (packed)
        kernels->pack_gates(packed, w, ldw, K, N, gates);
    return packed;
}

static void product(const crnn_kernels_f32 *kernels, float *y, const float *x, const matrix *w, const float *bias,
                    const crnn_rows *rows)
{
    kernels->linear_forward(y, x, w->packed, bias, w->K, w->N, rows);
}

/* y (N) = row k of w, plus the bias: the bits of rows_add_bias. */
static void matrix_row(float *RESTRICT y, const matrix *w, crnn_dim k, const float *RESTRICT bias)
{
    const float *from = w->packed + k * LINE;
    crnn_dim left = w->N;
    for (; left >= LINE; left -= LINE, from += w->K * LINE, y += LINE, bias += LINE)
        for (int j = 0; j < LINE; ++j)
            y[j] = bias[j] + from[j];
    for (crnn_dim j = 0; j < left; ++j)
        y[j] = bias[j] + from[j];
}

/* y (K) = column n of w. */
static void matrix_column(float *y, const matrix *w, crnn_dim n)
{
    const float *from = w->packed + n / LINE * w->K * LINE + n % LINE;
    for (crnn_dim k = 0; k < w->K; ++k)
        y[k] = from[k * LINE];
}

/* ---- models -------------------------------------------------------------------------------------------------------- */

typedef struct {
    void (*forward)(const crnn_layer *layer);
    crnn_dim H, gates;
    matrix W_xh;
    const float *b_h, *h0, *c0;
    int has_c, has_hn;
    crnn_layer call; /* what of a call of `forward` the model decides */
} model_layer;

struct crnn_model {
    const crnn_kernels_f32 *kernels;
    crnn_dim input_size, output_size, state_size, num_layers, y_columns;
    crnn_dim embedding_size;
    int scaled_x, has_head;
    const float *embedding; /* (D, E); NULL where there is none, or the columns of W_hy are it */
    matrix W_hy;
    const float *b_y;
    const double *x_mean, *x_deviation, *y_mean, *y_deviation;
    crnn_dim widest, most_gates; /* of all layers: H, G*H */
    int any_c, any_hn;
    model_layer *layers;
};

static int good_size(crnn_dim size) { return 0 < size && size <= MOST_UNITS; }
static crnn_dim gates_of(int cell) { return cell == CRNN_CELL_LSTM ? 4 : cell >= CRNN_CELL_GRU ? 3 : 1; }

static int good_config(const crnn_model_config *c)
{
    if (!c || !good_size(c->input_size) || !good_size(c->num_layers) || !c->layers)
        return 0;
    for (crnn_dim i = 0; i < c->num_layers; ++i) {
        const crnn_layer_weights *l = &c->layers[i];
        if (l->cell < CRNN_CELL_TANH || l->cell > CRNN_CELL_GRU_ORIGINAL || !good_size(l->hidden_size))
            return 0;
        if (!l->W_xh || !l->W_hh || !l->b_h || (l->cell == CRNN_CELL_GRU && !l->b_hn))
            return 0;
    }
    const crnn_dim H = c->layers[c->num_layers - 1].hidden_size, E = c->embedding_size, V = c->output_size;
    if (E ? !good_size(E) || !c->embedding : c->embedding || c->tied)
        return 0;
    if (V ? !good_size(V) || !c->b_y || !c->W_hy != !!c->tied : c->tied)
        return 0;
    if (c->tied && (E != H || V != c->input_size))
        return 0;
    if (!c->x_mean != !c->x_deviation || !c->y_mean != !c->y_deviation)
        return 0;
    return !c->y_mean || good_size(c->y_columns);
}

static void take_layer(arena *a, const crnn_kernels_f32 *kernels, model_layer *l, const crnn_layer_weights *w, crnn_dim K)
{
    const crnn_dim H = w->hidden_size, G = gates_of(w->cell), in_w_hh = G == 3 ? 2 : G; /* a GRU's n stands apart */
    model_layer made = {.H = H, .gates = G, .has_c = w->cell == CRNN_CELL_LSTM, .has_hn = G == 3};
    made.W_xh = (matrix){take_packed(a, kernels, w->W_xh, G * H, K, G * H, 1, 0), K, G * H};
    made.b_h = take_copy(a, w->b_h, G * H, sizeof(float));
    made.call.H = H;
    made.call.w_hh = take_packed(a, kernels, w->W_hh, G * H, H, H, in_w_hh, 0);
    if (G == 3)
        made.call.w_hn = take_packed(a, kernels, w->W_hh + 2 * H, G * H, H, H, 1, 0);
    if (w->cell == CRNN_CELL_GRU)
        made.call.b_hn = take_copy(a, w->b_hn, H, sizeof(float));
    made.call.act = w->cell == CRNN_CELL_RELU ? CRNN_RELU : CRNN_TANH;
    made.call.reset_after = w->cell == CRNN_CELL_GRU;
    made.h0 = take_copy(a, w->h0, H, sizeof(float));
    made.c0 = made.has_c ? take_copy(a, w->c0, H, sizeof(float)) : NULL;
    if (l) {
        made.forward = G == 1 ? kernels->rnn_forward : G == 3 ? kernels->gru_forward : kernels->lstm_forward;
        *l = made;
    }
}

/* The model, in the arena's memory if it has any. */
static crnn_model *take_model(arena *a, const crnn_model_config *c, const crnn_kernels_f32 *kernels)
{
    crnn_model *model = take(a, 1, sizeof(crnn_model)), made = {.kernels = kernels};
    made.layers = take(a, (size_t)c->num_layers, sizeof(model_layer));
    made.input_size = c->input_size;
    made.num_layers = c->num_layers;
    made.embedding_size = c->embedding_size;
    crnn_dim K = c->embedding_size ? c->embedding_size : c->input_size;
    for (crnn_dim i = 0; i < c->num_layers; ++i) {
        const crnn_dim H = c->layers[i].hidden_size, G = gates_of(c->layers[i].cell);
        take_layer(a, kernels, made.layers ? &made.layers[i] : NULL, &c->layers[i], K);
        made.any_c |= G == 4;
        made.any_hn |= G == 3;
        made.state_size += G == 4 ? 2 * H : H;
        made.widest = H > made.widest ? H : made.widest;
        made.most_gates = G * H > made.most_gates ? G * H : made.most_gates;
        K = H;
    }
    made.has_head = c->output_size > 0;
    made.output_size = made.has_head ? c->output_size : K;
    if (made.has_head) {
        made.W_hy = (matrix){NULL, K, c->output_size};
        made.W_hy.packed = c->tied ? take_packed(a, kernels, c->embedding, K, K, c->output_size, 1, 1)
                                   : take_packed(a, kernels, c->W_hy, c->output_size, K, c->output_size, 1, 0);
        made.b_y = take_copy(a, c->b_y, c->output_size, sizeof(float));
    }
    if (c->embedding_size && !c->tied)
        made.embedding = take_floats(a, (size_t)c->input_size, c->embedding_size);
    if (made.embedding)
        memcpy((float *)made.embedding, c->embedding,
               (size_t)c->input_size * (size_t)c->embedding_size * sizeof(float));
    made.scaled_x = c->x_mean != NULL;
    made.x_mean = take_copy(a, c->x_mean, c->input_size, sizeof(double));
    made.x_deviation = take_copy(a, c->x_deviation, c->input_size, sizeof(double));
    made.y_columns = c->y_columns;
    made.y_mean = take_copy(a, c->y_mean, c->y_columns, sizeof(double));
    made.y_deviation = take_copy(a, c->y_deviation, c->y_columns, sizeof(double));
    if (model)
        *model = made;
    return model;
}

size_t crnn_model_size(const crnn_model_config *config)
{
    arena count = {NULL, 0};
    if (!good_config(config))
        return 0;
    take_model(&count, config, NULL);
    return total(&count);
}

crnn_model *crnn_model_init(void *memory, const crnn_model_config *config, const crnn_kernels_f32 *kernels)
{
    arena a = {memory, 0};
    if (!is_aligned(memory) || !kernels || crnn_model_size(config) == 0)
        return NULL;
    return take_model(&a, config, kernels);
}

crnn_dim crnn_model_input_size(const crnn_model *model) { return model->input_size; }
crnn_dim crnn_model_output_size(const crnn_model *model) { return model->output_size; }
crnn_dim crnn_model_state_size(const crnn_model *model) { return model->state_size; }
int crnn_model_takes_ids_only(const crnn_model *model) { return model->embedding_size != 0; }

/* ---- streams ------------------------------------------------------------------------------------------------------- */

typedef struct {
    float *h, *c; /* (N, H); c: LSTM */
    crnn_layer call;
} stream_layer;

struct crnn_streams {
    const crnn_model *model;
    crnn_dim N, most;
    /* Scratch, `most` rows each. */
    float *x;      /* scaled, or looked up in the embedding */
    float *gates;  /* x @ W_xh + b_h, and there the gates */
    float *h, *hn; /* out of a layer, and a GRU's second product */
    float *h_before, *c; /* of rows that do not lie side by side, or of several steps */
    stream_layer *layers;
};

static crnn_streams *take_streams(arena *a, const crnn_model *model, crnn_dim N, crnn_dim most)
{
    const size_t rows = (size_t)most;
    crnn_streams *streams = take(a, 1, sizeof(crnn_streams)), made = {.model = model, .N = N, .most = most};
    made.layers = take(a, (size_t)model->num_layers, sizeof(stream_layer));
    if (model->scaled_x || model->embedding_size)
        made.x = take_floats(a, rows, model->embedding_size ? model->embedding_size : model->input_size);
    made.gates = take_floats(a, rows, model->most_gates);
    made.h = take_floats(a, rows, model->widest);
    if (model->any_hn)
        made.hn = take_floats(a, rows, model->widest);
    if (most > 1) {
        made.h_before = take_floats(a, rows, model->widest);
        if (model->any_c)
            made.c = take_floats(a, rows, model->widest);
    }
    for (crnn_dim i = 0; i < model->num_layers; ++i) {
        const model_layer *of = &model->layers[i];
        stream_layer layer = {.call = of->call};
        layer.h = take_floats(a, (size_t)N, of->H);
        layer.c = of->has_c ? take_floats(a, (size_t)N, of->H) : NULL;
        layer.call.xw = made.gates;
        layer.call.gates = of->gates > 1 ? made.gates : NULL;
        layer.call.hn = of->has_hn ? made.hn : NULL;
        if (made.layers)
            made.layers[i] = layer;
    }
    if (streams)
        *streams = made;
    return streams;
}

size_t crnn_streams_size(const crnn_model *model, crnn_dim N, crnn_dim most)
{
    arena count = {NULL, 0};
    if (!model || !good_size(N) || !good_size(most))
        return 0;
    take_streams(&count, model, N, most);
    return total(&count);
}

crnn_streams *crnn_streams_init(void *memory, const crnn_model *model, crnn_dim N, crnn_dim most)
{
    arena a = {memory, 0};
    if (!is_aligned(memory) || crnn_streams_size(model, N, most) == 0)
        return NULL;
    crnn_streams *streams = take_streams(&a, model, N, most);
    crnn_streams_reset(streams, NULL, N);
    return streams;
}

static void copy(float *to, const float *from, crnn_dim count) { memcpy(to, from, (size_t)count * sizeof(float)); }

/* to[i] = from[rows[i]], and the other way round. */
static void gather(float *to, const float *from, const int32_t *rows, crnn_dim n, crnn_dim H)
{
    for (crnn_dim i = 0; i < n; ++i)
        copy(to + i * H, from + rows[i] * H, H);
}

static void scatter(float *to, const float *from, const int32_t *rows, crnn_dim n, crnn_dim H)
{
    for (crnn_dim i = 0; i < n; ++i)
        copy(to + rows[i] * H, from + i * H, H);
}

/* x as the first layer's product takes it, for n vectors or, with an embedding, ids. */
static const float *scaled(const crnn_streams *s, const float *x, crnn_dim n)
{
    const crnn_model *model = s->model;
    const crnn_dim D = model->input_size;
    if (!model->scaled_x)
        return x;
    for (crnn_dim i = 0; i < n; ++i)
        for (crnn_dim d = 0; d < D; ++d)
            s->x[i * D + d] = (float)(((double)x[i * D + d] - model->x_mean[d]) / model->x_deviation[d]);
    return s->x;
}

static const float *embedded(const crnn_streams *s, const int32_t *ids, crnn_dim n)
{
    const crnn_model *model = s->model;
    const crnn_dim E = model->embedding_size;
    if (model->embedding && n == 1)
        return model->embedding + *ids * E;
    for (crnn_dim i = 0; i < n; ++i)
        if (model->embedding)
            copy(s->x + i * E, model->embedding + ids[i] * E, E);
        else
            matrix_column(s->x + i * E, &model->W_hy, ids[i]);
    return s->x;
}

/* What the layer's own kernel starts from: x @ W_xh + b_h, or the row that an id selects. */
static void input_share(const crnn_streams *s, const model_layer *l, const float *x, const int32_t *ids,
                        const crnn_rows *rows)
{
    if (x) {
        product(s->model->kernels, s->gates, x, &l->W_xh, l->b_h, rows);
        return;
    }
    for (crnn_dim i = 0; i < rows->T * rows->B; ++i)
        matrix_row(s->gates + i * l->W_xh.N, &l->W_xh, ids[i], l->b_h);
}

/* One step of rows->B streams, or rows->T steps of one: at most s->most, of x or ids. They are `which` streams, or
 * lie side by side from `first` on. */
static void advance(crnn_streams *s, float *y, const float *x, const int32_t *ids, crnn_dim first, const int32_t *which,
                    const crnn_rows *rows)
{
    const crnn_model *model = s->model;
    const crnn_dim n = rows->T * rows->B;
    assert(0 < n && n <= s->most && !(model->embedding_size && x));
    if (x)
        x = scaled(s, x, n);
    else if (model->embedding_size)
        x = embedded(s, ids, n);
    const float_mode mode = denormals_off(); /* once for all kernels */
    for (crnn_dim i = 0; i < model->num_layers; ++i) {
        const model_layer *l = &model->layers[i];
        stream_layer *own = &s->layers[i];
        crnn_layer *call = &own->call;
        const crnn_dim H = l->H;
        float *h = own->h + first * H, *c = own->c ? own->c + first * H : NULL;
        float *out = i + 1 < model->num_layers || model->has_head ? s->h : y;
        input_share(s, l, x, ids, rows);
        call->rows = *rows;
        call->h = out; /* not into the state itself: while h is written the product still reads h' */
        if (which) {
            gather(s->h_before, h, which, n, H);
            call->h0 = s->h_before;
            if (c)
                gather(s->c, c, which, n, H);
            call->c0 = call->c = s->c;
        } else {
            call->h0 = h;
            call->c0 = c;
            call->c = rows->T == 1 ? c : s->c;
        }
        l->forward(call);
        if (which) {
            scatter(h, out, which, n, H);
            if (c)
                scatter(c, s->c, which, n, H);
        } else {
            copy(h, out + (n - rows->B) * H, rows->B * H);
            if (c && rows->T > 1)
                copy(c, s->c + (n - 1) * H, H);
        }
        x = out;
    }
    if (model->has_head)
        product(model->kernels, y, x, &model->W_hy, model->b_y, rows);
    float_mode_restore(mode);
    if (model->y_mean)
        for (crnn_dim i = 0; i < n; ++i)
            for (crnn_dim j = 0, column = 0; j < model->output_size; ++j, ++column, ++y) {
                column = column == model->y_columns ? 0 : column;
                *y = (float)((double)*y * model->y_deviation[column] + model->y_mean[column]);
            }
}

static int side_by_side(const int32_t *rows, crnn_dim n)
{
    for (crnn_dim i = 1; i < n; ++i)
        if (rows[i] != rows[0] + i)
            return 0;
    return 1;
}

static void step(crnn_streams *s, float *y, const float *x, const int32_t *ids, const int32_t *which, crnn_dim M)
{
    const crnn_model *model = s->model;
    for (crnn_dim i = 0; i < M; i += s->most) {
        const crnn_dim n = M - i < s->most ? M - i : s->most;
        const crnn_rows rows = {.T = 1, .B = n, .b0 = 0, .b1 = n};
        const int together = !which || side_by_side(which + i, n);
        advance(s, y + i * model->output_size, x ? x + i * model->input_size : NULL, ids ? ids + i : NULL,
                !which ? i : together ? which[i] : 0, together ? NULL : which + i, &rows);
    }
}

void crnn_streams_step(crnn_streams *streams, float *y, const float *x, const int32_t *rows, crnn_dim M)
{
    step(streams, y, x, NULL, rows, M);
}

void crnn_streams_step_ids(crnn_streams *streams, float *y, const int32_t *ids, const int32_t *rows, crnn_dim M)
{
    step(streams, y, NULL, ids, rows, M);
}

static void run(crnn_streams *s, float *y, const float *x, const int32_t *ids, crnn_dim T, crnn_dim row)
{
    const crnn_model *model = s->model;
    for (crnn_dim t = 0; t < T; t += s->most) {
        const crnn_dim n = T - t < s->most ? T - t : s->most;
        const crnn_rows rows = {.T = n, .B = 1, .b0 = 0, .b1 = 1};
        advance(s, y + t * model->output_size, x ? x + t * model->input_size : NULL, ids ? ids + t : NULL, row, NULL,
                &rows);
    }
}

void crnn_streams_run(crnn_streams *streams, float *ys, const float *xs, crnn_dim T, crnn_dim row)
{
    run(streams, ys, xs, NULL, T, row);
}

void crnn_streams_run_ids(crnn_streams *streams, float *ys, const int32_t *ids, crnn_dim T, crnn_dim row)
{
    run(streams, ys, NULL, ids, T, row);
}

/* ---- states -------------------------------------------------------------------------------------------------------- */

static void start(float *state, const float *from, crnn_dim H)
{
    if (from)
        copy(state, from, H);
    else
        memset(state, 0, (size_t)H * sizeof(float));
}

void crnn_streams_reset(crnn_streams *streams, const int32_t *rows, crnn_dim M)
{
    for (crnn_dim i = 0; i < streams->model->num_layers; ++i) {
        const model_layer *l = &streams->model->layers[i];
        const stream_layer *own = &streams->layers[i];
        for (crnn_dim m = 0; m < M; ++m) {
            const crnn_dim at = (rows ? rows[m] : m) * l->H;
            start(own->h + at, l->h0, l->H);
            if (own->c)
                start(own->c + at, l->c0, l->H);
        }
    }
}

/* The arrays that a stream's state lies in, in its vector's order: array 0 .. 2*L-1, NULL where a layer has no c. */
static float *state_array(const crnn_streams *s, crnn_dim i, crnn_dim row, crnn_dim *H)
{
    const crnn_dim L = s->model->num_layers;
    const stream_layer *own = &s->layers[i % L];
    float *array = i < L ? own->h : own->c;
    *H = s->model->layers[i % L].H;
    return array ? array + row * *H : NULL;
}

void crnn_streams_get_state(const crnn_streams *streams, float *state, crnn_dim row)
{
    crnn_dim H;
    for (crnn_dim i = 0; i < 2 * streams->model->num_layers; ++i) {
        const float *array = state_array(streams, i, row, &H);
        if (array) {
            copy(state, array, H);
            state += H;
        }
    }
}

void crnn_streams_set_state(crnn_streams *streams, const float *state, crnn_dim row)
{
    crnn_dim H;
    for (crnn_dim i = 0; i < 2 * streams->model->num_layers; ++i) {
        float *array = state_array(streams, i, row, &H);
        if (array) {
            copy(array, state, H);
            state += H;
        }
    }
}

void crnn_streams_copy(crnn_streams *streams, crnn_dim row, const crnn_streams *from, crnn_dim from_row)
{
    crnn_dim H;
    if (streams == from && row == from_row)
        return;
    for (crnn_dim i = 0; i < 2 * streams->model->num_layers; ++i) {
        float *array = state_array(streams, i, row, &H);
        if (array)
            copy(array, state_array(from, i, from_row, &H), H);
    }
}
