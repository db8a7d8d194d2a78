# SPDX-License-Identifier: MIT
"""Which instruction set the kernels run on. ``CRNN_ISA`` in the environment chooses one when crnn is imported."""

import os


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


f32 = crnn_f32(crnn_isa_best())
f64 = crnn_f64(crnn_isa_best())
if os.environ.get("CRNN_ISA"):
    try:
        use_isa(os.environ["CRNN_ISA"])
    except ValueError as error:
        raise ImportError(f"CRNN_ISA in the environment: {error}") from None
