from numpy import float64, floating, int32
from numpy.typing import NDArray

from crnn._core.rows import Lengths

Real = NDArray[floating]

SQUARED: int
ABSOLUTE: int
HUBER: int
QUANTILE: int

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
def sigmoid_cross_entropy(
    loss: Real,
    dlogits: Real | None,
    logits: Real,
    targets: Real,
    scale: float,
    b0: int,
    b1: int,
    lengths: Lengths | None = None,
    pos_weights: Real | None = None,
) -> None: ...
def regression_loss(
    loss: Real,
    dy: Real | None,
    y: Real,
    targets: Real,
    kind: int,
    parameters: Real | None,
    scale: float,
    b0: int,
    b1: int,
    lengths: Lengths | None = None,
) -> None: ...
def softmax(p: Real, logits: Real) -> None: ...
def sum(x: Real) -> float: ...
def sum_of_squares(x: Real) -> float: ...
def column_sums(sums: NDArray[float64], counts: NDArray[float64], x: Real) -> None: ...
def column_squares(squares: NDArray[float64], x: Real, means: NDArray[float64]) -> None: ...
