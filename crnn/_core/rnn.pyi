from numpy import floating, int32
from numpy.typing import NDArray

from crnn._core.gemm import Packed

Real = NDArray[floating]
TANH: int
RELU: int

def rnn_forward(
    h: Real, xw: Real, ids: NDArray[int32] | None, h0: Real, w_hh: Packed, act: int, b0: int, b1: int
) -> None: ...
def rnn_backward(da: Real, dh0: Real, h: Real, w_hh_t: Packed, act: int, b0: int, b1: int) -> None: ...
