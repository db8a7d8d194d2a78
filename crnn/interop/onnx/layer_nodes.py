# SPDX-License-Identifier: MIT
"""Nodes that hold parameters: recurrent layers, the linear layer, what is between them and behind them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from crnn.checks import Array
from crnn.interop.layouts import LAYOUTS, to_crnn
from crnn.interop.onnx import values
from crnn.interop.onnx.files import in_precision
from crnn.interop.onnx.reader import Node, Reader, ReadLayer, array_in, axes_in, data_in
from crnn.interop.onnx.values import Atom, Data, Filled, Head, Scaling, Value, Zeros, atoms, axis_number

ANSWERS = ("Softmax", "LogSoftmax", "Sigmoid", "ArgMax")
RECURRENT = ("LSTM", "GRU", "RNN")
ACTIVATIONS = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"], "RNN": ["tanh"]}  # by default
FORWARD, REVERSE = 0, 1
DIRECTIONS: dict[str, tuple[int, ...]] = {
    "forward": (FORWARD,),
    "reverse": (REVERSE,),
    "bidirectional": (FORWARD, REVERSE),
}


# ---- layers ----------------------------------------------------------------------------------------------------------


def recurrent(
    reader: Reader,
    node: Node,
    x: Value,
    W: Value,
    R: Value,
    B: Value = None,
    lengths: Value = None,
    h: Value = None,
    c: Value = None,
    peepholes: Value = None,
) -> Value:
    """LSTM, GRU and RNN."""
    if peepholes is not None:
        raise ValueError("expected no peepholes (P)")
    if node.kind != "LSTM" and c is not None:
        raise ValueError("expected no more inputs")
    directions = DIRECTIONS.get(node.take("direction", "forward"), ())
    batch_first = node.take("layout", 0)
    cell = _cell(node, len(directions))
    if not directions or batch_first not in (0, 1):
        raise ValueError("expected the direction forward, reverse or bidirectional, and the layout 0 or 1")
    W, R = in_precision("W", array_in(W)), in_precision("R", array_in(R))
    bias = None if B is None or isinstance(B, Zeros) else in_precision("B", array_in(B))
    data = data_in(x)
    time, batch = _check_source(reader, data, bool(batch_first))
    H = _check_weights(cell, len(directions), data.sizes[2], W, R, bias)
    if node.take("hidden_size", H) != H:
        raise ValueError(f"hidden_size: expected {H}, as in R")
    lengths_input = "" if lengths is None else _lengths(reader, lengths)
    reader.charge(W.nbytes + R.nbytes)
    params = {}
    for i, direction in enumerate(directions):
        both = [None, None] if bias is None else np.split(bias[i], 2)
        params[direction] = to_crnn("onnx", cell, W[i], R[i], *both)
    states = {name: value for name, value in (("h", h), ("c", c)) if value is not None}
    layer = len(reader.layers)
    reader.layers.append(ReadLayer(cell, data, params, states, lengths_input))
    moments = {FORWARD: values.LAST, REVERSE: values.FIRST}
    ends = tuple((moments[direction], layer, direction) for direction in directions)
    middle, units = atoms(values.blocks(len(directions))), atoms(Atom("units", H))
    final = (batch, middle, units) if batch_first else (middle, batch, units)
    y_axes = (batch, time, middle, units) if batch_first else (time, middle, batch, units)
    y = Data("hidden", y_axes, tuple((values.EVERY, layer, d) for d in directions))
    return [y, Data("hidden", final, ends), Data("cell", final, ends)]


def _check_source(reader: Reader, data: Data, batch_first: bool) -> tuple[values.Axis, values.Axis]:
    """The axes of time and batch of a layer's input. Raises ValueError if it cannot be one."""
    if len(data.axes) != 3 or data.what not in ("input", "vectors", "hidden") or data.rows is not None:
        raise ValueError("expected x (T, B, D), an embedding, or the outputs of a layer")
    if data.scaling is not None and data.scaling.axis != data.axes[2]:
        raise ValueError("expected the columns of x to be scaled, not its steps")
    first, second, _ = data.axes
    time, batch = (second, first) if batch_first else (first, second)
    time = atoms(*(replace(atom, name="time") for atom in time))
    if data.what == "hidden":
        last = len(reader.layers) - 1
        wanted = {(values.EVERY, last, direction) for direction in reader.layers[last].params}
        if not set(data.parts) <= wanted or len(set(data.parts)) < len(data.parts):
            raise ValueError("expected the outputs of all steps of the previous layer")
        if (time, batch) != (reader.time, reader.batch):
            raise ValueError("expected the axes of time and batch where they were")
    elif reader.layers:
        raise ValueError("expected the outputs of the previous layer")
    reader.time, reader.batch = time, batch
    return time, batch


def _lengths(reader: Reader, lengths: Value) -> str:
    """The name of the input with the lengths; "" if they are all steps."""
    if isinstance(lengths, Filled) and lengths.size == values.product(atom.size for atom in reader.time):
        return ""
    data = data_in(lengths)
    if data.what != "ids" or data.probe is not None or len(data.axes) != 1 or reader.lengths - {data.name}:
        raise ValueError("sequence_lens: expected an input")
    reader.lengths.add(data.name)
    return data.name


# ---- the head --------------------------------------------------------------------------------------------------------


def reduce(reader: Reader, node: Node, x: Value, axes: Value = None) -> Value:
    """ReduceMean and ReduceMax."""
    chosen = axes_in(node, axes)
    keep = bool(node.take("keepdims", 1))
    node.take("noop_with_empty_axes")
    data, moment = data_in(x), values.MEAN if node.kind == "ReduceMean" else values.MAX
    if chosen is None or len(chosen) != 1:
        raise ValueError("expected one axis")
    return values.reduced(data, axis_number(chosen[0], len(data.axes)), moment, keep)


def global_pool(reader: Reader, node: Node, x: Value) -> Value:
    """GlobalAveragePool and GlobalMaxPool: (B, F, T) to (B, F, 1)."""
    data = data_in(x)
    if len(data.axes) != 3:
        raise ValueError("expected (B, F, T)")
    return values.reduced(data, 2, values.MEAN if node.kind == "GlobalAveragePool" else values.MAX, keep_axis=True)


def matmul(reader: Reader, node: Node, x: Value, W: Value) -> Value:
    return _head(reader, data_in(x), in_precision("weights", array_in(W)))


def gemm(reader: Reader, node: Node, x: Value, W: Value, b: Value = None) -> Value:
    if node.take("alpha", 1.0) != 1 or node.take("beta", 1.0) != 1 or node.take("transA", 0):
        raise ValueError("expected x W + b")
    weights = in_precision("weights", array_in(W))
    head = _head(reader, data_in(x), weights.T if node.take("transB", 0) else weights)
    return head if b is None else with_bias(head, b)


def _head(reader: Reader, data: Data, weights: Array) -> Data:
    if data.what != "hidden":
        raise ValueError("expected one linear layer, on the outputs of recurrent layers")
    return linear(reader, data, weights)


def linear(reader: Reader, data: Data, weights: Array) -> Data:
    """A linear layer on the last axis."""
    if weights.ndim != 2 or not data.axes or weights.shape[0] != data.sizes[-1] or not weights.size:
        raise ValueError(f"expected weights ({data.sizes[-1:]}, V), got shape {weights.shape}")
    reader.charge(weights.nbytes)
    axes = (*data.axes[:-1], atoms(Atom("outputs", weights.shape[1])))
    return Data("head", axes, head=Head(weights, None, data))


def answer(reader: Reader, node: Node, x: Value) -> Value:
    """Softmax and others of the head's outputs."""
    data = data_in(x)
    old = -1 if reader.opset >= 13 else 1  # the default then, with all axes behind it
    axis = node.take("axis", 0 if node.kind == "ArgMax" else old) if node.kind != "Sigmoid" else -1
    keep = bool(node.take("keepdims", 1)) if node.kind == "ArgMax" else True
    if node.kind == "ArgMax" and node.take("select_last_index", 0):
        raise ValueError("expected the first of equal numbers")
    argmax = node.kind == "ArgMax" and data.answer in ("Softmax", "LogSoftmax")
    if data.head is None or (data.answer and not argmax) or data.scaling is not None:
        raise ValueError("expected the outputs of a linear layer")
    place = axis_number(axis, len(data.axes))
    if node.kind != "Sigmoid" and data.axes[place] != atoms(Atom("outputs", data.head.weights.shape[1])):
        raise ValueError("expected the axis of the linear layer's outputs")
    axes = list(data.axes)
    if node.kind == "ArgMax":
        axes[place : place + 1] = [()] if keep else []
    return data.with_axes(axes, answer=node.kind)


def with_bias(data: Data, bias: Value) -> Data:
    """A head with its bias."""
    head, array = data.head, in_precision("bias", array_in(bias))
    assert head is not None
    V = head.weights.shape[1]
    if head.bias is not None or data.answer or array.size != V or array.shape[-1:] not in ((V,), ()):
        raise ValueError(f"expected one bias ({V},)")
    return replace(data, head=replace(head, bias=array.reshape(V)))


def scaled(reader: Reader, data: Data, kind: str, value: Value) -> Data:
    """An input, or the outputs of a head, after numbers have been added, subtracted, multiplied, divided."""
    reader.charge(24 * array_in(value).size)
    array = array_in(value).astype(np.float64)
    axis = data.axes[-1] if data.axes else ()
    if array.dtype.kind != "f" or data.answer or data.rows is not None:
        raise ValueError("expected x, or the outputs of a linear layer")
    if array.size != 1 and array.shape != (1,) * (array.ndim - 1) + (data.sizes[-1],):
        raise ValueError("expected a number, or one for each column")
    array = array.reshape(-1 if array.size > 1 else ())
    old = data.scaling or Scaling(np.zeros(()), np.ones(()), axis)
    if old.axis != axis:
        raise ValueError("expected the columns that have been scaled before")
    mean, std = old.mean, old.std
    sign = 1 if kind in ("Add", "Mul") else -1
    if kind in ("Mul", "Div"):
        factor = array if kind == "Mul" else 1 / array
        if data.what == "head":
            mean, std = mean * factor, std * factor
        else:
            std = std / array if kind == "Mul" else std * array
    else:
        mean = mean + sign * array if data.what == "head" else mean - sign * array * std
    return replace(data, scaling=Scaling(mean, std, axis))


def _cell(node: Node, directions: int) -> str:
    """The cell of a recurrent node. Raises ValueError for what no cell has."""
    default = ACTIVATIONS[node.kind] * directions
    activations = [str(name).lower() for name in node.take("activations", default)]
    for name in ("activation_alpha", "activation_beta"):
        if node.take(name):
            raise ValueError(f"{name}: expected none")
    if node.take("clip") is not None:
        raise ValueError("clip: expected none")
    if node.take("input_forget", 0):
        raise ValueError("input_forget: expected 0")
    if node.kind == "GRU":
        cell = "gru" if node.take("linear_before_reset", 0) else "original_gru"
    else:
        relu = node.kind == "RNN" and activations == ["relu"] * directions
        default = activations if relu else default
        cell = "lstm" if node.kind == "LSTM" else "relu" if relu else "tanh"
    if activations != default:
        raise ValueError(f"activations: expected {ACTIVATIONS[node.kind]} of each direction, got {activations!r:.200}")
    return cell


def _check_weights(cell: str, directions: int, D: Any, W: Array, R: Array, B: Array | None) -> int:
    """H. Raises ValueError unless the shapes fit each other and the input."""
    G = len(LAYOUTS["onnx"].gates[cell])
    H = R.shape[-1] if R.ndim == 3 else 0
    shapes = {"W": (directions, G * H, D), "R": (directions, G * H, H), "B": (directions, 2 * G * H)}
    for name, array in (("W", W), ("R", R), ("B", B)):
        if array is not None and (array.shape != shapes[name] or not array.size or array.dtype != W.dtype):
            raise ValueError(f"{name}: expected {W.dtype} of shape {shapes[name]}, got {array.dtype} {array.shape}")
    return H
