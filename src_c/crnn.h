/* SPDX-License-Identifier: MIT
 * crnn.h: every kernel of crnn, as one table of functions per precision, and the contract they keep. The list of the
 * kernels is kernels.def, in the same folder.
 * Plain C11. Nothing here allocates, prints, exits, knows Python or keeps writable globals.
 *
 * Letters   T time steps  B batch  D input size  H hidden size  V vocabulary or classes
 *           M rows of a product  K its inner size  N its columns.  Sizes are elements, never bytes, and >= 1
 *           unless a kernel says otherwise. Arrays are C order; time-major, row g = t*B + b, or packed: see crnn_rows.
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

/* Losses of regression, of an error e = y - target; q: the loss's parameter, if it has one. The slope at e = 0 is 0. */
enum {
    CRNN_SQUARED = 0,  /* e^2 */
    CRNN_ABSOLUTE = 1, /* |e| */
    CRNN_HUBER = 2,    /* e^2 / 2 where |e| <= q, else q (|e| - q / 2) */
    CRNN_QUANTILE = 3  /* (1 - q) e where e > 0, else -q e */
};

/* Rows (t, b) of arrays (T, B, ...). A slice is the positions b0 <= i < b1; position i stands for batch row order[i]
 * (order NULL: i itself), which has the steps 0 <= t < lengths[row] (lengths NULL: T), at least one. Within a slice the
 * lengths are non-increasing, so the rows active at step t form a prefix. Other rows are not touched.
 * Weight gradients go over all rows of all slices, t and then b rising, whatever b0, b1 and order say.
 *
 * starts NULL: row (t, b) is element t*B + b of the arrays. Otherwise the arrays are packed: they have no padding, and
 * what a contract calls (T, B, ...) is (M, ...), M being the sum of the lengths, with row (t, b) at starts[t] + places[b].
 * places ranks the batch rows, the longest first, so that the rows of a step are contiguous. The order of summation does
 * not depend on the layout. */
typedef struct crnn_rows {
    crnn_dim T, B, b0, b1;
    const int32_t *order, *lengths; /* (B) */
    const crnn_dim *starts;         /* (T) or NULL */
    const int32_t *places;          /* (B) or NULL */
} crnn_rows;

/* A storage format of float32 weights with fewer bits than a float, and the products with it on one instruction set. A
 * product converts its rows of x into scratch memory, at most CRNN_QUANTISED_ROWS at a time. */
typedef struct crnn_quantised crnn_quantised;
enum { CRNN_QUANTISED_ROWS = 144 };

/* ---- cells ------------------------------------------------------------------------------------------------------- */

/* Parameters of shape (H,) that a cell may have besides W_xh, W_hh and b_h. */
enum { CRNN_CELL_VECTORS = 8 };

/* One direction of a recurrent layer over a window: what a cell's forward and backward functions work on. Arrays are
 * float or double, as the kernel table is. G gates lie in blocks of H columns, in the order of the cell's gate_names.
 * "The step before" is t-1, with `reverse` t+1; before a sequence's first step it is h0 and c0. Fields marked with a
 * flag are for cells that have it in crnn_cell.arrays, w_... for cells with recurrent gates; the others ignore them. */
typedef struct crnn_layer {
    crnn_rows rows;
    crnn_dim H;
    int reverse;             /* from each row's last step to its first */

    /* in, of forward and backward */
    const void *h0, *c0;     /* (B, H); c0: has_c */
    const void *mask;        /* (B, H) or NULL: recurrent dropout, multiplies h on its way into a product with W_hh */
    const void *h0_masked;   /* (B, H), h0 * mask; with a mask only */
    const void *vectors[CRNN_CELL_VECTORS]; /* (H) each, in the order of the cell's list */
    const crnn_quantised *quantised; /* the format of the packed weights below; NULL: that of the arrays. Backward: bf16 */
    void *scratch;           /* crnn_packed_scratch bytes of w_hh, backward of w_hh_t, for rows.b1 - rows.b0 rows; with
                              * `quantised` only */

    /* in, forward */
    const void *xw;          /* ids NULL: (T, B, G*H), x @ W_xh + b_h.  ids: the table (V, G*H), W_xh + b_h */
    const int32_t *ids;      /* (T, B) or NULL */
    const void *w_hh;        /* packed (H, packed_gates*H), the gates' panels side by side */
    const void *w_hn;        /* packed (H, H), the last recurrent gate, where it is not among packed_gates */
    /* out, forward: OVERWRITTEN. in, backward */
    void *h;                 /* (T, B, H); may be xw where the cell has no `gates` */
    void *h_masked;          /* (T, B, H), h * mask; with a mask only */
    void *gates;             /* CRNN_USES_GATES   (T, B, G*H), after their activations, with CRNN_USES_SCALES after their
                              * normalisation; may be xw */
    void *c;                 /* has_c             (T, B, H); c0 may be one of its steps */
    void *tanh_c;            /* CRNN_USES_TANH_C  (T, B, H); NULL: inference only, `gates` undefined afterwards */
    void *hn;                /* CRNN_USES_HN      (T, B, H): GRU h' @ W_hn + b_hn; original GRU r * h' */
    void *scales;            /* CRNN_USES_SCALES  (T, B, G): what normalises each gate's H units, 1 / their standard
                              * deviation; NULL: inference only, `gates` undefined afterwards */

    /* in, backward */
    const void *w_hh_t;      /* W_hh^T, packed (recurrent_gates*H, H); CRNN_USES_DHN: of packed_gates only */
    const void *w_hn_t;      /* CRNN_USES_DHN     packed (H, H), the transpose of the last recurrent gate */

    /* backward */
    void *dh;                /* (T, B, H) in: the gradient that arrives at h. out: OVERWRITTEN, the whole gradient at h */
    void *dc;                /* has_c             (B, H) in: the gradient at the last c. out: OVERWRITTEN, the one at c0 */
    void *da;                /* (T, B, G*H) out: OVERWRITTEN, the gradient at x @ W_xh + b_h. May be `gates`, or, in a
                              * cell without them, dh, which then does not keep the gradient at h */
    void *da_h;              /* CRNN_USES_DA_H    (T, B, G*H) out: OVERWRITTEN, the gradient at h' @ W_hh, if it is not da */
    void *dh0;               /* (B, H) out: OVERWRITTEN */
    void *dvectors[CRNN_CELL_VECTORS]; /* CRNN_USES_DVECTORS  (B, H) each, out: ACCUMULATED, the share of every batch row
                              * in a vector's gradient; their sum over b, b rising, is the gradient */
    void *dh_masked;         /* (B, H) scratch; with a mask only */
    void *dhn;               /* CRNN_USES_DHN     (B, H) scratch: the gradient at hn */
    void *dnormal;           /* CRNN_USES_SCALES  (B, G*H) scratch, of which a slice uses row b0: the gradient at the
                              * normalised gates of one row */
} crnn_layer;

/* Arrays of crnn_layer that not every cell has. */
enum {
    CRNN_USES_GATES = 1, CRNN_USES_TANH_C = 2, CRNN_USES_HN = 4, CRNN_USES_DA_H = 8, CRNN_USES_DHN = 16,
    CRNN_USES_DVECTORS = 32, CRNN_USES_SCALES = 64
};

/* What a cell is. Its equations, its functions and its entry stand in one file of src_c/cells; cells.h lists them all. */
typedef struct crnn_cell {
    const char *name;       /* "lstm", as in crnn.RNN(cell="lstm"), in model files and for crnn_cell_find */
    int gates;              /* G: blocks of H columns in W_xh and b_h */
    const char *gate_names; /* one letter for each block, in order: "ifgo" */
    int candidate;          /* the block that proposes the new state: an LSTM's g, a GRU's n */
    int has_c;              /* the state is (h, c) */
    int recurrent_gates;    /* W_hh is (H, recurrent_gates*H): G, or 0 where there is no product with h' and no W_hh */
    int packed_gates;       /* how many of them w_hh holds: all, or all but the last, which w_hn holds */
    unsigned arrays;        /* CRNN_USES_... */
    const char *vectors[CRNN_CELL_VECTORS + 1]; /* names of further parameters (H,): "b_hn". NULL ends the list */
    void (*forward)(const crnn_layer *layer);  /* through time, T >= 0 steps */
    void (*backward)(const crnn_layer *layer); /* and back, T >= 1 */
} crnn_cell;

/* One column panel of a packed matrix is a line wide and K lines tall: packed[panel][k][lane], the last panel filled
 * up with zeros. The layout is the same on every instruction set; the product's inner loop reads one line per k and
 * the vector width never shows in the bits. Buffers from the caller are best aligned to CRNN_LINE_BYTES. */
#define CRNN_LINE(real) ((crnn_dim)(CRNN_LINE_BYTES / sizeof(real)))
#define CRNN_PANELS(real, N) (((N) + CRNN_LINE(real) - 1) / CRNN_LINE(real))
#define CRNN_PACKED_SIZE(real, K, N) (CRNN_PANELS(real, N) * CRNN_LINE(real) * (K))

/* Rows of a weight gradient's product that are packed at a time (more of bf16, in the same memory), and the scratch that
 * they and K columns of x need. */
enum { CRNN_GRAD_ROWS = 256, CRNN_GRAD_PANELS = 4 };
#define CRNN_GRAD_SCRATCH(real, K)                                                                                     \
    (CRNN_GRAD_ROWS * (CRNN_GRAD_PANELS * CRNN_LINE(real) + (K)) + CRNN_GRAD_PANELS * CRNN_LINE(real))

/* The kernels of one precision on one instruction set. kernels.def lists them, each with its contract. */
#define CRNN_KERNEL(type, name, arguments) type (*name) arguments;
typedef struct crnn_kernels_f32 {
    const char *isa;
    const crnn_quantised *bf16, *int8, *int4;
    const crnn_cell *const *cells; /* all cells by number, ended by NULL; the same ones, in the same order, in every table */
#define real float
#include "kernels.def"
#undef real
} crnn_kernels_f32;

typedef struct crnn_kernels_f64 {
    const char *isa;
    const crnn_cell *const *cells;
#define real double
#include "kernels.def"
#undef real
} crnn_kernels_f64;
#undef CRNN_KERNEL

/* The list of cells, for callers: what each is. Their functions are the generic ones in float32; those of an instruction
 * set are in its kernel table. */
int crnn_cell_count(void);
const crnn_cell *crnn_cell_info(int cell);  /* NULL: there is no cell of this number */
int crnn_cell_find(const char *name);       /* its number; -1: there is none of this name */

/* Instruction sets by number 0, 1, ... crnn_isa_count() - 1, generic first, the best last. crnn_isa_best: the last that is
 * supported, except avx512_bf16 on Intel's CPUs, where its products take longer than those of avx512_vnni. */
int crnn_isa_count(void);
const char *crnn_isa_name(int isa);
int crnn_isa_built(int isa);     /* compiled into this binary */
int crnn_isa_supported(int isa); /* built, and this CPU and operating system run it */
int crnn_isa_best(void);
const crnn_kernels_f32 *crnn_f32(int isa); /* NULL unless built */
const crnn_kernels_f64 *crnn_f64(int isa);

#endif
