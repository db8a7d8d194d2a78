# SPDX-License-Identifier: MIT
"""The recurrent cells through time and back: one direction of one layer, for the batch rows b0 .. b1.

Every array is float32 or float64, all of one call the same, and C-contiguous. `reverse`: from each sequence's last step
to its first; "before" then is the step after. `lengths`: see `crnn._core.rows`. `mask` (B, H): what h is multiplied by
before it enters a product with W_hh; then h_masked (T, B, H) OUT is h * mask, h0_masked (B, H) IN is h0 * mask, and
backward takes dh_masked (B, H) as scratch. The cells' equations stand in src_c/{rnn,lstm,gru}.body.h.
"""

cimport numpy as cnp
from crnn._core.arrays cimport data, dim, ids_data, need_apart, need_ids_below, real_kind
from crnn._core.dispatch cimport f32, f64
from crnn._core.header cimport CRNN_RELU, CRNN_TANH, crnn_layer
from crnn._core.gemm cimport Packed, packed_data
from crnn._core.rows cimport rows_of

cnp.import_array()

TANH, RELU = CRNN_TANH, CRNN_RELU


cdef class Layer:
    """What a call's arguments say, checked, as the C struct; and which arrays are written and which only read."""
    cdef crnn_layer c
    cdef int kind
    cdef Py_ssize_t T, B, H
    cdef list written, read

    def __cinit__(self, str name, first, Py_ssize_t b0, Py_ssize_t b1, lengths, bint reverse):
        """`first`: the array (T, B, H), called `name`, that the other shapes follow from."""
        self.kind = real_kind(name, first)
        self.T, self.B, self.H = dim(first, 0), dim(first, 1), dim(first, 2)
        self.c.rows = rows_of(self.T, self.B, b0, b1, lengths)
        self.c.H, self.c.reverse = self.H, reverse
        self.written, self.read = [], []

    cdef void *steps(self, str name, array, bint out, Py_ssize_t gates=1) except NULL:
        """Data of an array (T, B, gates * H)."""
        cdef void *address = data(name, array, self.kind, out, 3, self.T, self.B, gates * self.H)
        (self.written if out else self.read).append((name, array))
        return address

    cdef void *state(self, str name, array, bint out=False) except NULL:
        """Data of an array (B, H)."""
        cdef void *address = data(name, array, self.kind, out, 2, self.B, self.H)
        (self.written if out else self.read).append((name, array))
        return address

    cdef void *packed(self, str name, Packed w, Py_ssize_t K_blocks=1, Py_ssize_t gates=1) except NULL:
        return packed_data(name, w, self.kind, K_blocks * self.H, self.H, gates)

    cdef int input(self, xw, ids, Py_ssize_t gates, in_place) except -1:
        """xw (T, B, gates * H), which may be the array `in_place`; with ids (T, B) a table (V, gates * H)."""
        cdef Py_ssize_t V
        self.c.ids = NULL
        if ids is None:
            self.c.xw = data("xw", xw, self.kind, False, 3, self.T, self.B, gates * self.H)
            if xw is in_place or self.c.xw == cnp.PyArray_DATA(<cnp.ndarray>in_place):
                return 0
        else:
            V = dim(xw, 0)
            self.c.xw = data("xw", xw, self.kind, False, 2, V, gates * self.H)
            self.c.ids = ids_data("ids", ids, 2, self.T, self.B)
            need_ids_below("ids", self.c.ids, self.T * self.B, V, 0)
        self.read.append(("xw", xw))
        return 0

    cdef int forward_mask(self, mask, h_masked, h0_masked) except -1:
        self.c.mask = NULL
        if mask is not None:
            self.c.mask = self.state("mask", mask)
            self.c.h_masked = self.steps("h_masked", h_masked, True)
            self.c.h0_masked = self.state("h0_masked", h0_masked)
        return 0

    cdef int backward_mask(self, mask, dh_masked) except -1:
        self.c.mask = NULL
        if mask is not None:
            self.c.mask = self.state("mask", mask)
            self.c.dh_masked = self.state("dh_masked", dh_masked, True)
        return 0

    cdef bint is_step_of(self, state, steps) except -1:
        """Whether an array (B, H) is one step of an array (T, B, H)."""
        part, whole = <cnp.ndarray>state, <cnp.ndarray>steps
        cdef Py_ssize_t start = <char *>cnp.PyArray_DATA(part) - <char *>cnp.PyArray_DATA(whole)
        cdef Py_ssize_t size = cnp.PyArray_NBYTES(part)
        return size > 0 and 0 <= start < self.T * size and start % size == 0

    cdef int need_apart(self) except -1:
        """Nothing that is written overlaps anything else; only c0 may be a step of c, and da may be gates."""
        cdef Py_ssize_t i, j
        for i in range(len(self.written)):
            name, out = self.written[i]
            for j in range(i + 1, len(self.written)):
                need_apart(name, out, self.written[j][0], self.written[j][1])
            for other_name, other in self.read:
                if not (name == "c" and other_name == "c0" and self.is_step_of(other, out)):
                    need_apart(name, out, other_name, other, name == "da" and other_name == "gates")
        return 0

    cdef bint nothing_to_do(self, bint backward) except -1:
        if backward and self.T == 0:
            raise ValueError("da: expected at least one time step, got 0")
        return self.c.rows.b0 == self.c.rows.b1


cdef int need_activation(int act) except -1:
    if act != CRNN_TANH and act != CRNN_RELU:
        raise ValueError(f"act: expected TANH ({CRNN_TANH}) or RELU ({CRNN_RELU}), got {act}")
    return act


def rnn_forward(h, xw, ids, h0, Packed w_hh not None, int act, Py_ssize_t b0, Py_ssize_t b1, lengths=None,
                bint reverse=False, mask=None, h_masked=None, h0_masked=None):
    """h[t] = act( xw[t] + h' @ W_hh ), h' being h of the step before, h0 at the first.

    h (T, B, H) OUT;  h0 (B, H) IN;  w_hh packed (H, H).
    ids None: xw (T, B, H) IN, may be h.  ids (T, B) IN: row ids[t, b] of the table xw (V, H) IN.
    """
    cdef Layer l = Layer("h", h, b0, b1, lengths, reverse)
    l.c.act = need_activation(act)
    l.c.h = l.steps("h", h, True)
    l.input(xw, ids, 1, h)
    l.c.h0, l.c.w_hh = l.state("h0", h0), l.packed("w_hh", w_hh)
    l.forward_mask(mask, h_masked, h0_masked)
    l.need_apart()
    if l.nothing_to_do(False):
        return
    with nogil:
        (f32.rnn_forward if l.kind == cnp.NPY_FLOAT32 else f64.rnn_forward)(&l.c)


def rnn_backward(da, dh0, h, Packed w_hh_t not None, int act, Py_ssize_t b0, Py_ssize_t b1, lengths=None,
                 bint reverse=False, mask=None, dh_masked=None, dh=None):
    """da[t] = ( dh[t] + da after @ W_hh.T ) * act'(h[t]),  dh0 = da[first] @ W_hh.T.

    da (T, B, H) OUT;  dh0 (B, H) OUT;  h (T, B, H) IN;  w_hh_t is W_hh.T packed (H, H).
    dh (T, B, H) OUT holds what arrives at h when called, the whole gradient at h afterwards; None: da holds it.
    """
    cdef Layer l = Layer("da", da, b0, b1, lengths, reverse)
    l.c.act = need_activation(act)
    l.c.da = l.c.dh = l.steps("da", da, True)
    if dh is not None and dh is not da:
        l.c.dh = l.steps("dh", dh, True)
    l.c.dh0, l.c.h = l.state("dh0", dh0, True), l.steps("h", h, False)
    l.c.w_hh_t = l.packed("w_hh_t", w_hh_t)
    l.backward_mask(mask, dh_masked)
    l.need_apart()
    if l.nothing_to_do(True):
        return
    with nogil:
        (f32.rnn_backward if l.kind == cnp.NPY_FLOAT32 else f64.rnn_backward)(&l.c)


def lstm_forward(h, gates, c, tanh_c, xw, ids, h0, c0, Packed w_hh not None, Py_ssize_t b0, Py_ssize_t b1,
                 lengths=None, bint reverse=False, mask=None, h_masked=None, h0_masked=None):
    """i, f, g, o from xw[t] + h' @ W_hh;  c[t] = f * c' + i * g;  h[t] = o * tanh(c[t]).

    h, c, tanh_c (T, B, H), gates (T, B, 4H) OUT, tanh_c None: no way back, gates of no use;
    h0, c0 (B, H) IN, c0 may be a step of c;
    w_hh packed (H, H) in 4 gates.  ids None: xw (T, B, 4H) IN, may be gates.  ids (T, B) IN: xw (V, 4H) IN is a table.
    """
    cdef Layer l = Layer("h", h, b0, b1, lengths, reverse)
    l.c.h, l.c.gates = l.steps("h", h, True), l.steps("gates", gates, True, 4)
    l.c.c, l.c.tanh_c = l.steps("c", c, True), NULL
    if tanh_c is not None:
        l.c.tanh_c = l.steps("tanh_c", tanh_c, True)
    l.input(xw, ids, 4, gates)
    l.c.h0, l.c.w_hh = l.state("h0", h0), l.packed("w_hh", w_hh, 1, 4)
    l.c.c0 = l.state("c0", c0)
    l.forward_mask(mask, h_masked, h0_masked)
    l.need_apart()
    if l.nothing_to_do(False):
        return
    with nogil:
        (f32.lstm_forward if l.kind == cnp.NPY_FLOAT32 else f64.lstm_forward)(&l.c)


def lstm_backward(da, dh, dc, dh0, gates, c, tanh_c, c0, Packed w_hh_t not None, Py_ssize_t b0, Py_ssize_t b1,
                  lengths=None, bint reverse=False, mask=None, dh_masked=None):
    """The reverse of lstm_forward: gradients at the pre-activations and at the initial state.

    da (T, B, 4H) OUT;  dh (T, B, H) OUT, holds what arrives at h when called, the whole gradient at h afterwards;
    dc (B, H) OUT, holds the gradient at the last c when called, the one at c0 afterwards;  dh0 (B, H) OUT;
    gates, c, tanh_c, c0 IN, from forward (da may be gates);  w_hh_t is W_hh.T packed (4H, H).
    """
    cdef Layer l = Layer("dh", dh, b0, b1, lengths, reverse)
    l.c.dh, l.c.da = l.steps("dh", dh, True), l.steps("da", da, True, 4)
    l.c.dc, l.c.dh0 = l.state("dc", dc, True), l.state("dh0", dh0, True)
    l.c.gates = l.steps("gates", gates, False, 4)
    l.c.c, l.c.tanh_c = l.steps("c", c, False), l.steps("tanh_c", tanh_c, False)
    l.c.c0, l.c.w_hh_t = l.state("c0", c0), l.packed("w_hh_t", w_hh_t, 4)
    l.backward_mask(mask, dh_masked)
    l.need_apart()
    if l.nothing_to_do(True):
        return
    with nogil:
        (f32.lstm_backward if l.kind == cnp.NPY_FLOAT32 else f64.lstm_backward)(&l.c)


def gru_forward(h, gates, hn, xw, ids, h0, Packed w_hh not None, Packed w_hn not None, b_hn, Py_ssize_t b0,
                Py_ssize_t b1, lengths=None, bint reverse=False, mask=None, h_masked=None, h0_masked=None):
    """r, z from xw[t] + h' @ W_hh;  n = tanh( xw[t] + r * (h' @ W_hn + b_hn) );  h[t] = n + z * (h' - n).

    b_hn None: the reset gate acts before the product, n = tanh( xw[t] + (r * h') @ W_hn ).
    h (T, B, H) OUT;  gates (T, B, 3H) OUT;  hn (T, B, H) OUT is h' @ W_hn + b_hn, or r * h';  h0 (B, H) IN;
    b_hn (H,) IN;  w_hh packed (H, H) in 2 gates, r and z;  w_hn packed (H, H).
    ids None: xw (T, B, 3H) IN, may be gates.  ids (T, B) IN: xw (V, 3H) IN is a table.
    """
    cdef Layer l = Layer("h", h, b0, b1, lengths, reverse)
    l.c.reset_after = b_hn is not None
    l.c.h, l.c.gates, l.c.hn = l.steps("h", h, True), l.steps("gates", gates, True, 3), l.steps("hn", hn, True)
    l.input(xw, ids, 3, gates)
    l.c.h0, l.c.w_hh, l.c.w_hn = l.state("h0", h0), l.packed("w_hh", w_hh, 1, 2), l.packed("w_hn", w_hn)
    l.c.b_hn = NULL
    if b_hn is not None:
        l.c.b_hn = data("b_hn", b_hn, l.kind, False, 1, l.H)
        l.read.append(("b_hn", b_hn))
    l.forward_mask(mask, h_masked, h0_masked)
    l.need_apart()
    if l.nothing_to_do(False):
        return
    with nogil:
        (f32.gru_forward if l.kind == cnp.NPY_FLOAT32 else f64.gru_forward)(&l.c)


def gru_backward(da, da_h, dh, dh0, gates, hn, h, h0, Packed w_hh_t not None, Packed w_hn_t, dhn, Py_ssize_t b0,
                 Py_ssize_t b1, lengths=None, bint reverse=False, mask=None, dh_masked=None, h_masked=None,
                 h0_masked=None):
    """The reverse of gru_forward: gradients at the pre-activations and at the initial state.

    da (T, B, 3H) OUT, at x @ W_xh + b_h;  dh (T, B, H) OUT, holds what arrives at h when called, the whole gradient at
    h afterwards;  dh0 (B, H) OUT;  gates, hn, h, h0 IN, from forward.
    da_h (T, B, 3H) OUT, at h' @ W_hh: the reset gate acts after the product; w_hh_t is W_hh.T packed (3H, H), w_hn_t
    and dhn are None. da_h None: it acts before; w_hh_t is the transpose of r's and z's columns packed (2H, H), w_hn_t
    that of n's packed (H, H), dhn (B, H) scratch, and with a mask h_masked and h0_masked IN are forward's.
    """
    cdef Layer l = Layer("dh", dh, b0, b1, lengths, reverse)
    l.c.reset_after = da_h is not None
    l.c.dh, l.c.da, l.c.dh0 = l.steps("dh", dh, True), l.steps("da", da, True, 3), l.state("dh0", dh0, True)
    l.c.gates, l.c.hn = l.steps("gates", gates, False, 3), l.steps("hn", hn, False)
    l.c.h, l.c.h0 = l.steps("h", h, False), l.state("h0", h0)
    l.c.w_hh_t = l.packed("w_hh_t", w_hh_t, 3 if l.c.reset_after else 2)
    l.backward_mask(mask, dh_masked)
    if l.c.reset_after:
        l.c.da_h = l.steps("da_h", da_h, True, 3)
    else:
        l.c.w_hn_t, l.c.dhn = l.packed("w_hn_t", w_hn_t), l.state("dhn", dhn, True)
        if mask is not None:
            l.c.h_masked, l.c.h0_masked = l.steps("h_masked", h_masked, False), l.state("h0_masked", h0_masked)
    l.need_apart()
    if l.nothing_to_do(True):
        return
    with nogil:
        (f32.gru_backward if l.kind == cnp.NPY_FLOAT32 else f64.gru_backward)(&l.c)
