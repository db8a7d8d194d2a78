# SPDX-License-Identifier: MIT
"""Files that PyTorch's exporter writes: what the module computes, the model computes; what it could not, is refused."""

import importlib
import warnings

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx_tools import WORST, B, D, H, T, V, error, inputs

import crnn
from crnn.interop import onnx as interop
from crnn.io.model_file import ModelFileError

pytestmark = pytest.mark.interop


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
    model = interop.load(exported(module, given, path, **options))
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
    model = interop.load(exported(module, x, tmp_path / "m.onnx"))
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
    found = interop.load(path).predict([row[:n].numpy() for row, n in zip(x, lengths, strict=True)])
    assert max(error(y, wanted[i, : len(y)]) for i, y in enumerate(found)) < WORST


@pytest.mark.torch
def test_a_network_and_its_state(tmp_path):
    torch = pytest.importorskip("torch")
    lstm = torch.nn.LSTM(D, H, 2, bidirectional=True)
    x = inputs(T, B, D)
    path = tmp_path / "m.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(lstm, (torch.from_numpy(x),), str(path), dynamo=False)
    net = interop.load(path)
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
    model = interop.load(path, vocab=vocab)
    with torch.no_grad():
        assert error(model.forward(ids)[0], module(torch.from_numpy(ids)).numpy()) < WORST
    assert model.vocab == vocab
    assert isinstance(interop.load(path), crnn.SequenceRegressor)
    tagger = interop.load(path, classes=list("abcdefg"))
    assert tagger.predict(ids.T).shape == (B, T)
    tagger = interop.load(path, classes=list("abcdefg"), vocab=vocab)
    assert tagger.vocab == vocab
    assert len(tagger.predict(["gfa", "ab"])[0]) == 3
    with pytest.raises(ModelFileError, match="input_size"):
        interop.load(path, vocab=crnn.Vocab.from_text("abc"))


@pytest.mark.torch
def test_the_output_of_both_directions_at_the_last_step_is_refused(tmp_path):
    """A common mistake: there the reverse direction has read one step."""
    torch = pytest.importorskip("torch")
    module = torch_module(torch.nn.GRU(D, H, bidirectional=True), torch.nn.Linear(2 * H, V), read="last")
    with pytest.raises(ModelFileError, match="has read one step only"):
        interop.load(exported(module, inputs(T, B, D), tmp_path / "m.onnx"))
