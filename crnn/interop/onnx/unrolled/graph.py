# SPDX-License-Identifier: MIT
"""A graph without recurrent nodes: its layers are found in their unrolled steps."""

from __future__ import annotations

from typing import Any

from crnn.interop.onnx.nodes import evaluate
from crnn.interop.onnx.reader import Reader, called
from crnn.interop.onnx.unrolled.algebra import ELEMENTWISE
from crnn.interop.onnx.unrolled.operators import operators
from crnn.interop.onnx.unrolled.steps import REVERSED, Steps, Unroller
from crnn.interop.onnx.values import Data, Value

BODIES = ("Loop", "Scan", "If")
NONE = "expected a graph with nodes LSTM, GRU or RNN, or with the steps of such layers, got none"
MOST_INPUTS = 4  # that are tried as x
KERAS_INPUTS = "keras_tensor"  # how names of inputs begin that Keras gives


def evaluate_unrolled(proto: Any, reader: Reader) -> None:
    """Evaluate a graph, as `crnn.interop.onnx.nodes.evaluate` does its nodes. Raises ValueError, which says what else
    reads such a model."""
    inputs = dict(reader.values)
    errors = []
    for x in _with_steps(reader):
        reader.values, reader.layers = dict(inputs), []
        try:
            return _evaluate(proto, reader, x)
        except ValueError as error:
            errors.append(error)
    reason = errors[0] if errors else "expected an input x with three axes, or ids with two"
    raise ValueError(f"{reason} ({_other_ways(proto)})")


def _with_steps(reader: Reader) -> list[str]:
    """The inputs that may be the one that has steps; others are initial states."""
    data = {name: value for name, value in reader.values.items() if isinstance(value, Data)}
    likely = [name for name, value in data.items() if len(value.axes) == 3 or value.what == "ids" or len(data) == 1]
    return likely[:MOST_INPUTS]


def _evaluate(proto: Any, reader: Reader, x: str) -> None:
    unroller, table = operators(reader, x)
    if not any(node.op_type in (*ELEMENTWISE, *BODIES) for node in proto.graph.node):
        raise ValueError(NONE)
    for node in proto.graph.node:
        if node.op_type in BODIES:
            raise ValueError(
                f"{called(node)}: expected nodes of recurrent layers, or their steps one after the other; a loop is "
                "not read, and neither is a mask, which some exporters write as If"
            )
    for node in proto.graph.node:
        if node.op_type not in table:
            raise ValueError(f"{called(node)}: expected nothing but steps of recurrent layers, and one linear layer")
    for node in proto.graph.node:
        evaluate(reader, node, table)
    for each in proto.graph.output:  # an h first, because a c is known by it
        value = reader.values.get(each.name)
        for part in value.parts if isinstance(value, Steps) else ():
            unroller.chains.find(part)
    for each in proto.graph.output:
        try:
            reader.values[each.name] = _in_order(unroller, reader.values.get(each.name))
        except ValueError as error:
            raise ValueError(f"output {each.name!r:.100}: {error}") from None
    if not reader.layers:
        raise ValueError(NONE)
    unroller.chains.add_states()


def _in_order(unroller: Unroller, value: Value) -> Value:
    """An output as what a model has."""
    found = unroller.as_data(value) if isinstance(value, Steps) else value
    if isinstance(found, Data) and any(atom.name.endswith(REVERSED) for axis in found.axes for atom in axis):
        raise ValueError("expected the steps in the order of time")
    return found


def _other_ways(proto: Any) -> str:
    """What to do with a graph that is refused."""
    if any(each.name.startswith(KERAS_INPUTS) for each in proto.graph.input):
        return "Keras's exporter has unrolled the layers into steps; crnn.interop.keras reads Keras's models and files"
    if proto.producer_name == "pytorch":
        return (
            "PyTorch's exporter has unrolled the layers into steps; torch.onnx.export(..., dynamo=False) does not do "
            "that to nn.LSTM, nn.GRU and nn.RNN; crnn.interop.torch and crnn.interop.keras read models themselves"
        )
    return "other exporters write nodes LSTM, GRU and RNN; crnn.interop.torch and crnn.interop.keras read models"
