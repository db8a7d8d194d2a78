# SPDX-License-Identifier: MIT
"""Streams of float32 networks whose matrices are stored in fewer bits."""

import copy
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cell_tools import KINDS
from kernel_tools import assert_same_bits
from model_tools import stir
from numpy.typing import NDArray
from oracle_quantised import WEIGHTS
from stream_tools import language_model, net_of, sequence, stepwise

import crnn
from crnn._core import cells, dispatch, gemm
from crnn.stream.parts import StreamParts
from crnn.stream.stream import Stream, StreamWeights
from crnn.stream.stream_batch import StreamBatch

PRECISIONS = [
    {"l0": "int8", "l1": "int8", "head": "int8"},
    {"l0": "bf16", "l1": "bf16", "head": "bf16"},
    {"l0": "int4", "l1": "int4", "head": "int4"},
    {"l1": "int8", "head": "bf16"},
]
each_precision = pytest.mark.parametrize("precisions", PRECISIONS, ids=["int8", "bf16", "int4", "mixed"])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def stored(parts: StreamParts, precisions: dict[str, str], **changes: Any) -> StreamParts:
    """The parts with these precisions of the layers "l0", "l1", ... and of the "head"."""
    named = {}
    for name, kind in precisions.items():
        number = int(name[1:]) if name != "head" else 0
        layer = parts.layers[number] if number < len(parts.layers) else parts.layers[0]
        matrices = ["W_hy"] if name == "head" else [f"layer{number}.{w}" for w in ("W_xh", "W_hh") if w in layer]
        named |= dict.fromkeys(matrices, kind)
    return replace(parts, precisions=named, **changes)


def product(x: NDArray, w: NDArray, bias: NDArray, precision: str | None) -> NDArray:
    packed = gemm.Packed(*w.shape, "float32", precision=precision).pack(np.ascontiguousarray(w))
    y = np.empty((len(x), 1, packed.N), "f4")
    gemm.linear_forward(y, x[:, None], packed, bias, 0, 1, scratch=gemm.product_scratch(packed, len(x)))
    return y[:, 0]


def layer_outputs(cell: str, layer: dict[str, NDArray], x: NDArray, precision: str | None) -> NDArray:
    info, T = cells.CELLS[cell], len(x)
    H = len(layer["b_h"]) // info.gates
    if x.dtype == np.int32:
        W = layer["W_xh"] if precision is None else WEIGHTS[precision](layer["W_xh"])
        xw = W[x] + layer["b_h"]
    else:
        xw = product(x, layer["W_xh"], layer["b_h"], precision)
    arrays: dict[str, Any] = {"xw": xw[:, None].copy(), "h": np.empty((T, 1, H), "f4"), "h0": np.zeros((1, H), "f4")}
    arrays |= {name: layer[name] for name in info.vectors}
    widths = {"gates": info.gates, "hn": 1}
    arrays |= {name: np.empty((T, 1, n * H), "f4") for name, n in widths.items() if name in info.arrays}
    if info.has_c:
        arrays |= {"c": np.empty((T, 1, H), "f4"), "c0": np.zeros((1, H), "f4")}
    if info.recurrent_gates:
        arrays["w_hh"] = gemm.Packed(H, H, "float32", info.packed_gates, precision).pack(layer["W_hh"], 0)
        arrays["scratch"] = gemm.product_scratch(arrays["w_hh"], 1)
    if info.recurrent_gates > info.packed_gates:
        arrays["w_hn"] = gemm.Packed(H, H, "float32", precision=precision).pack(layer["W_hh"], info.packed_gates * H)
    cells.forward(cell, arrays, 0, 1)
    return arrays["h"][:, 0]


def whole(parts: StreamParts, xs: NDArray) -> NDArray:
    """The same sequence at once, layer by layer. Without pooling and statistics."""
    x, precisions = xs, parts.precisions
    if parts.embedding is not None:
        tied = parts.b_y is not None and parts.W_hy is None and "W_hy" in precisions
        table = WEIGHTS[precisions["W_hy"]](parts.embedding.T).T if tied else parts.embedding
        x = np.ascontiguousarray(table[xs])
    for i, layer in enumerate(parts.layers):
        x = layer_outputs(parts.cell, dict(layer), x, precisions.get(f"layer{i}.W_xh"))
    if parts.b_y is None:
        return x
    W_hy = parts.embedding.T if parts.W_hy is None else parts.W_hy
    return product(x, W_hy, parts.b_y, precisions.get("W_hy"))


def with_head(rng: np.random.Generator, net: crnn.RNN, V: int = 11) -> StreamParts:
    H = len(next(iter(reversed(net._stream_parts().layers)))["b_h"]) // cells.CELLS[net.cell].gates
    return replace(
        net._stream_parts(), W_hy=rng.normal(size=(H, V)).astype("f4"), b_y=rng.normal(size=V).astype("f4")
    )


@each_precision
@pytest.mark.parametrize("cell", KINDS)
def test_steps_have_the_bits_of_the_whole_sequence(rng, cell, precisions):
    parts = stored(with_head(rng, net_of(cell, 19, [33, 18])), precisions)
    xs = sequence(rng, 9, 19)
    expected = whole(parts, xs)
    weights = StreamWeights(parts)
    assert_same_bits(stepwise(Stream(weights), xs), expected)
    assert_same_bits(Stream(weights).run(xs), expected)
    one_by_one = StreamBatch(weights, 3)
    for t, x in enumerate(xs):
        y = one_by_one.step(np.stack([x, xs[0]]), rows=[2, 0])
        assert_same_bits(y[0], expected[t])
    exact = whole(stored(parts, {}), xs)
    assert 1e-6 < np.abs(expected - exact).max() / np.abs(exact).max() < (0.4 if "int4" in precisions.values() else 0.1)


@each_precision
@pytest.mark.parametrize("cell", ["lstm", "min_gru"])
def test_ids_read_the_rows_that_products_would_see(rng, cell, precisions):
    parts = stored(with_head(rng, net_of(cell, 13, [33, 18])), precisions, ids_only=True)
    ids = rng.integers(13, size=9, dtype=np.int32)
    assert_same_bits(Stream(StreamWeights(parts)).run(ids), whole(parts, ids))
    assert_same_bits(stepwise(Stream(StreamWeights(parts)), ids), whole(parts, ids))


@each_precision
def test_an_embedding_is_read_as_it_is_and_one_that_is_tied_as_the_head_stores_it(rng, precisions):
    for options in ({"embedding_size": 6}, {"embedding_size": 18, "tie_weights": True}):
        model = language_model("gru", num_layers=2, **({"hidden_size": 18} | options))
        parts = stored(model._stream_parts(), precisions)
        ids = rng.integers(parts.input_size, size=7, dtype=np.int32)
        assert_same_bits(Stream(StreamWeights(parts)).run(ids), whole(parts, ids))


@each_precision
@pytest.mark.parametrize("N", [1, 5, 150, 300])
def test_a_row_of_a_batch_has_the_bits_of_a_single_stream(rng, precisions, N):
    weights = StreamWeights(stored(with_head(rng, net_of("lstm", 5, [17, 16])), precisions))
    batch, xs = StreamBatch(weights, N), rng.normal(size=(3, N, 5)).astype("f4")
    got = np.stack([batch.step(x) for x in xs])
    for row in {0, N // 2, N - 1}:
        assert_same_bits(got[:, row], stepwise(Stream(weights), xs[:, row]))


@each_precision
@pytest.mark.thread_unsafe
def test_every_instruction_set_gives_the_same_bits(any_isa, rng, precisions):
    parts = stored(with_head(rng, net_of("gru", 19, [65, 18])), precisions)
    xs, results = sequence(rng, 5, 19), []
    for isa in dispatch.available_isas():
        dispatch.use_isa(isa)
        weights = StreamWeights(parts)
        assert weights.isa == isa
        results += [stepwise(Stream(weights), xs), Stream(weights).run(xs)]
    for result in results:
        assert_same_bits(result, results[0])


def test_quantised_weights_are_smaller(rng):
    parts = with_head(rng, net_of("lstm", 128, [128]))
    sizes = [
        StreamWeights(stored(parts, precisions)).nbytes
        for precisions in ({}, *({"l0": precision, "head": precision} for precision in gemm.QUANTISED))
    ]
    assert sizes[1] < 0.55 * sizes[0]
    assert sizes[2] < 0.3 * sizes[0]
    assert sizes[3] < 0.18 * sizes[0]


@each_precision
def test_weights_know_whether_packing_again_would_change_them(rng, precisions):
    net = net_of("original_gru", 5, [17, 16])
    parts = stored(with_head(rng, net), precisions)
    weights = StreamWeights(parts)
    assert weights.holds(parts)
    assert not weights.holds(stored(parts, {}))
    assert not weights.holds(stored(parts, precisions | {"l1": "float32"}))
    stir(net.flat_params)
    assert not weights.holds(parts)


@each_precision
def test_pickles_and_copies_continue_with_the_same_bits(rng, precisions):
    parts = stored(with_head(rng, net_of("lstm", 5, [17, 16])), precisions)
    stream, xs = Stream(StreamWeights(parts)), sequence(rng, 6, 5)
    stream.run(xs[:3])
    others = [pickle.loads(pickle.dumps(stream)), copy.deepcopy(stream)]
    expected = stream.run(xs[3:])
    for other in others:
        assert_same_bits(other.run(xs[3:]), expected)
        assert other.weights.nbytes == stream.weights.nbytes


def test_precisions_that_cannot_be_are_refused(rng):
    parts = with_head(rng, net_of("lstm", 5, [17]))
    for precisions, message in [
        ({"l1": "int8"}, "^precisions: expected names of weight matrices, got 'layer1.W_xh'"),
        ({"l0": "int2"}, r"^precisions\['layer0.W_xh'\]: expected 'float32' or .* or 'int4', got 'int2'"),
        ({"l0": "float64"}, r"^precisions\['layer0.W_xh'\]: expected 'float32' or"),
    ]:
        with pytest.raises(ValueError, match=message):
            StreamWeights(stored(parts, precisions))
    with pytest.raises(ValueError, match=r"^precisions: expected names of weight matrices, got 'W_hy'"):
        StreamWeights(stored(net_of("lstm", 5, [17])._stream_parts(), {"head": "int8"}))
    doubles = crnn.RNN(5, 17, cell="lstm", dtype="float64", seed=1)._stream_parts()
    with pytest.raises(ValueError, match=r"^precisions\['layer0.W_xh'\]: expected 'float64', got 'int8'"):
        StreamWeights(stored(doubles, {"l0": "int8"}))
    many = crnn.RNN(131072, 1, seed=1)._stream_parts()
    for precision in ("int8", "int4"):
        match = rf"^precisions\['layer0.W_xh'\]: expected another than '{precision}' .* 131072 rows"
        with pytest.raises(ValueError, match=match):
            StreamWeights(stored(many, {"l0": precision}))


@pytest.mark.parametrize("wrong", [np.nan, -np.inf, 2e38])
def test_weights_that_cannot_be_rounded_are_refused_where_they_are_quantised(rng, wrong):
    net = net_of("lstm", 5, [17])
    parts = with_head(rng, net)
    net.params["layer0.W_hh"][3, 2] = wrong
    with pytest.raises(ValueError, match=r"^layer0.W_hh: expected finite numbers up to 2\*\*127 in what is quantised"):
        StreamWeights(stored(parts, {"l0": "int8"}))
    assert StreamWeights(stored(parts, {"head": "int8"})).nbytes


def test_inputs_that_are_not_finite_are_refused_and_nothing_changes(rng):
    stream = Stream(StreamWeights(stored(with_head(rng, net_of("gru", 5, [17])), {"l0": "int8"})))
    xs = sequence(rng, 3, 5)
    expected = stepwise(Stream(stream.weights), xs)
    stream.step(xs[0])
    with pytest.raises(ValueError, match="finite"):
        stream.step(np.array([1, np.nan, 0, 0, 0], "f4"))
    assert_same_bits(stepwise(stream, xs[1:]), expected[1:])
