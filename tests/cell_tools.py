# SPDX-License-Identifier: MIT
"""What the tests of the cells' kernels share: one way to call them all, and what the oracle says to the same arrays.

Names are the kernels': in a GRU hn is h' @ W_hn + b_hn, or r * h' if the reset comes before the product; da_h is the
gradient at h' @ W_hh. Everything lies in the order of time, whatever the direction.
"""

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from kernel_tools import assert_close, assert_same_bits
from numpy.typing import ArrayLike, NDArray
from oracle_cells import beside, cell_backward, cell_forward, steps_there, turned_round

from crnn._core import cells, gemm
from crnn._core.rows import Lengths

GATES = {"tanh": 1, "relu": 1, "lstm": 4, "gru": 3, "gru, reset before": 3}
KINDS = list(GATES)
ACTS = {"tanh": cells.TANH, "relu": cells.RELU}

Arrays = dict[str, NDArray]


class Memory(Protocol):
    """Where arrays come from: `Guarded`, or without guards."""

    dtype: np.dtype

    def input(self, values: ArrayLike) -> NDArray: ...
    def inout(self, values: ArrayLike) -> NDArray: ...
    def output(self, *shape: int) -> NDArray: ...


def recurrent_weights(rng: np.random.Generator, H: int, gates: int = 1) -> NDArray:
    """Strong enough that the state matters, weak enough that rounding does not grow."""
    return rng.normal(size=(H, gates * H)) * 0.9 / np.sqrt(H)


def layer(arrays: Memory, rng: np.random.Generator, kind: str, T: int, B: int, H: int, masked: bool = False) -> Arrays:
    """Everything that goes into a cell's forward kernel, drawn at random."""
    gates = GATES[kind]
    given = {
        "xw": rng.normal(0.5, size=(T, B, gates * H)),  # so that even a single ReLU opens now and then
        "h0": rng.uniform(-1, 1, size=(B, H)),
        "W_hh": recurrent_weights(rng, H, gates),
    }
    if kind == "lstm":
        given["c0"] = rng.uniform(-2, 2, size=(B, H))
    if kind == "gru":
        given["b_hn"] = rng.normal(size=H)
    if masked:
        given["mask"] = np.where(rng.random((B, H)) < 0.3, 0, 1 / 0.7)
    return {name: arrays.input(value) for name, value in given.items()}


def rows_of(given: Arrays, rows: Any, arrays: Memory) -> Arrays:
    """The same for some rows of the batch only."""
    axis = {"xw": 1, "h0": 0, "c0": 0, "mask": 0}
    pick = {0: (rows,), 1: (slice(None), rows)}
    return {name: arrays.input(a[pick[axis[name]]]) if name in axis else a for name, a in given.items()}


def calls(B: int, T: int, lengths: ArrayLike | None, parts: int | Iterable[tuple[int, int]]) -> list[dict[str, Any]]:
    """Arguments that deal the batch out: in so many parts, or as listed."""
    dealt = None if lengths is None else Lengths(lengths, T, parts if isinstance(parts, int) else 1)
    if not isinstance(parts, int):
        slices = list(parts)
    elif dealt is None:
        slices = [(part * B // parts, (part + 1) * B // parts) for part in range(parts)]
    else:
        slices = [dealt.part(part) for part in range(parts)]
    return [{"b0": b0, "b1": b1, "lengths": dealt} for b0, b1 in slices]


def forward(
    arrays: Memory,
    kind: str,
    given: Arrays,
    *,
    ids: NDArray | None = None,
    lengths: ArrayLike | None = None,
    parts: int | Iterable[tuple[int, int]] = 1,
    reverse: bool = False,
    into: Arrays | None = None,
) -> Arrays:
    """All that a cell's forward kernel writes. ``into``: arrays to write it to, instead of new ones."""
    xw, h0, w = given["xw"], given["h0"], given["W_hh"]
    (B, H), T, gates, dtype = h0.shape, len(xw) if ids is None else len(ids), GATES[kind], arrays.dtype
    names = {"lstm": ["h", "c", "tanh_c"], "gru": ["h", "hn"], "gru, reset before": ["h", "hn"]}.get(kind, ["h"])
    mask = {}
    if "mask" in given:
        names = [*names, "h_masked"]
        mask = {"mask": given["mask"], "h0_masked": arrays.input(h0 * given["mask"])}
    into = into or {}
    out = {name: into[name] if name in into else arrays.output(T, B, H) for name in names}
    if gates > 1:
        out["gates"] = into["gates"] if "gates" in into else arrays.output(T, B, gates * H)
    if kind in ACTS:
        packed = {"w_hh": gemm.Packed(H, H, dtype).pack(w), "act": ACTS[kind]}
    elif kind == "lstm":
        packed = {"w_hh": gemm.Packed(H, H, dtype, 4).pack(w), "c0": given["c0"]}
    else:
        packed = {"w_hh": gemm.Packed(H, H, dtype, 2).pack(w, 0), "w_hn": gemm.Packed(H, H, dtype).pack(w, 2 * H),
                  "b_hn": given.get("b_hn")}  # fmt: skip
    kernel = {"lstm": cells.lstm_forward}.get(kind, cells.rnn_forward if kind in ACTS else cells.gru_forward)
    for part in calls(B, T, lengths, parts):
        kernel(**out, xw=xw, ids=ids, h0=h0, **packed, **part, reverse=reverse, **mask)
    return out


def backward(
    arrays: Memory,
    kind: str,
    given: Arrays,
    kept: Arrays,
    arrived: Arrays,
    *,
    lengths: ArrayLike | None = None,
    parts: int | Iterable[tuple[int, int]] = 1,
    reverse: bool = False,
    in_place: bool = False,
) -> Arrays:
    """All that a cell's backward kernel leaves, after ``kept`` = forward(...).

    ``arrived``: dh (T, B, H) and, for an LSTM, dc (B, H). In what is returned dc is the gradient at c0.
    ``in_place``: in a plain cell da replaces what arrived, in a gated one a copy of the gates.
    """
    w, h = given["W_hh"], kept["h"]
    (T, B, H), gates, dtype = h.shape, GATES[kind], arrays.dtype
    out = {"dh": arrays.inout(arrived["dh"]), "da": arrays.output(T, B, gates * H), "dh0": arrays.output(B, H)}
    mask, reads = {}, {}
    if "mask" in given:
        mask = {"mask": given["mask"], "dh_masked": arrays.output(B, H)}
    if kind in ACTS:
        kernel = cells.rnn_backward
        if in_place:
            out["da"] = out.pop("dh")
        reads = {"h": h, "act": ACTS[kind], "w_hh_t": gemm.Packed(H, H, dtype).pack_transposed(w)}
    elif kind == "lstm":
        kernel = cells.lstm_backward
        out["dc"] = arrays.inout(arrived["dc"])
        reads = {name: kept[name] for name in ("gates", "c", "tanh_c")}
        reads |= {"c0": given["c0"], "w_hh_t": gemm.Packed(4 * H, H, dtype).pack_transposed(w)}
    else:
        kernel = cells.gru_backward
        reads = {"gates": kept["gates"], "hn": kept["hn"], "h": h, "h0": given["h0"], "da_h": None, "dhn": None}
        if kind == "gru":
            out["da_h"] = arrays.output(T, B, 3 * H)
            del reads["da_h"]
            reads |= {"w_hh_t": gemm.Packed(3 * H, H, dtype).pack_transposed(w), "w_hn_t": None}
        else:
            reads["dhn"] = arrays.output(B, H)
            reads["w_hh_t"] = gemm.Packed(2 * H, H, dtype).pack_transposed(w, 0)
            reads["w_hn_t"] = gemm.Packed(H, H, dtype).pack_transposed(w, 2 * H)
            if mask:
                mask |= {"h_masked": kept["h_masked"], "h0_masked": arrays.input(given["h0"] * given["mask"])}
    if in_place and gates > 1:
        reads["gates"] = out["da"] = arrays.inout(kept["gates"])
    for part in calls(B, T, lengths, parts):
        kernel(**out, **reads, **part, reverse=reverse, **mask)
    return out


def recurrent_gradient(
    arrays: Memory,
    kind: str,
    given: Arrays,
    kept: Arrays,
    back: Arrays,
    dw: NDArray,
    *,
    lengths: ArrayLike | None = None,
    reverse: bool = False,
) -> None:
    """dw += the gradient of W_hh, after forward and backward."""
    T, (H, N) = len(kept["h"]), dw.shape
    scratch = arrays.output(gemm.grad_scratch(arrays.dtype, len(dw)).size)
    dealt = None if lengths is None else Lengths(lengths, T, 1)
    h, h0 = kept["h"], given["h0"]
    if "mask" in given:
        h, h0 = kept["h_masked"], arrays.input(h0 * given["mask"])
    split = 2 * H if kind == "gru, reset before" else N  # there n's product has another factor: r * h'
    gemm.recurrent_backward_weight(dw, h, h0, back.get("da_h", back["da"]), scratch, reverse, 0, split, dealt)
    if split < N:
        gemm.linear_backward_weight(dw, kept["hn"], back["da"], scratch, split, N, dealt)


# ---- the oracle on the same arrays ---------------------------------------------------------------------------------


def expected_forward(kind: str, given: Arrays, lengths: ArrayLike | None = None, reverse: bool = False) -> Any:
    """What `forward` should give, at the steps that are there, and the oracle's run for `expected_backward`."""
    exact = {name: a.astype("f8") for name, a in given.items()}
    turn = (lambda a: turned_round(a, lengths)) if reverse else (lambda a: a)
    state = (exact["h0"], exact["c0"]) if kind == "lstm" else (exact["h0"],)
    weights = {name: exact[name] for name in ("W_hh", "b_hn") if name in exact}
    cell = kind.partition(",")[0]
    run = cell_forward(cell, turn(exact["xw"]), state, weights, lengths=lengths, mask=exact.get("mask"))
    out = {"h": run.h}
    kept = [np.stack(values) for values in zip(*run.kept, strict=True)]
    if kind == "lstm":
        out |= {"gates": beside(*kept[:4]), "c": kept[4], "tanh_c": np.tanh(kept[4])}
    elif cell == "gru":
        out |= {"gates": beside(*kept[:3]), "hn": kept[3]}
    if "mask" in exact:
        out["h_masked"] = run.h * exact["mask"]
    return {name: turn(a) for name, a in out.items()}, run


def expected_backward(
    kind: str, run: Any, arrived: Arrays, lengths: ArrayLike | None = None, reverse: bool = False
) -> tuple[Arrays, Arrays]:
    """What `backward` should give, but for dh, and the gradients of the weights."""
    turn = (lambda a: turned_round(a, lengths)) if reverse else (lambda a: a)
    dh = arrived["dh"].astype("f8")
    dstate = (np.zeros_like(dh[0]), arrived["dc"].astype("f8")) if kind == "lstm" else None
    da, dstate, grads = cell_backward(run, turn(dh), dstate)
    out = {"da": turn(da), "dh0": dstate[0]}
    if kind == "lstm":
        out["dc"] = dstate[1]
    if kind == "gru":  # forward: n = tanh( xw_n + r * hn )
        r = np.stack([kept[0] for kept in run.kept])
        out["da_h"] = turn(beside(da[..., : -r.shape[-1]], da[..., -r.shape[-1] :] * r))
    return out, grads


def assert_agree(got: Arrays, expected: Arrays, lengths: ArrayLike | None = None) -> None:
    """Each array close to the one expected where there are steps, and as it was, NaN, where there are none."""
    assert got.keys() - {"dh"} == expected.keys()
    for name, wanted in expected.items():
        mine = got[name]
        if mine.ndim == 3:
            there = steps_there(*mine.shape[:2], lengths)[..., 0]
            assert np.isnan(mine[~there]).all(), f"{name}: written where there is no step"
            mine, wanted = mine[there], wanted[there]
        assert_close(mine, wanted)


def assert_all_same_bits(got: Arrays, expected: Arrays) -> None:
    assert got.keys() == expected.keys()
    for name in expected:
        assert_same_bits(got[name], expected[name])
