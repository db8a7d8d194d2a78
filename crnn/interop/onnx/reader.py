# SPDX-License-Identifier: MIT
"""Reader: the values of a graph of another program, and what its nodes may use. `Node`: its attributes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from crnn.checks import Array
from crnn.interop.onnx import values
from crnn.interop.onnx.files import Tensors, onnx
from crnn.interop.onnx.values import Data, Value

BUDGET = 64 << 20, 4  # bytes that constants may take, and as many for each byte of the initializers


def called(node: Any) -> str:
    """What messages call a node."""
    return f"node {node.name or (list(node.output) or [''])[0]!r:.100} ({node.op_type:.40})"


@dataclass(frozen=True)
class ReadLayer:
    """A recurrent layer: its cell, where its input comes from, and its parameters by direction."""

    cell: str
    source: Data
    params: dict[int, dict[str, Array]]  # by direction; W_xh reads the parts of the source in their order
    states: dict[str, Value]  # "h" and "c" before the first step, where they are given
    lengths: str  # name of the input with the lengths of the sequences, or ""


class Node:
    """A node whose attributes are taken out one by one."""

    kind: str
    opset: int
    inputs: list[str]
    outputs: list[str]
    name: str  # for messages

    def __init__(self, proto: Any, opset: int) -> None:
        self.kind, self.opset = proto.op_type, opset
        self.inputs, self.outputs = list(proto.input), list(proto.output)
        self.name = called(proto)
        if proto.domain not in ("", "ai.onnx"):
            raise ValueError(f"{self.name}: expected an operator of ONNX, got one of {proto.domain!r:.100}")
        self._attributes = {each.name: each for each in proto.attribute}

    def take(self, name: str, default: Any = None) -> Any:
        """The value of an attribute; texts as str."""
        if name not in self._attributes:
            return default
        attribute = self._attributes.pop(name)
        if attribute.ref_attr_name:
            raise ValueError(f"attribute {name}: expected a value")
        value = onnx().helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            return value.decode()
        is_list = not isinstance(value, int | float) and hasattr(value, "__iter__")
        return [each.decode() if isinstance(each, bytes) else each for each in value] if is_list else value

    def peek(self, name: str, default: Any = None) -> Any:
        """The value of an attribute, which is left."""
        attribute = self._attributes.get(name)
        value = self.take(name, default)
        if attribute is not None:
            self._attributes[name] = attribute
        return value

    def expect_no_more(self) -> None:
        """Raise ValueError if an attribute is left."""
        for name in self._attributes:
            raise ValueError(f"expected no attribute {name!r:.100}")


class Reader:
    """What the nodes that have been evaluated have found.

    Attributes
    ----------
    values : dict of str to value
        By name; "" is an input that is not given.
    layers : list of ReadLayer
    lengths : set of str
        Names of the inputs that are lengths of sequences.
    """

    tensors: Tensors
    opset: int

    def __init__(self, tensors: Tensors, opset: int) -> None:
        self.tensors, self.opset = tensors, opset
        self.values: dict[str, Value] = {}
        self.layers: list[ReadLayer] = []
        self.lengths: set[str] = set()
        self.time: values.Axis = ()  # the axes of the first layer's input
        self.batch: values.Axis = ()
        self._left = BUDGET[0] + BUDGET[1] * sum(tensor.ByteSize() for tensor in tensors.named.values())
        self._largest_table = 0  # ids that an embedding of the file could have

    def value(self, name: str) -> Value:
        if not name:
            return None
        if name not in self.values and name in self.tensors.named:
            self.values[name] = self.tensors.array(name)
        if name not in self.values:
            raise ValueError(f"expected an input that is known, got {name!r:.100}")
        return self.values[name]

    def charge(self, size: int) -> None:
        """Account for this many bytes. Raises ValueError if they are out of proportion to the file."""
        self._left -= size
        if self._left < 0:
            raise ValueError("expected a graph that does not multiply its constants so often")

    def probe(self, x: Value) -> Array | None:
        """What 0, 1, 2, ... becomes, if x depends on ids."""
        if not isinstance(x, Data) or x.what != "ids":
            return None
        if x.probe is not None:
            return x.probe
        if not self._largest_table:
            tables = [tensor.dims[0] for tensor in self.tensors.named.values() if len(tensor.dims) == 2]
            bound = sum(tensor.ByteSize() for tensor in self.tensors.named.values())
            self._largest_table = min(max(tables, default=0), bound, 1 << 31)
        self.charge(8 * self._largest_table)
        return np.arange(self._largest_table)


def array_in(value: Value) -> Array:
    if not isinstance(value, np.ndarray):
        raise ValueError("expected a constant where the value depends on the inputs")
    return value


def data_in(value: Value) -> Data:
    if not isinstance(value, Data):
        raise ValueError("expected a value that depends on the inputs, got a constant")
    return value


def scalar_in(value: Value) -> Array:
    array = array_in(value)
    if array.size != 1:
        raise ValueError("expected one number")
    return array.reshape(())


def axes_in(node: Node, given: Value) -> list[int] | None:
    """The axes of an operator, which are an input since version 13 or 18, an attribute before."""
    attribute = node.take("axes")
    axes = attribute if given is None else array_in(given).reshape(-1).tolist()
    if axes is not None and (len(axes) > values.MOST_AXES or not all(isinstance(axis, int) for axis in axes)):
        raise ValueError("expected a few axes")
    return axes
