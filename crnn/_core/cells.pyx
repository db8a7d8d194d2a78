# SPDX-License-Identifier: MIT
"""The cells' functions through time and back: one direction of one layer, for the batch rows b0 .. b1.

`forward` and `backward` take the arrays of the C struct crnn_layer by name; FIELDS below says which there are, of which
shape, and whether they are read or written. What they mean, and the cells' equations, stand in src_c/crnn.h and
src_c/cells. An array that is None is as good as not given.
"""

cimport numpy as cnp
from libc.stdint cimport uint64_t
from libc.string cimport memset
from crnn._core.arrays cimport data, dim, ids_data, need_ids_below, real_kind
from crnn._core.dispatch cimport cell_number, f32, f64
from crnn._core.header cimport (
    CRNN_USES_DA_H, CRNN_USES_DHN, CRNN_USES_DVECTORS, CRNN_USES_GATES, CRNN_USES_HN,
    CRNN_USES_SCALES, CRNN_USES_TANH_C, crnn_cell, crnn_layer)
from crnn._core.gemm cimport (
    Packed, crnn_packed, crnn_quantised_of, crnn_tables, packed_data, scratch_for)
from crnn._core.program cimport perform
from crnn._core.rows cimport rows_of

from typing import Any

from crnn._core.cell_info import CellInfo
from crnn._core.gemm import product_scratch

cnp.import_array()

# ---- the list of cells ---------------------------------------------------------------------------------------------

cdef dict ARRAY_FLAGS = {
    "gates": CRNN_USES_GATES, "tanh_c": CRNN_USES_TANH_C, "hn": CRNN_USES_HN, "da_h": CRNN_USES_DA_H,
    "dhn": CRNN_USES_DHN, "dvectors": CRNN_USES_DVECTORS, "scales": CRNN_USES_SCALES}


cdef object info_of(const crnn_cell *cell):
    vectors = []
    while cell.vectors[len(vectors)] != NULL:
        vectors.append(cell.vectors[len(vectors)].decode())
    return CellInfo(cell.name.decode(), cell.gates, cell.gate_names.decode(), cell.candidate, bool(cell.has_c),
                    cell.recurrent_gates, cell.packed_gates, tuple(vectors),
                    frozenset(name for name, flag in ARRAY_FLAGS.items() if cell.arrays & flag))


# ---- the arrays of a layer -------------------------------------------------------------------------------------------

cdef enum:  # shapes
    STEPS           # (T, B, H), packed (1, M, H); likewise GATES, XW and IDS
    GATES           # (T, B, G*H)
    SCALES          # (T, B, G)
    ROWS            # (B, H)
    GATE_ROWS       # (B, G*H)
    VECTOR          # (H,)
    XW              # (T, B, G*H), or with ids a table (V, G*H)
    IDS             # (T, B), int32
    SCRATCH         # bytes
    W_HH            # packed: the first packed_gates of W_hh
    W_HN            # packed: the last recurrent gate of W_hh
    W_HH_T          # packed transpose: all recurrent gates of W_hh, but in a cell with dhn the first packed_gates
    W_HN_T          # packed transpose: the last recurrent gate

cdef enum:  # roles in forward and in backward
    NOT = 0         # not in this pass
    IN = 1
    OUT = 2
    OPTIONAL = 4

cdef enum:  # which cells have an array, besides CRNN_USES_...
    ALL_CELLS = 0
    HAS_C = 1 << 16
    HAS_W_HH = 1 << 17
    HAS_W_HN = 1 << 18
    WITH_MASK = 1 << 19     # cells with a W_hh, in calls with a mask

cdef crnn_layer EXAMPLE           # only its fields' places count
cdef crnn_layer *AT = &EXAMPLE    # &AT.h less AT is where h lies in the struct

# Name, address in the example, shape, role in forward, role in backward, which cells have it. A cell's vectors, IN, and with
# CRNN_USES_DVECTORS their gradients "d" + name, OUT, come on top: see Binding.
cdef list FIELDS = [
    ("h", <Py_ssize_t>&AT.h, STEPS, OUT, IN, ALL_CELLS),
    ("h0", <Py_ssize_t>&AT.h0, ROWS, IN, IN, ALL_CELLS),
    ("xw", <Py_ssize_t>&AT.xw, XW, IN, NOT, ALL_CELLS),
    ("ids", <Py_ssize_t>&AT.ids, IDS, IN | OPTIONAL, NOT, ALL_CELLS),
    ("gates", <Py_ssize_t>&AT.gates, GATES, OUT, IN, CRNN_USES_GATES),
    ("c", <Py_ssize_t>&AT.c, STEPS, OUT, IN, HAS_C),
    ("c0", <Py_ssize_t>&AT.c0, ROWS, IN, IN, HAS_C),
    ("tanh_c", <Py_ssize_t>&AT.tanh_c, STEPS, OUT | OPTIONAL, IN, CRNN_USES_TANH_C),
    ("hn", <Py_ssize_t>&AT.hn, STEPS, OUT, IN, CRNN_USES_HN),
    ("scales", <Py_ssize_t>&AT.scales, SCALES, OUT | OPTIONAL, IN, CRNN_USES_SCALES),
    ("w_hh", <Py_ssize_t>&AT.w_hh, W_HH, IN, NOT, HAS_W_HH),
    ("w_hn", <Py_ssize_t>&AT.w_hn, W_HN, IN, NOT, HAS_W_HN),
    ("scratch", <Py_ssize_t>&AT.scratch, SCRATCH, OUT | OPTIONAL, OUT | OPTIONAL, HAS_W_HH),
    ("mask", <Py_ssize_t>&AT.mask, ROWS, IN | OPTIONAL, IN | OPTIONAL, HAS_W_HH),
    ("h_masked", <Py_ssize_t>&AT.h_masked, STEPS, OUT, IN, WITH_MASK),
    ("h0_masked", <Py_ssize_t>&AT.h0_masked, ROWS, IN, IN, WITH_MASK),
    ("w_hh_t", <Py_ssize_t>&AT.w_hh_t, W_HH_T, NOT, IN, HAS_W_HH),
    ("w_hn_t", <Py_ssize_t>&AT.w_hn_t, W_HN_T, NOT, IN, CRNN_USES_DHN),
    ("dh", <Py_ssize_t>&AT.dh, STEPS, NOT, OUT, ALL_CELLS),
    ("dc", <Py_ssize_t>&AT.dc, ROWS, NOT, OUT, HAS_C),
    ("da", <Py_ssize_t>&AT.da, GATES, NOT, OUT, ALL_CELLS),
    ("da_h", <Py_ssize_t>&AT.da_h, GATES, NOT, OUT, CRNN_USES_DA_H),
    ("dh0", <Py_ssize_t>&AT.dh0, ROWS, NOT, OUT, ALL_CELLS),
    ("dhn", <Py_ssize_t>&AT.dhn, ROWS, NOT, OUT, CRNN_USES_DHN),
    ("dnormal", <Py_ssize_t>&AT.dnormal, GATE_ROWS, NOT, OUT, CRNN_USES_SCALES),
    ("dh_masked", <Py_ssize_t>&AT.dh_masked, ROWS, NOT, OUT, WITH_MASK),
]

cdef enum:
    MOST_FIELDS = 64

cdef struct Field:
    Py_ssize_t offset   # in crnn_layer
    int shape
    bint out
    char which          # for may_share: one of those below, or 0

cdef enum:
    IS_H = 1
    IS_GATES
    IS_XW
    IS_C
    IS_C0
    IS_DH
    IS_DA

cdef dict WHICH = {"h": IS_H, "gates": IS_GATES, "xw": IS_XW, "c": IS_C, "c0": IS_C0, "dh": IS_DH, "da": IS_DA}


cdef class Binding:
    """The arrays that one cell takes in forward, or in backward."""
    cdef int number         # of the cell, in the C list
    cdef crnn_cell cell
    cdef bint backward
    cdef list names
    cdef dict index         # of a name in names and fields
    cdef Field fields[MOST_FIELDS]
    cdef uint64_t needed, needed_with_mask  # sets of indices

    def __cinit__(self, int number, bint backward):
        self.number, self.cell, self.backward = number, f32.cells[number][0], backward
        self.names, self.index = [], {}
        cdef unsigned has = self.cell.arrays
        if self.cell.has_c:
            has |= HAS_C
        if self.cell.recurrent_gates:
            has |= HAS_W_HH | WITH_MASK
        if self.cell.recurrent_gates > self.cell.packed_gates:
            has |= HAS_W_HN
        for name, address, shape, in_forward, in_backward, which in FIELDS:
            if which & has == which:
                self.add(name, address, shape, in_backward if backward else in_forward, which == WITH_MASK)
        for v, name in enumerate(info_of(&self.cell).vectors):
            self.add(name, <Py_ssize_t>&AT.vectors[<int>v], VECTOR, IN)
            if backward and has & CRNN_USES_DVECTORS:
                self.add("d" + name, <Py_ssize_t>&AT.dvectors[<int>v], ROWS, OUT)

    cdef int add(self, str name, Py_ssize_t address, int shape, int role, bint with_mask=False) except -1:
        cdef int i = len(self.names)
        if role == NOT:
            return 0
        self.names.append(name)
        self.index[name] = i
        self.fields[i] = Field(address - <Py_ssize_t>AT, shape, role & OUT != 0, WHICH.get(name, 0))
        if not role & OPTIONAL:
            self.needed_with_mask |= <uint64_t>1 << i
            if not with_mask:
                self.needed |= <uint64_t>1 << i
        return 0


CELLS: dict[str, CellInfo] = {}  # by name
cdef dict FORWARD = {}, BACKWARD = {}  # Bindings by the cell's name


cdef int read_list() except -1:
    cdef int number = 0
    while f32.cells[number] != NULL:
        info = info_of(f32.cells[number])
        CELLS[info.name] = info
        FORWARD[info.name], BACKWARD[info.name] = Binding(number, False), Binding(number, True)
        number += 1
    return 0


read_list()


# ---- a call ------------------------------------------------------------------------------------------------------------

cdef struct Memory:     # of an array
    const char *start
    const char *end
    int index

cdef struct Call:
    crnn_layer layer
    int kind            # NPY_FLOAT32 or NPY_FLOAT64
    Py_ssize_t T, B, H
    uint64_t given      # set of indices
    int count
    Memory arrays[MOST_FIELDS]


cdef int bind(Call *call, Binding binding, int i, array, ids) except -1:
    """Check an array and put its address into the struct."""
    cdef const crnn_cell *cell = &binding.cell
    cdef int shape = binding.fields[i].shape, kind = call.kind
    cdef bint out = binding.fields[i].out
    cdef Py_ssize_t T = call.T, B = call.B, H = call.H
    cdef str name = binding.names[i]
    cdef void *address
    if shape >= W_HH:
        if not isinstance(array, Packed):
            raise TypeError(f"{name}: expected packed weights, got {type(array).__name__}")
        if shape == W_HH:
            address = packed_data(name, array, kind, H, H, cell.packed_gates, True)
        elif shape == W_HH_T:
            address = packed_data(name, array, kind, H * (cell.packed_gates if cell.arrays & CRNN_USES_DHN
                                                          else cell.recurrent_gates), H, 1, True)
        else:
            address = packed_data(name, array, kind, H, H, 1, True)
        if binding.backward and (<Packed>array).is_quantised() and (<Packed>array).precision != "bf16":
            raise ValueError(f"{name}: expected weights in float32 or bf16 in backward, got {(<Packed>array).precision}")
    else:
        if shape == STEPS:
            address = data(name, array, kind, out, 3, T, B, H)
        elif shape == GATES or (shape == XW and ids is None):
            address = data(name, array, kind, out, 3, T, B, cell.gates * H)
        elif shape == XW:
            address = data(name, array, kind, out, 2, -1, cell.gates * H)
        elif shape == SCALES:
            address = data(name, array, kind, out, 3, T, B, cell.gates)
        elif shape == GATE_ROWS:
            address = data(name, array, kind, out, 2, call.layer.rows.B, cell.gates * H)
        elif shape == ROWS:
            address = data(name, array, kind, out, 2, call.layer.rows.B, H)
        elif shape == VECTOR:
            address = data(name, array, kind, out, 1, H)
        elif shape == SCRATCH:
            address = data(name, array, cnp.NPY_UINT8, out, 1, -1)
        else:
            address = ids_data(name, array, 2, T, B)
        call.arrays[call.count] = Memory(<char *>address, <char *>address + cnp.PyArray_NBYTES(<cnp.ndarray>array), i)
        call.count += 1
    (<void **>(<char *>&call.layer + binding.fields[i].offset))[0] = address
    call.given |= <uint64_t>1 << i
    return 0


cdef bint may_share(Call *call, Binding binding, const Memory *out, const Memory *other) noexcept:
    """Whether an output may have memory in common with another array: see crnn_layer in src_c/crnn.h."""
    cdef bint same = out.start == other.start and out.end == other.end
    cdef bint has_gates = binding.cell.arrays & CRNN_USES_GATES != 0
    cdef int which = binding.fields[out.index].which, other_which = binding.fields[other.index].which
    if which == IS_C and other_which == IS_C0 and not binding.backward:  # a step of c
        return other.start >= out.start and (other.start - out.start) % (other.end - other.start) == 0
    if other_which == IS_XW:
        return same and call.layer.ids == NULL and which == (IS_GATES if has_gates else IS_H)
    return same and which == IS_DA and other_which == (IS_GATES if has_gates else IS_DH)


cdef int need_apart(Call *call, Binding binding) except -1:
    """No output overlaps another array but where `may_share`."""
    cdef int i, j
    cdef const Memory *a
    cdef const Memory *b
    cdef bint a_out, b_out
    for i in range(call.count):
        a = &call.arrays[i]
        a_out = binding.fields[a.index].out
        for j in range(i):
            b = &call.arrays[j]
            if a.start >= b.end or b.start >= a.end:
                continue
            b_out = binding.fields[b.index].out
            if (a_out or b_out) and not (a_out and may_share(call, binding, a, b)
                                         or b_out and may_share(call, binding, b, a)):
                name, other = binding.names[a.index], binding.names[b.index]
                if not a_out:
                    name, other = other, name
                raise ValueError(f"{name}: expected an array that does not overlap {other}")
    return 0


cdef struct Pass:
    int number      # of the cell
    int kind
    bint backward
    crnn_packed w_hh    # or w_hh_t; its format decides layer.quantised
    crnn_layer layer


cdef void pass_call(const void *arguments) noexcept nogil:
    a = <Pass *>arguments
    cdef crnn_tables kernels = crnn_tables(f32, f64)
    a.layer.quantised = crnn_quantised_of(&a.w_hh, &kernels)  # of the instruction set in use
    cell = (f32.cells if a.kind == cnp.NPY_FLOAT32 else f64.cells)[a.number]
    if a.backward:
        cell.backward(&a.layer)
    else:
        cell.forward(&a.layer)


cdef object set_format(Pass *arguments, dict arrays):
    """Set how the weights are stored, and the scratch for that. Returns the scratch, to be kept alive."""
    cdef str first = "w_hh_t" if arguments.backward else "w_hh", second = "w_hn_t" if arguments.backward else "w_hn"
    cdef Packed w_hh = arrays[first], w_hn = arrays.get(second)
    cdef Py_ssize_t rows = arguments.layer.rows.b1 - arguments.layer.rows.b0
    scratch = arrays.get("scratch")
    if w_hn is not None and w_hn.precision != w_hh.precision:
        raise ValueError(f"{second}: expected weights in {w_hh.precision}, as {first}, got {w_hn.precision}")
    arguments.w_hh = w_hh.matrix
    if scratch is None:
        scratch = product_scratch(w_hh, rows)
    arguments.layer.scratch = scratch_for(w_hh, scratch, rows)
    return scratch


cdef int run(Binding binding, str of_shapes, Py_ssize_t b0, Py_ssize_t b1, lengths, bint reverse,
             dict arrays) except -1:
    """`of_shapes`: the array (T, B, H) that the other shapes and the precision follow from."""
    cdef Call call
    cdef int i
    cdef uint64_t needed
    memset(&call, 0, sizeof(crnn_layer))
    call.given = call.count = 0
    first = arrays.get(of_shapes)
    call.kind = real_kind(of_shapes, first)
    call.T, call.B, call.H = dim(first, 0), dim(first, 1), dim(first, 2)
    call.layer.rows = rows_of(call.T, call.B, b0, b1, lengths)
    call.layer.H, call.layer.reverse = call.H, reverse
    ids = arrays.get("ids")
    for name, array in arrays.items():
        if array is None:
            continue
        index = binding.index.get(name)
        if index is None:
            raise TypeError(f"{binding.cell.name.decode()}'s {'backward' if binding.backward else 'forward'} takes "
                            f"{', '.join(binding.names)}; got {name}")
        bind(&call, binding, index, array, ids)
    needed = binding.needed if call.layer.mask == NULL else binding.needed_with_mask
    if needed & ~call.given:
        for i in range(len(binding.names)):
            if needed & ~call.given & (<uint64_t>1 << i):
                bind(&call, binding, i, None, ids)  # says what is missing
    if ids is not None:
        need_ids_below("ids", call.layer.ids, call.T * call.B, dim(arrays["xw"], 0), 0)
    need_apart(&call, binding)
    if binding.backward and call.T == 0:
        raise ValueError("da: expected at least one time step, got 0")
    if b0 == b1:
        return 0
    cdef Pass arguments
    memset(&arguments, 0, sizeof(arguments))
    arguments.number, arguments.kind, arguments.backward = binding.number, call.kind, binding.backward
    arguments.layer = call.layer
    if binding.cell.recurrent_gates:
        scratch = set_format(&arguments, arrays)  # until the call ends
    return perform(pass_call, &arguments, sizeof(arguments))


cdef Binding binding_of(str cell, dict bindings):
    binding = bindings.get(cell)
    if binding is None:
        cell_number(cell)  # says which there are
    return binding


def forward(str cell not None, dict arrays not None, Py_ssize_t b0, Py_ssize_t b1, lengths=None, bint reverse=False):
    """A cell through time: h, and what `backward` needs, from xw, the state before and the weights.

    Always h (T, B, H) OUT, h0 (B, H) IN, xw (T, B, G*H) IN; with ids (T, B) IN xw is a table (V, G*H). xw may be gates,
    in a cell without gates h. `lengths`: see `crnn._core.rows`. `reverse`: from each sequence's last step to its first.
    """
    run(binding_of(cell, FORWARD), "h", b0, b1, lengths, reverse, arrays)


def backward(str cell not None, dict arrays not None, Py_ssize_t b0, Py_ssize_t b1, lengths=None, bint reverse=False):
    """The reverse of `forward`: gradients at the pre-activations and at the initial state.

    What forward was given and wrote, IN; dh (T, B, H) OUT holds what arrives at h when called and the whole gradient at h
    afterwards; da (T, B, G*H) OUT, may be gates, in a cell without gates dh; dh0 (B, H) OUT; dc (B, H) OUT holds the
    gradient at the last c when called and the one at c0 afterwards. A vector's gradient, where backward gives it, is
    ACCUMULATED by batch row: (B, H) OUT.
    """
    run(binding_of(cell, BACKWARD), "dh", b0, b1, lengths, reverse, arrays)


def argument_names(str cell not None, bint backward) -> dict[str, bool]:
    """The arrays that a cell takes: {name: whether it is written}."""
    cdef Binding binding = binding_of(cell, BACKWARD if backward else FORWARD)
    return {name: bool(binding.fields[i].out) for i, name in enumerate(binding.names)}
