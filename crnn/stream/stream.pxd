# SPDX-License-Identifier: MIT
"""For `cimport crnn.stream`: the C functions of crnn_stream.h, and streams that are stepped without Python.

Compile with ``include_dirs=[crnn.get_include()]``.
"""

cimport cython
cimport numpy as cnp
from libc.stdint cimport int32_t
from crnn._core.header cimport crnn_dim
from crnn._core.kernels cimport crnn_kernels_f32, crnn_kernels_f64

cdef extern from "crnn_stream.h" nogil:
    enum:
        CRNN_STREAM_BLOCK
        CRNN_POOL_LAST
        CRNN_POOL_MAX
        CRNN_POOL_MEAN
        CRNN_AS_ARRAYS
        CRNN_BF16
        CRNN_INT8
        CRNN_INT4

    ctypedef struct crnn_layer_weights:
        int cell
        crnn_dim hidden_size
        const void *W_xh
        const void *b_h
        const void *W_hh
        const void *vectors[8]  # CRNN_CELL_VECTORS
        const void *h0
        const void *c0
        int W_xh_format
        int W_hh_format

    ctypedef struct crnn_tail_weights:
        crnn_dim size, projection_size
        const void *W_hp
        const void *W_py
        int W_hp_format, W_py_format

    ctypedef struct crnn_model_config:
        crnn_dim input_size, num_layers
        const crnn_layer_weights *layers
        crnn_dim embedding_size
        const void *embedding
        crnn_dim output_size
        const void *W_hy
        const void *b_y
        int W_hy_format
        int tie_weights
        int pooling
        const double *x_mean
        const double *x_std
        const double *y_mean
        const double *y_std
        crnn_dim y_columns
        crnn_dim num_tails
        const crnn_tail_weights *tails
        int dense_layers

    ctypedef struct crnn_model:
        pass
    ctypedef struct crnn_streams:
        pass

    size_t crnn_model_size(const crnn_model_config *config, const crnn_kernels_f32 *kernels)
    size_t crnn_model_size_f64(const crnn_model_config *config, const crnn_kernels_f64 *kernels)
    crnn_model *crnn_model_init(void *memory, const crnn_model_config *config, const crnn_kernels_f32 *kernels)
    crnn_model *crnn_model_init_f64(void *memory, const crnn_model_config *config, const crnn_kernels_f64 *kernels)
    int crnn_model_equals(const crnn_model *model, const crnn_model_config *config)
    int crnn_model_unpack(const crnn_model *model, const crnn_model_config *config)
    crnn_dim crnn_model_input_size(const crnn_model *model)
    crnn_dim crnn_model_output_size(const crnn_model *model)
    crnn_dim crnn_model_state_size(const crnn_model *model)
    int crnn_model_takes_ids_only(const crnn_model *model)
    int crnn_model_standardises(const crnn_model *model)
    crnn_dim crnn_model_first_not_finite(const crnn_model *model, const void *x, crnn_dim n)
    size_t crnn_streams_size(const crnn_model *model, crnn_dim N, crnn_dim block)
    crnn_streams *crnn_streams_init(void *memory, const crnn_model *model, crnn_dim N, crnn_dim block)
    void crnn_streams_step(crnn_streams *streams, void *y, const void *x, const int32_t *rows, crnn_dim M)
    int crnn_streams_try_step(crnn_streams *streams, void *y, const void *x)
    void crnn_streams_step_ids(crnn_streams *streams, void *y, const int32_t *ids, const int32_t *rows, crnn_dim M)
    void crnn_streams_run(crnn_streams *streams, void *ys, const void *xs, crnn_dim T, crnn_dim row)
    void crnn_streams_run_ids(crnn_streams *streams, void *ys, const int32_t *ids, crnn_dim T, crnn_dim row)
    void crnn_streams_reset(crnn_streams *streams, const int32_t *rows, crnn_dim M)
    void crnn_streams_get_state(const crnn_streams *streams, void *state, crnn_dim row)
    void crnn_streams_set_state(crnn_streams *streams, const void *state, crnn_dim row)
    void crnn_streams_copy(crnn_streams *streams, crnn_dim row, const crnn_streams *from_, crnn_dim from_row)


@cython.final
cdef class StreamWeights:
    cdef object __weakref__
    cdef crnn_model *model
    cdef void *memory
    cdef readonly Py_ssize_t nbytes, input_size, output_size
    cdef readonly str isa, dtype, io_dtype
    cdef int real, io_real      # NumPy's type numbers of the dtypes
    cdef Py_ssize_t step_bytes  # bytes of weights that a step reads
    cdef Py_ssize_t state_size
    cdef bint ids_only, has_c, log_probabilities  # the last: what the outputs of an adaptive softmax are
    cdef list sizes             # H of each layer
    cdef object pooling         # that of StreamParts
    cdef object shapes          # StreamParts with shapes instead of arrays
    cdef str describe(self)
    cdef object one_input(self, x)
    cdef object many_inputs(self, str name, x, str letter)
    cdef int need_finite(self, str name, const void *x, Py_ssize_t n) except -1
    cdef int refuse(self, str name, const void *x, Py_ssize_t i, bint several) except -1
    cdef cnp.ndarray new_outputs(self, Py_ssize_t rows)
    cdef int addresses(self, out, str name, cnp.ndarray x, Py_ssize_t M, void **y_, const void **x_) except -1
    cdef object states_of(self, const crnn_streams *streams, const int32_t *rows, Py_ssize_t M)
    cdef cnp.ndarray flat_states(self, str name, value, Py_ssize_t M, bint finite=*)


@cython.final
cdef class Stream:
    cdef object __weakref__
    cdef readonly StreamWeights weights
    cdef crnn_streams *streams
    cdef void *memory
    cdef Py_ssize_t block  # steps that share a pass through the weights
    cdef bint large        # whether the memory is more than a stream keeps between calls of `run`
    cdef int busy
    cdef bint releases     # whether a step releases the GIL; then it copies its arguments to
    cdef void *inputs      # (input_size)
    cdef void *outputs     # (output_size)
    cdef void *step_memory # which holds both
    cdef int resize(self, Py_ssize_t block) except -1
    cdef int free_scratch(self) except -1
    cdef int advance(self, void *y, const void *x, int32_t id) noexcept nogil
    cdef int advance_without_gil(self, void *y, const void *x, int32_t id, out) except? -3

    # One step: y (output_size) is OVERWRITTEN, x (input_size). Returns 0, or a negative number and does nothing:
    # -2 if x is not finite; -1 if another thread is using this stream, the model accepts ids only, the id is out of
    # range, or `weights.io_dtype` differs: float32 for step_into and step_id_into, float64 (float64 models, and models
    # that standardise) for the other two.
    cdef int step_into(self, float *y, const float *x) noexcept nogil
    cdef int step_into_f64(self, double *y, const double *x) noexcept nogil
    cdef int step_id_into(self, float *y, int32_t id) noexcept nogil
    cdef int step_id_into_f64(self, double *y, int32_t id) noexcept nogil
    cdef int step_checked(self, void *y, const void *x, int real) noexcept nogil
    cdef void state_into(self, void *state) noexcept nogil        # (state_size) OUT: h of all layers, then c
    cdef void state_from(self, const void *state) noexcept nogil  # IN


# ---- for crnn's other streams ------------------------------------------------------------------------------------------

cdef Py_ssize_t RELEASE_BYTES
cdef void *aligned(void *memory) noexcept
cdef void *new_memory(size_t size) except NULL
cdef int acquire(int *flag, str what) except -1
cdef void release(int *flag) noexcept
cdef str described(x)
cdef object as_array(str name, x)
cdef object pins_of(cnp.ndarray x, out)

# The functions of crnn_stream.h, which only stream.pyx links: a second copy would be 25 KB of a wheel.
cdef size_t streams_size(const crnn_model *model, crnn_dim N, crnn_dim block) noexcept nogil
cdef crnn_streams *streams_init(void *memory, const crnn_model *model, crnn_dim N, crnn_dim block) noexcept nogil
cdef void streams_step(crnn_streams *streams, void *y, const void *x, const int32_t *rows, crnn_dim M) noexcept nogil
cdef void streams_step_ids(crnn_streams *streams, void *y, const int32_t *ids, const int32_t *rows,
                           crnn_dim M) noexcept nogil
cdef void streams_reset(crnn_streams *streams, const int32_t *rows, crnn_dim M) noexcept nogil
cdef void streams_set_state(crnn_streams *streams, const void *state, crnn_dim row) noexcept nogil
cdef void streams_copy(crnn_streams *streams, crnn_dim row, const crnn_streams *from_, crnn_dim from_row) noexcept nogil
