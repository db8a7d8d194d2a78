# SPDX-License-Identifier: MIT
"""Mixer: codes windows of symbols, predicted by a network and from what followed the same bytes before.

src_c/text/mixing.h defines the arithmetic.
"""

cimport cython
cimport numpy as cnp
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from libc.stdint cimport int16_t, int32_t, uint8_t, uint32_t
from crnn._core.arrays cimport data, dim
from crnn._core.coder cimport (
    CRNN_MOST_SYMBOLS, Decoder, Encoder, crnn_bytes_decoded, crnn_frequencies, crnn_range_coder,
)
from crnn._core.dispatch cimport f32
from crnn.stream.stream cimport Stream, StreamWeights, acquire, release

import numpy as np

cnp.import_array()

cdef extern from "text/mixing.h" nogil:
    enum:
        MIX_SETS
        MIX_INPUTS
        MIX_STEPS
        MIX_NODES
        MIX_MOST_BYTES
    const int32_t *MIX_CHOICES

    ctypedef struct crnn_mixer_bits:
        int lines, history, positions

    ctypedef struct crnn_mixer:
        crnn_mixer_bits bits
        uint8_t *table
        uint8_t *past
        uint32_t *positions
        int16_t *direct[2]
        int16_t *refinement[2]
        int32_t *weights[3]
        int32_t *final
        uint32_t *followers

    void crnn_mixer_begin(crnn_mixer *mixer, const uint8_t *alphabet, int V, bint trained)
    int crnn_mixer_code(crnn_mixer *mixer, crnn_range_coder *coder, const uint32_t *frequencies, int symbol)


@cython.final
cdef class Mixer:
    """What has been learnt of one content. One thread at a time.

    Parameters
    ----------
    alphabet : bytes
        The values of the symbols, rising; from 2 to 256.
    size : int
        Symbols of the content: how large the tables are.
    trained : bool
        Whether the network knows similar contents: it then counts for more at the beginning.
    """
    cdef crnn_mixer *mixer
    cdef void *memory
    cdef readonly Py_ssize_t nbytes
    cdef Py_ssize_t V
    cdef int busy

    def __cinit__(self, bytes alphabet not None, Py_ssize_t size, bint trained=False):
        cdef int bits = max(12, (max(size, 1) - 1).bit_length())
        cdef crnn_mixer_bits sizes
        cdef size_t at = 0
        cdef int i
        self.V = len(alphabet)
        if not 2 <= self.V <= CRNN_MOST_SYMBOLS or sorted(set(alphabet)) != list(alphabet):
            raise ValueError(f"alphabet: expected from 2 to {CRNN_MOST_SYMBOLS} rising bytes, got {alphabet!r:.80}")
        sizes.lines, sizes.history, sizes.positions = min(bits + 3, 22), min(bits, 24), min(bits, 22)
        lengths = [  # in bytes; the largest alignment first
            sizeof(crnn_mixer), <size_t>MIX_NODES << sizes.lines, <size_t>4 << sizes.positions, 4 << 16,
            4 * 256 * MIX_SETS,
            *(4 * MIX_INPUTS * MIX_CHOICES[i] for i in range(MIX_SETS)), 2 << 16, 2 << 20, (2 << 16) * MIX_STEPS,
            (2 << 16) * MIX_STEPS, <size_t>1 << sizes.history,
        ]
        starts = []
        for length in lengths:
            starts.append(at)
            at += (<size_t>length + 63) // 64 * 64
        self.nbytes = at
        self.memory = PyMem_RawCalloc(1, at + 64)
        if self.memory == NULL:
            raise MemoryError(f"cannot have {at} bytes for the tables of an archive")
        places = iter(starts)
        cdef char *base = <char *>((<size_t>self.memory + 63) // 64 * 64)
        self.mixer = <crnn_mixer *>(base + <size_t>next(places))
        self.mixer.bits = sizes
        self.mixer.table = <uint8_t *>(base + <size_t>next(places))
        self.mixer.positions = <uint32_t *>(base + <size_t>next(places))
        self.mixer.followers = <uint32_t *>(base + <size_t>next(places))
        self.mixer.final = <int32_t *>(base + <size_t>next(places))
        for i in range(MIX_SETS):
            self.mixer.weights[i] = <int32_t *>(base + <size_t>next(places))
        for i in range(2):
            self.mixer.direct[i] = <int16_t *>(base + <size_t>next(places))
        for i in range(2):
            self.mixer.refinement[i] = <int16_t *>(base + <size_t>next(places))
        self.mixer.past = <uint8_t *>(base + <size_t>next(places))
        crnn_mixer_begin(self.mixer, alphabet, <int>self.V, trained)

    def __dealloc__(self):
        PyMem_RawFree(self.memory)

    def encode(self, encoder: Encoder, stream: Stream, before: int, symbols: Ids, states: Real, steps: int) -> bool:
        """Write the symbols of a window, and learn them; True.

        stream: of the network, IN and OUT;  before: what it reads first;  symbols (T,) IN;  states (ceil(T/steps), S)
        OUT: the stream's before the steps 0, ``steps``, 2 ``steps`` ...
        """
        cdef Encoder of = encoder
        with cython.critical_section(of):
            of.reserve(dim(symbols, 0) * MIX_MOST_BYTES)
            return self.run(&of.coder, stream, before, symbols, states, steps, True)

    def decode(self, decoder: Decoder, stream: Stream, before: int, symbols: Ids, states: Real, steps: int) -> bool:
        """Read the symbols (T,) OUT of a window, otherwise as `encode`. False where no encoder wrote the bytes."""
        cdef Decoder of = decoder
        with cython.critical_section(of):
            return (self.run(&of.coder, stream, before, symbols, states, steps, False)
                    and crnn_bytes_decoded(&of.coder) <= of.coder.size)

    cdef bint run(self, crnn_range_coder *coder, Stream stream, int before, symbols, states, Py_ssize_t steps,
                  bint writes) except -1:
        cdef Py_ssize_t T = dim(symbols, 0), size = stream.weights.state_size, t
        cdef int32_t *symbols_ = <int32_t *>data("symbols", symbols, cnp.NPY_INT32, not writes, 1, T)
        cdef float *states_
        cdef float[CRNN_MOST_SYMBOLS] p
        cdef uint32_t[CRNN_MOST_SYMBOLS] frequencies
        cdef int symbol = before
        if steps < 1:
            raise ValueError(f"steps: expected at least 1, got {steps}")
        if stream.weights.output_size != self.V or stream.weights.real != cnp.NPY_FLOAT32:
            raise ValueError(f"stream: expected one of {self.V} outputs in float32, got {stream!r}")
        if not 0 <= before < self.V or writes and T and not 0 <= symbols.min() <= symbols.max() < self.V:
            raise ValueError(f"symbols: expected from 0 to {self.V - 1}")
        states_ = <float *>data("states", states, cnp.NPY_FLOAT32, True, 2, (T + steps - 1) // steps, size)
        acquire(&self.busy, "mixer")
        with nogil:
            for t in range(T):
                if t % steps == 0:
                    stream.state_into(states_ + t // steps * size)
                if stream.step_id_into(p, symbol) < 0:
                    symbol = -1
                    break
                f32.softmax(p, p, 1, self.V)
                crnn_frequencies(frequencies, p, self.V)
                symbol = crnn_mixer_code(self.mixer, coder, frequencies, symbols_[t] if writes else -1)
                if symbol < 0:
                    break
                symbols_[t] = symbol
        release(&self.busy)
        return symbol >= 0


def continued(stream: Stream, weights: StreamWeights) -> Stream:
    """A stream of other weights, of the same network, in the state of ``stream``."""
    cdef Stream after = Stream(weights), of = stream
    cdef cnp.ndarray state = np.empty(of.weights.state_size, np.float32)
    if of.weights.state_size != after.weights.state_size or of.weights.real != after.weights.real:
        raise ValueError(f"weights: expected those of the network of {stream!r}, got {weights!r}")
    of.state_into(cnp.PyArray_DATA(state))
    after.state_from(cnp.PyArray_DATA(state))
    return after
