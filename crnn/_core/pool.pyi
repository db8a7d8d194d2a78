from numpy import floating, int32
from numpy.typing import NDArray

from crnn._core.rows import Lengths

Real = NDArray[floating]

def pool_mean_forward(out: Real, h: Real, b0: int, b1: int, lengths: Lengths | None = None) -> None: ...
def pool_mean_backward(dh: Real, dout: Real, b0: int, b1: int, lengths: Lengths | None = None) -> None: ...
def pool_max_forward(
    out: Real, which: NDArray[int32], h: Real, b0: int, b1: int, lengths: Lengths | None = None
) -> None: ...
def pool_max_backward(
    dh: Real, dout: Real, which: NDArray[int32], b0: int, b1: int, lengths: Lengths | None = None
) -> None: ...
