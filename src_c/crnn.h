/* SPDX-License-Identifier: MIT
 * crnn.h: every kernel of crnn, as one table of functions per precision, and the contract they keep.
 * Plain C11. Nothing here allocates, prints, exits, knows Python or keeps writable globals.
 *
 * Letters   T time steps  B batch  D input size  H hidden size  V vocabulary or classes
 *           M rows of a product  K its inner size  N its columns.  Sizes are elements, never bytes, and >= 1
 *           unless a kernel says otherwise. Arrays are C order; time-major, row g = t*B + b.
 * Outputs   OVERWRITTEN or ACCUMULATED (+=; parameter gradients are).
 * Slices    b0, b1: the kernel reads and writes batch rows b0 <= b < b1 of every step only; n0, n1: columns
 *           n0 <= n < n1 only, n0 a multiple of crnn_line. Calls on disjoint slices may run at the same time and
 *           together give the bits of one call: no sum is ever split between them.
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

/* One column panel of a packed matrix is a line wide and K lines tall: packed[panel][k][lane], the last panel filled
 * up with zeros. The layout is the same on every instruction set; the product's inner loop reads one line per k and
 * the vector width never shows in the bits. Buffers from the caller are best aligned to CRNN_LINE_BYTES. */
#define CRNN_LINE(real) ((crnn_dim)(CRNN_LINE_BYTES / sizeof(real)))
#define CRNN_PANELS(real, N) (((N) + CRNN_LINE(real) - 1) / CRNN_LINE(real))
#define CRNN_PACKED_SIZE(real, K, N) (CRNN_PANELS(real, N) * CRNN_LINE(real) * (K))

/* Rows of a weight gradient's product that are packed at a time, and the scratch they need. */
enum { CRNN_GRAD_ROWS = 256, CRNN_GRAD_PANELS = 2 };
#define CRNN_GRAD_SCRATCH(real) (CRNN_GRAD_ROWS * CRNN_GRAD_PANELS * CRNN_LINE(real))

#define CRNN_DECLARE_KERNELS(real, suffix)                                                                             \
typedef struct crnn_kernels_##suffix {                                                                                 \
    const char *isa;                                                                                                   \
                                                                                                                       \
    /* y[i] = f(x[i]), i < n. OVERWRITTEN; y may be x. At most 2 ulp (float64 2.1); denormal results are 0. */         \
    void (*exp)(real *y, const real *x, crnn_dim n);                                                                   \
    void (*tanh)(real *y, const real *x, crnn_dim n);                                                                  \
    void (*sigmoid)(real *y, const real *x, crnn_dim n);                                                               \
                                                                                                                       \
    /* packed (CRNN_PACKED_SIZE) OVERWRITTEN with w (K, N), row stride ldw;                                            \
     * pack_transposed takes w (N, K) and packs its transpose. */                                                      \
    void (*pack)(real *packed, const real *w, crnn_dim ldw, crnn_dim K, crnn_dim N);                                   \
    void (*pack_transposed)(real *packed, const real *w, crnn_dim ldw, crnn_dim K, crnn_dim N);                        \
                                                                                                                       \
    /* y (T, B, N) = x (T, B, K) @ w + bias (N), OVERWRITTEN; w packed; bias NULL: zero. y and x do not overlap. */    \
    void (*linear_forward)(real *y, const real *x, const real *w, const real *bias,                                    \
                           crnn_dim T, crnn_dim B, crnn_dim K, crnn_dim N, crnn_dim b0, crnn_dim b1);                  \
                                                                                                                       \
    /* dw (K, N) += x (M, K)^T @ dy (M, N), ACCUMULATED over rising m. scratch: CRNN_GRAD_SCRATCH. M may be 0. */      \
    void (*linear_backward_weight)(real *dw, const real *x, const real *dy, real *scratch,                             \
                                   crnn_dim M, crnn_dim K, crnn_dim N, crnn_dim n0, crnn_dim n1);                      \
                                                                                                                       \
    /* db (N) += sum over rows of dy (M, N), ACCUMULATED over rising m. */                                             \
    void (*bias_backward)(real *db, const real *dy, crnn_dim M, crnn_dim N, crnn_dim n0, crnn_dim n1);                 \
                                                                                                                       \
    /* y (V, N) = w (V, N) + bias (N), OVERWRITTEN: the rows that a one-hot input selects, bias added once. */         \
    void (*rows_add_bias)(real *y, const real *w, const real *bias, crnn_dim V, crnn_dim N);                           \
                                                                                                                       \
    /* dw (V, N): dw[ids[m], :] += dy[m, :], ACCUMULATED over rising m. ids (M) in 0 .. V-1. */                        \
    void (*rows_backward)(real *dw, const int32_t *ids, const real *dy,                                                \
                          crnn_dim M, crnn_dim N, crnn_dim n0, crnn_dim n1);                                           \
                                                                                                                       \
    /* A tanh or ReLU layer through time.                                                                              \
     *     h[t,b,:] = act( xw[t,b,:] + h[t-1,b,:] @ w_hh )              h[-1] = h0                                     \
     * h (T, B, H) OVERWRITTEN; w_hh packed (H, H); h0 (B, H).                                                         \
     * ids NULL: xw (T, B, H) is x @ w_xh + b_h for every step, and may be h itself.                                   \
     * ids (T, B): xw (V, H) is the table w_xh + b_h, and row ids[t,b] of it is used. */                               \
    void (*rnn_forward)(real *h, const real *xw, const int32_t *ids, const real *h0, const real *w_hh, int act,        \
                        crnn_dim T, crnn_dim B, crnn_dim H, crnn_dim b0, crnn_dim b1);                                 \
                                                                                                                       \
    /* Its reverse. da[t] is the gradient of the loss at the pre-activation, dh[t] the one that arrives at h[t]:       \
     *     da[t] = ( dh[t] + da[t+1] @ w_hh^T ) * act'(h[t])            act' from h alone: 1 - h*h, or h > 0           \
     *     dh0   = da[0] @ w_hh^T                                                                                      \
     * da (T, B, H) holds dh on entry (dh_T, the final state's gradient, already added to its last step) and is        \
     * OVERWRITTEN; dh0 (B, H) OVERWRITTEN; w_hh_t is w_hh^T, packed. */                                               \
    void (*rnn_backward)(real *da, real *dh0, const real *h, const real *w_hh_t, int act,                              \
                         crnn_dim T, crnn_dim B, crnn_dim H, crnn_dim b0, crnn_dim b1);                                \
                                                                                                                       \
    /* Softmax cross-entropy of logits (T, B, V) with targets (T, B), in nats.                                         \
     *     loss[g] = log(sum_v exp(logits[g,v])) - logits[g,target[g]]                                                 \
     *     dlogits[g,:] = scale * ( softmax(logits[g,:]) - onehot(target[g]) )                                         \
     * loss (T, B) OVERWRITTEN; dlogits (T, B, V) OVERWRITTEN, may be logits itself, or NULL: loss only.               \
     * A target equal to `ignore` gives loss 0 and a zero gradient; any other is in 0 .. V-1. */                       \
    void (*softmax_cross_entropy)(real *loss, real *dlogits, const real *logits, const int32_t *targets, real scale,   \
                                  int32_t ignore, crnn_dim T, crnn_dim B, crnn_dim V, crnn_dim b0, crnn_dim b1);       \
                                                                                                                       \
    /* p (M, V) = softmax of each row of logits, OVERWRITTEN; p may be logits. */                                      \
    void (*softmax)(real *p, const real *logits, crnn_dim M, crnn_dim V);                                              \
                                                                                                                       \
    /* Sums over a flat array, in double. */                                                                           \
    double (*sum)(const real *x, crnn_dim n);                                                                          \
    double (*sum_of_squares)(const real *x, crnn_dim n);                                                               \
                                                                                                                       \
    /* x *= factor;  x = min(max(x, -limit), limit). x OVERWRITTEN. NaN stays NaN. */                                  \
    void (*scale)(real *x, real factor, crnn_dim n);                                                                   \
    void (*clip)(real *x, real limit, crnn_dim n);                                                                     \
                                                                                                                       \
    /* One update of w (n) by its gradient g (n), g first multiplied by `factor` (clipping by norm).                   \
     * w and the state arrays OVERWRITTEN. The formulas stand in optim.body.h. */                                      \
    void (*sgd)(real *w, real *velocity, const real *g, real factor, real lr, real momentum, real weight_decay,        \
                int nesterov, crnn_dim n);                                                                             \
    void (*adagrad)(real *w, real *square_sum, const real *g, real factor, real lr, real eps, real weight_decay,       \
                    crnn_dim n);                                                                                       \
    void (*rmsprop)(real *w, real *square_avg, real *velocity, const real *g, real factor, real lr, real alpha,        \
                    real eps, real momentum, real weight_decay, crnn_dim n);                                           \
    void (*adam)(real *w, real *m, real *v, const real *g, real factor, real step_size, real beta1, real beta2,        \
                 real root_correction, real eps, real weight_decay, real decoupled_decay, crnn_dim n);                 \
                                                                                                                       \
    /* The n columns of q (H, n), row stride H: q[:, j] made orthonormal in rising j by Gram-Schmidt, done twice.      \
     * Columns are rows of the array: q[j*H + i]. Returns 0, or 1 + j where column j depends on the earlier ones. */   \
    crnn_dim (*orthonormalize)(real *q, crnn_dim n, crnn_dim H);                                                       \
} crnn_kernels_##suffix;

CRNN_DECLARE_KERNELS(float, f32)
CRNN_DECLARE_KERNELS(double, f64)
#undef CRNN_DECLARE_KERNELS

/* Instruction sets by number 0, 1, ... crnn_isa_count() - 1, generic first, the best last. */
int crnn_isa_count(void);
const char *crnn_isa_name(int isa);
int crnn_isa_built(int isa);     /* compiled into this binary */
int crnn_isa_supported(int isa); /* built, and this CPU and operating system run it */
int crnn_isa_best(void);
const crnn_kernels_f32 *crnn_f32(int isa); /* NULL unless built */
const crnn_kernels_f64 *crnn_f64(int isa);

#endif
