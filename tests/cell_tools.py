# SPDX-License-Identifier: MIT
"""What the tests of the cells' kernels share: one way to call them all, and what the oracle says to the same arrays.

Names are the kernels': see crnn_layer in src_c/crnn.h. Everything lies in the order of time, whatever the direction.
"""

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from kernel_tools import assert_close, assert_same_bits
from numpy.typing import ArrayLike, NDArray
from oracle_cells import cell_backward, cell_forward, concatenated, steps_there, turned_round

from crnn._core import cells, gemm
from crnn._core.rows import Lengths

KINDS = list(cells.CELLS)
GATES = {kind: info.gates for kind, info in cells.CELLS.items()}
GATED = [kind for kind, info in cells.CELLS.items() if "gates" in info.arrays]

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
    info = cells.CELLS[kind]
    given = {
        "xw": rng.normal(0.5, size=(T, B, info.gates * H)),  # so that even a single ReLU opens now and then
        "h0": rng.uniform(-1, 1, size=(B, H)),
    }
    if info.recurrent_gates:
        given["W_hh"] = recurrent_weights(rng, H, info.recurrent_gates)
    if info.has_c:
        given["c0"] = rng.uniform(-2, 2, size=(B, H))
    given |= {name: rng.normal(size=H) for name in info.vectors}
    if masked and info.recurrent_gates:
        given["mask"] = np.where(rng.random((B, H)) < 0.3, 0, 1 / 0.7)
    return {name: arrays.input(value) for name, value in given.items()}


def rows_of(given: Arrays, rows: Any, arrays: Memory) -> Arrays:
    """The same for some rows of the batch only."""
    axis = {"xw": 1, "h0": 0, "c0": 0, "mask": 0}
    pick = {0: (rows,), 1: (slice(None), rows)}
    return {name: arrays.input(a[pick[axis[name]]]) if name in axis else a for name, a in given.items()}


def calls(
    B: int, T: int, lengths: ArrayLike | None, parts: int | Iterable[tuple[int, int]], packed: bool = False
) -> list[dict[str, Any]]:
    """Arguments that deal the batch out: in so many parts, or as listed."""
    steps = np.max(lengths) if packed else T
    dealt = None if lengths is None else Lengths(lengths, steps, parts if isinstance(parts, int) else 1, packed)
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
    packed: bool = False,
    into: Arrays | None = None,
    precision: str | None = None,
) -> Arrays:
    """All that a cell's forward kernel writes. ``into``: arrays to write it to, instead of new ones; ``precision``: of
    the products."""
    h0, info, dtype = given["h0"], cells.CELLS[kind], arrays.dtype
    (B, H), (T, rows) = h0.shape, (given["xw"] if ids is None else ids).shape[:2]
    widths = {"h": H, "gates": info.gates * H, "tanh_c": H, "hn": H, "scales": info.gates}
    names = [name for name in widths if name == "h" or name in info.arrays] + ["c"] * info.has_c
    reads = {name: given.get(name) for name in ("xw", "h0", "mask", *info.vectors)} | {"ids": ids}
    if info.has_c:
        reads["c0"] = given["c0"]
    if "mask" in given:
        names.append("h_masked")
        reads["h0_masked"] = arrays.input(h0 * given["mask"])
    into = into or {}
    out = {name: into[name] if name in into else arrays.output(T, rows, widths.get(name, H)) for name in names}
    if info.recurrent_gates:
        reads["w_hh"] = gemm.Packed(H, H, dtype, info.packed_gates, precision).pack(given["W_hh"], 0)
        reads["scratch"] = gemm.product_scratch(reads["w_hh"], B)
    if info.recurrent_gates > info.packed_gates:
        reads["w_hn"] = gemm.Packed(H, H, dtype, precision=precision).pack(given["W_hh"], info.packed_gates * H)
    for part in calls(B, T, lengths, parts, packed):
        cells.forward(kind, out | reads, **part, reverse=reverse)
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
    packed: bool = False,
    in_place: bool = False,
    precision: str | None = None,
) -> Arrays:
    """All that a cell's backward kernel leaves, after ``kept`` = forward(...).

    ``arrived``: dh (T, B, H) and, for a cell with c, dc (B, H). In what is returned dc is the gradient at c0, and a
    vector's gradient is given by batch row.
    ``in_place``: da replaces a copy of the gates, or, in a cell without gates, what arrived. ``precision``: of the
    products.
    """
    h, info, dtype = kept["h"], cells.CELLS[kind], arrays.dtype
    (T, rows, H), B = h.shape, len(given["h0"])
    out = {"dh": arrays.inout(arrived["dh"]), "da": arrays.output(T, rows, info.gates * H), "dh0": arrays.output(B, H)}
    reads = {name: given.get(name) for name in ("h0", "mask", *info.vectors)} | kept
    unseen = {}  # scratch
    if info.has_c:
        reads["c0"] = given["c0"]
        out["dc"] = arrays.inout(arrived["dc"])
    if "da_h" in info.arrays:
        out["da_h"] = arrays.output(T, rows, info.gates * H)
    if "dvectors" in info.arrays:
        out |= {"d" + name: arrays.inout(np.zeros((B, H))) for name in info.vectors}
    if "mask" in given:
        reads["h0_masked"] = arrays.input(given["h0"] * given["mask"])
        unseen["dh_masked"] = arrays.output(B, H)
    if "scales" in info.arrays:
        unseen["dnormal"] = arrays.output(B, info.gates * H)
    apart = "dhn" in info.arrays
    if apart:
        unseen["dhn"] = arrays.output(B, H)
        w_hn_t = gemm.Packed(H, H, dtype, precision=precision)
        reads["w_hn_t"] = w_hn_t.pack_transposed(given["W_hh"], info.packed_gates * H)
    if info.recurrent_gates:
        blocks = info.packed_gates if apart else info.recurrent_gates
        reads["w_hh_t"] = gemm.Packed(blocks * H, H, dtype, precision=precision).pack_transposed(given["W_hh"], 0)
        unseen["scratch"] = gemm.product_scratch(reads["w_hh_t"], B)
    if in_place and "gates" in info.arrays:
        reads["gates"] = out["da"] = arrays.inout(kept["gates"])
    elif in_place and info.gates == 1:
        out["da"] = out["dh"]
    for part in calls(B, T, lengths, parts, packed):
        cells.backward(kind, unseen | out | reads, **part, reverse=reverse)
    if out["da"] is out["dh"]:
        del out["dh"]
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
    packed: bool = False,
    precision: str | None = None,
) -> None:
    """dw += the gradient of W_hh, after forward and backward."""
    T, (H, N) = len(kept["h"]), dw.shape
    scratch = arrays.output(gemm.grad_scratch(arrays.dtype, len(dw)).size)
    dealt = None if lengths is None else Lengths(lengths, np.max(lengths) if packed else T, 1, packed)
    h, h0 = kept["h"], given["h0"]
    if "mask" in given:
        h, h0 = kept["h_masked"], arrays.input(h0 * given["mask"])
    split = 2 * H if kind == "original_gru" else N  # there n's product has another factor: r * h'
    da_h, of = back.get("da_h", back["da"]), {"precision": precision}
    gemm.recurrent_backward_weight(dw, h, h0, da_h, scratch, reverse, 0, split, dealt, **of)
    if split < N:
        gemm.linear_backward_weight(dw, kept["hn"], back["da"], scratch, split, N, dealt, **of)


# ---- the oracle on the same arrays ---------------------------------------------------------------------------------


def weights_of(given: Arrays) -> Arrays:
    """What of `layer` the oracle calls weights."""
    return {name: a for name, a in given.items() if name not in ("xw", "h0", "c0", "mask")}


def expected_forward(kind: str, given: Arrays, lengths: ArrayLike | None = None, reverse: bool = False) -> Any:
    """What `forward` should give, at the steps that are there, and the oracle's run for `expected_backward`."""
    exact = {name: a.astype("f8") for name, a in given.items()}
    turn = (lambda a: turned_round(a, lengths)) if reverse else (lambda a: a)
    info = cells.CELLS[kind]
    state = (exact["h0"], exact["c0"]) if info.has_c else (exact["h0"],)
    run = cell_forward(kind, turn(exact["xw"]), state, weights_of(exact), lengths=lengths, mask=exact.get("mask"))
    out = {"h": run.h}
    kept = [np.stack(values) for values in zip(*run.kept, strict=True)]
    if "gates" in info.arrays:
        out["gates"] = concatenated(*kept[: info.gates])
    if info.has_c:
        out["c"] = kept[info.gates]
    if "tanh_c" in info.arrays:
        out["tanh_c"] = np.tanh(out["c"])
    if "hn" in info.arrays:
        out["hn"] = kept[info.gates]
    if "scales" in info.arrays:
        out["scales"] = kept[info.gates + 1]
    if "mask" in exact:
        out["h_masked"] = run.h * exact["mask"]
    return {name: turn(a) for name, a in out.items()}, run


def expected_backward(
    kind: str, run: Any, arrived: Arrays, lengths: ArrayLike | None = None, reverse: bool = False
) -> tuple[Arrays, Arrays]:
    """What `backward` should give, but for dh, and the gradients of the weights."""
    turn = (lambda a: turned_round(a, lengths)) if reverse else (lambda a: a)
    dh = arrived["dh"].astype("f8")
    info = cells.CELLS[kind]
    dstate = (np.zeros_like(dh[0]), arrived["dc"].astype("f8")) if info.has_c else None
    da, dstate, grads = cell_backward(run, turn(dh), dstate)
    out = {"da": turn(da), "dh0": dstate[0]}
    if info.has_c:
        out["dc"] = dstate[1]
    if "da_h" in info.arrays:  # a GRU; forward: n = tanh( xw_n + r * hn )
        r = np.stack([kept[0] for kept in run.kept])
        out["da_h"] = turn(concatenated(da[..., : -r.shape[-1]], da[..., -r.shape[-1] :] * r))
    if "dvectors" in info.arrays:
        out |= {"d" + name: grads[name] for name in info.vectors}  # summed over rows
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
        elif mine.ndim > wanted.ndim:
            mine = mine.astype("f8").sum(axis=0).astype(mine.dtype)  # a vector's gradient is given by row
        assert_close(mine, wanted)


def before_a_call(kind: str, name: str, after: NDArray, arrived: Arrays) -> NDArray:
    """What an array that `forward` or `backward` returns held before: what arrived, zero to add to, or NaN."""
    if name in arrived:
        return arrived[name].copy()
    return np.full_like(after, 0 if name.removeprefix("d") in cells.CELLS[kind].vectors else np.nan)


def assert_all_same_bits(got: Arrays, expected: Arrays) -> None:
    assert got.keys() == expected.keys()
    for name in expected:
        assert_same_bits(got[name], expected[name])
