from numpy import floating, int32
from numpy.typing import NDArray

from crnn._core.rows import Lengths

Real = NDArray[floating]

def softmax_cross_entropy(
    loss: Real,
    dlogits: Real | None,
    logits: Real,
    targets: NDArray[int32],
    scale: float,
    ignore: int,
    b0: int,
    b1: int,
    lengths: Lengths | None = None,
    weights: Real | None = None,
    smoothing: float = 0.0,
) -> None: ...
def softmax(p: Real, logits: Real) -> None: ...
def sum(x: Real) -> float: ...
def sum_of_squares(x: Real) -> float: ...
