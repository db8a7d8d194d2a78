from typing import NamedTuple

from numpy import floating, int32
from numpy.typing import NDArray

from crnn._core.gemm import Packed
from crnn._core.rows import Lengths

# By their names in the C struct crnn_layer.
Arrays = dict[str, NDArray[floating] | NDArray[int32] | Packed | None]

class CellInfo(NamedTuple):
    name: str
    gates: int
    gate_names: str
    candidate: int
    has_c: bool
    recurrent_gates: int
    packed_gates: int
    vectors: tuple[str, ...]
    arrays: frozenset[str]

CELLS: dict[str, CellInfo]

def forward(
    cell: str, arrays: Arrays, b0: int, b1: int, lengths: Lengths | None = None, reverse: bool = False
) -> None: ...
def backward(
    cell: str, arrays: Arrays, b0: int, b1: int, lengths: Lengths | None = None, reverse: bool = False
) -> None: ...
def argument_names(cell: str, backward: bool) -> dict[str, bool]: ...
