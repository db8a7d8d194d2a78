# SPDX-License-Identifier: MIT
"""An entry of the list of cells, as Python sees it."""

from typing import NamedTuple


class CellInfo(NamedTuple):
    """What a cell is: struct crnn_cell in src_c/crnn.h says what the fields mean."""

    name: str
    gates: int
    gate_names: str
    candidate: int
    has_c: bool
    recurrent_gates: int
    packed_gates: int
    vectors: tuple[str, ...]
    arrays: frozenset[str]  # the arrays of crnn_layer that not every cell has
