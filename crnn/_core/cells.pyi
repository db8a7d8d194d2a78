# SPDX-License-Identifier: MIT
from numpy import floating, int32
from numpy.typing import NDArray

from crnn._core.gemm import Packed
from crnn._core.rows import Lengths

Real = NDArray[floating]
Ids = NDArray[int32]
TANH: int
RELU: int

def rnn_forward(
    h: Real,
    xw: Real,
    ids: Ids | None,
    h0: Real,
    w_hh: Packed,
    act: int,
    b0: int,
    b1: int,
    lengths: Lengths | None = None,
    reverse: bool = False,
    mask: Real | None = None,
    h_masked: Real | None = None,
    h0_masked: Real | None = None,
) -> None: ...
def rnn_backward(
    da: Real,
    dh0: Real,
    h: Real,
    w_hh_t: Packed,
    act: int,
    b0: int,
    b1: int,
    lengths: Lengths | None = None,
    reverse: bool = False,
    mask: Real | None = None,
    dh_masked: Real | None = None,
    dh: Real | None = None,
) -> None: ...
def lstm_forward(
    h: Real,
    gates: Real,
    c: Real,
    tanh_c: Real | None,
    xw: Real,
    ids: Ids | None,
    h0: Real,
    c0: Real,
    w_hh: Packed,
    b0: int,
    b1: int,
    lengths: Lengths | None = None,
    reverse: bool = False,
    mask: Real | None = None,
    h_masked: Real | None = None,
    h0_masked: Real | None = None,
) -> None: ...
def lstm_backward(
    da: Real,
    dh: Real,
    dc: Real,
    dh0: Real,
    gates: Real,
    c: Real,
    tanh_c: Real,
    c0: Real,
    w_hh_t: Packed,
    b0: int,
    b1: int,
    lengths: Lengths | None = None,
    reverse: bool = False,
    mask: Real | None = None,
    dh_masked: Real | None = None,
) -> None: ...
def gru_forward(
    h: Real,
    gates: Real,
    hn: Real,
    xw: Real,
    ids: Ids | None,
    h0: Real,
    w_hh: Packed,
    w_hn: Packed,
    b_hn: Real | None,
    b0: int,
    b1: int,
    lengths: Lengths | None = None,
    reverse: bool = False,
    mask: Real | None = None,
    h_masked: Real | None = None,
    h0_masked: Real | None = None,
) -> None: ...
def gru_backward(
    da: Real,
    da_h: Real | None,
    dh: Real,
    dh0: Real,
    gates: Real,
    hn: Real,
    h: Real,
    h0: Real,
    w_hh_t: Packed,
    w_hn_t: Packed | None,
    dhn: Real | None,
    b0: int,
    b1: int,
    lengths: Lengths | None = None,
    reverse: bool = False,
    mask: Real | None = None,
    dh_masked: Real | None = None,
    h_masked: Real | None = None,
    h0_masked: Real | None = None,
) -> None: ...
