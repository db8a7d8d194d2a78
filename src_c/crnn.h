/* SPDX-License-Identifier: MIT
 * crnn.h: every kernel of crnn, as one table of functions per precision, and the contract they keep. The list of the
 * kernels is kernels.def, which lies beside this file.
 * Plain C11. Nothing here allocates, prints, exits, knows Python or keeps writable globals.
 *
 * Letters   T time steps  B batch  D input size  H hidden size  V vocabulary or classes
 *           M rows of a product  K its inner size  N its columns.  Sizes are elements, never bytes, and >= 1
 *           unless a kernel says otherwise. Arrays are C order; time-major, row g = t*B + b.
 * Outputs   OVERWRITTEN or ACCUMULATED (+=; parameter gradients are).
 * Slices    crnn_rows says which rows a kernel reads and writes; n0, n1: columns n0 <= n < n1 only. Calls on disjoint
 *           slices may run at the same time and together give the bits of one call: no sum is ever split between them.
 * Bits      Every element of a product starts from its bias (or zero, or what it adds to) and takes its K terms in
 *           rising order, each by one fused multiply-add. Sums over elements run in crnn_line lanes, lane i taking
 *           elements i, i + crnn_line, ..., folded in halves. So the bits do not depend on the instruction set,
 *           on the slices, or on the position in the batch.
 * Denormals are read and written as zero while a kernel runs; the caller's floating-point mode is restored. */
#ifndef CRNN_H
#define CRNN_H

#include <stddef.h>
#include <stdint.h>

typedef ptrdiff_t crnn_dim; /* wide, and signed so that `for (t = T - 1; t >= 0; --t)` ends */

enum { CRNN_LINE_BYTES = 64 }; /* a cache line of reals: 16 floats, 8 doubles */

enum { CRNN_TANH = 0, CRNN_RELU = 1 }; /* activations of the plain cell */
enum { CRNN_SQUARED = 0, CRNN_ABSOLUTE = 1, CRNN_HUBER = 2, CRNN_QUANTILE = 3 }; /* losses of regression */

/* Rows (t, b) of arrays (T, B, ...). A slice is the positions b0 <= i < b1; position i stands for batch row order[i]
 * (order NULL: i itself), which has the steps 0 <= t < lengths[row] (lengths NULL: T), at least one. Within a slice the
 * lengths are non-increasing, so the rows active at step t form a prefix. Other rows are not touched.
 * Weight gradients go over all rows of all slices, t and then b rising, whatever b0, b1 and order say. */
typedef struct crnn_rows {
    crnn_dim T, B, b0, b1;
    const int32_t *order, *lengths; /* (B) */
} crnn_rows;

/* One direction of a recurrent layer over a window, for the cells' kernels. Arrays are float or double as it is.
 * G gates lie in blocks of H columns: LSTM i, f, g, o; GRU r, z, n (PyTorch's order). "Before" is the step before in
 * the layer's direction: t-1, with reverse t+1; before the first step lie h0 and c0. The cells' equations stand in
 * rnn.body.h, lstm.body.h and gru.body.h. */
typedef struct crnn_layer {
    crnn_rows rows;
    crnn_dim H;
    int reverse;        /* from each row's last step to its first */
    int act;            /* plain cell: CRNN_TANH or CRNN_RELU */
    int reset_after;    /* GRU: the reset gate acts after the recurrent product (PyTorch), or before it (the paper) */
    /* in */
    const void *xw;     /* ids NULL: (T, B, G*H), x @ w_xh + b_h.  ids: the table (V, G*H), w_xh + b_h */
    const int32_t *ids; /* (T, B) or NULL */
    const void *h0, *c0;      /* (B, H); c0: LSTM */
    const void *w_hh, *w_hn;  /* packed (H, G*H), gate by gate; GRU: w_hh holds r and z, w_hn (H, H) n */
    const void *b_hn;         /* (H), GRU with reset_after */
    const void *mask;         /* (B, H) or NULL: dropout of h before it enters a product with w_hh */
    const void *h0_masked;    /* (B, H): h0 * mask */
    /* forward, OVERWRITTEN */
    void *h;                  /* (T, B, H) */
    void *gates;              /* (T, B, G*H), after their activations; may be xw. Plain cell: none */
    void *c, *tanh_c;         /* (T, B, H), LSTM; tanh_c NULL: no way back, gates are of no use. c0 may be a step of c */
    void *hn;                 /* (T, B, H), GRU: h' @ w_hn + b_hn with reset_after, r * h' otherwise */
    void *h_masked;           /* (T, B, H), h * mask; with a mask only */
    /* backward; also reads what forward wrote */
    const void *w_hh_t, *w_hn_t; /* the transposes, packed (G*H, H); GRU reset_after: w_hh_t is of all three blocks */
    void *dh;    /* (T, B, H), the gradient that arrives at h, OVERWRITTEN with the whole gradient at h */
    void *da;    /* (T, B, G*H) OVERWRITTEN, the gradient at x @ w_xh + b_h. May be gates; plain cell: may be dh */
    void *da_h;  /* (T, B, G*H) OVERWRITTEN, GRU with reset_after: the gradient at h' @ w_hh, whose n block differs */
    void *dh0;   /* (B, H) OVERWRITTEN */
    void *dc;    /* (B, H), LSTM: the gradient at the last c, OVERWRITTEN with the one at c0 */
    void *dhn;   /* (B, H) scratch, GRU without reset_after */
    void *dh_masked; /* (B, H) scratch, with a mask only */
} crnn_layer;

/* One column panel of a packed matrix is a line wide and K lines tall: packed[panel][k][lane], the last panel filled
 * up with zeros. The layout is the same on every instruction set; the product's inner loop reads one line per k and
 * the vector width never shows in the bits. Buffers from the caller are best aligned to CRNN_LINE_BYTES. */
#define CRNN_LINE(real) ((crnn_dim)(CRNN_LINE_BYTES / sizeof(real)))
#define CRNN_PANELS(real, N) (((N) + CRNN_LINE(real) - 1) / CRNN_LINE(real))
#define CRNN_PACKED_SIZE(real, K, N) (CRNN_PANELS(real, N) * CRNN_LINE(real) * (K))

/* Rows of a weight gradient's product that are packed at a time, and the scratch that they and K columns of x need. */
enum { CRNN_GRAD_ROWS = 256, CRNN_GRAD_PANELS = 4 };
#define CRNN_GRAD_SCRATCH(real, K) (CRNN_GRAD_ROWS * (CRNN_GRAD_PANELS * CRNN_LINE(real) + (K)) + CRNN_LINE(real))

/* The kernels of one precision on one instruction set. kernels.def lists them, each with its contract. */
#define CRNN_KERNEL(type, name, arguments) type (*name) arguments;
typedef struct crnn_kernels_f32 {
    const char *isa;
#define real float
#include "kernels.def"
#undef real
} crnn_kernels_f32;

typedef struct crnn_kernels_f64 {
    const char *isa;
#define real double
#include "kernels.def"
#undef real
} crnn_kernels_f64;
#undef CRNN_KERNEL

/* Instruction sets by number 0, 1, ... crnn_isa_count() - 1, generic first, the best last. */
int crnn_isa_count(void);
const char *crnn_isa_name(int isa);
int crnn_isa_built(int isa);     /* compiled into this binary */
int crnn_isa_supported(int isa); /* built, and this CPU and operating system run it */
int crnn_isa_best(void);
const crnn_kernels_f32 *crnn_f32(int isa); /* NULL unless built */
const crnn_kernels_f64 *crnn_f64(int isa);

#endif
