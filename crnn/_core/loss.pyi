from numpy import floating, int32
from numpy.typing import NDArray

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
) -> None: ...
def softmax(p: Real, logits: Real) -> None: ...
def sum(x: Real) -> float: ...
def sum_of_squares(x: Real) -> float: ...
