# SPDX-License-Identifier: MIT
"""What holds for every kernel: the same bits on every instruction set; denormals are zero inside, not after."""

from collections.abc import Callable

import cell_tools
import numpy as np
import pytest
from cell_tools import GATES
from kernel_tools import SPECIAL, assert_same_bits
from numpy.typing import NDArray

from crnn._core import cells, dispatch, gemm, loss, optim, pool, rows, vecmath

T, B, K, N, V = 3, 13, 17, 83, 37
IDS = np.random.default_rng(5).integers(V, size=(T, B), dtype=np.int32)
LENGTHS = rows.Lengths(np.arange(B) % T + 1, T, 1)

Make = Callable[..., NDArray]  # make(3, 2) draws an array of that shape
Results = list[NDArray]


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray:
    return rng.normal(size=shape)


def with_specials(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray:
    """One element in 40, so that most sums stay numbers."""
    return np.where(rng.random(shape) < 1 / 40, rng.choice(SPECIAL, shape), rng.normal(size=shape))


def denormal(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray:
    """In units of the smallest normal number: some above it, most below."""
    return rng.choice([-1, 1], shape) * 2 ** rng.uniform(-6, 1, shape)


def mapped(function: Callable) -> Callable[[Make], Results]:
    def run(make: Make) -> Results:
        x = make(K * N)
        y = np.empty_like(x)
        function(y, x)
        return [y]

    return run


def linear_forward(make: Make) -> Results:
    x, w, bias = make(T, B, K), make(K, N), make(N)
    ys = [np.empty((T, B, N), x.dtype) for _ in range(2)]
    gemm.linear_forward(ys[0], x, gemm.Packed(K, N, x.dtype).pack(w), bias, 0, B)
    gemm.linear_forward(ys[1], x, gemm.Packed(K, N, x.dtype).pack_transposed(make(N, K)), None, 0, B)
    return ys


def linear_columns(make: Make) -> Results:
    x, w, y = make(T, B, K + 3), make(K, N), make(T, B, N + 5)
    packed = gemm.Packed(K, N, x.dtype).pack(w)
    gemm.linear_columns(y, 2, x, 1, packed, make(N), 0, B)
    gemm.linear_columns(y, 2, x, 3, packed, None, 0, B, adds=True)
    return [y[..., 2 : N + 2]]  # the other columns are left as they are


def linear_backward_weight(make: Make) -> Results:
    dw = make(K, N)
    gemm.linear_backward_weight(dw, make(T, B, K), make(T, B, N), gemm.grad_scratch(dw.dtype, K), 0, N)
    return [dw]


def recurrent_backward_weight(make: Make) -> Results:
    dws = [make(K, N), make(K, N)]
    for dw, reverse, lengths in zip(dws, (False, True), (None, LENGTHS), strict=True):
        scratch = gemm.grad_scratch(dw.dtype, len(dw))
        gemm.recurrent_backward_weight(dw, make(T, B, K), make(B, K), make(T, B, N), scratch, reverse, 0, N, lengths)
    return dws


def bias_backward(make: Make) -> Results:
    db = make(N)
    gemm.bias_backward(db, make(T, B, N), 0, N)
    return [db]


def rows_add_bias(make: Make) -> Results:
    y = make(V, N)
    gemm.rows_add_bias(y, make(V, N), make(N))
    return [y]


def rows_backward(make: Make) -> Results:
    dw = make(V, N)
    gemm.rows_backward(dw, IDS, make(T, B, N), 0, N)
    return [dw[np.unique(IDS)]]


def orthonormalize(make: Make) -> Results:
    q = make(V, V)
    return [np.array(float(vecmath.orthonormalize(q))), q]


class Plain:
    """Memory for `cell_tools` without guards; what a kernel leaves out is 0."""

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = dtype

    def input(self, values: NDArray) -> NDArray:
        return np.ascontiguousarray(values, self.dtype)

    def inout(self, values: NDArray) -> NDArray:
        return np.array(values, self.dtype)

    def output(self, *shape: int) -> NDArray:
        return np.zeros(shape, self.dtype)


def a_layer(make: Make, kind: str, masked: bool) -> dict[str, NDArray]:
    H, info = V, cells.CELLS[kind]
    given = {"xw": make(T, B, info.gates * H), "h0": make(B, H), "c0": make(B, H)}
    if info.recurrent_gates:
        given["W_hh"] = make(H, info.recurrent_gates * H) / 8
    given |= {name: make(H) for name in info.vectors}
    if masked and info.recurrent_gates:
        given["mask"] = make(B, H)
    return given


def forward(kind: str) -> Callable[[Make], Results]:
    """A cell onward; back through lengths and a mask; and from ids."""

    def run(make: Make) -> Results:
        given, masked = a_layer(make, kind, False), a_layer(make, kind, True)
        memory = Plain(given["h0"].dtype)
        table = {"xw": make(V, GATES[kind] * V)}
        return [
            *cell_tools.forward(memory, kind, given).values(),
            *cell_tools.forward(memory, kind, masked, lengths=LENGTHS.lengths, reverse=True).values(),
            *cell_tools.forward(memory, kind, given | table, ids=IDS, reverse=True).values(),
        ]

    return run


def backward(kind: str) -> Callable[[Make], Results]:
    def run(make: Make) -> Results:
        results = []
        for masked, ways in [(False, {}), (True, {"lengths": LENGTHS.lengths, "reverse": True})]:
            given = a_layer(make, kind, masked)
            memory = Plain(given["h0"].dtype)
            kept = cell_tools.forward(memory, kind, given, **ways)
            back = cell_tools.backward(memory, kind, given, kept, {"dh": make(T, B, V), "dc": make(B, V)}, **ways)
            if masked:
                back["dh"][LENGTHS.padding()] = 0
                if not cells.CELLS[kind].recurrent_gates:  # no mask: what arrived at the last step is copied
                    back["dh"][0] = 0
            else:  # what arrived at the last step is copied, not computed; through an open ReLU, too
                for name in ("dh", "da") if kind == "relu" else ("dh",):
                    back[name] = back[name][:-1]
            results += back.values()
        return results

    return run


def softmax_cross_entropy(make: Make) -> Results:
    losses, dlogits = make(T, B), make(T, B, V)
    loss.softmax_cross_entropy(losses, dlogits, make(T, B, V), IDS, 0.3, 3, 0, B)
    weighted, smoothed = make(T, B), make(T, B, V)
    loss.softmax_cross_entropy(weighted, smoothed, make(T, B, V), IDS, 0.3, 3, 0, B, LENGTHS, make(V), 0.1)
    return [losses, dlogits, weighted, smoothed]


def sigmoid_cross_entropy(make: Make) -> Results:
    losses, dlogits, targets = make(T, B), make(T, B, V), make(T, B, V)
    loss.sigmoid_cross_entropy(losses, dlogits, make(T, B, V), targets, 0.3, 0, B)
    weighted, gradient = make(T, B), make(T, B, V)
    loss.sigmoid_cross_entropy(weighted, gradient, make(T, B, V), targets, 0.3, 0, B, LENGTHS, make(V))
    return [losses, dlogits, weighted, gradient]


def regression_loss(make: Make) -> Results:
    results = []
    for kind, parameters in [
        (loss.SQUARED, None),
        (loss.ABSOLUTE, None),
        (loss.HUBER, [0.7]),
        (loss.QUANTILE, [0.1, 0.7]),
    ]:
        losses, y = make(T, B), make(T, B, V * len(parameters or [0]))
        given = parameters and np.array(parameters, y.dtype)
        loss.regression_loss(losses, y, y, make(T, B, V), kind, given, 0.3, 0, B, LENGTHS)
        results += [losses, y]
    return results


def column_sums(make: Make) -> Results:
    sums, counts = np.zeros(N), np.zeros(N)
    loss.column_sums(sums, counts, make(V, N))
    return [sums, counts]


def column_squares(make: Make) -> Results:
    squares = np.zeros(N)
    loss.column_squares(squares, make(V, N), make(N).astype("f8"))
    return [squares]


def softmax(make: Make) -> Results:
    p = make(B, V)
    loss.softmax(p, make(B, V))
    return [p]


def log_softmax(make: Make) -> Results:
    y, in_place = make(B, N + V), make(B, V)
    loss.log_softmax(y, 3, make(B, V), make(B, 5), 2)
    loss.log_softmax(in_place, 0, in_place)
    return [y[:, 3 : 3 + V], in_place]


def pool_mean_forward(make: Make) -> Results:
    out = make(B, N)
    pool.pool_mean_forward(out, make(T, B, N), 0, B, LENGTHS)
    return [out]


def pool_mean_backward(make: Make) -> Results:
    dh = make(T, B, N)
    pool.pool_mean_backward(dh, make(B, N), 0, B, LENGTHS)
    return [dh]


def pool_max_forward(make: Make) -> Results:
    out, which = make(B, N), np.zeros((B, N), np.int32)
    pool.pool_max_forward(out, which, make(T, B, N), 0, B, LENGTHS)
    return [out, which.astype(np.float64)]


def pool_max_backward(make: Make) -> Results:
    dh, which = make(T, B, N), np.random.default_rng(6).integers(T, size=(B, N), dtype=np.int32)
    pool.pool_max_backward(dh, make(B, N), which, 0, B, LENGTHS)
    return [dh]


def pool_mean_step(make: Make) -> Results:
    out, total = make(N), make(N)
    pool.pool_mean_step(out, total, make(N), 0.3)
    return [out, total]


def pool_max_step(make: Make) -> Results:
    out, best = make(N), make(N)
    pool.pool_max_step(out, best, make(N))
    return [out, best]


def changed(function: Callable, *rates: float, states: int = 0, velocity: bool = True) -> Callable[[Make], Results]:
    """A function of optim, on w, its state (the last of it None without a velocity) and, if any, a gradient."""

    def run(make: Make) -> Results:
        arrays = [make(N), *(np.abs(make(N)) for _ in range(states))]
        if not velocity:
            arrays[-1] = None
        function(*arrays, *([make(N)] if states else []), *rates)
        return [array for array in arrays if array is not None]

    return run


def pull(make: Make) -> Results:
    with_factors, without = make(N), make(N)
    optim.pull(with_factors, make(N), np.abs(make(N)), 0.3)
    optim.pull(without, make(N), None, 0.3)
    return [with_factors, without]


def together(*runs: Callable[[Make], Results]) -> Callable[[Make], Results]:
    return lambda make: [result for run in runs for result in run(make)]


KERNELS: dict[str, Callable[[Make], Results]] = {
    "vecmath.exp": mapped(vecmath.exp),
    "vecmath.tanh": mapped(vecmath.tanh),
    "vecmath.sigmoid": mapped(vecmath.sigmoid),
    "vecmath.log1p": mapped(vecmath.log1p),
    "gemm.linear_forward": linear_forward,
    "gemm.linear_columns": linear_columns,
    "gemm.linear_backward_weight": linear_backward_weight,
    "gemm.recurrent_backward_weight": recurrent_backward_weight,
    "gemm.bias_backward": bias_backward,
    "gemm.rows_add_bias": rows_add_bias,
    "gemm.rows_backward": rows_backward,
    "vecmath.orthonormalize": orthonormalize,
    **{f"cells.forward, {kind}": forward(kind) for kind in cells.CELLS},
    **{f"cells.backward, {kind}": backward(kind) for kind in cells.CELLS},
    "loss.softmax_cross_entropy": softmax_cross_entropy,
    "loss.sigmoid_cross_entropy": sigmoid_cross_entropy,
    "loss.regression_loss": regression_loss,
    "loss.softmax": softmax,
    "loss.log_softmax": log_softmax,
    "pool.pool_mean_forward": pool_mean_forward,
    "pool.pool_mean_backward": pool_mean_backward,
    "pool.pool_max_forward": pool_max_forward,
    "pool.pool_max_backward": pool_max_backward,
    "pool.pool_mean_step": pool_mean_step,
    "pool.pool_max_step": pool_max_step,
    "loss.sum": lambda make: [np.array(loss.sum(make(K * N)))],
    "loss.sum_of_squares": lambda make: [np.array(loss.sum_of_squares(make(K * N)))],
    "loss.all_finite": lambda make: [np.array(float(loss.all_finite(make(K * N))))],
    "loss.column_sums": column_sums,
    "loss.column_squares": column_squares,
    "optim.sum_of_squares": lambda make: [np.array(optim.sum_of_squares(make(K * N), threads=2))],
    "optim.squared_distance": lambda make: [np.array(optim.squared_distance(make(K * N), make(K * N), threads=2))],
    "optim.pull": pull,
    "optim.clear": changed(optim.clear),
    "optim.scale": changed(optim.scale, 0.3),
    "optim.clip": changed(optim.clip, 0.8),
    "optim.sgd": together(
        changed(optim.sgd, 0.7, 0.1, 0.9, 0.03, False, states=1),
        changed(optim.sgd, 0.7, 0.1, 0.9, 0.03, True, states=1),
        changed(optim.sgd, 0.7, 0.1, 0.0, 0.03, False, states=1, velocity=False),
    ),
    "optim.adagrad": changed(optim.adagrad, 0.7, 0.1, 1e-8, 0.03, states=1),
    "optim.rmsprop": together(
        changed(optim.rmsprop, 0.7, 0.1, 0.99, 1e-8, 0.9, 0.03, states=2),
        changed(optim.rmsprop, 0.7, 0.1, 0.99, 1e-8, 0.0, 0.03, states=2, velocity=False),
    ),
    "optim.adam": changed(optim.adam, 0.7, 0.1, 0.9, 0.999, 3.0, 1e-8, 0.03, 0.001, states=2),
}
kernels = pytest.mark.parametrize("kernel", KERNELS)


def maker(dtype: np.dtype, values: Callable[..., NDArray]) -> Make:
    rng = np.random.default_rng(7)
    unit = np.finfo(dtype).tiny if values is denormal else 1
    return lambda *shape: (values(rng, shape) * unit).astype(dtype)


def test_every_kernel_is_in_the_table():
    helpers = {"aligned_empty", "aligned_zeros", "grad_scratch", "product_scratch", "line_width", "argument_names"}
    found = {
        f"{module.__name__.rpartition('.')[2]}.{name}"
        for module in (cells, gemm, loss, optim, pool, vecmath)
        for name, value in vars(module).items()
        if callable(value) and not isinstance(value, type) and not name.startswith("_") and name not in helpers
    }
    assert found == {name.partition(",")[0] for name in KERNELS}


@kernels
@pytest.mark.thread_unsafe
@pytest.mark.parametrize("values", [normal, with_specials, denormal])
def test_instruction_sets_give_the_same_bits(isas, dtype, kernel, values):
    results = {}
    for isa in isas:
        dispatch.use_isa(isa)
        results[isa] = KERNELS[kernel](maker(dtype, values))
    for got in results.values():
        for mine, generic in zip(got, results["generic"], strict=True):
            assert_same_bits(mine, generic)


# orthonormalize leaves rows that are nearly zero as they are.
@pytest.mark.parametrize("kernel", [kernel for kernel in KERNELS if kernel != "vecmath.orthonormalize"])
@pytest.mark.usefixtures("isa")
def test_results_are_never_denormal(dtype, kernel):
    results = KERNELS[kernel](maker(dtype, denormal))
    for result in results:
        small = np.abs(result) < np.finfo(result.dtype).tiny
        np.testing.assert_array_equal(result[small], 0)


@kernels
@pytest.mark.usefixtures("isa")
def test_denormals_work_again_after_the_kernel(dtype, kernel):
    KERNELS[kernel](maker(dtype, normal))
    tiny = np.array([np.finfo(dtype).tiny])
    assert (tiny / 4 * 2 != 0).all()  # neither flushed when written nor taken for zero when read
    assert (tiny / 4 * 2 * 4 == 2 * tiny).all()
