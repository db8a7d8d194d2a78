# SPDX-License-Identifier: MIT
"""What a wrapper must refuse before any C runs: the message says which argument, what was expected, what came."""

import inspect
from collections.abc import Callable
from functools import partial
from itertools import permutations

import numpy as np
import pytest

from crnn._core import cells, gemm, loss, optim, pool, rows, vecmath

T, B, D, H, V = 3, 2, 5, 7, 11


def f4(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def ids(*shape: int) -> np.ndarray:
    return np.ones(shape, np.int32)


def packed(K: int, N: int, gates: int = 1) -> gemm.Packed:
    return gemm.Packed(K, N, "float32", gates).pack(f4(K, gates * N))


def cell_arguments(kind: str, backward: bool, masked: bool = False, with_ids: bool = False) -> dict:
    """Arguments that a cell takes, of the names that it says it does."""
    info = cells.CELLS[kind]
    G, split = info.gates, "dhn" in info.arrays
    steps, rows_, gates = (lambda: f4(T, B, H)), (lambda: f4(B, H)), (lambda: f4(T, B, G * H))
    makers = {
        "h": steps, "c": steps, "tanh_c": steps, "hn": steps, "h_masked": steps, "dh": steps, "gates": gates,
        "da": gates, "da_h": gates, "h0": rows_, "c0": rows_, "mask": rows_, "h0_masked": rows_, "dc": rows_,
        "dh0": rows_, "dhn": rows_, "dh_masked": rows_, "xw": gates, "ids": lambda: None,
        "w_hh": lambda: packed(H, H, info.packed_gates), "w_hn": lambda: packed(H, H),
        "w_hh_t": lambda: packed((info.packed_gates if split else info.recurrent_gates) * H, H),
        "w_hn_t": lambda: packed(H, H), "scales": lambda: f4(T, B, G), "dnormal": lambda: f4(B, G * H),
        **{name: lambda: f4(H) for name in info.vectors},
        **{"d" + name: rows_ for name in info.vectors},
    }  # fmt: skip
    if with_ids:
        makers |= {"xw": lambda: f4(V, G * H), "ids": lambda: ids(T, B)}
    left_out = ["scratch"] + ([] if masked else ["mask", "h_masked", "h0_masked", "dh_masked"])
    names = [name for name in cells.argument_names(kind, backward) if name not in left_out]
    return {name: makers[name]() for name in names} | {"b0": 0, "b1": B}


def cell_wrapper(kind: str, backward: bool) -> Callable:
    run = cells.backward if backward else cells.forward

    def call(b0: int, b1: int, lengths: object = None, **arrays: object) -> None:
        run(kind, arrays, b0, b1, lengths)

    return call


def good_cells() -> dict[str, tuple[Callable, str, Callable[[], dict]]]:
    good = {}
    for kind, info in cells.CELLS.items():
        for backward, name in [(False, f"{kind} forward"), (True, f"{kind} backward")]:
            outputs = " ".join(a for a, written in cells.argument_names(kind, backward).items() if written)
            ways = [(name, {})] + [(f"{name}, mask", {"masked": True})] * (info.recurrent_gates > 0)
            ways += [] if backward else [(f"{name}, ids", {"with_ids": True})]
            for way, options in ways:
                good[way] = cell_wrapper(kind, backward), outputs, partial(cell_arguments, kind, backward, **options)
    return good


# Every wrapper: the arrays it writes, and arguments that it takes.
GOOD: dict[str, tuple[Callable, str, Callable[[], dict]]] = {
    "exp": (vecmath.exp, "y", lambda: {"y": f4(D), "x": f4(D)}),
    "tanh": (vecmath.tanh, "y", lambda: {"y": f4(D), "x": f4(D)}),
    "sigmoid": (vecmath.sigmoid, "y", lambda: {"y": f4(D), "x": f4(D)}),
    "log1p": (vecmath.log1p, "y", lambda: {"y": f4(D), "x": f4(D)}),
    "linear_forward": (gemm.linear_forward, "y", lambda: {
        "y": f4(T, B, H), "x": f4(T, B, D), "w": packed(D, H), "bias": f4(H), "b0": 0, "b1": B}),
    "linear_columns": (gemm.linear_columns, "y", lambda: {
        "y": f4(T, B, H + 2), "n0": 1, "x": f4(T, B, D + 3), "k0": 2, "w": packed(D, H), "bias": f4(H), "b0": 0,
        "b1": B}),
    "linear_backward_weight": (gemm.linear_backward_weight, "dw scratch", lambda: {
        "dw": f4(D, H), "x": f4(T, B, D), "dy": f4(T, B, H), "n0": 0, "n1": H,
        "scratch": np.zeros_like(gemm.grad_scratch("float32", V))}),
    "recurrent_backward_weight": (gemm.recurrent_backward_weight, "dw scratch", lambda: {
        "dw": f4(H, D), "h": f4(T, B, H), "h0": f4(B, H), "da": f4(T, B, D), "reverse": False, "n0": 0, "n1": D,
        "scratch": np.zeros_like(gemm.grad_scratch("float32", V))}),
    "bias_backward": (gemm.bias_backward, "db", lambda: {"db": f4(H), "dy": f4(T, B, H), "n0": 0, "n1": H}),
    "rows_add_bias": (gemm.rows_add_bias, "y", lambda: {"y": f4(V, H), "w": f4(V, H), "bias": f4(H)}),
    "rows_backward": (gemm.rows_backward, "dw", lambda: {
        "dw": f4(V, H), "ids": ids(T, B), "dy": f4(T, B, H), "n0": 0, "n1": H}),
    "orthonormalize": (vecmath.orthonormalize, "q", lambda: {"q": f4(D, H)}),
    **good_cells(),
    "softmax_cross_entropy": (loss.softmax_cross_entropy, "loss dlogits", lambda: {
        "loss": f4(T, B), "dlogits": f4(T, B, V), "logits": f4(T, B, V), "targets": ids(T, B), "scale": 1.0,
        "ignore": -1, "b0": 0, "b1": B, "weights": f4(V), "smoothing": 0.1}),
    "sigmoid_cross_entropy": (loss.sigmoid_cross_entropy, "loss dlogits", lambda: {
        "loss": f4(T, B), "dlogits": f4(T, B, V), "logits": f4(T, B, V), "targets": f4(T, B, V), "scale": 1.0,
        "b0": 0, "b1": B, "pos_weights": f4(V)}),
    "regression_loss": (loss.regression_loss, "loss dy", lambda: {
        "loss": f4(T, B), "dy": f4(T, B, V), "y": f4(T, B, V), "targets": f4(T, B, V), "kind": loss.SQUARED,
        "parameters": None, "scale": 1.0, "b0": 0, "b1": B}),
    "regression_loss, quantiles": (loss.regression_loss, "loss dy", lambda: {
        "loss": f4(T, B), "dy": f4(T, B, 2 * V), "y": f4(T, B, 2 * V), "targets": f4(T, B, V), "kind": loss.QUANTILE,
        "parameters": np.array([0.1, 0.5], np.float32), "scale": 1.0, "b0": 0, "b1": B}),
    "column_sums": (loss.column_sums, "sums counts", lambda: {
        "sums": f4(V).astype("f8"), "counts": f4(V).astype("f8"), "x": f4(D, V)}),
    "column_squares": (loss.column_squares, "squares", lambda: {
        "squares": f4(V).astype("f8"), "x": f4(D, V), "means": f4(V).astype("f8")}),
    "softmax": (loss.softmax, "p", lambda: {"p": f4(B, V), "logits": f4(B, V)}),
    "log_softmax": (loss.log_softmax, "y", lambda: {
        "y": f4(B, V + 2), "first": 1, "logits": f4(B, V), "starts": f4(B, 2), "column": 1}),
    "pool_mean_forward": (pool.pool_mean_forward, "out", lambda: {
        "out": f4(B, H), "h": f4(T, B, H), "b0": 0, "b1": B}),
    "pool_mean_backward": (pool.pool_mean_backward, "dh", lambda: {
        "dh": f4(T, B, H), "dout": f4(B, H), "b0": 0, "b1": B}),
    "pool_max_forward": (pool.pool_max_forward, "out which", lambda: {
        "out": f4(B, H), "which": ids(B, H), "h": f4(T, B, H), "b0": 0, "b1": B}),
    "pool_max_backward": (pool.pool_max_backward, "dh", lambda: {
        "dh": f4(T, B, H), "dout": f4(B, H), "which": ids(B, H), "b0": 0, "b1": B}),
    "pool_mean_step": (pool.pool_mean_step, "out sum", lambda: {
        "out": f4(H), "sum": f4(H), "h": f4(H), "factor": 0.5}),
    "pool_max_step": (pool.pool_max_step, "out best", lambda: {"out": f4(H), "best": f4(H), "h": f4(H)}),
    "sum": (loss.sum, "", lambda: {"x": f4(D)}),
    "sum_of_squares": (loss.sum_of_squares, "", lambda: {"x": f4(D)}),
    "squared_distance": (optim.squared_distance, "", lambda: {"x": f4(D), "y": f4(D)}),
    "pull": (optim.pull, "w", lambda: {"w": f4(D), "anchor": f4(D), "factors": f4(D), "strength": 0.1}),
    "clear": (optim.clear, "x", lambda: {"x": f4(D)}),
    "scale": (optim.scale, "x", lambda: {"x": f4(D), "factor": 0.5}),
    "clip": (optim.clip, "x", lambda: {"x": f4(D), "limit": 0.5}),
    "sgd": (optim.sgd, "w velocity", lambda: {
        "w": f4(D), "velocity": f4(D), "g": f4(D), "factor": 1.0, "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0,
        "nesterov": False}),
    "adagrad": (optim.adagrad, "w square_sum", lambda: {
        "w": f4(D), "square_sum": f4(D), "g": f4(D), "factor": 1.0, "lr": 0.1, "eps": 1e-8, "weight_decay": 0.0}),
    "rmsprop": (optim.rmsprop, "w square_avg velocity", lambda: {
        "w": f4(D), "square_avg": f4(D), "velocity": f4(D), "g": f4(D), "factor": 1.0, "lr": 0.1, "alpha": 0.9,
        "eps": 1e-8, "momentum": 0.9, "weight_decay": 0.0}),
    "adam": (optim.adam, "w m v", lambda: {
        "w": f4(D), "m": f4(D), "v": f4(D), "g": f4(D), "factor": 1.0, "step_size": 0.1, "beta1": 0.9, "beta2": 0.999,
        "root_correction": 1.0, "eps": 1e-8, "weight_decay": 0.0, "decoupled_decay": 0.0}),
}  # fmt: skip

# What a wrapper takes its dimensions or precision from is compared with nothing.
# ANY_PRECISION: there is only one array of the kernel's precision.
ANY_PRECISION = {"orthonormalize", "sum", "sum_of_squares", "column_sums", "column_squares", "scale",
                 "clip", "clear"}  # fmt: skip
ANY_LENGTH = {("orthonormalize", "q", 0), ("orthonormalize", "q", 1), ("rows_backward", "dw", 0),
              ("linear_columns", "y", 2), ("linear_columns", "x", 2),
              ("bias_backward", "dy", 0), ("bias_backward", "dy", 1), ("linear_backward_weight", "scratch", 0),
              ("recurrent_backward_weight", "scratch", 0),
              ("pool_mean_forward", "h", 0), ("pool_max_forward", "h", 0), ("pool_mean_backward", "dh", 0),
              ("log_softmax", "y", 1), ("log_softmax", "starts", 1),
              ("pool_max_backward", "dh", 0), ("column_sums", "x", 0), ("column_squares", "x", 0),
              *((f"{kind} forward, ids", "xw", 0) for kind in cells.CELLS),
              *((name, "x", 0) for name in ("sum", "sum_of_squares", "scale", "clip", "clear"))}  # fmt: skip


def arguments_of(name: str) -> dict:
    return GOOD[name][2]()


def array_arguments() -> list:
    return [
        pytest.param(name, argument, id=f"{name}-{argument}")
        for name in GOOD
        for argument, value in arguments_of(name).items()
        if isinstance(value, np.ndarray)
    ]


def refused(name: str, match: str, **changes: object) -> None:
    with pytest.raises((TypeError, ValueError), match=match):
        GOOD[name][0](**(arguments_of(name) | changes))


TAKES_LENGTHS = [name for name, (function, *_) in GOOD.items() if "lengths" in inspect.signature(function).parameters]
each_array = pytest.mark.parametrize(("name", "argument"), array_arguments())


@pytest.mark.parametrize("name", GOOD)
def test_the_good_arguments_are_taken(name):
    GOOD[name][0](**arguments_of(name))


@each_array
def test_another_dtype_is_refused(name, argument):
    value = arguments_of(name)[argument]
    for dtype in ("float16", "int64", "complex64"):
        wrong = value.astype(dtype)
        kind = r"float32( or float64)?" if value.dtype == np.float32 else value.dtype.name
        refused(name, rf"^{argument}: expected .*{kind}.*array.*, got {dtype} array", **{argument: wrong})
    refused(name, rf"^{argument}: expected .*, got list", **{argument: value.tolist()})
    if name not in ANY_PRECISION:
        refused(name, r"^\w+: expected .*, got (\w+ array|.* in float)", **{argument: value.astype("float64")})


@each_array
def test_another_number_of_axes_is_refused(name, argument):
    value = arguments_of(name)[argument]
    for wrong in (value[None], value[..., 0]):
        match = r"^\w+: expected .* array of shape \(.*\), got \w+ array of shape \(.*\)"
        refused(name, match, **{argument: np.array(wrong)})


def axes_of_fixed_length() -> list:
    return [
        pytest.param(name, argument, axis, id=f"{name}-{argument}-{axis}")
        for name, argument in (parameter.values for parameter in array_arguments())
        for axis in range(arguments_of(name)[argument].ndim)
        if (name, argument, axis) not in ANY_LENGTH
    ]


@pytest.mark.parametrize(("name", "argument", "axis"), axes_of_fixed_length())
def test_another_length_of_an_axis_is_refused(name, argument, axis):
    value = arguments_of(name)[argument]
    wrong = np.concatenate([value, value], axis=axis)
    refused(name, r"^(\w+: expected .*\(.*\).*, got .*\(.*\))", **{argument: wrong})


@each_array
def test_an_array_that_is_not_contiguous_is_refused(name, argument):
    value = arguments_of(name)[argument]
    wrong = np.repeat(value, 2, axis=-1)[..., ::2]
    assert wrong.shape == value.shape
    refused(name, rf"^{argument}: expected .*C-contiguous .*, got .* not C-contiguous", **{argument: wrong})
    if value.ndim > 1:
        wrong = np.asfortranarray(value)
        refused(name, rf"^{argument}: expected .*C-contiguous .*, got .* not C-contiguous", **{argument: wrong})


@each_array
def test_an_array_that_is_not_aligned_or_of_the_other_byte_order_is_refused(name, argument):
    value = arguments_of(name)[argument]
    raw = np.zeros(value.nbytes + 1, np.uint8)
    odd = raw[1:].view(value.dtype).reshape(value.shape)
    refused(name, rf"^{argument}: expected .*, got .* not aligned", **{argument: odd})
    swapped = value.astype(value.dtype.newbyteorder())
    refused(name, rf"^{argument}: expected .*, got [<>]\w\d array", **{argument: swapped})


@each_array
def test_outputs_must_be_writable_and_inputs_need_not(name, argument):
    function, outputs, make = GOOD[name]
    arguments = make()
    arguments[argument].flags.writeable = False
    if argument in outputs.split():
        refused(name, rf"^{argument}: expected writable .*, got .* read-only", **{argument: arguments[argument]})
    else:
        function(**arguments)


@pytest.mark.parametrize("name", [name for name in GOOD if "b0" in arguments_of(name)])
@pytest.mark.parametrize("part", [(-1, 1), (0, B + 1), (2, 1), (B + 1, B + 1)])
def test_a_slice_outside_the_batch_is_refused(name, part):
    match = rf"^b0, b1: expected a range within 0 .. {B}, got {part[0]} .. {part[1]}"
    refused(name, match, b0=part[0], b1=part[1])


@pytest.mark.parametrize("name", [name for name in GOOD if "n1" in arguments_of(name)])
@pytest.mark.parametrize("part", [(-16, 1), (0, H + 1), (16, 1), (16, 16)])
def test_a_slice_outside_the_columns_is_refused(name, part):
    match = rf"^n0, n1: expected a range within 0 .. {arguments_of(name)['n1']}.*, got {part[0]} .. {part[1]}"
    refused(name, match, n0=part[0], n1=part[1])


@pytest.mark.parametrize("name", [name for name in TAKES_LENGTHS if "b0" in arguments_of(name)])
def test_a_slice_across_two_parts_is_refused(name):
    """Within it the lengths rise: the rows that are there at a step would not be its first ones."""
    lengths = rows.Lengths([1, T], T, 2)
    for b in range(B):
        GOOD[name][0](**(arguments_of(name) | {"b0": b, "b1": b + 1, "lengths": lengths}))
    assert lengths.order.tolist() == [1, 0]
    GOOD[name][0](**(arguments_of(name) | {"lengths": lengths}))  # longest first all the same
    lengths = rows.Lengths([T, 1, T], T, 2)  # rows 0, 1 | 2
    more = {}
    for key, a in arguments_of(name).items():
        if isinstance(a, np.ndarray) and a.ndim > 1 and B in a.shape[:2]:
            more[key] = np.concatenate([a, a[:, :1]], 1) if a.shape[:2] == (T, B) else np.concatenate([a, a[:1]])
    match = "^b0, b1: expected positions within one part of lengths, got 1 .. 3"
    refused(name, match, **more, lengths=lengths, b0=1, b1=3)


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("rows_backward", "ids"),
        ("softmax_cross_entropy", "targets"),
        *((f"{kind} forward, ids", "ids") for kind in cells.CELLS),
    ],
)
@pytest.mark.parametrize("bad", [-2, V, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("where", [0, 3, -1])
def test_ids_out_of_range_are_refused(name, argument, bad, where):
    wrong = ids(T, B)
    wrong.flat[where] = bad
    match = rf"^{argument}: expected ids from 0 to {V - 1}, got {bad} at position {where % wrong.size}"
    refused(name, match, **{argument: wrong})


def test_no_id_fits_an_empty_table():
    zeros = np.zeros((T, B), np.int32)
    empty = f4(V, H)[:0]  # with memory behind it, should the refusal fail
    refused("rows_backward", "^ids: expected", dw=empty, ids=zeros)
    for kind, info in cells.CELLS.items():
        refused(f"{kind} forward, ids", "^ids: expected", xw=f4(V, info.gates * H)[:0], ids=zeros)


def test_a_target_to_ignore_may_lie_outside_the_classes():
    targets = ids(T, B)
    targets[1, 1] = -100
    loss.softmax_cross_entropy(**(arguments_of("softmax_cross_entropy") | {"targets": targets, "ignore": -100}))
    refused("softmax_cross_entropy", "^targets: .* got -100 at position 3", targets=targets, ignore=-99)


def test_outputs_that_overlap_inputs_are_refused():
    buffer = f4(4 * T * B * H)
    a, b = buffer[: T * B * H].reshape(T, B, H), buffer[3 : T * B * H + 3].reshape(T, B, H)
    state = buffer[5 : B * H + 5].reshape(B, H)
    refused("linear_forward", "^y: .* does not overlap x", y=a, x=b, w=packed(H, H))
    refused("linear_forward", "^y: .* does not overlap x", y=a, x=a, w=packed(H, H))
    refused("tanh forward", "^h: .* does not overlap xw", h=a, xw=b)
    refused("tanh forward", "^h: .* does not overlap h0", h=a, h0=state)
    refused("relu forward, ids", "^h: .* does not overlap xw", h=a, xw=buffer[: V * H].reshape(V, H))
    refused("tanh backward", "^da: .* does not overlap h", da=a, h=a)
    refused("relu backward", "^dh0: .* does not overlap da", da=a, dh0=state)


def may_be_the_same(name: str, *pair: str) -> bool:
    if name.endswith("ids"):
        return False
    kind, _, way = name.partition(" ")
    gated = "gates" in cells.CELLS[kind].arrays if kind in cells.CELLS else False
    own = "gates" if gated else "h" if way.startswith("forward") else "dh"
    return pair == ((own, "xw") if way.startswith("forward") else ("da", own))


CALLS = ["linear_forward", "linear_columns", *(name for name in GOOD if name.endswith("_weight")), *good_cells()]


@pytest.mark.parametrize("name", CALLS)
def test_no_output_overlaps_anything_else(name):
    """Neither by one element nor, but for a few, as the same array."""
    outputs, given = GOOD[name][1].split(), arguments_of(name)
    reals = [key for key, value in given.items() if isinstance(value, np.ndarray) and value.dtype == np.float32]
    pairs = [pair for pair in permutations(reals, 2) if set(pair) & set(outputs)]
    assert len(pairs) >= 2
    for pair in pairs:
        one, other = (given[key] for key in pair)
        match = rf"^({'|'.join(pair)}): expected an array that does not overlap ({'|'.join(pair)})$"
        buffer, start = f4(one.size + other.size), one.size - 1
        arrays = buffer[: one.size].reshape(one.shape), buffer[start : start + other.size].reshape(other.shape)
        refused(name, match, **dict(zip(pair, arrays, strict=True)))
        same = dict.fromkeys(pair, one)
        if may_be_the_same(name, *sorted(pair)):
            GOOD[name][0](**(given | same))
        elif one.shape == other.shape:
            refused(name, match, **same)


def test_c0_may_be_a_step_of_c_and_nothing_else_of_it():
    c = f4(T, B, H)
    for t in range(T):
        GOOD["lstm forward"][0](**(arguments_of("lstm forward") | {"c": c, "c0": c[t]}))
    for start in (1, H, B * H - 1, B * H + H):
        c0 = c.ravel()[start : start + B * H].reshape(B, H)
        refused("lstm forward", "^c: .* does not overlap c0", c=c, c0=c0)


def test_losses_overlap_nothing_and_their_gradients_only_their_first_input():
    buffer, size = f4(4 * T * B * V), T * B * V
    a, b = buffer[:size].reshape(T, B, V), buffer[3 : size + 3].reshape(T, B, V)
    row = buffer[5 : T * B + 5].reshape(T, B)
    as_ids = a.view(np.int32)
    as_ids[...] = 1
    for name, into, gradient in [
        ("softmax_cross_entropy", "logits", "dlogits"),
        ("sigmoid_cross_entropy", "logits", "dlogits"),
        ("regression_loss", "y", "dy"),
    ]:
        refused(name, f"^loss: .* does not overlap {into}", loss=row, **{into: a})
        refused(name, f"^loss: .* does not overlap {gradient}", loss=row, **{gradient: a})
        refused(name, f"^{gradient}: .* does not overlap {into}", **{gradient: b, into: a})
        GOOD[name][0](**(arguments_of(name) | {gradient: a, into: a}))
    as_ids[...] = 1
    refused("softmax_cross_entropy", "^dlogits: .* overlap targets", dlogits=a, targets=as_ids.reshape(-1, T, B)[0])
    refused("softmax_cross_entropy", "^dlogits: .* overlap weights", dlogits=a, weights=buffer[7 : 7 + V])
    refused("sigmoid_cross_entropy", "^dlogits: .* overlap targets", dlogits=a, targets=b)
    refused("sigmoid_cross_entropy", "^loss: .* overlap targets", loss=row, targets=b)
    refused("sigmoid_cross_entropy", "^dlogits: .* overlap pos_weights", dlogits=a, pos_weights=buffer[7 : 7 + V])
    refused("regression_loss", "^dy: .* overlap targets", dy=a, targets=a)
    both, levels = buffer[: 2 * size].reshape(T, B, 2 * V), buffer[5:7]
    levels[...] = 0.5
    refused("regression_loss, quantiles", "^dy: .* overlap parameters", dy=both, parameters=levels)


def test_column_sums_overlap_nothing():
    buffer = np.random.default_rng(1).normal(size=2 * V)
    x, first, other = buffer[: 2 * V].reshape(2, V), buffer[3 : V + 3], buffer[5 : V + 5]
    refused("column_sums", "^sums: .* does not overlap x", x=x, sums=first)
    refused("column_sums", "^counts: .* does not overlap x", x=x, counts=first)
    refused("column_sums", "^sums: .* does not overlap counts", sums=first, counts=other)
    refused("column_squares", "^squares: .* does not overlap x", x=x, squares=first)
    refused("column_squares", "^squares: .* does not overlap means", squares=first, means=other)


def test_pooling_refuses_outputs_that_overlap():
    buffer = f4(2 * T * B * H)
    h, out = buffer[: T * B * H].reshape(T, B, H), buffer[5 : B * H + 5].reshape(B, H)
    which = out.view(np.int32)
    refused("pool_mean_forward", "^out: .* does not overlap h", h=h, out=out)
    refused("pool_mean_backward", "^dh: .* does not overlap dout", dh=h, dout=out)
    refused("pool_max_forward", "^out: .* does not overlap h", h=h, out=out)
    refused("pool_max_forward", "^out: .* does not overlap which", which=which, out=out)
    refused("pool_max_forward", "^which: .* does not overlap h", h=h, which=which)
    refused("pool_max_backward", "^dh: .* does not overlap dout", dh=h, dout=out)
    refused("pool_max_backward", "^dh: .* does not overlap which", dh=h, which=which)
    one, other = buffer[:H], buffer[1 : H + 1]
    for name, state in (("pool_mean_step", "sum"), ("pool_max_step", "best")):
        refused(name, f"^out: .* overlap {state}", **{"out": one, state: other})
        refused(name, f"^{state}: .* overlap h", **{state: one, "h": other})
        refused(name, "^out: .* overlap h", out=one, h=other)


def test_arrays_side_by_side_do_not_overlap():
    buffer = f4(2 * T * B * H)
    a, b = buffer.reshape(2, T, B, H)
    gemm.linear_forward(a, b, packed(H, H), None, 0, B)
    gemm.linear_forward(b, a, packed(H, H), None, 0, B)


def test_packed_weights_of_another_shape_or_precision_are_refused():
    match = rf"^w_hh: expected packed weights \({H}, {H}\) .*, got \({D}, {H}\) in float32"
    refused("tanh forward", match, w_hh=packed(D, H))
    refused("tanh backward", "^w_hh_t: expected packed weights", w_hh_t=packed(H, D))
    refused("relu forward", "^w_hh: .* in float64", w_hh=gemm.Packed(H, H, "float64"))
    refused("linear_forward", "^w: .* in float64", w=gemm.Packed(D, H, "float64"))
    refused("linear_forward", r"^y: expected .*\(3, 2, 5\)", w=packed(D, D))
    refused("linear_forward", "w", w=None)
    refused("linear_columns", "^n0: expected a range within 0 .. 9, got 3 .. 10", n0=3)
    refused("linear_columns", "^k0: expected a range within 0 .. 8, got 4 .. 9", k0=4)
    refused("linear_columns", "^bias: expected None with adds", adds=True)
    of_cells = [
        (name, argument, value.gates)
        for name in good_cells()
        for argument, value in arguments_of(name).items()
        if isinstance(value, gemm.Packed)
    ]
    assert {argument for _, argument, _ in of_cells} == {"w_hh", "w_hn", "w_hh_t", "w_hn_t"}
    for name, argument, gates in of_cells:
        of_gates = f", in {gates} gates" if gates > 1 else ""
        match = rf"^{argument}: expected packed weights .* of the precision of the other arrays{of_gates}, got "
        good = arguments_of(name)[argument]
        for wrong in [packed(H + 1, H, gates), packed(good.K, H + 1, gates), packed(good.K, H, gates + 1)]:
            refused(name, match, **{argument: wrong})
        refused(name, match + ".* in float64", **{argument: gemm.Packed(good.K, H, "float64", gates)})
        refused(name, argument, **{argument: None})
        refused(name, argument, **{argument: f4(good.K, H)})
    match = rf"^w: expected packed weights \({D}, {H}\) .* got \({D}, {2 * H}\) in float32, in 2 gates"
    refused("linear_forward", match, w=packed(D, H, 2))


def test_scratch_may_be_larger_but_not_smaller():
    for name, K in (("linear_backward_weight", D), ("recurrent_backward_weight", H)):
        right = gemm.grad_scratch("float32", K)
        GOOD[name][0](**(arguments_of(name) | {"scratch": right}))
        refused(name, rf"^scratch: expected at least {right.size} elements, got {right.size - 1}", scratch=right[1:])


def test_packing_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"^w: expected C-contiguous float32 array of shape \(5, 7\), got"):
        gemm.Packed(D, H, "float32").pack(f4(H, D))
    with pytest.raises(ValueError, match=r"^w: expected C-contiguous float32 array of shape \(7, 5\), got"):
        gemm.Packed(D, H, "float32").pack_transposed(f4(D, H))
    with pytest.raises(ValueError, match=r"^w: expected C-contiguous float32 array of shape \(5, 14\), got"):
        gemm.Packed(D, H, "float32", 2).pack(f4(D, H))
    with pytest.raises(ValueError, match=r"^w: expected to be packed for a product without gates, got 2 gates"):
        gemm.Packed(D, H, "float32", 2).pack_transposed(f4(H, D))
    for first in (-1, 2 * H + 1, 3 * H):
        with pytest.raises(ValueError, match=rf"^first: expected a range within 0 .. {3 * H}, got {first} .. "):
            gemm.Packed(D, H, "float32").pack(f4(D, 3 * H), first)
        with pytest.raises(ValueError, match=rf"^first: expected a range within 0 .. {3 * H}, got {first} .. "):
            gemm.Packed(H, D, "float32").pack_transposed(f4(D, 3 * H), first)
    with pytest.raises(ValueError, match=rf"^first: expected a range within 0 .. {3 * H}, got {H + 1} .. {3 * H + 1}"):
        gemm.Packed(D, H, "float32", 2).pack(f4(D, 3 * H), H + 1)
    with pytest.raises(ValueError, match="expected K, N and gates of at least 1, got 3, 3 and 0"):
        gemm.Packed(3, 3, "float32", 0)
    for K, N in [(0, 3), (3, 0), (-1, 3)]:
        with pytest.raises(ValueError, match=f"expected K, N and gates of at least 1, got {K}, {N} and 1"):
            gemm.Packed(K, N, "float32")
    with pytest.raises(TypeError, match=r"^dtype: expected float32 or float64"):
        gemm.Packed(D, H, "float16")


def test_an_unknown_cell_is_refused():
    for run in (cells.forward, cells.backward):
        with pytest.raises(ValueError, match=r"^cell: expected one of tanh, relu, lstm, gru, .*, got 'GRU'"):
            run("GRU", {"h": f4(T, B, H), "dh": f4(T, B, H)}, 0, B)
        with pytest.raises(TypeError, match="cell"):
            run(3, {}, 0, B)


@pytest.mark.parametrize("name", good_cells())
def test_a_cell_takes_all_of_its_arrays_and_no_others(name):
    given, kind, backward = arguments_of(name), name.partition(" ")[0], "backward" in name
    for argument in given:
        if argument not in ("b0", "b1", "ids", "mask") and (backward or argument not in ("tanh_c", "scales")):
            kind_of = "packed weights" if argument.startswith("w_h") else ".*array"
            refused(name, rf"^{argument}: expected {kind_of}.*, got None", **{argument: None})
    others = {a for cell in cells.CELLS for way in (False, True) for a in cells.argument_names(cell, way)} | {"d"}
    for argument in others - set(cells.argument_names(kind, backward)):
        refused(name, f"^{kind}'s .*ward takes h, h0, .*; got {argument}$", **{argument: f4(B, H)})


def test_a_velocity_is_needed_with_momentum_only():
    refused("sgd", "^velocity: expected writable .*, got NoneType", velocity=None)
    refused("rmsprop", "^velocity: expected writable .*, got NoneType", velocity=None)


def test_backward_through_no_time_is_refused():
    for name in GOOD:
        if name.startswith(tuple(f"{kind} backward" for kind in cells.CELLS)):
            steps = {key: a[:0] for key, a in arguments_of(name).items() if isinstance(a, np.ndarray) and a.ndim == 3}
            refused(name, "^da: expected at least one time step, got 0", **steps)


@pytest.mark.parametrize("name", ["pool_mean_forward", "pool_max_forward"])
def test_there_is_nothing_to_pool_in_no_time(name):
    refused(name, "^h: expected at least one time step, got 0", h=f4(0, B, H))


@pytest.mark.parametrize("bad", [-0.1, 1.5, np.nan])
def test_a_smoothing_outside_0_to_1_is_refused(bad):
    refused("softmax_cross_entropy", f"^smoothing: expected from 0 to 1, got {bad}", smoothing=bad)


def test_regression_refuses_what_it_does_not_know():
    refused("regression_loss", r"^kind: expected SQUARED \(0\), .*, got 4", kind=4)
    refused("regression_loss", "^kind: expected .*, got -1", kind=-1)
    refused("regression_loss", "^parameters: expected None", parameters=np.ones(1, np.float32))
    for bad in ([0.0], [1.0], [0.5, -0.1], [np.nan], []):
        wrong = np.array(bad, np.float32)
        refused("regression_loss, quantiles", "^parameters: expected levels between 0 and 1, got", parameters=wrong)
        if bad != [1.0]:
            refused("regression_loss", "^parameters: expected deltas > 0, got", kind=loss.HUBER, parameters=wrong)
    refused("regression_loss", "^parameters: expected .* array .*, got NoneType", kind=loss.HUBER)


@pytest.mark.parametrize("name", TAKES_LENGTHS)
def test_lengths_of_another_batch_are_refused(name):
    match = rf"^lengths: expected those of {B} sequences of up to {T} steps, got"
    refused(name, match, lengths=rows.Lengths([1] * (B + 1), T, 1))
    refused(name, match, lengths=rows.Lengths([1] * B, T + 1, 1))
    refused(name, "Lengths", lengths=[1] * B)


def test_nothing_is_written_when_arguments_are_refused():
    h, before = f4(T, B, H), f4(T, B, H)
    refused("tanh forward, ids", "^ids", h=h, ids=ids(T, B) * V)
    np.testing.assert_array_equal(h, before)


def test_empty_work_is_no_error():
    gemm.linear_forward(f4(0, B, H), f4(0, B, D), packed(D, H), None, 0, B)
    cells.forward("tanh", {"h": f4(T, 0, H), "xw": f4(T, 0, H), "h0": f4(0, H), "w_hh": packed(H, H)}, 0, 0)
    for name in [name for name in good_cells() if "forward" in name]:
        given = arguments_of(name)
        steps = {key: a[:0] for key, a in given.items() if isinstance(a, np.ndarray) and (a.ndim == 3 or key == "ids")}
        GOOD[name][0](**(given | steps | ({"xw": given["xw"]} if "ids" in steps else {})))
        before = given["h"].copy()
        GOOD[name][0](**(given | {"b0": 1, "b1": 1}))
        np.testing.assert_array_equal(given["h"], before)
    loss.softmax_cross_entropy(f4(0, B), None, f4(0, B, V), ids(0, B), 1.0, -1, 0, B)
    loss.softmax(f4(0, V), f4(0, V))
    pool.pool_mean_forward(f4(0, H), f4(T, 0, H), 0, 0)
    pool.pool_max_forward(f4(B, 0), ids(B, 0), f4(T, B, 0), 0, B)
    pool.pool_mean_backward(f4(0, B, H), f4(B, H), 0, B)
    vecmath.exp(f4(0), f4(0))
    assert vecmath.orthonormalize(f4(0, H)) == 0


@pytest.mark.parametrize("wrong", [{"first": -1}, {"first": 3}, {"column": -1}, {"column": 2}])
def test_columns_of_a_log_softmax_that_are_not_there_are_refused(wrong):
    name = next(iter(wrong))
    refused("log_softmax", rf"^{name}: expected 0\.\.{2 if name == 'first' else 1}, .*got {wrong[name]}", **wrong)
