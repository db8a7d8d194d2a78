/* SPDX-License-Identifier: MIT
 * crnn_stream.h: recurrent networks one step at a time, for programs without Python. A model is packed once and
 * read-only from then on; any number of sets of streams, in any number of threads, share it. A set of streams holds the
 * states of N independent sequences. One thread at a time may work on a set. All memory is the caller's.
 *
 *     const crnn_kernels_f32 *kernels = crnn_f32(crnn_isa_best());
 *     crnn_model *model = crnn_model_init(aligned_alloc(64, crnn_model_size(&config, kernels)), &config, kernels);
 *     crnn_streams *one = crnn_streams_init(aligned_alloc(64, crnn_streams_size(model, 1, 1)), model, 1, 1);
 *     for (;;) crnn_streams_step(one, y, x, NULL, 1);
 *
 * Outputs are bit-identical to those of the whole sequence given at once, whatever the instruction set, the number of
 * streams and their order. Letters, contracts and words are those of crnn.h. Nothing here can fail once memory is
 * initialised; checking sizes and ids is up to the caller.
 *
 * Arrays declared void * hold float; in a model made by crnn_model_init_f64, double. But x and y of a model that
 * standardises (x_mean or y_mean given) are always double: a float would round 101325.01 before the mean is subtracted. */
#ifndef CRNN_STREAM_H
#define CRNN_STREAM_H

#include "crnn.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How weights are stored, and products with them computed: as the arrays are, or, in models of floats, in fewer bits. Such
 * weights are rounded when the model is made, if they are not yet; states, inputs and outputs remain floats. CRNN_BF16:
 * the upper 16 bits of a float. CRNN_INT8: integers from -127 to 127 with a scale for each output; so is the vector that
 * is multiplied, with one scale. CRNN_INT4: integers from -7 to 7, with a small integer as the multiplier of each 32 rows
 * and output, and a scale for each output; the vector as with CRNN_INT8. With either a matrix has at most 131071 rows,
 * and elements of at most 2^127. */
enum { CRNN_AS_ARRAYS, CRNN_BF16, CRNN_INT8, CRNN_INT4 };

/* One layer, as crnn.RNN names and stores its parameters: C order, G gates in blocks of H columns, in the order of the
 * cell's gate_names. crnn_cell_info says what parameters a cell has. K is the size of the layer's input: the network's
 * input, its embedding, or the output of the layer below; with dense_layers, the outputs of all layers below. */
typedef struct crnn_layer_weights {
    int cell;                     /* crnn_cell_find(name) */
    crnn_dim hidden_size;         /* H */
    const void *W_xh, *b_h;       /* (K, G*H), (G*H) */
    const void *W_hh;             /* (H, recurrent_gates*H); NULL where the cell has no recurrent gates */
    const void *vectors[CRNN_CELL_VECTORS]; /* (H) each, in the order of the cell's list; NULL beyond its end */
    const void *h0, *c0;          /* (H), the state that streams start from; NULL: zero. c0: has_c */
    int W_xh_format, W_hh_format; /* CRNN_AS_ARRAYS, CRNN_BF16, CRNN_INT8, CRNN_INT4 */
} crnn_layer_weights;

/* What the head of a model reads: the top layer's h of this step, or with dense_layers that of all layers; or the maximum
 * of each unit, or the mean, over all steps since the initial state. The output of a step is then that for the sequence
 * so far. */
enum { CRNN_POOL_LAST, CRNN_POOL_MAX, CRNN_POOL_MEAN };

/* A tail of an adaptive softmax: tokens that are scored by h @ W_hp @ W_py, after those before them. */
typedef struct crnn_tail_weights {
    crnn_dim size, projection_size;
    const void *W_hp, *W_py;      /* (H, projection_size), H as in W_hy; (projection_size, size) */
    int W_hp_format, W_py_format; /* as in a layer */
} crnn_tail_weights;

/* A stack of layers, and what comes before and after it. Fields other than input_size, num_layers and layers may be 0. Set
 * all others to 0, by an initialiser: later versions have more. A program needs the header of the library it is linked
 * with. */
typedef struct crnn_model_config {
    crnn_dim input_size;       /* D: elements of a step's x, or how many ids there are */
    crnn_dim num_layers;
    const crnn_layer_weights *layers;
    crnn_dim embedding_size;   /* E; 0: none */
    const void *embedding;     /* (D, E): a step then takes an id only */
    crnn_dim output_size;      /* V: a step's output is h @ W_hy + b_y; 0: it is h of the top layer */
    const void *W_hy, *b_y;    /* (H, V), (V) */
    int W_hy_format;           /* as in a layer; of a tied W_hy an output is a row of the embedding */
    int tie_weights;           /* W_hy is the transpose of the embedding: E is H, V is D, and W_hy NULL */
    int pooling;               /* CRNN_POOL_...; other than CRNN_POOL_LAST needs output_size */
    const double *x_mean, *x_std; /* (D) or NULL: the layers' input is (x - x_mean) / x_std. Not for ids */
    const double *y_mean, *y_std; /* (y_columns) or NULL: the output is y * y_std + y_mean, column j % y_columns */
    crnn_dim y_columns;
    /* An adaptive softmax: the last of the V outputs are the tails' tokens, and W_hy and b_y have a column for each output
     * before them, S of them, then one for each tail: S + num_tails. A step's output is then log-probabilities. Not with
     * tie_weights, a pooling other than CRNN_POOL_LAST, or y_mean. */
    crnn_dim num_tails;        /* 0: none, and the output is h @ W_hy + b_y */
    const crnn_tail_weights *tails; /* (num_tails); NULL: there are none */
    int dense_layers;          /* a layer reads h of all layers below it side by side, the lowest first; and the output or
                                * head h of all layers: its H is the sum of theirs. 0: h of the layer below, the top layer */
} crnn_model_config;

typedef struct crnn_model crnn_model;
typedef struct crnn_streams crnn_streams;

/* Bytes that a model of this shape takes, a multiple of CRNN_LINE_BYTES; 0 where the config is invalid: a size below 1,
 * no such cell or pooling, a pointer missing, or more than memory could hold. Reads sizes and whether pointers are
 * NULL, no values; any kernel table gives the same size. */
size_t crnn_model_size(const crnn_model_config *config, const crnn_kernels_f32 *kernels);
size_t crnn_model_size_f64(const crnn_model_config *config, const crnn_kernels_f64 *kernels);

/* A model in `memory`, of crnn_model_size bytes, aligned to CRNN_LINE_BYTES, which must stay where it is. The config and
 * its arrays are copied. NULL where crnn_model_size says 0, or the memory is NULL or not aligned. */
crnn_model *crnn_model_init(void *memory, const crnn_model_config *config, const crnn_kernels_f32 *kernels);
crnn_model *crnn_model_init_f64(void *memory, const crnn_model_config *config, const crnn_kernels_f64 *kernels);

/* Whether this config would make the same model: same shapes, and values that are equal bit for bit. Costs about as much
 * as reading all weights twice. */
int crnn_model_equals(const crnn_model *model, const crnn_model_config *config);

/* The model's weights, unpacked: every array that the config points to is OVERWRITTEN, in spite of its const. The config
 * must have the model's shapes, and arrays where that had them. 0: it has not; the arrays are then undefined. */
int crnn_model_unpack(const crnn_model *model, const crnn_model_config *config);

crnn_dim crnn_model_input_size(const crnn_model *model);
crnn_dim crnn_model_output_size(const crnn_model *model); /* elements of a step's output, never 0 */
crnn_dim crnn_model_state_size(const crnn_model *model);  /* elements of one stream's state */
int crnn_model_takes_ids_only(const crnn_model *model);   /* it has an embedding */
int crnn_model_standardises(const crnn_model *model);     /* x and y are double */

/* The first element of x (n, D) that is NaN or infinite, or would be once it is standardised and rounded to the model's
 * precision, as i*D + d; n*D where there is none. Steps do not check: NaN in x makes the state NaN until it is reset. */
crnn_dim crnn_model_first_not_finite(const crnn_model *model, const void *x, crnn_dim n);

/* The largest block, see below, from which on more scratch memory no longer makes steps faster. */
enum { CRNN_STREAM_BLOCK = 144 };

/* A set of N streams in `memory`, of crnn_streams_size bytes, aligned and staying as above, all in their initial state.
 * It refers to the model. `block` rows, or steps of one row, share a pass through the weights, and each needs scratch
 * memory: 1 takes the least and is as fast for a single stream that is stepped; CRNN_STREAM_BLOCK is best for large N
 * and for crnn_streams_run. NULL, and size 0: N or block below 1, too large, or memory as above. */
size_t crnn_streams_size(const crnn_model *model, crnn_dim N, crnn_dim block);
crnn_streams *crnn_streams_init(void *memory, const crnn_model *model, crnn_dim N, crnn_dim block);

/* One step of M streams: y (M, output) OVERWRITTEN; x (M, D) or ids (M), from 0 to D-1. rows (M): which streams, all
 * different, in any order; NULL: the first M. y and x do not overlap; for M = 1 they may. */
void crnn_streams_step(crnn_streams *streams, void *y, const void *x, const int32_t *rows, crnn_dim M);
void crnn_streams_step_ids(crnn_streams *streams, void *y, const int32_t *ids, const int32_t *rows, crnn_dim M);

/* One step of the first stream, as crnn_streams_step. 0: an element of x is not finite, or is not once it is standardised
 * and rounded to the model's precision; neither the state nor y has changed. Otherwise 1. */
int crnn_streams_try_step(crnn_streams *streams, void *y, const void *x);

/* T steps of one stream: ys (T, output) OVERWRITTEN; xs (T, D) or ids (T). No overlap. */
void crnn_streams_run(crnn_streams *streams, void *ys, const void *xs, crnn_dim T, crnn_dim row);
void crnn_streams_run_ids(crnn_streams *streams, void *ys, const int32_t *ids, crnn_dim T, crnn_dim row);

/* Back to the initial state: rows (M), or NULL: the first M. */
void crnn_streams_reset(crnn_streams *streams, const int32_t *rows, crnn_dim M);

/* A stream's state as one vector of crnn_model_state_size elements: h of every layer from the first to the last, then c
 * of those that have one. With CRNN_POOL_MAX then the maxima (H of the top layer), -inf before the first step; with
 * CRNN_POOL_MEAN the sums (H), and two elements a, b: there have been a * 2^24 + b steps, 0 <= b < 2^24, because float
 * cannot hold every larger number. state OVERWRITTEN by get. */
void crnn_streams_get_state(const crnn_streams *streams, void *state, crnn_dim row);
void crnn_streams_set_state(crnn_streams *streams, const void *state, crnn_dim row);

/* `row` continues from the state of `from_row` of `from`, another set of the same model or the same set. */
void crnn_streams_copy(crnn_streams *streams, crnn_dim row, const crnn_streams *from, crnn_dim from_row);

#ifdef __cplusplus
}
#endif

#endif
