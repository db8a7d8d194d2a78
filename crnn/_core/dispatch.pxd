# SPDX-License-Identifier: MIT
"""The C header src_c/crnn.h as Cython sees it, and the kernel tables in use. What each kernel does stands there."""

from libc.stdint cimport int32_t

cdef extern from "crnn.h" nogil:
    ctypedef Py_ssize_t crnn_dim
    enum:
        CRNN_LINE_BYTES
        CRNN_CELL_VECTORS
        CRNN_USES_GATES
        CRNN_USES_TANH_C
        CRNN_USES_HN
        CRNN_USES_DA_H
        CRNN_USES_DHN
        CRNN_USES_DVECTORS
        CRNN_SQUARED
        CRNN_ABSOLUTE
        CRNN_HUBER
        CRNN_QUANTILE
        CRNN_GRAD_ROWS
        CRNN_GRAD_PANELS

    ctypedef struct crnn_rows:
        crnn_dim T, B, b0, b1
        const int32_t *order
        const int32_t *lengths

    ctypedef struct crnn_layer:
        crnn_rows rows
        crnn_dim H
        int reverse
        const void *xw
        const int32_t *ids
        const void *h0
        const void *c0
        const void *w_hh
        const void *w_hn
        const void *vectors[4]  # CRNN_CELL_VECTORS
        const void *mask
        const void *h0_masked
        void *h
        void *gates
        void *c
        void *tanh_c
        void *hn
        void *h_masked
        const void *w_hh_t
        const void *w_hn_t
        void *dh
        void *da
        void *da_h
        void *dh0
        void *dc
        void *dvectors[4]
        void *dhn
        void *dh_masked

    ctypedef struct crnn_cell:
        const char *name
        int gates
        const char *gate_names
        int candidate, has_c, recurrent_gates, packed_gates
        unsigned arrays
        const char *vectors[5]
        void (*forward)(const crnn_layer *layer) noexcept nogil
        void (*backward)(const crnn_layer *layer) noexcept nogil

    # The two structs are one text with `real` replaced; Cython has no macro to say it once.
    ctypedef struct crnn_kernels_f32:
        const char *isa
        void (*exp)(float *y, const float *x, crnn_dim n) noexcept nogil
        void (*tanh)(float *y, const float *x, crnn_dim n) noexcept nogil
        void (*sigmoid)(float *y, const float *x, crnn_dim n) noexcept nogil
        void (*log1p)(float *y, const float *x, crnn_dim n) noexcept nogil
        void (*pack_gates)(float *packed, const float *w, crnn_dim ldw, crnn_dim K, crnn_dim N,
                           crnn_dim gates) noexcept nogil
        void (*pack_transposed)(float *packed, const float *w, crnn_dim ldw, crnn_dim K, crnn_dim N) noexcept nogil
        void (*linear_forward)(float *y, const float *x, const float *w, const float *bias, crnn_dim K, crnn_dim N,
                               const crnn_rows *rows) noexcept nogil
        void (*linear_backward_weight)(float *dw, float *db, const float *x, const float *dy, float *scratch,
                                       crnn_dim K, crnn_dim N, crnn_dim n0, crnn_dim n1,
                                       const crnn_rows *rows) noexcept nogil
        void (*recurrent_backward_weight)(float *dw, float *db, const float *h, const float *h0, const float *da,
                                          float *scratch, int reverse, crnn_dim H, crnn_dim N, crnn_dim n0, crnn_dim n1,
                                          const crnn_rows *rows) noexcept nogil
        void (*bias_backward)(float *db, const float *dy, crnn_dim N, crnn_dim n0, crnn_dim n1,
                              const crnn_rows *rows) noexcept nogil
        void (*rows_add_bias)(float *y, const float *w, const float *bias, crnn_dim V, crnn_dim N) noexcept nogil
        void (*rows_backward)(float *dw, const int32_t *ids, const float *dy, crnn_dim N,
                              crnn_dim n0, crnn_dim n1, const crnn_rows *rows) noexcept nogil
        const crnn_cell *const *cells
        void (*softmax_cross_entropy)(float *loss, float *dlogits, const float *logits, const int32_t *targets,
                                      const float *weights, float smoothing, float scale, int32_t ignore, crnn_dim V,
                                      const crnn_rows *rows) noexcept nogil
        void (*sigmoid_cross_entropy)(float *loss, float *dlogits, const float *logits, const float *targets,
                                      const float *pos_weights, float scale, crnn_dim V,
                                      const crnn_rows *rows) noexcept nogil
        void (*regression_loss)(float *loss, float *dy, const float *y, const float *targets, int kind,
                                const float *parameters, crnn_dim P, float scale, crnn_dim N,
                                const crnn_rows *rows) noexcept nogil
        void (*softmax)(float *p, const float *logits, crnn_dim M, crnn_dim V) noexcept nogil
        void (*pool_mean_forward)(float *out, const float *h, crnn_dim H, const crnn_rows *rows) noexcept nogil
        void (*pool_mean_backward)(float *dh, const float *dout, crnn_dim H, const crnn_rows *rows) noexcept nogil
        void (*pool_max_forward)(float *out, int32_t *which, const float *h, crnn_dim H,
                                 const crnn_rows *rows) noexcept nogil
        void (*pool_max_backward)(float *dh, const float *dout, const int32_t *which, crnn_dim H,
                                  const crnn_rows *rows) noexcept nogil
        double (*sum)(const float *x, crnn_dim n) noexcept nogil
        double (*sum_of_squares)(const float *x, crnn_dim n) noexcept nogil
        void (*column_sums)(double *sums, double *counts, const float *x, crnn_dim M, crnn_dim N) noexcept nogil
        void (*column_squares)(double *squares, const float *x, const double *means, crnn_dim M,
                               crnn_dim N) noexcept nogil
        void (*scale)(float *x, float factor, crnn_dim n) noexcept nogil
        void (*clip)(float *x, float limit, crnn_dim n) noexcept nogil
        void (*sgd)(float *w, float *velocity, const float *g, float factor, float lr, float momentum,
                    float weight_decay, int nesterov, crnn_dim n) noexcept nogil
        void (*adagrad)(float *w, float *square_sum, const float *g, float factor, float lr, float eps,
                        float weight_decay, crnn_dim n) noexcept nogil
        void (*rmsprop)(float *w, float *square_avg, float *velocity, const float *g, float factor, float lr,
                        float alpha, float eps, float momentum, float weight_decay, crnn_dim n) noexcept nogil
        void (*adam)(float *w, float *m, float *v, const float *g, float factor, float step_size, float beta1,
                     float beta2, float root_correction, float eps, float weight_decay, float decoupled_decay,
                     crnn_dim n) noexcept nogil
        crnn_dim (*orthonormalize)(float *q, crnn_dim n, crnn_dim H) noexcept nogil

    ctypedef struct crnn_kernels_f64:
        const char *isa
        void (*exp)(double *y, const double *x, crnn_dim n) noexcept nogil
        void (*tanh)(double *y, const double *x, crnn_dim n) noexcept nogil
        void (*sigmoid)(double *y, const double *x, crnn_dim n) noexcept nogil
        void (*log1p)(double *y, const double *x, crnn_dim n) noexcept nogil
        void (*pack_gates)(double *packed, const double *w, crnn_dim ldw, crnn_dim K, crnn_dim N,
                           crnn_dim gates) noexcept nogil
        void (*pack_transposed)(double *packed, const double *w, crnn_dim ldw, crnn_dim K, crnn_dim N) noexcept nogil
        void (*linear_forward)(double *y, const double *x, const double *w, const double *bias, crnn_dim K, crnn_dim N,
                               const crnn_rows *rows) noexcept nogil
        void (*linear_backward_weight)(double *dw, double *db, const double *x, const double *dy, double *scratch,
                                       crnn_dim K, crnn_dim N, crnn_dim n0, crnn_dim n1,
                                       const crnn_rows *rows) noexcept nogil
        void (*recurrent_backward_weight)(double *dw, double *db, const double *h, const double *h0, const double *da,
                                          double *scratch, int reverse, crnn_dim H, crnn_dim N, crnn_dim n0, crnn_dim n1,
                                          const crnn_rows *rows) noexcept nogil
        void (*bias_backward)(double *db, const double *dy, crnn_dim N, crnn_dim n0, crnn_dim n1,
                              const crnn_rows *rows) noexcept nogil
        void (*rows_add_bias)(double *y, const double *w, const double *bias, crnn_dim V, crnn_dim N) noexcept nogil
        void (*rows_backward)(double *dw, const int32_t *ids, const double *dy, crnn_dim N,
                              crnn_dim n0, crnn_dim n1, const crnn_rows *rows) noexcept nogil
        const crnn_cell *const *cells
        void (*softmax_cross_entropy)(double *loss, double *dlogits, const double *logits, const int32_t *targets,
                                      const double *weights, double smoothing, double scale, int32_t ignore, crnn_dim V,
                                      const crnn_rows *rows) noexcept nogil
        void (*sigmoid_cross_entropy)(double *loss, double *dlogits, const double *logits, const double *targets,
                                      const double *pos_weights, double scale, crnn_dim V,
                                      const crnn_rows *rows) noexcept nogil
        void (*regression_loss)(double *loss, double *dy, const double *y, const double *targets, int kind,
                                const double *parameters, crnn_dim P, double scale, crnn_dim N,
                                const crnn_rows *rows) noexcept nogil
        void (*softmax)(double *p, const double *logits, crnn_dim M, crnn_dim V) noexcept nogil
        void (*pool_mean_forward)(double *out, const double *h, crnn_dim H, const crnn_rows *rows) noexcept nogil
        void (*pool_mean_backward)(double *dh, const double *dout, crnn_dim H, const crnn_rows *rows) noexcept nogil
        void (*pool_max_forward)(double *out, int32_t *which, const double *h, crnn_dim H,
                                 const crnn_rows *rows) noexcept nogil
        void (*pool_max_backward)(double *dh, const double *dout, const int32_t *which, crnn_dim H,
                                  const crnn_rows *rows) noexcept nogil
        double (*sum)(const double *x, crnn_dim n) noexcept nogil
        double (*sum_of_squares)(const double *x, crnn_dim n) noexcept nogil
        void (*column_sums)(double *sums, double *counts, const double *x, crnn_dim M, crnn_dim N) noexcept nogil
        void (*column_squares)(double *squares, const double *x, const double *means, crnn_dim M,
                               crnn_dim N) noexcept nogil
        void (*scale)(double *x, double factor, crnn_dim n) noexcept nogil
        void (*clip)(double *x, double limit, crnn_dim n) noexcept nogil
        void (*sgd)(double *w, double *velocity, const double *g, double factor, double lr, double momentum,
                    double weight_decay, int nesterov, crnn_dim n) noexcept nogil
        void (*adagrad)(double *w, double *square_sum, const double *g, double factor, double lr, double eps,
                        double weight_decay, crnn_dim n) noexcept nogil
        void (*rmsprop)(double *w, double *square_avg, double *velocity, const double *g, double factor, double lr,
                        double alpha, double eps, double momentum, double weight_decay, crnn_dim n) noexcept nogil
        void (*adam)(double *w, double *m, double *v, const double *g, double factor, double step_size, double beta1,
                     double beta2, double root_correction, double eps, double weight_decay, double decoupled_decay,
                     crnn_dim n) noexcept nogil
        crnn_dim (*orthonormalize)(double *q, crnn_dim n, crnn_dim H) noexcept nogil

    int crnn_isa_count()
    const char *crnn_isa_name(int isa)
    int crnn_isa_built(int isa)
    int crnn_isa_supported(int isa)
    int crnn_isa_best()
    int crnn_cell_count()
    const crnn_cell *crnn_cell_info(int cell)
    int crnn_cell_find(const char *name)
    const crnn_kernels_f32 *crnn_f32(int isa)
    const crnn_kernels_f64 *crnn_f64(int isa)

ctypedef fused real:
    float
    double

# The tables that every wrapper calls through. Packed weights have one layout on every instruction set, so they stay
# good when `use_isa` changes these.
cdef const crnn_kernels_f32 *f32
cdef const crnn_kernels_f64 *f64

# The number of a cell by its name; ValueError if there is none.
cdef int cell_number(str name) except -1
