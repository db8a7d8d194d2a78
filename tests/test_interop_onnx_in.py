# SPDX-License-Identifier: MIT
"""ONNX files of other programs: what they compute, the model computes; what it could not, is refused by name."""

import importlib
import re
import warnings

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
from onnx_tools import error, graph_of, run, session, weights, with_initializers, without_header

import crnn
from crnn.interop import onnx as door
from crnn.io.model_file import ModelFileError
from crnn.nn.cells import CELLS

pytestmark = pytest.mark.interop

WORST = 1e-6  # of float32, in units of the largest number if that is above 1
T, B, D, H, V = 6, 4, 3, 5, 2


def inputs(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("f4")


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
    net = door.from_model(with_initializers(case.model, arrays))
    batch_first = "batchwise" in name
    x = x.swapaxes(0, 1) if batch_first else x
    found = dict(zip(("Y", "Y_h", "Y_c"), answers(net, *net(x)), strict=False))
    zeros = np.zeros((1 + net.bidirectional, x.shape[1], net.hidden_size), "f4")
    state = {"h_in": zeros} | ({"c_in": zeros} if net.cell == "lstm" else {})
    exported = run(session(door.to_model(net, state=True, lengths=False)), x, **state)
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
            door.from_model(with_initializers(case.model, arrays))


# ---- crnn's graphs, read as if they were those of another program ----------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True, "hidden_size": [4, 3]}])
@pytest.mark.parametrize("trained_state", [False, True])
@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell != "min_gru"])
def test_a_graph_of_crnn_is_understood_without_its_header(cell, options, trained_state):
    net = crnn.RNN(D, cell=cell, trainable_initial_state=trained_state, **({"hidden_size": H} | options))
    net.flat_params[...] = np.random.default_rng(0).normal(size=net.flat_params.size)
    for state in (False,) if trained_state else (False, True):
        again = door.from_model(without_header(door.to_model(net, state=state, lengths=False)))
        assert again.flat_params.tobytes() == net.flat_params.tobytes()
        assert again.config() == net.config() | {"forget_bias": 1.0, "input_init": again.input_init}


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "flatten"])
def test_heads_and_poolings_of_crnn_are_understood_without_their_header(pooling):
    steps = T if pooling == "flatten" else None
    model = crnn.SequenceClassifier(D, V, H, pooling=pooling, steps=steps, bidirectional=pooling != "mean")
    model.flat_params[...] = np.random.default_rng(0).normal(size=model.flat_params.size)
    proto = without_header(door.to_model(model, lengths=False))
    if pooling == "mean":
        with pytest.raises(ValueError, match="ReduceSum"):
            door.from_model(proto)
        return
    again = door.from_model(proto, classes=["a", "b"])
    assert again.flat_params.tobytes() == model.flat_params.tobytes()
    assert (again.pooling, again.steps, again.classes) == (pooling, steps, ["a", "b"])


# ---- PyTorch ---------------------------------------------------------------------------------------------------------


def torch_module(recurrent, head=None, embedding=None, read="every", last=None):
    """A module of an embedding, a recurrent module, what the head reads of it, the head, and an activation."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.recurrent, self.head, self.embedding = recurrent, head, embedding

        def forward(self, x):
            x = x if self.embedding is None else self.embedding(x)
            y, state = self.recurrent(x)
            h = state[0] if isinstance(state, tuple) else state
            time = 1 if self.recurrent.batch_first else 0
            size = self.recurrent.hidden_size
            features = {
                "every": lambda: y,
                "last": lambda: y.select(time, -1),
                "h": lambda: h[-1],
                "both": lambda: torch.cat([h[-2], h[-1]], 1),
                "both, by hand": lambda: torch.cat([y.select(time, -1)[:, :size], y.select(time, 0)[:, size:]], 1),
                "mean": lambda: y.mean(time),
                "max": lambda: y.max(time).values,
                "flatten": lambda: y.flatten(1),
            }[read]()
            out = features if self.head is None else self.head(features)
            return out if last is None else last(out)

    return Module().eval()


def exported(module, x, path, *, dynamic=True, **options):
    """The path of a file that PyTorch has written."""
    torch = pytest.importorskip("torch")
    batch_first = module.recurrent.batch_first
    axes = {0: "batch", 1: "time"} if batch_first else {0: "time", 1: "batch"}
    if options.get("dynamo"):
        pytest.importorskip("onnxscript")
        sizes = dict.fromkeys(axes, torch.export.Dim.DYNAMIC)
        options |= {"dynamic_shapes": (sizes,) if dynamic else None, "verbose": False}
    else:
        options |= {"dynamo": False, "input_names": ["x"], "dynamic_axes": {"x": axes} if dynamic else None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (torch.from_numpy(x),), str(path), **options)
    return path


def torch_cases():
    torch = pytest.importorskip("torch")
    nn = torch.nn
    softmax, sigmoid = nn.Softmax(-1), nn.Sigmoid()
    options = {"batch_first": True}
    return {
        "lstm, last step": (torch_module(nn.LSTM(D, H, **options), nn.Linear(H, V), read="last"), "last"),
        "stack, both directions": (torch_module(nn.GRU(D, H, 2, bidirectional=True), nn.Linear(2 * H, V)), None),
        "relu, state": (torch_module(nn.RNN(D, H, nonlinearity="relu", **options), nn.Linear(H, V), read="h"), "last"),
        "tanh, probabilities": (torch_module(nn.RNN(D, H, **options), nn.Linear(H, V), last=softmax), None),
        "without biases": (torch_module(nn.LSTM(D, H, bias=False), nn.Linear(H, V, bias=False)), None),
        "both ends": (
            torch_module(nn.GRU(D, H, 2, bidirectional=True, **options), nn.Linear(2 * H, V), read="both"),
            "last",
        ),
        "both ends, by hand": (
            torch_module(nn.LSTM(D, H, bidirectional=True, **options), nn.Linear(2 * H, V), read="both, by hand"),
            "last",
        ),
        "mean": (torch_module(nn.GRU(D, H, **options), nn.Linear(H, V), read="mean", last=sigmoid), "mean"),
        "max": (torch_module(nn.LSTM(D, H, **options), nn.Linear(H, V), read="max"), "max"),
        "dropout": (torch_module(nn.LSTM(D, H, 2, dropout=0.5), nn.Sequential(nn.Dropout(), nn.Linear(H, V))), None),
    }


TORCH_CASES = [
    *("lstm, last step", "stack, both directions", "relu, state", "tanh, probabilities", "without biases"),
    *("both ends", "both ends, by hand", "mean", "max", "dropout"),
]


def check_torch_case(name, path, **options):
    module, pooling = torch_cases()[name]
    x = inputs(B, T, D)
    given = x if module.recurrent.batch_first else x.swapaxes(0, 1).copy()
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        wanted = module(torch.from_numpy(given)).numpy()
    model = door.load(exported(module, given, path, **options))
    if pooling is None and not module.recurrent.batch_first:
        wanted = wanted.swapaxes(0, 1)
    found = model.predict_proba(x) if hasattr(model, "predict_proba") else model.predict(x)
    assert error(found, wanted) < WORST
    assert getattr(model, "pooling", None) == pooling
    assert model.net.bidirectional == module.recurrent.bidirectional


@pytest.mark.torch
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", TORCH_CASES)
def test_files_of_pytorchs_exporter(name, dynamic, tmp_path):
    check_torch_case(name, tmp_path / "m.onnx", dynamic=dynamic)


@pytest.mark.torch
def test_a_file_in_which_nothing_was_folded(tmp_path):
    check_torch_case("both ends", tmp_path / "m.onnx", do_constant_folding=False)


@pytest.mark.torch
@pytest.mark.parametrize("opset", [11, 13])
def test_files_of_old_versions_of_the_operators(opset, tmp_path):
    check_torch_case("stack, both directions", tmp_path / "m.onnx", opset_version=opset)


# The new exporter unrolls an nn.RNN into its steps.
@pytest.mark.torch
@pytest.mark.parametrize(
    ("name", "dynamic"), [("lstm, last step", True), ("stack, both directions", False), ("both ends, by hand", True)]
)
def test_files_of_pytorchs_new_exporter(name, dynamic, tmp_path):
    check_torch_case(name, tmp_path / "m.onnx", dynamic=dynamic, dynamo=True, external_data=True)
    assert {path.name for path in tmp_path.iterdir()} >= {"m.onnx"}


def ways():
    """Ways to write the same with PyTorch: recurrent module, size of the head's input, what is computed, pooling."""
    torch = pytest.importorskip("torch")
    nn, F, cat = torch.nn, torch.nn.functional, torch.cat
    gru, both = nn.GRU(D, H, batch_first=True), nn.GRU(D, H, batch_first=True, bidirectional=True)
    stack = nn.LSTM(D, H, 2, batch_first=True, bidirectional=True)
    start = torch.randn(1, 1, H)

    def ends(h):
        return cat([h[-1, 0], h[-1, 1]], 1)

    return {
        "a trained state, expanded": (gru, H, lambda x, head: head(gru(x, start.expand(-1, x.shape[0], -1))[0]), None),
        "a trained state, repeated": (gru, H, lambda x, head: head(gru(x, start.repeat(1, x.shape[0], 1))[0]), None),
        "zeros": (gru, H, lambda x, head: head(gru(x, torch.zeros(1, x.shape[0], H))[0][:, -1, :]), "last"),
        "a state as in the manual": (
            stack,
            2 * H,
            lambda x, head: head(ends(stack(x)[1][0].view(2, 2, x.shape[0], H))),
            "last",
        ),
        "a state as rows": (
            both,
            2 * H,
            lambda x, head: head(both(x)[1].permute(1, 0, 2).reshape(x.shape[0], -1)),
            "last",
        ),
        "a pooling layer": (
            gru,
            H,
            lambda x, head: head(F.adaptive_max_pool1d(gru(x)[0].transpose(1, 2), 1).squeeze(-1)),
            "max",
        ),
        "an average": (
            both,
            2 * H,
            lambda x, head: head(F.adaptive_avg_pool1d(both(x)[0].transpose(1, 2), 1).squeeze(2)),
            "mean",
        ),
        "rows of all steps": (gru, H, lambda x, head: head(gru(x)[0].reshape(-1, H)).view(x.shape[0], -1, V), None),
        "classes first": (gru, H, lambda x, head: head(gru(x)[0]).permute(0, 2, 1).softmax(1).permute(0, 2, 1), None),
        "constants": (gru, H, lambda x, head: head(gru((x - 3) / torch.tensor([1.0, 2, 3]))[0]) * 2 + 1, None),
    }


WAYS = [
    *("a trained state, expanded", "a trained state, repeated", "zeros", "a state as in the manual"),
    *("a state as rows", "a pooling layer", "an average", "rows of all steps", "classes first", "constants"),
]


@pytest.mark.torch
@pytest.mark.parametrize("way", WAYS)
def test_ways_to_write_the_same(way, tmp_path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    recurrent, size, function, pooling = ways()[way]
    head = torch.nn.Linear(size, V)

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.recurrent, self.head = recurrent, head

        def forward(self, x):
            return function(x, self.head)

    module, x = Module().eval(), inputs(B, T, D)
    with torch.no_grad():
        wanted = module(torch.from_numpy(x)).numpy()
    model = door.load(exported(module, x, tmp_path / "m.onnx"))
    found = model.predict_proba(x) if hasattr(model, "predict_proba") else model.predict(x)
    assert error(found, wanted) < WORST
    assert getattr(model, "pooling", None) == pooling


@pytest.mark.torch
def test_packed_sequences(tmp_path):
    torch = pytest.importorskip("torch")
    rnn = torch.nn.utils.rnn
    lstm, head = torch.nn.LSTM(D, H, batch_first=True), torch.nn.Linear(H, V)

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.recurrent, self.head = lstm, head

        def forward(self, x, lengths):
            y, _ = lstm(rnn.pack_padded_sequence(x, lengths, batch_first=True))
            return head(rnn.pad_packed_sequence(y, batch_first=True)[0])

    x, lengths = torch.from_numpy(inputs(B, T, D)), torch.tensor([T, 4, 2, 1])
    path, axes = tmp_path / "m.onnx", {"x": {0: "batch", 1: "time"}, "lengths": {0: "batch"}}
    module = Module().eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        options = {"dynamo": False, "input_names": ["x", "lengths"], "dynamic_axes": axes}
        torch.onnx.export(module, (x, lengths), str(path), **options)
        wanted = module(x, lengths).numpy()
    found = door.load(path).predict([row[:n].numpy() for row, n in zip(x, lengths, strict=True)])
    assert max(error(y, wanted[i, : len(y)]) for i, y in enumerate(found)) < WORST


def test_with_lengths_the_end_of_the_array_is_not_the_end_of_a_sequence():
    text = TEXT.replace(f"{D}] x)", f"{D}] x, int32[b] lengths)").replace("B0)", "B0, lengths)")
    text = text.replace(f"float[t, b, {V}]", f"float[b, {V}]")
    pooled = text.replace("s = Squeeze (y, one)", "q = Squeeze (y, one) s = {}")
    ways = {"Gather (q, last)": {"last": np.array(-1)}}
    ways |= {f"Reduce{kind} <keepdims = 0> (q, first)": {"first": np.array([0])} for kind in ("Mean", "Max")}
    for way, constants in ways.items():
        with pytest.raises(ValueError, match="contain padding"):
            door.from_model(graph_of(pooled.replace("s = {}", f"s = {way}"), **ARRAYS, **constants))
    text = text.replace("s = Squeeze (y, one)", "s = Squeeze (y_h, first)")
    arrays = {name: value for name, value in ARRAYS.items() if name != "one"} | {"first": np.array([0])}
    model = door.from_model(graph_of(text, **arrays))
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
    model, x = door.from_model(proto), inputs(T, B, D)
    assert model.classes == names.tolist()
    assert model.predict(x.swapaxes(0, 1)).T.tolist() == run(session(proto), x)["out"].tolist()
    assert door.from_model(proto, classes=["a", "b"]).classes == ["a", "b"]


@pytest.mark.torch
def test_a_network_and_its_state(tmp_path):
    torch = pytest.importorskip("torch")
    lstm = torch.nn.LSTM(D, H, 2, bidirectional=True)
    x = inputs(T, B, D)
    path = tmp_path / "m.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(lstm, (torch.from_numpy(x),), str(path), dynamo=False)
    net = door.load(path)
    from_torch = importlib.import_module("crnn.interop.torch").from_module(lstm)
    assert net.flat_params.tobytes() == from_torch.flat_params.tobytes()
    assert net.config() == from_torch.config()


@pytest.mark.torch
def test_an_embedding_makes_a_language_model_with_a_vocabulary(tmp_path):
    torch = pytest.importorskip("torch")
    vocab = crnn.Vocab.from_text("abcdefg")
    module = torch_module(torch.nn.LSTM(6, H), torch.nn.Linear(H, 7), embedding=torch.nn.Embedding(7, 6))
    ids = np.random.default_rng(0).integers(0, 7, (T, B))
    path = exported(module, ids, tmp_path / "m.onnx")
    model = door.load(path, vocab=vocab)
    with torch.no_grad():
        assert error(model.forward(ids)[0], module(torch.from_numpy(ids)).numpy()) < WORST
    assert model.vocab == vocab
    assert isinstance(door.load(path), crnn.SequenceRegressor)
    tagger = door.load(path, classes=list("abcdefg"))
    assert tagger.predict(ids.T).shape == (B, T)
    tagger = door.load(path, classes=list("abcdefg"), vocab=vocab)
    assert tagger.vocab == vocab
    assert len(tagger.predict(["gfa", "ab"])[0]) == 3
    with pytest.raises(ModelFileError, match="input_size"):
        door.load(path, vocab=crnn.Vocab.from_text("abc"))


@pytest.mark.torch
def test_the_output_of_both_directions_at_the_last_step_is_refused(tmp_path):
    """A common mistake: there the reverse direction has read one step."""
    torch = pytest.importorskip("torch")
    module = torch_module(torch.nn.GRU(D, H, bidirectional=True), torch.nn.Linear(2 * H, V), read="last")
    with pytest.raises(ModelFileError, match="has read one step only"):
        door.load(exported(module, inputs(T, B, D), tmp_path / "m.onnx"))


# ---- Keras, as tf2onnx writes it -------------------------------------------------------------------------------------


def check(proto, x, kind, **expected):
    """The model of a graph of whole sequences computes what ONNX Runtime computes."""
    model = door.from_model(proto)
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
        door.from_model(proto)


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
    model = door.from_model(proto)
    x = inputs(T, B, D)
    assert error(model.predict(x.swapaxes(0, 1)), run(session(proto), x)["out"]) < WORST


# ---- a graph to change -----------------------------------------------------------------------------------------------

TEXT = f"""g (float[t, b, {D}] x) => (float[t, b, {V}] out) {{
    y, y_h, y_c = LSTM <hidden_size = {H}> (x, W0, R0, B0)
    s = Squeeze (y, one)
    product = MatMul (s, kernel)
    out = Add (product, bias)
}}"""
ARRAYS = {"one": np.array([1]), "kernel": inputs(H, V), "bias": inputs(V, seed=1)} | weights("LSTM", D, H)


def changed(*pairs, text=TEXT, **arrays):
    """The graph with other words and arrays."""
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    both = {name: value for name, value in (ARRAYS | arrays).items() if value is not None}
    return graph_of(text, **both)


def test_the_graph_itself_is_read():
    model = door.from_model(changed())
    x = inputs(T, B, D)
    assert error(model.predict(x.swapaxes(0, 1)).swapaxes(0, 1), run(session(changed()), x)["out"]) < WORST
    assert model.scale is False


@pytest.mark.parametrize("dtype", ["f2", "f8"])
def test_other_precisions(dtype):
    arrays = {name: value.astype(dtype) for name, value in ARRAYS.items() if value.dtype == "f4"}
    model = door.from_model(changed(**arrays))
    assert model.dtype == {"f2": "float32", "f8": "float64"}[dtype]
    assert (model.params["b_y"] == arrays["bias"]).all()


def test_kinds_and_classes_are_what_the_caller_says():
    model = door.from_model(changed(), kind="SequenceTagger", classes=["no", "yes"])
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
        ({"classes": ["a"]}, "^num_classes: expected 1, as many as classes"),
        ({"kind": "SequenceTagger", "vocab": vocab}, "^vocab: expected none"),
    ]:
        with pytest.raises(ValueError, match=message):
            door.from_model(changed(), **options)
    with pytest.raises(TypeError, match=r"^vocab: expected a Vocab"):
        door.from_model(changed(), vocab="ab")
    with pytest.raises(ValueError, match=r"^kind: expected none for a file of crnn's"):
        door.from_model(door.to_model(crnn.RNN(2, 3)), kind="RNN")
    with pytest.raises(TypeError, match=r"^proto: expected an onnx\.ModelProto"):
        door.from_model(b"")


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
        door.from_model(changed(*pairs, **more, **(arrays[0] if arrays else {})))


def test_a_refusal_names_the_node_and_the_file(tmp_path):
    proto = changed((LAYER, f"LSTM <hidden_size = {H}, clip = 1.0> (x, W0, R0, B0)"))
    proto.graph.node[0].name = "layer one"
    onnx.save(proto, tmp_path / "m.onnx")
    wanted = re.escape(f"{tmp_path / 'm.onnx'}: node 'layer one' (LSTM): clip: expected none")
    with pytest.raises(ModelFileError, match=wanted):
        door.load(tmp_path / "m.onnx")


def test_lengths_are_an_input_and_a_constant_length_is_refused():
    text = TEXT.replace(f"{D}] x)", f"{D}] x, int32[b] lengths)").replace("B0)", "B0, lengths)")
    model = door.from_model(changed(text=text))
    x, lengths = inputs(T, B, D), np.array([6, 1, 3, 5], "i4")
    wanted = run(session(changed(text=text)), x, lengths)["out"]
    found = model.predict([sequence[:n] for sequence, n in zip(x.swapaxes(0, 1), lengths, strict=True)])
    assert max(error(y, wanted[:n, i]) for i, (y, n) in enumerate(zip(found, lengths, strict=True))) < WORST
    constant = changed(("B0)", "B0, fixed)"), fixed=np.full(B, 3, "i4"))
    with pytest.raises(ValueError, match=r"\(LSTM\): expected a value that depends on the inputs"):
        door.from_model(constant)


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
    net, x, h = door.from_model(proto), inputs(T, B, D), inputs(2, B, H, seed=3)
    y, after = net(x, h)
    found = run(session(proto), x, h)
    assert max(error(y, found["y"]), error(after, found["h_out"])) < WORST
    proto.graph.node[2].input[5], proto.graph.node[4].input[5] = "h1", "h0"
    with pytest.raises(ValueError, match="initial_h of layer 0: expected zeros, a constant, or the layer's own input"):
        door.from_model(proto)
    shared = text.replace("float[2, b, 5] h)", "float[1, b, 5] h)").replace("h0 = Slice (h, zero, one, zero)", "")
    shared = shared.replace("h1 = Slice (h, one, two, zero)", "").replace(", h0)", ", h)").replace(", h1)", ", h)")
    del arrays["two"], arrays["zero"]
    with pytest.raises(ValueError, match="initial_h of layer 1"):
        door.from_model(graph_of(shared, **arrays))


@pytest.mark.parametrize("axes", ["[]", "[b]", f"[b, {H}]"])
def test_a_state_has_three_axes(axes):
    text = TEXT.replace(f"{D}] x)", f"{D}] x, float{axes.replace('[]', '')} h)").replace("B0)", "B0, , h)")
    with pytest.raises(ValueError, match="initial_h of layer 0: expected zeros, a constant, or the layer's own input"):
        door.from_model(changed(text=text))


def test_h_and_c_are_not_the_same_input_and_all_layers_have_the_same_lengths():
    text = TEXT.replace(f"{D}] x)", f"{D}] x, float[1, b, {H}] h)").replace("B0)", "B0, , h, h)")
    with pytest.raises(ValueError, match="initial_c of layer 0"):
        door.from_model(changed(text=text))
    text = TEXT.replace(f"{D}] x)", f"{D}] x, int32[b] lengths)").replace("B0)", "B0, lengths)")
    text = text.replace("product = MatMul (s", "q = LSTM (s, W1, R1, B1) r = Squeeze (q, one) product = MatMul (r")
    with pytest.raises(ValueError, match="sequence_lens: expected the same of all layers"):
        door.from_model(changed(text=text, **weights("LSTM", H, H, number=1)))
    text = text.replace("B1)", "B1, lengths)")
    assert door.from_model(changed(text=text, **weights("LSTM", H, H, number=1))).num_layers == 2


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
            door.from_model(graph_of(text, **(ARRAYS | constants | change)))
    with pytest.raises(ValueError, match="expected x"):
        door.from_model(graph_of(text.replace("Sub (x, mean)", "Sub (mean, x)"), **ARRAYS, **constants))


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
    model, x = door.from_model(proto), inputs(T, B, D)
    assert (model.scalings["x"].mean.tolist(), model.scalings["x"].std.tolist()) == (mean, std)
    assert error(model.predict(x.swapaxes(0, 1)).swapaxes(0, 1), run(session(proto), x)["out"]) < WORST


def test_scaling_is_refused_where_a_model_has_none():
    proto = changed(("y, y_h, y_c =", "v = Mul (x, a) y, y_h, y_c ="), ("(x, W0", "(v, W0"), a=np.array(2, "f4"))
    assert door.from_model(proto).scale
    proto.graph.output[0].name = "s"
    del proto.graph.node[-2:]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(changed(kernel=None, bias=None, a=np.array(2, "f4")).graph.initializer)
    with pytest.raises(ValueError, match="expected no scaling of x for the kind RNN"):
        door.from_model(proto)
    pair = ("out = Add (product, bias)", "q = Add (product, bias) r = Mul (q, a) out = Softmax (r)")
    with pytest.raises(ValueError, match=r"\(Softmax\): expected the outputs of a linear layer"):
        door.from_model(changed(pair, a=inputs(1)))
