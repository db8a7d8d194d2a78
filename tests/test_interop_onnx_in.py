# SPDX-License-Identifier: MIT
"""ONNX files of other programs: what they compute, the model computes; what it could not, is refused by name."""

import importlib
import re

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
from onnx_tools import (
    ARRAYS,
    TEXT,
    WORST,
    B,
    D,
    H,
    T,
    V,
    changed,
    error,
    graph_of,
    inputs,
    run,
    session,
    weights,
    with_initializers,
    without_header,
)

import crnn
from crnn.interop import onnx as interop
from crnn.interop.onnx.writing import OPERATORS
from crnn.io.model_file import ModelFileError

pytestmark = pytest.mark.interop


# ---- ONNX's own tests of its operators -------------------------------------------------------------------------------


def node_cases():
    """ONNX's cases of LSTM, GRU and RNN by name, each once."""
    node = importlib.import_module("onnx.backend.test.case.node")
    for name in ("lstm", "gru", "rnn"):
        importlib.import_module(f"onnx.backend.test.case.node.{name}")
    operators = {"LSTM", "GRU", "RNN"}
    return {case.name: case for case in node._NodeTestCases if case.model.graph.node[0].op_type in operators}


CASES = node_cases()
REFUSED_CASES = {"test_lstm_with_peepholes"}


@pytest.mark.parametrize("name", sorted(set(CASES) - REFUSED_CASES))
def test_onnx_cases_both_ways(name):
    """What the case expects is what the model computes, and what its export computes in ONNX Runtime."""
    case = CASES[name]
    (given, wanted), *_ = case.data_sets
    names = [each.name for each in case.model.graph.input]
    arrays = dict(zip(names, given, strict=True))
    x = arrays.pop("X")
    net = interop.from_model(with_initializers(case.model, arrays))
    batch_first = "batchwise" in name
    x = x.swapaxes(0, 1) if batch_first else x
    found = dict(zip(("Y", "Y_h", "Y_c"), answers(net, *net(x)), strict=False))
    zeros = np.zeros((1 + net.bidirectional, x.shape[1], net.hidden_size), "f4")
    state = {"h_in": zeros} | ({"c_in": zeros} if net.cell == "lstm" else {})
    exported = run(session(interop.to_model(net, state=True, lengths=False)), x, **state)
    again = dict(zip(("Y", "Y_h", "Y_c"), answers(net, exported.pop("y"), tuple(exported.values())), strict=False))
    for output, value in zip(case.model.graph.output, wanted, strict=True):
        for results in (found, again):
            result = results[output.name]
            if "reverse" in name:  # the other direction is zeros
                assert not result[..., :1, :, :].any()
                result = result[..., 1:, :, :]
            if batch_first:
                result = result.transpose(2, 0, 1, 3) if output.name == "Y" else result.swapaxes(0, 1)
            assert error(result, value) < WORST


def answers(net, y, state):
    """y as ONNX's (T, directions, B, H), and the parts of the state."""
    directions = 2 if net.bidirectional else 1
    split = y.reshape(*y.shape[:2], directions, -1).transpose(0, 2, 1, 3)
    return split, *(state if isinstance(state, tuple) else (state,))


def test_seventeen_of_onnx_cases_can_be_expressed():
    assert len(set(CASES) - REFUSED_CASES) >= 17
    for name in REFUSED_CASES:
        case = CASES[name]
        names = [each.name for each in case.model.graph.input[1:]]
        arrays = dict(zip(names, case.data_sets[0][0][1:], strict=True))
        with pytest.raises(ValueError, match=r"\(LSTM\): expected no peepholes"):
            interop.from_model(with_initializers(case.model, arrays))


# ---- crnn's graphs, read as if they were those of another program ----------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True, "hidden_size": [4, 3]}])
@pytest.mark.parametrize("trained_state", [False, True])
@pytest.mark.parametrize("cell", list(OPERATORS))
def test_a_graph_of_crnn_is_understood_without_its_header(cell, options, trained_state):
    net = crnn.RNN(D, cell=cell, trainable_initial_state=trained_state, **({"hidden_size": H} | options))
    net.flat_params[...] = np.random.default_rng(0).normal(size=net.flat_params.size)
    for state in (False,) if trained_state else (False, True):
        again = interop.from_model(without_header(interop.to_model(net, state=state, lengths=False)))
        assert again.flat_params.tobytes() == net.flat_params.tobytes()
        assert again.config() == net.config() | {"forget_bias": 1.0, "input_init": again.input_init}


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "flatten"])
def test_heads_and_poolings_of_crnn_are_understood_without_their_header(pooling):
    steps = T if pooling == "flatten" else None
    model = crnn.SequenceClassifier(D, V, H, pooling=pooling, steps=steps, bidirectional=pooling != "mean")
    model.flat_params[...] = np.random.default_rng(0).normal(size=model.flat_params.size)
    proto = without_header(interop.to_model(model, lengths=False))
    if pooling == "mean":
        with pytest.raises(ValueError, match="ReduceSum"):
            interop.from_model(proto)
        return
    again = interop.from_model(proto, classes=["a", "b"])
    assert again.flat_params.tobytes() == model.flat_params.tobytes()
    assert (again.pooling, again.steps, again.classes) == (pooling, steps, ["a", "b"])


# ---- Keras, as tf2onnx writes it -------------------------------------------------------------------------------------


def check(proto, x, kind, **expected):
    """The model of a graph of whole sequences computes what ONNX Runtime computes."""
    model = interop.from_model(proto)
    assert type(model).__name__ == kind
    assert {name: getattr(model, name) for name in expected} == expected
    found = model.predict_proba(x) if hasattr(model, "predict_proba") else model.predict(x)
    assert error(found, next(iter(run(session(proto), x).values()))) < WORST
    return model


ZERO_STATE = """
    shape = Shape (x)
    small = Cast <to = 6> (shape)
    batch = Slice (small, zero, one, zero)
    packed = Concat <axis = 0> (batch, units)
    long = Cast <to = 7> (packed)
    zeros = Expand (nothing, long)
    state = Unsqueeze (zeros, zero)
"""
CONSTANTS = {
    "zero": np.array([0]),
    "one": np.array([1]),
    "two": np.array([2]),
    "minus_one": np.array([-1]),
    "end": np.array([2147483647]),
    "units": np.array([H], "i4"),
    "nothing": np.array(0, "f4"),
}


def test_a_dense_layer_on_each_step_is_a_product_of_a_matrix():
    text = f"""keras (float[b, t, {D}] x) => (float[b, t, {V}] out) {{
        xt = Transpose <perm = [1, 0, 2]> (x)
        {ZERO_STATE}
        y, y_h, y_c = LSTM <hidden_size = {H}, activations = ["Sigmoid", "Tanh", "Tanh"]>
            (xt, W0, R0, B0, , state, state)
        squeezed = Squeeze (y, one)
        yt = Transpose <perm = [1, 0, 2]> (squeezed)
        y_shape = Shape (yt)
        kept = Gather <axis = 0> (y_shape, free)
        shape_out = Concat <axis = 0> (kept, outputs)
        rows = Reshape (yt, matrix)
        product = MatMul (rows, kernel)
        back = Reshape (product, shape_out)
        out = Add (back, bias)
    }}"""
    arrays = CONSTANTS | weights("LSTM", D, H)
    arrays |= {"free": np.array([0, 1], "i4"), "outputs": np.array([V]), "matrix": np.array([-1, H])}
    arrays |= {"kernel": inputs(H, V), "bias": inputs(V, seed=1)}
    for name in ("two", "minus_one", "end"):
        del arrays[name]
    check(graph_of(text, **arrays), inputs(B, T, D), "SequenceRegressor", pooling=None, output_size=V)


def test_negative_ids_are_made_positive_before_an_embedding():
    """As in x[x < 0 ? x + V : x]: for the ids that there are it changes nothing."""
    text = f"""keras (int32[b, t] x) => (float[b, {V}] out) {{
        up = Add (x, V)
        real = Cast <to = 1> (x)
        negative = Less (real, nothing)
        positive = Not (negative)
        keep = Cast <to = 6> (positive)
        change = Cast <to = 6> (negative)
        a = Mul (x, keep)
        b = Mul (change, up)
        ids = Add (b, a)
        vectors = Gather (table, ids)
        xt = Transpose <perm = [1, 0, 2]> (vectors)
        y, y_h = GRU <hidden_size = {H}, linear_before_reset = 1> (xt, W0, R0, B0)
        squeezed = Squeeze (y, one)
        last = Slice (squeezed, minus_one, end, zero)
        h = Squeeze (last, zero)
        product = MatMul (h, kernel)
        logits = Add (product, bias)
        out = Softmax (logits)
    }}"""
    arrays = {name: CONSTANTS[name] for name in ("zero", "one", "minus_one", "end", "nothing")}
    arrays |= weights("GRU", 3, H) | {"V": np.array(9, "i4"), "table": inputs(9, 3)}
    arrays |= {"kernel": inputs(H, V), "bias": inputs(V, seed=1)}
    proto = graph_of(text, **arrays)
    x = np.random.default_rng(0).integers(0, 9, (B, T)).astype("i4")
    check(proto, x, "SequenceClassifier", pooling="last", num_classes=V, multilabel=False)
    proto.graph.node[0].op_type = "Sub"  # which is not used for these ids
    check(proto, x, "SequenceClassifier")
    proto.graph.node[2].input[0], proto.graph.node[2].input[1] = "nothing", "real"
    with pytest.raises(ValueError, match=r"\(Gather\): expected ids as they are"):
        interop.from_model(proto)


def test_directions_that_are_taken_apart_and_put_together():
    text = f"""keras (float[b, {T}, {D}] x) => (float[b, 1] out) {{
        xt = Transpose <perm = [1, 0, 2]> (x)
        y, y_h, y_c = LSTM <hidden_size = {H}, direction = "bidirectional"> (xt, W0, R0, B0)
        b1 = Slice (y, one, two, one)
        backward = Squeeze (b1, one)
        f1 = Slice (y, zero, one, one)
        forward = Squeeze (f1, one)
        both = Concat <axis = 2> (forward, backward)
        z, z_h, z_c = LSTM <hidden_size = {H}> (both, W1, R1, B1)
        squeezed = Squeeze (z, one)
        zt = Transpose <perm = [1, 0, 2]> (squeezed)
        flat = Flatten (zt)
        logit = Gemm (flat, kernel, bias)
        out = Sigmoid (logit)
    }}"""
    arrays = {name: CONSTANTS[name] for name in ("zero", "one", "two")}
    arrays |= weights("LSTM", D, H, 2) | weights("LSTM", 2 * H, H, number=1)
    proto = graph_of(text, **arrays, kernel=inputs(T * H, 1), bias=inputs(1))
    model = check(proto, inputs(B, T, D), "SequenceClassifier", pooling="flatten", steps=T, multilabel=True)
    assert model.net.bidirectional  # the second layer has a reverse direction of zeros


def test_layers_in_reverse():
    """A reverse layer is half of a bidirectional one; its outputs are in the order of time."""
    text = f"""g (float[{T}, b, {D}] x) => (float[b, {V}] out) {{
        y = GRU <hidden_size = {H}, direction = "reverse"> (x, W0, R0, B0)
        s = Squeeze (y, one)
        z, z_h = GRU <hidden_size = {H}, direction = "reverse"> (s, W1, R1, B1)
        h = Squeeze (z_h, zero)
        out = Gemm <transB = 1> (h, kernel, bias)
    }}"""
    arrays = {name: CONSTANTS[name] for name in ("zero", "one")}
    arrays |= weights("GRU", D, H) | weights("GRU", H, H, number=1)
    proto = graph_of(text, **arrays, kernel=inputs(V, H), bias=inputs(V))
    model = interop.from_model(proto)
    x = inputs(T, B, D)
    assert error(model.predict(x.swapaxes(0, 1)), run(session(proto), x)["out"]) < WORST


# ---- a graph to change -----------------------------------------------------------------------------------------------

def test_the_graph_itself_is_read():
    model = interop.from_model(changed())
    x = inputs(T, B, D)
    assert error(model.predict(x.swapaxes(0, 1)).swapaxes(0, 1), run(session(changed()), x)["out"]) < WORST
    assert model.scale is False


@pytest.mark.parametrize("dtype", ["f2", "f8"])
def test_other_precisions(dtype):
    arrays = {name: value.astype(dtype) for name, value in ARRAYS.items() if value.dtype == "f4"}
    model = interop.from_model(changed(**arrays))
    assert model.dtype == {"f2": "float32", "f8": "float64"}[dtype]
    assert (model.params["b_y"] == arrays["bias"]).all()


def test_kinds_and_classes_are_what_the_caller_says():
    model = interop.from_model(changed(), kind="SequenceTagger", classes=["no", "yes"])
    assert isinstance(model, crnn.SequenceTagger)
    assert model.predict(inputs(B, T, D)).dtype.kind == "U"
    vocab = crnn.Vocab.from_text("ab")
    for options, message in [
        ({"kind": "SequenceClassifier"}, "^kind: expected another one for a linear layer with an output at every step"),
        ({"kind": "RNN"}, "^kind: "),
        ({"kind": "Tagger"}, "^kind: expected one of RNN, "),
        ({"kind": "SequenceRegressor", "classes": ["a", "b"]}, "^kind: expected one with classes"),
        ({"kind": "LanguageModel"}, "^kind: expected, for a LanguageModel, ids, and a vocab"),
        ({"vocab": vocab}, "^vocab: expected none for a graph whose input is not ids"),
        ({"classes": ["a"]}, "^classes: expected 2, as num_classes says, got 1"),
        ({"kind": "SequenceTagger", "vocab": vocab}, "^vocab: expected none"),
    ]:
        with pytest.raises(ValueError, match=message):
            interop.from_model(changed(), **options)
    with pytest.raises(TypeError, match=r"^vocab: expected a Vocab"):
        interop.from_model(changed(), vocab="ab")
    with pytest.raises(ValueError, match=r"^kind: expected none for a file of crnn's"):
        interop.from_model(interop.to_model(crnn.RNN(2, 3)), kind="RNN")
    with pytest.raises(TypeError, match=r"^proto: expected an onnx\.ModelProto"):
        interop.from_model(b"")


LAYER = f"LSTM <hidden_size = {H}> (x, W0, R0, B0)"
REFUSED = {
    # what the cells of crnn do not have
    "clip": ([(LAYER, f"LSTM <hidden_size = {H}, clip = 1.0> (x, W0, R0, B0)")], "clip: expected none"),
    "input_forget": ([("<hidden_size", "<input_forget = 1, hidden_size")], "input_forget: expected 0"),
    "activations": (
        [("<hidden_size", '<activations = ["Sigmoid", "Relu", "Tanh"], hidden_size')],
        "activations: expected",
    ),
    "alpha": ([("<hidden_size", "<activation_alpha = [0.5], hidden_size")], "activation_alpha: expected none"),
    "an attribute": ([("<hidden_size", "<unheard_of = 1, hidden_size")], "expected no attribute 'unheard_of'"),
    "peepholes": ([("(x, W0, R0, B0)", "(x, W0, R0, B0, , , , bias)")], "expected no peepholes"),
    "direction": ([("<hidden_size", '<direction = "sideways", hidden_size')], "expected the direction"),
    "hidden_size": ([(f"hidden_size = {H}", "hidden_size = 7")], r"hidden_size: expected 5, as in R"),
    # what is not a stack with a head
    "an operator": ([("Add (product", "Relu (s) z = Add (product"), ("out = Relu", "q = Relu")], r"\(Relu\): expected"),
    "an operator of another domain": ([("MatMul (", "custom.MatMul (")], "expected an operator of ONNX"),
    "another layer between": ([("= Squeeze (y, one)", "= Squeeze (y, one) q = Tanh (s)")], r"\(Tanh\): expected not"),
    "two heads": ([("out = Add (product, bias)", "z = MatMul (product, square) out = Add (z, bias)")], "one linear"),
    "a bias of another size": ([], "expected one bias", {"bias": inputs(V, V)}),
    "no recurrent layer": ([("y, y_h, y_c = " + LAYER, "y = Unsqueeze (x, one)")], "steps of such layers, got none"),
    "y transposed": (
        [("= MatMul (s,", "= MatMul (q,"), ("product =", "q = Transpose <perm=[0, 2, 1]> (s) product =")],
        "expected weights",
    ),
    "the middle of a state": ([("(x, W0, R0, B0)", "(x, W0, R0, B0, , zeros, other)")], "the same state for each"),
    "the state of another layer": (
        [("product = MatMul (s", "q = LSTM (s, W1, R1, B1, , y_h) r = Squeeze (q, one) product = MatMul (r")],
        "initial_h of layer 1: expected zeros, a constant, or the layer's own input",
        weights("LSTM", H, H, number=1),
    ),
    # shapes and types
    "W": ([], "W: expected float32 of shape", {"W0": inputs(1, 4 * H, D + 1)}),
    "R": ([], "W: expected float32 of shape|R: expected", {"R0": inputs(1, 4 * H, H + 1)}),
    "B": ([], "B: expected float32 of shape", {"B0": inputs(1, 4 * H)}),
    "no units": ([], "expected", {"R0": inputs(1, 0, 0), "W0": inputs(1, 0, D), "B0": inputs(1, 0)}),
    "kernel": ([], "expected weights", {"kernel": inputs(H + 1, V)}),
    "bias": ([], "expected one bias", {"bias": inputs(V + 1)}),
    "integers": ([], "expected floating-point", {"kernel": np.ones((H, V), "i4")}),
    "mixed precisions": ([], "expected float32|expected", {"kernel": np.ones((H, V))}),
    "NaN": ([], "expected finite values", {"kernel": np.full((H, V), np.nan, "f4")}),
    "infinite sums": ([], "expected finite values", {"B0": np.full((1, 8 * H), 3e38, "f4")}),
    # parts that lead nowhere
    "an initializer": ([], "initializer 'more': expected one that an output depends on", {"more": inputs(2)}),
    "a node": ([("out = Add", "q = Softmax (product) out = Add")], r"\(Softmax\): expected an output's"),
    "an input": ([(f"{D}] x)", f"{D}] x, float[2] extra)")], "input 'extra': expected one that an output"),
    "an unknown value": ([("(product, bias)", "(product, missing)")], "got 'missing'"),
    "a name twice": ([("product = MatMul", "s = MatMul")], "expected an output that no other node has"),
    "an output that is an input": ([("=> (float", f"=> (float[t, b, {D}] x, float")], "output 'x'"),
    "an output of a lower part": ([("=> (float", "=> (float[t, b, 2] product, float")], "one linear layer, or outputs"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_model_would_not_have_is_refused_by_name(name):
    pairs, message, *arrays = REFUSED[name]
    more = {"square": inputs(V, V)} if name == "two heads" else {}
    if name == "the middle of a state":
        more = {"zeros": np.zeros((1, 2, H), "f4"), "other": inputs(1, 2, H)}
    with pytest.raises(ValueError, match=message):
        interop.from_model(changed(*pairs, **more, **(arrays[0] if arrays else {})))


def test_a_refusal_names_the_node_and_the_file(tmp_path):
    proto = changed((LAYER, f"LSTM <hidden_size = {H}, clip = 1.0> (x, W0, R0, B0)"))
    proto.graph.node[0].name = "layer one"
    onnx.save(proto, tmp_path / "m.onnx")
    wanted = re.escape(f"{tmp_path / 'm.onnx'}: node 'layer one' (LSTM): clip: expected none")
    with pytest.raises(ModelFileError, match=wanted):
        interop.load(tmp_path / "m.onnx")


def test_lengths_are_an_input_and_a_constant_length_is_refused():
    text = TEXT.replace(f"{D}] x)", f"{D}] x, int32[b] lengths)").replace("B0)", "B0, lengths)")
    model = interop.from_model(changed(text=text))
    x, lengths = inputs(T, B, D), np.array([6, 1, 3, 5], "i4")
    wanted = run(session(changed(text=text)), x, lengths)["out"]
    found = model.predict([sequence[:n] for sequence, n in zip(x.swapaxes(0, 1), lengths, strict=True)])
    assert max(error(y, wanted[:n, i]) for i, (y, n) in enumerate(zip(found, lengths, strict=True))) < WORST
    constant = changed(("B0)", "B0, fixed)"), fixed=np.full(B, 3, "i4"))
    with pytest.raises(ValueError, match=r"\(LSTM\): expected a value that depends on the inputs"):
        interop.from_model(constant)


def test_states_are_inputs_in_the_order_of_the_layers():
    text = f"""g (float[t, b, {D}] x, float[2, b, {H}] h) => (float[t, b, {H}] y, float[2, b, {H}] h_out) {{
        h0 = Slice (h, zero, one, zero)
        h1 = Slice (h, one, two, zero)
        a, a_h = RNN <hidden_size = {H}> (x, W0, R0, B0, , h0)
        s = Squeeze (a, one)
        b2, b_h = RNN <hidden_size = {H}> (s, W1, R1, B1, , h1)
        y = Squeeze (b2, one)
        h_out = Concat <axis = 0> (a_h, b_h)
    }}"""
    arrays = {name: CONSTANTS[name] for name in ("zero", "one", "two")}
    arrays |= weights("RNN", D, H) | weights("RNN", H, H, number=1)
    proto = graph_of(text, **arrays)
    net, x, h = interop.from_model(proto), inputs(T, B, D), inputs(2, B, H, seed=3)
    y, after = net(x, h)
    found = run(session(proto), x, h)
    assert max(error(y, found["y"]), error(after, found["h_out"])) < WORST
    proto.graph.node[2].input[5], proto.graph.node[4].input[5] = "h1", "h0"
    with pytest.raises(ValueError, match="initial_h of layer 0: expected zeros, a constant, or the layer's own input"):
        interop.from_model(proto)
    shared = text.replace("float[2, b, 5] h)", "float[1, b, 5] h)").replace("h0 = Slice (h, zero, one, zero)", "")
    shared = shared.replace("h1 = Slice (h, one, two, zero)", "").replace(", h0)", ", h)").replace(", h1)", ", h)")
    del arrays["two"], arrays["zero"]
    with pytest.raises(ValueError, match="initial_h of layer 1"):
        interop.from_model(graph_of(shared, **arrays))


@pytest.mark.parametrize("axes", ["[]", "[b]", f"[b, {H}]"])
def test_a_state_has_three_axes(axes):
    text = TEXT.replace(f"{D}] x)", f"{D}] x, float{axes.replace('[]', '')} h)").replace("B0)", "B0, , h)")
    with pytest.raises(ValueError, match="initial_h of layer 0: expected zeros, a constant, or the layer's own input"):
        interop.from_model(changed(text=text))


def test_h_and_c_are_not_the_same_input_and_all_layers_have_the_same_lengths():
    text = TEXT.replace(f"{D}] x)", f"{D}] x, float[1, b, {H}] h)").replace("B0)", "B0, , h, h)")
    with pytest.raises(ValueError, match="initial_c of layer 0"):
        interop.from_model(changed(text=text))
    text = TEXT.replace(f"{D}] x)", f"{D}] x, int32[b] lengths)").replace("B0)", "B0, lengths)")
    text = text.replace("product = MatMul (s", "q = LSTM (s, W1, R1, B1) r = Squeeze (q, one) product = MatMul (r")
    with pytest.raises(ValueError, match="sequence_lens: expected the same of all layers"):
        interop.from_model(changed(text=text, **weights("LSTM", H, H, number=1)))
    text = text.replace("B1)", "B1, lengths)")
    assert interop.from_model(changed(text=text, **weights("LSTM", H, H, number=1))).num_layers == 2


def test_with_lengths_the_end_of_the_array_is_not_the_end_of_a_sequence():
    text = TEXT.replace(f"{D}] x)", f"{D}] x, int32[b] lengths)").replace("B0)", "B0, lengths)")
    text = text.replace(f"float[t, b, {V}]", f"float[b, {V}]")
    pooled = text.replace("s = Squeeze (y, one)", "q = Squeeze (y, one) s = {}")
    ways = {"Gather (q, last)": {"last": np.array(-1)}}
    ways |= {f"Reduce{kind} <keepdims = 0> (q, first)": {"first": np.array([0])} for kind in ("Mean", "Max")}
    for way, constants in ways.items():
        with pytest.raises(ValueError, match="contain padding"):
            interop.from_model(graph_of(pooled.replace("s = {}", f"s = {way}"), **ARRAYS, **constants))
    text = text.replace("s = Squeeze (y, one)", "s = Squeeze (y_h, first)")
    arrays = {name: value for name, value in ARRAYS.items() if name != "one"} | {"first": np.array([0])}
    model = interop.from_model(graph_of(text, **arrays))
    x, lengths = inputs(T, B, D), np.array([6, 1, 3, 5], "i4")
    wanted = run(session(graph_of(text, **arrays)), x, lengths)["out"]
    found = model.predict([sequence[:n] for sequence, n in zip(x.swapaxes(0, 1), lengths, strict=True)])
    assert error(found, wanted) < WORST


@pytest.mark.parametrize("names", [np.array(["up", "dn"], object), np.array([7, -7])])
def test_names_of_classes_are_read(names):
    proto = changed(
        ("out = Add (product,", "q = Add (product,"),
        ("bias)", "bias) i = ArgMax <axis = 2, keepdims = 0> (q) out = Gather (n, i)"),
        (f"=> (float[t, b, {V}] out)", f"=> ({'string' if names.dtype == object else 'int64'}[t, b] out)"),
        n=names,
    )
    model, x = interop.from_model(proto), inputs(T, B, D)
    assert model.classes == names.tolist()
    assert model.predict(x.swapaxes(0, 1)).T.tolist() == run(session(proto), x)["out"].tolist()
    assert interop.from_model(proto, classes=["a", "b"]).classes == ["a", "b"]


# ---- scaling ---------------------------------------------------------------------------------------------------------


def test_scaling_of_inputs_and_outputs_becomes_that_of_the_model():
    text = f"""g (float[b, t, {D}] x) => (float[b, t, {V}] out) {{
        centred = Sub (x, mean)
        scaled = Div (centred, std)
        xt = Transpose <perm = [1, 0, 2]> (scaled)
        y = LSTM <hidden_size = {H}> (xt, W0, R0, B0)
        s = Squeeze (y, one)
        product = MatMul (s, kernel)
        biased = Add (product, bias)
        wide = Mul (biased, factor)
        moved = Add (offset, wide)
        out = Transpose <perm = [1, 0, 2]> (moved)
    }}"""
    constants = {"mean": np.array([100, 0, -3], "f4"), "std": np.array([[[2, 0.5, 4]]], "f4")}
    constants |= {"factor": np.array(10, "f4"), "offset": np.array([5, -5], "f4")}
    proto = graph_of(text, **ARRAYS, **constants)
    x = inputs(B, T, D) * np.array([2, 0.5, 4], "f4") + np.array([100, 0, -3], "f4")
    model = check(proto, x, "SequenceRegressor", pooling=None, scale=True)
    assert model.scalings["x"].mean.tolist() == [100, 0, -3]
    assert model.scalings["x"].std.tolist() == [2, 0.5, 4]
    assert model.scalings["y"].std.tolist() == [10, 10]
    assert model.scalings["y"].mean.tolist() == [5, -5]
    for change, message in [
        ({"std": np.array([2, 0, 4], "f4")}, "x: expected to be scaled by finite factors above 0"),
        ({"factor": np.array(-1, "f4")}, "y: expected to be scaled by finite factors above 0"),
        ({"mean": inputs(2)}, r"\(Sub\): expected a number, or one for each column"),
        ({"mean": inputs(T, 1)}, r"\(Sub\): expected a number, or one for each column"),
    ]:
        with pytest.raises(ValueError, match=message):
            interop.from_model(graph_of(text, **(ARRAYS | constants | change)))
    with pytest.raises(ValueError, match="expected x"):
        interop.from_model(graph_of(text.replace("Sub (x, mean)", "Sub (mean, x)"), **ARRAYS, **constants))


@pytest.mark.parametrize(
    ("operators", "mean", "std"),
    [
        (["Mul", "Sub"], [1, 2, 4], [0.25, 0.5, 1]),
        (["Add", "Mul"], [-4, -4, -4], [0.25, 0.5, 1]),
        (["Div"], [0, 0, 0], [4, 2, 1]),
    ],
)
def test_scaling_in_any_order(operators, mean, std):
    lines = [f"v{i + 1} = {name} (v{i}, {'a' if name in 'MulDiv' else 'b'})" for i, name in enumerate(operators)]
    text = TEXT.replace("y, y_h, y_c =", "v0 = Identity (x) " + " ".join(lines) + " y, y_h, y_c =")
    text = text.replace("(x, W0", f"(v{len(lines)}, W0")
    constants = {"a": np.array([4, 2, 1], "f4")} | ({"b": np.array(4, "f4")} if len(lines) > 1 else {})
    proto = graph_of(text, **ARRAYS, **constants)
    model, x = interop.from_model(proto), inputs(T, B, D)
    assert (model.scalings["x"].mean.tolist(), model.scalings["x"].std.tolist()) == (mean, std)
    assert error(model.predict(x.swapaxes(0, 1)).swapaxes(0, 1), run(session(proto), x)["out"]) < WORST


def test_scaling_is_refused_where_a_model_has_none():
    proto = changed(("y, y_h, y_c =", "v = Mul (x, a) y, y_h, y_c ="), ("(x, W0", "(v, W0"), a=np.array(2, "f4"))
    assert interop.from_model(proto).scale
    proto.graph.output[0].name = "s"
    del proto.graph.node[-2:]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(changed(kernel=None, bias=None, a=np.array(2, "f4")).graph.initializer)
    with pytest.raises(ValueError, match="expected no scaling of x for the kind RNN"):
        interop.from_model(proto)
    pair = ("out = Add (product, bias)", "q = Add (product, bias) r = Mul (q, a) out = Softmax (r)")
    with pytest.raises(ValueError, match=r"\(Softmax\): expected the outputs of a linear layer"):
        interop.from_model(changed(pair, a=inputs(1)))
