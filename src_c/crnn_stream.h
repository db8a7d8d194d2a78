/* SPDX-License-Identifier: MIT
 * crnn_stream.h: recurrent networks one step at a time, in float32, for programs without Python. A model, packed once
 * and read-only from then on, is shared by any number of sets of streams and of threads; a set of streams holds the
 * states of N independent sequences. One thread at a time works on a set. All memory is the caller's.
 *
 *     const crnn_kernels_f32 *kernels = crnn_f32(crnn_isa_best());
 *     crnn_model *model = crnn_model_init(aligned_alloc(64, crnn_model_size(&config, kernels)), &config, kernels);
 *     crnn_streams *one = crnn_streams_init(aligned_alloc(64, crnn_streams_size(model, 1, 1)), model, 1, 1);
 *     for (;;) crnn_streams_step(one, y, x, NULL, 1);
 *
 * Each output has the bits that a whole sequence given at once would have there, whatever the instruction set, the
 * number of streams and their order. Letters, contracts and words are those of crnn.h. Nothing here can fail once
 * memory is initialised; sizes and ids are the caller's to check. */
#ifndef CRNN_STREAM_H
#define CRNN_STREAM_H

#include "crnn.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One layer, as crnn.RNN names and stores its parameters: C order, G gates in blocks of H columns, in the order of the
 * cell's gate_names. crnn_cell_info says what parameters a cell has. K is the size of the layer's input: of the
 * network's input, its embedding, or the layer below. */
typedef struct crnn_layer_weights {
    int cell;                     /* crnn_cell_find(name) */
    crnn_dim hidden_size;         /* H */
    const float *W_xh, *b_h;      /* (K, G*H), (G*H) */
    const float *W_hh;            /* (H, recurrent_gates*H); NULL where the cell has no recurrent gates */
    const float *vectors[CRNN_CELL_VECTORS]; /* (H) each, in the order of the cell's list; NULL beyond its end */
    const float *h0, *c0;         /* (H), the state that streams start from; NULL: zero. c0: has_c */
} crnn_layer_weights;

/* A stack of layers, and what stands before and after it. All zero but for input_size, num_layers and layers is good. */
typedef struct crnn_model_config {
    crnn_dim input_size;       /* D: elements of a step's x, or how many ids there are */
    crnn_dim num_layers;
    const crnn_layer_weights *layers;
    crnn_dim embedding_size;   /* E; 0: none */
    const float *embedding;    /* (D, E): then a step takes an id only */
    crnn_dim output_size;      /* V: a step's output is h @ W_hy + b_y; 0: it is h of the top layer */
    const float *W_hy, *b_y;   /* (H, V), (V) */
    int tie_weights;                  /* W_hy is the transpose of the embedding: E is H, V is D, and W_hy NULL */
    const double *x_mean, *x_std; /* (D) or NULL: x enters as (x - mean) / deviation. Ids do not */
    const double *y_mean, *y_std; /* (y_columns) or NULL: y leaves as y * deviation + mean, output j by j % y_columns */
    crnn_dim y_columns;
} crnn_model_config;

typedef struct crnn_model crnn_model;
typedef struct crnn_streams crnn_streams;

/* Bytes that a model of this shape takes, a multiple of CRNN_LINE_BYTES; 0 where the config is invalid: a size below 1,
 * no such cell, a pointer missing, or more than memory could hold. Reads sizes and whether pointers are NULL, no values;
 * any kernel table gives the same size. */
size_t crnn_model_size(const crnn_model_config *config, const crnn_kernels_f32 *kernels);

/* A model in `memory`, of crnn_model_size bytes, aligned to CRNN_LINE_BYTES, which must stay where it is. The config and
 * all it points to may go afterwards. NULL where crnn_model_size says 0, or the memory is NULL or not aligned. */
crnn_model *crnn_model_init(void *memory, const crnn_model_config *config, const crnn_kernels_f32 *kernels);

crnn_dim crnn_model_input_size(const crnn_model *model);
crnn_dim crnn_model_output_size(const crnn_model *model); /* elements of a step's output, never 0 */
crnn_dim crnn_model_state_size(const crnn_model *model);  /* elements of one stream's state */
int crnn_model_takes_ids_only(const crnn_model *model);   /* it has an embedding */

/* Rows, or steps of one row, that are worked on at a time: what is worth scratch for, since so many share a pass
 * through the weights. */
enum { CRNN_STREAM_ROWS = 144 };

/* A set of N streams in `memory`, of crnn_streams_size bytes, aligned and staying as above; all at their start. It refers
 * to the model. `most`: rows, or steps, to be worked on at a time: 1 takes the least memory and is as fast for a single
 * stream that is stepped; CRNN_STREAM_ROWS is the best for large N and for crnn_streams_run. NULL, and size 0: N or
 * `most` below 1, too large, or memory as above. */
size_t crnn_streams_size(const crnn_model *model, crnn_dim N, crnn_dim most);
crnn_streams *crnn_streams_init(void *memory, const crnn_model *model, crnn_dim N, crnn_dim most);

/* One step of M streams: y (M, output) OVERWRITTEN; x (M, D) or ids (M), from 0 to D-1. rows (M): which streams, all
 * different, in any order; NULL: the first M. y and x do not overlap; for M = 1 they may. */
void crnn_streams_step(crnn_streams *streams, float *y, const float *x, const int32_t *rows, crnn_dim M);
void crnn_streams_step_ids(crnn_streams *streams, float *y, const int32_t *ids, const int32_t *rows, crnn_dim M);

/* T steps of one stream: ys (T, output) OVERWRITTEN; xs (T, D) or ids (T). No overlap. */
void crnn_streams_run(crnn_streams *streams, float *ys, const float *xs, crnn_dim T, crnn_dim row);
void crnn_streams_run_ids(crnn_streams *streams, float *ys, const int32_t *ids, crnn_dim T, crnn_dim row);

/* Back to the start: rows (M), or NULL: the first M. */
void crnn_streams_reset(crnn_streams *streams, const int32_t *rows, crnn_dim M);

/* A stream's state as one vector: h of every layer from the first to the last, then c of those that have one. */
void crnn_streams_get_state(const crnn_streams *streams, float *state, crnn_dim row);
void crnn_streams_set_state(crnn_streams *streams, const float *state, crnn_dim row);

/* Stream `row` goes on from where row `from_row` of `from`, another set of the same model or the same set, stands. */
void crnn_streams_copy(crnn_streams *streams, crnn_dim row, const crnn_streams *from, crnn_dim from_row);

#ifdef __cplusplus
}
#endif

#endif
