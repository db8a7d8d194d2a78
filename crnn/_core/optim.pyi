from numpy import floating
from numpy.typing import NDArray

Real = NDArray[floating]

def scale(x: Real, factor: float) -> None: ...
def clip(x: Real, limit: float) -> None: ...
def sgd(
    w: Real,
    velocity: Real | None,
    g: Real,
    factor: float,
    lr: float,
    momentum: float,
    weight_decay: float,
    nesterov: bool,
) -> None: ...
def adagrad(w: Real, square_sum: Real, g: Real, factor: float, lr: float, eps: float, weight_decay: float) -> None: ...
def rmsprop(
    w: Real,
    square_avg: Real,
    velocity: Real | None,
    g: Real,
    factor: float,
    lr: float,
    alpha: float,
    eps: float,
    momentum: float,
    weight_decay: float,
) -> None: ...
def adam(
    w: Real,
    m: Real,
    v: Real,
    g: Real,
    factor: float,
    step_size: float,
    beta1: float,
    beta2: float,
    root_correction: float,
    eps: float,
    weight_decay: float,
    decoupled_decay: float,
) -> None: ...
