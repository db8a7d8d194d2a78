# SPDX-License-Identifier: MIT
"""A graph without recurrent nodes: its layers are found in their unrolled steps."""

from __future__ import annotations

from typing import Any

from crnn.interop.onnx.nodes import evaluate
from crnn.interop.onnx.reader import Reader, called
from crnn.interop.onnx.unrolled.operators import FUNCTIONS, operators
from crnn.interop.onnx.unrolled.steps import REVERSED, Steps
from crnn.interop.onnx.values import Data

BODIES = ("Loop", "Scan", "If")
NONE = "expected a graph with nodes LSTM, GRU or RNN, or with the steps of such layers, got none"
KERAS_INPUTS = "keras_tensor"  # how names of inputs begin that Keras gives


def evaluate_unrolled(proto: Any, reader: Reader) -> None:
    """Evaluate a graph, as `crnn.interop.onnx.nodes.evaluate` does its nodes. Raises ValueError, which says what else
    reads such a model."""
    try:
        _evaluate(proto, reader)
    except ValueError as error:
        raise ValueError(f"{error} ({_other_ways(proto)})") from None


def _evaluate(proto: Any, reader: Reader) -> None:
    unroller, table = operators(reader)
    if not any(node.op_type in (*FUNCTIONS, *BODIES) for node in proto.graph.node):
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
    for each in proto.graph.output:
        value = reader.values.get(each.name)
        try:
            if isinstance(value, Steps):
                value = reader.values[each.name] = unroller.as_data(value)
            if isinstance(value, Data) and any(atom.name.endswith(REVERSED) for axis in value.axes for atom in axis):
                raise ValueError("expected the steps in the order of time")
        except ValueError as error:
            raise ValueError(f"output {each.name!r:.100}: {error}") from None
    if not reader.layers:
        raise ValueError(NONE)


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
