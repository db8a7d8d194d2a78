# SPDX-License-Identifier: MIT
"""The nodes of a graph of another program: `OPERATORS` has the function that evaluates each operator that is read.

A node is evaluated with constants by NumPy, with what depends on the inputs by `crnn.interop.onnx.values`. What a
function does not know, an attribute, an input or a use, it refuses; the error names the node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from crnn.interop.onnx import layer_nodes, shape_nodes
from crnn.interop.onnx.reader import Node, Reader
from crnn.interop.onnx.values import Value


def evaluate(reader: Reader, proto: Any, operators: Mapping[str, Callable[..., Any]] | None = None) -> None:
    """Evaluate a node with these operators, OPERATORS if not given. Raises ValueError, which names the node."""
    node = Node(proto, reader.opset)
    try:
        given = [reader.value(name) for name in node.inputs]
        with np.errstate(all="ignore"):  # of constants
            found = (OPERATORS if operators is None else operators)[node.kind](reader, node, *given)
        node.expect_no_more()
    except (TypeError, AttributeError, ZeroDivisionError):
        raise ValueError(f"{node.name}: expected its inputs, outputs and attributes, got others") from None
    except (ValueError, IndexError, OverflowError, KeyError) as error:
        raise ValueError(f"{node.name}: {error}") from None
    for name, value in zip(node.outputs, found if isinstance(found, list) else [found], strict=False):
        if name in reader.values and name:
            raise ValueError(f"{node.name}: expected an output that no other node has, got {name!r:.100}")
        reader.values[name] = value


OPERATORS: dict[str, Callable[..., Value | Sequence[Value]]] = {
    **dict.fromkeys(layer_nodes.RECURRENT, layer_nodes.recurrent),
    "MatMul": layer_nodes.matmul,
    "Gemm": layer_nodes.gemm,
    **dict.fromkeys(layer_nodes.ANSWERS, layer_nodes.answer),
    **dict.fromkeys(("ReduceMean", "ReduceMax"), layer_nodes.reduce),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), layer_nodes.global_pool),
    "Gather": shape_nodes.gather,
    "OneHot": shape_nodes.one_hot,
    "Slice": shape_nodes.slices,
    "Split": shape_nodes.split,
    "Concat": shape_nodes.concat,
    "Transpose": shape_nodes.transpose,
    "Reshape": shape_nodes.reshape,
    "Flatten": shape_nodes.flatten,
    "Squeeze": shape_nodes.squeeze,
    "Unsqueeze": shape_nodes.unsqueeze,
    "Shape": shape_nodes.shape,
    "Constant": shape_nodes.constant,
    "ConstantOfShape": shape_nodes.fill,
    "Expand": shape_nodes.expand,
    "Tile": shape_nodes.tile,
    **dict.fromkeys(shape_nodes.ELEMENTWISE, shape_nodes.arithmetic),
    **dict.fromkeys(("Cast", "Not"), shape_nodes.unary),
    "Identity": shape_nodes.same,
    "Dropout": shape_nodes.dropout,
}
