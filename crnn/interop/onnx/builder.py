# SPDX-License-Identifier: MIT
"""Builder: an ONNX graph that grows node by node. Knows the differences between the versions of the operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from crnn.checks import Array
from crnn.interop.onnx.files import HELPERS, onnx

if TYPE_CHECKING:
    import onnx as onnx_module


class Builder:
    """A graph. Methods that add a node return the name of its output.

    Parameters
    ----------
    opset : int
    dtype : str
        Of the model, for the scan.

    Attributes
    ----------
    arrays : dict of str to array
        The initializers that hold the model's parameters.
    """

    opset: int
    dtype: str
    arrays: dict[str, Array]

    def __init__(self, opset: int, dtype: str) -> None:
        self.opset, self.dtype, self.arrays = opset, dtype, {}
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._nodes: list[Any] = []
        self._constants: dict[tuple[Any, ...], str] = {}
        self._tensors: list[Any] = []
        self._count = 0

    # ---- the whole ------------------------------------------------------------------------------------------------

    def opsets(self) -> list[Any]:
        return [onnx().helper.make_opsetid("", self.opset)]

    def finish(self, name: str) -> onnx_module.GraphProto:
        """The graph."""
        graph: onnx_module.GraphProto = onnx().helper.make_graph(
            self._nodes, name, self._inputs, self._outputs, self._tensors
        )
        return graph

    def input(self, name: str, dtype: str, axes: Sequence[int | str]) -> str:
        """An input of the graph. An initializer of the same name is its default."""
        self._inputs.append(_value_info(name, dtype, axes))
        return name

    def output(self, value: str, name: str, dtype: str, axes: Sequence[int | str]) -> None:
        """Make ``value`` an output of the graph."""
        self._nodes.append(onnx().helper.make_node("Identity", [value], [name], name=f"to_{name}"))
        self._outputs.append(_value_info(name, dtype, axes))

    def array(self, name: str, values: Array) -> str:
        """An initializer that holds parameters."""
        self.arrays[name] = values
        self._tensors.append(_tensor(name, values))
        return name

    def constant(self, values: Array, name: str = "") -> str:
        """An initializer that holds no parameters; shared by equal ones."""
        key = (values.dtype.str, values.shape, repr(values.tolist()))
        if key not in self._constants:
            self._constants[key] = f"{HELPERS}{name or len(self._constants)}"
            self._tensors.append(_tensor(self._constants[key], values))
        return self._constants[key]

    # ---- nodes ----------------------------------------------------------------------------------------------------

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A node with one output."""
        return self.op_with_outputs(kind, inputs, 1, **attributes)[0]

    def op_with_outputs(self, kind: str, inputs: Sequence[str], n: int, **attributes: Any) -> list[str]:
        """A node with n outputs."""
        name = f"{kind}_{self._count}"
        outputs = [name] if n == 1 else [f"{name}.{i}" for i in range(n)]
        self._nodes.append(onnx().helper.make_node(kind, list(inputs), outputs, name=name, **attributes))
        self._count += 1
        return outputs

    def axes(self, *axes: int) -> str:
        return self.constant(np.array(axes, np.int64))

    def unsqueeze(self, x: str, axis: int) -> str:
        return self.op("Unsqueeze", x, self.axes(axis))

    def reshape(self, x: str, shape: list[int]) -> str:
        return self.op("Reshape", x, self.axes(*shape))

    def slice(self, x: str, axis: int, start: int, stop: int) -> str:
        return self.op("Slice", x, self.axes(start), self.axes(stop), self.axes(axis))

    def concat(self, values: Sequence[str], axis: int) -> str:
        return self.op("Concat", *values, axis=axis)

    def cast(self, x: str, dtype: str, was: str = "") -> str:
        """x in another dtype; x itself if it ``was`` of that dtype."""
        return x if dtype == was else self.op("Cast", x, to=_type(dtype))

    def size(self, x: str, axis: int) -> str:
        """The size of an axis, int64 (1,)."""
        return self.op("Gather", self.op("Shape", x), self.axes(axis))

    def reduce(self, kind: str, x: str, axis: int) -> str:
        """A reduction that removes an axis."""
        if kind == "ReduceSum" or self.opset >= 18:
            return self.op(kind, x, self.axes(axis), keepdims=0)
        return self.op(kind, x, axes=[axis], keepdims=0)

    def mean(self, x: str) -> str:
        """The mean over the last axis, which remains, of size 1."""
        if self.opset >= 18:
            return self.op("ReduceMean", x, self.axes(-1), keepdims=1)
        return self.op("ReduceMean", x, axes=[-1], keepdims=1)

    def scan(
        self, states: Sequence[str], inputs: dict[str, str], step: Callable[..., Sequence[str]], *, reverse: bool
    ) -> tuple[list[str], str]:
        """A loop over the first axis of ``inputs``, which maps names to dtypes.

        ``step`` writes the nodes of the body: it takes the names of the states, then of the inputs of a step, and
        returns those of the states after it. They may read initializers. Returns the names of the last states, and of
        the first state after every step.
        """
        make, number = onnx().helper.make_node, self._count
        before = [f"before_{number}.{i}" for i in range(len(states))]
        given = {f"input_{number}.{i}": dtype for i, dtype in enumerate(inputs.values())}
        outer, self._nodes = self._nodes, []
        after = step(*before, *given)
        every = f"out_{number}"
        nodes, self._nodes = [*self._nodes, make("Identity", [after[0]], [every])], outer
        taken = dict.fromkeys(before, self.dtype) | given
        values = [_value_info(name, dtype, [None, None]) for name, dtype in taken.items()]
        outputs = [_value_info(name, self.dtype, [None, None]) for name in (*after, every)]
        body = onnx().helper.make_graph(nodes, "step", values, outputs)
        n = len(inputs)
        directions = {"scan_input_directions": [1] * n, "scan_output_directions": [1]} if reverse else {}
        *final, y = self.op_with_outputs(
            "Scan", [*states, *inputs], len(states) + 1, body=body, num_scan_inputs=n, **directions
        )
        return final, y

    def linear_scan(self, h0: str, a: str, b: str, *, reverse: bool) -> tuple[str, str]:
        """h[t] = a[t] * h[t-1] + b[t] over the first axis. Returns the names of the last h, and of all of them."""
        make = onnx().helper.make_node
        nodes = [make("Mul", ["a", "before"], ["kept"]), make("Add", ["kept", "b"], ["after"])]
        nodes.append(make("Identity", ["after"], ["out"]))
        values = {name: _value_info(name, self.dtype, ["batch", "units"]) for name in ("before", "a", "b")}
        outputs = [_value_info(name, self.dtype, ["batch", "units"]) for name in ("after", "out")]
        body = onnx().helper.make_graph(nodes, "step", list(values.values()), outputs)
        directions = {"scan_input_directions": [1, 1], "scan_output_directions": [1]} if reverse else {}
        final, every = self.op_with_outputs("Scan", [h0, a, b], 2, body=body, num_scan_inputs=2, **directions)
        return final, every


def _type(dtype: str) -> int:
    """ONNX's number of a dtype."""
    proto = onnx().TensorProto
    return int(proto.STRING if dtype == "str" else onnx().helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _value_info(name: str, dtype: str, axes: Sequence[int | str | None]) -> Any:
    return onnx().helper.make_tensor_value_info(name, _type(dtype), list(axes))


def _tensor(name: str, values: Array) -> Any:
    if values.dtype == object:
        return onnx().helper.make_tensor(name, onnx().TensorProto.STRING, values.shape, [v.encode() for v in values])
    return onnx().numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name)
