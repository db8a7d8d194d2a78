# SPDX-License-Identifier: MIT
"""For `cimport crnn.stream`: the C functions of crnn_stream.h, and streams without Python in the way.

Compile with ``include_dirs=[crnn.get_include()]``.
"""

cimport cython
cimport numpy as cnp
from libc.stdint cimport int32_t
from crnn._core.header cimport crnn_dim
from crnn._core.kernels cimport crnn_kernels_f32

cdef extern from "crnn_stream.h" nogil:
    enum:
        CRNN_CELL_TANH
        CRNN_CELL_RELU
        CRNN_CELL_LSTM
        CRNN_CELL_GRU
        CRNN_CELL_GRU_ORIGINAL
        CRNN_STREAM_ROWS

    ctypedef struct crnn_layer_weights:
        int cell
        crnn_dim hidden_size
        const float *W_xh
        const float *W_hh
        const float *b_h
        const float *b_hn
        const float *h0
        const float *c0

    ctypedef struct crnn_model_config:
        crnn_dim input_size, num_layers
        const crnn_layer_weights *layers
        crnn_dim embedding_size
        const float *embedding
        crnn_dim output_size
        const float *W_hy
        const float *b_y
        int tied
        const double *x_mean
        const double *x_deviation
        const double *y_mean
        const double *y_deviation
        crnn_dim y_columns

    ctypedef struct crnn_model:
        pass
    ctypedef struct crnn_streams:
        pass

    size_t crnn_model_size(const crnn_model_config *config)
    crnn_model *crnn_model_init(void *memory, const crnn_model_config *config, const crnn_kernels_f32 *kernels)
    crnn_dim crnn_model_input_size(const crnn_model *model)
    crnn_dim crnn_model_output_size(const crnn_model *model)
    crnn_dim crnn_model_state_size(const crnn_model *model)
    int crnn_model_takes_ids_only(const crnn_model *model)
    size_t crnn_streams_size(const crnn_model *model, crnn_dim N, crnn_dim most)
    crnn_streams *crnn_streams_init(void *memory, const crnn_model *model, crnn_dim N, crnn_dim most)
    void crnn_streams_step(crnn_streams *streams, float *y, const float *x, const int32_t *rows, crnn_dim M)
    void crnn_streams_step_ids(crnn_streams *streams, float *y, const int32_t *ids, const int32_t *rows, crnn_dim M)
    void crnn_streams_run(crnn_streams *streams, float *ys, const float *xs, crnn_dim T, crnn_dim row)
    void crnn_streams_run_ids(crnn_streams *streams, float *ys, const int32_t *ids, crnn_dim T, crnn_dim row)
    void crnn_streams_reset(crnn_streams *streams, const int32_t *rows, crnn_dim M)
    void crnn_streams_get_state(const crnn_streams *streams, float *state, crnn_dim row)
    void crnn_streams_set_state(crnn_streams *streams, const float *state, crnn_dim row)
    void crnn_streams_copy(crnn_streams *streams, crnn_dim row, const crnn_streams *from_, crnn_dim from_row)


@cython.final
cdef class StreamWeights:
    cdef object __weakref__
    cdef crnn_model *model
    cdef void *memory
    cdef readonly Py_ssize_t nbytes, input_size, output_size
    cdef Py_ssize_t step_bytes, state_size
    cdef bint ids_only, has_c
    cdef readonly str isa
    cdef object sizes
    cdef object frozen
    cdef str kind
    cdef str describe(self)
    cdef object one_input(self, x)
    cdef object many_inputs(self, str name, x, str letter)
    cdef cnp.ndarray fresh(self, Py_ssize_t rows)
    cdef object state_of(self, const crnn_streams *streams, Py_ssize_t row)
    cdef cnp.ndarray flat_state(self, str name, value)


@cython.final
cdef class Stream:
    cdef readonly StreamWeights weights
    cdef crnn_streams *streams
    cdef void *memory
    cdef Py_ssize_t most
    cdef int busy
    cdef bint releases
    cdef int resize(self, Py_ssize_t most) except -1

    # One step: y (output_size) OVERWRITTEN, x (input_size). Returns 0, or -1, nothing done, if another thread is
    # at work on this stream, the model takes ids only, or the id is out of range.
    cdef int step_into(self, float *y, const float *x) noexcept nogil
    cdef int step_id_into(self, float *y, int32_t id) noexcept nogil


# ---- for crnn's other streams ------------------------------------------------------------------------------------------

cdef Py_ssize_t RELEASE_BYTES
cdef void *aligned(void *memory) noexcept
cdef void *new_memory(size_t size) except NULL
cdef int enter(int *flag, str what) except -1
cdef void leave(int *flag) noexcept
cdef str described(x)
cdef object as_array(str name, x)
