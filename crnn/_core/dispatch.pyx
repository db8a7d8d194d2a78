# SPDX-License-Identifier: MIT
"""Which instruction set the kernels run on, and in which floating-point mode NumPy and Python compute.

``CRNN_ISA`` in the environment chooses an instruction set when crnn is imported. Kernels set the floating-point mode
themselves; `call_in_ieee_mode` is for what is computed around them.
"""

import os

cdef extern from "simd/compat.h" nogil:
    """
    static PER_THREAD int in_ieee_mode; /* how many calls of call_in_ieee_mode are under way */
    static PER_THREAD float_mode host_mode; /* what the first of them found */
    """
    ctypedef unsigned long long float_mode
    float_mode float_mode_get()
    void float_mode_set(float_mode mode)
    float_mode ieee_floats()
    int in_ieee_mode
    float_mode host_mode


def built_isas() -> tuple[str, ...]:
    """Instruction sets compiled into this build, slowest first, whether or not this CPU runs them."""
    return tuple(crnn_isa_name(i).decode() for i in range(crnn_isa_count()) if crnn_isa_built(i))


def available_isas() -> tuple[str, ...]:
    """Instruction sets that are built in and that this CPU and operating system run, slowest first."""
    return tuple(crnn_isa_name(i).decode() for i in range(crnn_isa_count()) if crnn_isa_supported(i))


def isa() -> str:
    """The instruction set in use."""
    return f32.isa.decode()


def use_isa(str name not None):
    """Run all kernels on the instruction set ``name`` from now on. The bits of every result stay the same."""
    global f32, f64
    for i in range(crnn_isa_count()):
        if crnn_isa_name(i).decode() == name and crnn_isa_supported(i):
            f32, f64 = crnn_f32(i), crnn_f64(i)
            return
    raise ValueError(f"instruction set: expected one of {', '.join(available_isas())}, got {name!r}"
                     + (" (built in, but this CPU does not run it)" if name in built_isas() else ""))


cdef int cell_number(str name) except -1:
    cdef int number = crnn_cell_find(name.encode())
    if number < 0:
        names = [crnn_cell_info(i).name.decode() for i in range(crnn_cell_count())]
        raise ValueError(f"cell: expected one of {', '.join(names)}, got {name!r}")
    return number


def call_in_ieee_mode(function, tuple args not None, dict kwargs not None) -> Any:
    """``function(*args, **kwargs)``, rounding to nearest, with denormals and without traps, whatever mode the thread is
    in; that is restored afterwards."""
    global in_ieee_mode, host_mode
    cdef float_mode before = ieee_floats()
    if in_ieee_mode == 0:
        host_mode = before
    in_ieee_mode += 1
    try:
        return function(*args, **kwargs)
    finally:
        in_ieee_mode -= 1
        float_mode_set(before if in_ieee_mode else host_mode)


def call_in_host_mode(function, tuple args not None, dict kwargs not None) -> Any:
    """Within `call_in_ieee_mode`: ``function(*args, **kwargs)``, which belongs to the host, in the host's mode, and in
    the mode that it leaves from then on."""
    global in_ieee_mode, host_mode
    cdef int depth = in_ieee_mode
    cdef float_mode before
    if depth == 0:
        return function(*args, **kwargs)
    before = float_mode_get()
    float_mode_set(host_mode)
    in_ieee_mode = 0
    try:
        return function(*args, **kwargs)
    finally:
        in_ieee_mode, host_mode = depth, float_mode_get()
        float_mode_set(before)


f32 = crnn_f32(crnn_isa_best())
f64 = crnn_f64(crnn_isa_best())
if os.environ.get("CRNN_ISA"):
    try:
        use_isa(os.environ["CRNN_ISA"])
    except ValueError as error:
        raise ImportError(f"CRNN_ISA in the environment: {error}") from None
