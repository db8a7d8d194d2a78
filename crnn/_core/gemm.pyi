from collections.abc import Sequence
from typing import Any

from numpy import floating, int32
from numpy.typing import DTypeLike, NDArray

from crnn._core.rows import Lengths

Real = NDArray[floating]
LINE_BYTES: int

class Packed:
    K: int
    N: int
    gates: int
    def __init__(self, K: int, N: int, dtype: DTypeLike, gates: int = 1) -> None: ...
    def pack(self, w: Real, first: int | None = None) -> Packed: ...
    def pack_transposed(self, w: Real, first: int | None = None) -> Packed: ...

def aligned_empty(shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]: ...
def line_width(dtype: DTypeLike) -> int: ...
def grad_scratch(dtype: DTypeLike, K: int) -> NDArray[Any]: ...
def linear_forward(
    y: Real, x: Real, w: Packed, bias: Real | None, b0: int, b1: int, lengths: Lengths | None = None
) -> None: ...
def linear_backward_weight(
    dw: Real,
    x: Real,
    dy: Real,
    scratch: Real,
    n0: int,
    n1: int,
    lengths: Lengths | None = None,
    db: Real | None = None,
) -> None: ...
def recurrent_backward_weight(
    dw: Real,
    h: Real,
    h0: Real,
    da: Real,
    scratch: Real,
    reverse: bool,
    n0: int,
    n1: int,
    lengths: Lengths | None = None,
    db: Real | None = None,
) -> None: ...
def bias_backward(db: Real, dy: Real, n0: int, n1: int, lengths: Lengths | None = None) -> None: ...
def rows_add_bias(y: Real, w: Real, bias: Real) -> None: ...
def rows_backward(
    dw: Real, ids: NDArray[int32], dy: Real, n0: int, n1: int, lengths: Lengths | None = None
) -> None: ...
def need_ids(name: str, ids: NDArray[int32], limit: int) -> None: ...
def orthonormalize(q: Real) -> int: ...
