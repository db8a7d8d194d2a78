# SPDX-License-Identifier: MIT
"""Files in which PyTorch's and Keras's exporters have unrolled layers: the loaded model computes what the file does."""

import contextlib
import io
import warnings

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
from onnx_tools import error, run, session

from crnn.interop import onnx as interop
from crnn.io.model_file import ModelFileError

pytestmark = pytest.mark.interop

WORST = 1e-6  # of float32, in units of the largest number if that is above 1; measured: 4e-7
T, B, D, H, V = 5, 4, 3, 6, 2


def inputs(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("f4")


def check(path, x, kind="SequenceRegressor", **expected):
    """The model of a file with a head computes what ONNX Runtime computes, and takes any number of steps."""
    model = interop.load(path)
    found = {"cell": model.net.cell, "layers": model.net.num_layers, "bidirectional": model.net.bidirectional}
    found |= {"pooling": getattr(model, "pooling", None)}
    assert type(model).__name__ == kind
    assert {name: found[name] for name in expected} == expected
    wanted = next(iter(run(session(onnx.load(path)), x).values()))
    x = x.astype("i8") if x.ndim == 2 else x
    predict = model.predict_proba if hasattr(model, "predict_proba") else model.predict
    assert error(predict(x), wanted) < WORST
    if found["pooling"] != "flatten":
        predict(np.concatenate([x, x], 1))
    return model


# ---- PyTorch ---------------------------------------------------------------------------------------------------------


def exported(torch, module, x, path, **options):
    """The path of a file that PyTorch has written."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        if options.get("dynamo"):
            pytest.importorskip("onnxscript")
            options |= {"verbose": False, "external_data": False}
        torch.onnx.export(module, (torch.from_numpy(x),), str(path), **options)
    return path


@pytest.fixture
def module_of(torch):
    def module(recurrent, read, head):
        """A module of a recurrent one, what is read of its outputs and its state, and a linear layer."""

        class Module(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.recurrent, self.head = recurrent, head

            def forward(self, x):
                y, h = self.recurrent(x)
                return self.head(read(y, h))

        return Module().eval()

    torch.manual_seed(0)
    return module


RNNS = {
    "last": ({}, lambda torch: lambda y, h: y[:, -1], 1, {"pooling": "last"}),
    "relu, every step": (
        {"nonlinearity": "relu", "bias": False},
        lambda torch: lambda y, h: y,
        1,
        {"cell": "relu", "pooling": None},
    ),
    "stack, both directions": (
        {"num_layers": 2, "bidirectional": True},
        lambda torch: lambda y, h: torch.cat([h[-2], h[-1]], 1),
        2,
        {"layers": 2, "bidirectional": True},
    ),
}


@pytest.mark.parametrize("name", RNNS)
def test_an_rnn_that_the_new_exporter_has_unrolled(torch, module_of, name, tmp_path):
    options, read, size, expected = RNNS[name]
    recurrent = torch.nn.RNN(D, H, batch_first=True, **options)
    module = module_of(recurrent, read(torch), torch.nn.Linear(H * size, V))
    sizes = ({0: torch.export.Dim.DYNAMIC},) if name == "last" else None  # of the batch
    path = exported(torch, module, inputs(B, T, D), tmp_path / "m.onnx", dynamo=True, dynamic_shapes=sizes)
    assert not any(node.op_type == "RNN" for node in onnx.load(path).graph.node)
    check(path, inputs(B, T, D), **({"cell": "tanh"} | expected))


@pytest.mark.parametrize(("kind", "dynamo"), [("RNNCell", False), ("GRUCell", True), ("LSTMCell", False)])
def test_cells_in_a_loop(torch, kind, dynamo, tmp_path):
    torch.manual_seed(0)

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = (getattr(torch.nn, kind)(size, H) for size in (D, H))
            self.head = torch.nn.Linear(H, V)

        def forward(self, x):
            states = [None, None]
            for t in range(x.shape[1]):
                y = x[:, t]
                for i, cell in enumerate((self.first, self.second)):
                    states[i] = cell(y, states[i])
                    y = states[i][0] if isinstance(states[i], tuple) else states[i]
            return self.head(y)

    axes = {} if dynamo else {"dynamic_axes": {"x": {0: "batch"}}, "input_names": ["x"]}
    path = exported(torch, Module().eval(), inputs(B, T, D), tmp_path / "m.onnx", dynamo=dynamo, **axes)
    cell = {"RNNCell": "tanh", "GRUCell": "gru", "LSTMCell": "lstm"}[kind]
    check(path, inputs(B, T, D), cell=cell, layers=2, pooling="last")


def test_an_rnn_whose_initial_state_is_an_input(torch, tmp_path):
    torch.manual_seed(0)
    recurrent = torch.nn.RNN(D, H, 2, bidirectional=True)
    x, h = inputs(T, B, D), inputs(4, B, H)
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        pytest.importorskip("onnxscript")
        given = torch.from_numpy(x), torch.from_numpy(h)
        torch.onnx.export(recurrent, given, str(tmp_path / "m.onnx"), dynamo=True, verbose=False, external_data=False)
    net = interop.load(tmp_path / "m.onnx")
    y, last = run(session(onnx.load(tmp_path / "m.onnx")), x, h).values()
    found, state = net(x, h)
    assert error(found, y) < WORST
    assert error(state, last) < WORST


def test_an_initial_state_that_is_not_zeros_is_refused(torch, module_of, tmp_path):
    cell = torch.nn.RNN(D, H, batch_first=True)

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.start = cell, torch.nn.Parameter(torch.ones(1, B, H))

        def forward(self, x):
            return self.cell(x, self.start)[0]

    path = exported(torch, Module().eval(), inputs(B, T, D), tmp_path / "m.onnx", dynamo=True)
    with pytest.raises(ModelFileError, match=r"no cell of crnn computes.*dynamo=False"):
        interop.load(path)


# ---- Keras -----------------------------------------------------------------------------------------------------------


def keras_file(keras, layers, path, shape=(T, D)):
    """A file that Keras has written, of a model with random weights and biases."""
    model = keras.Sequential([keras.layers.Input(shape), *layers(keras.layers)])
    rng = np.random.default_rng(0)
    recurrent = [weights for weights in model.weights if "norm" not in weights.path]
    for weights in recurrent:
        weights.assign(rng.normal(size=weights.shape) / 2)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        model(np.zeros((1, *(size or 1 for size in shape)), "f4"))
        model.export(path, format="onnx", verbose=False)
    return model


KERAS = {
    "GRU": (lambda L: [L.GRU(H), L.Dense(V)], {"cell": "gru", "pooling": "last"}),
    "GRU, reset before": (lambda L: [L.GRU(H, reset_after=False), L.Dense(V)], {"cell": "original_gru"}),
    "GRU on each step": (lambda L: [L.GRU(H, return_sequences=True), L.Dense(V)], {"pooling": None}),
    "LSTM without biases": (lambda L: [L.LSTM(H, use_bias=False), L.Dense(V, use_bias=False)], {"cell": "lstm"}),
    "LSTM stack": (lambda L: [L.LSTM(H, return_sequences=True), L.LSTM(4), L.Dense(V)], {"layers": 2}),
    "SimpleRNN": (lambda L: [L.SimpleRNN(H), L.Dense(V)], {"cell": "tanh", "pooling": "last"}),
    "SimpleRNN, relu": (lambda L: [L.SimpleRNN(H, activation="relu"), L.Dense(V)], {"cell": "relu"}),
    "Bidirectional": (
        lambda L: [L.Bidirectional(L.LSTM(H, return_sequences=True)), L.Bidirectional(L.LSTM(4)), L.Dense(V)],
        {"layers": 2, "bidirectional": True},
    ),
    "Bidirectional, then one direction": (
        lambda L: [L.Bidirectional(L.GRU(H, return_sequences=True)), L.GRU(4), L.Dense(V)],
        {"layers": 2, "cell": "gru"},
    ),
    "backwards": (lambda L: [L.GRU(H, go_backwards=True), L.Dense(V)], {"bidirectional": True}),
    "mean": (lambda L: [L.GRU(H, return_sequences=True), L.GlobalAveragePooling1D(), L.Dense(V)], {"pooling": "mean"}),
    "flattened": (lambda L: [L.LSTM(H, return_sequences=True), L.Flatten(), L.Dense(V)], {"pooling": "flatten"}),
    "cells": (lambda L: [L.RNN([L.LSTMCell(H), L.LSTMCell(4)]), L.Dense(V)], {"layers": 2, "cell": "lstm"}),
    "normalised": (lambda L: [L.Normalization(mean=1.0, variance=4.0), L.GRU(H), L.Dense(V)], {"cell": "gru"}),
}
KERAS_CLASSES = {
    "softmax of each step": (
        lambda L: [L.LSTM(H, return_sequences=True), L.TimeDistributed(L.Dense(V, "softmax"))],
        (T, D),
    ),
    "softmax": (lambda L: [L.LSTM(H), L.Dense(V, "softmax")], (T, D)),
    "sigmoid, ids": (lambda L: [L.Embedding(9, D), L.GRU(H), L.Dense(V, "sigmoid")], (T,)),
}


@pytest.mark.parametrize("name", KERAS)
def test_keras_models(keras, name, tmp_path):
    layers, expected = KERAS[name]
    keras_file(keras, layers, tmp_path / "m.onnx")
    check(tmp_path / "m.onnx", inputs(B, T, D), **expected)


@pytest.mark.parametrize("name", KERAS_CLASSES)
def test_keras_models_of_classes(keras, name, tmp_path):
    layers, shape = KERAS_CLASSES[name]
    keras_file(keras, layers, tmp_path / "m.onnx", shape)
    x = inputs(B, *shape) if len(shape) == 2 else np.random.default_rng(0).integers(0, 9, (B, T)).astype("f4")
    every = "each" in name
    kind, pooling = ("SequenceTagger", None) if every else ("SequenceClassifier", "last")
    check(tmp_path / "m.onnx", x, kind, pooling=pooling)


def test_bidirectional_simple_rnns_of_keras(keras, tmp_path):
    """Keras writes a file that ONNX Runtime refuses; the model is that of Keras."""
    original = keras_file(keras, lambda L: [L.Bidirectional(L.SimpleRNN(H)), L.Dense(V)], tmp_path / "m.onnx")
    model = interop.load(tmp_path / "m.onnx")
    wanted = np.asarray(original(inputs(B, T, D), training=False).detach())
    assert error(model.predict(inputs(B, T, D)), wanted) < WORST


@pytest.mark.parametrize(
    ("layers", "shape", "message"),
    [
        (lambda L: [L.GRU(H), L.Dense(V)], (None, D), "expected a fixed number of steps"),
        (lambda L: [L.SimpleRNN(H), L.Dense(V)], (None, D), "expected a fixed number of steps"),
        (lambda L: [L.Embedding(9, D, mask_zero=True), L.GRU(H), L.Dense(V)], (T,), r"\(If\): .* a mask"),
        (lambda L: [L.GRU(H, recurrent_activation="hard_sigmoid"), L.Dense(V)], (T, D), r"\(HardSigmoid\)"),
        (lambda L: [L.LSTM(H, activation="relu"), L.Dense(V)], (T, D), "no cell of crnn computes"),
    ],
)
def test_keras_models_that_are_refused(keras, layers, shape, message, tmp_path):
    keras_file(keras, layers, tmp_path / "m.onnx", shape)
    with pytest.raises(ModelFileError, match=rf"{message}.*crnn\.interop\.keras reads"):
        interop.load(tmp_path / "m.onnx")
