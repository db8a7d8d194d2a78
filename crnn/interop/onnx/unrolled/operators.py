# SPDX-License-Identifier: MIT
"""The operators of graphs of unrolled layers: those of `crnn.interop.onnx.nodes`, and functions for steps.

A function returns None for values that it leaves to the operator of the same name there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from crnn.interop.onnx import layer_nodes, values
from crnn.interop.onnx.files import dtype_of, in_precision
from crnn.interop.onnx.nodes import OPERATORS
from crnn.interop.onnx.reader import Node, Reader, array_in, axes_in
from crnn.interop.onnx.unrolled.algebra import ELEMENTWISE, Sum
from crnn.interop.onnx.unrolled.chains import Chains
from crnn.interop.onnx.unrolled.steps import BATCH, COLUMNS, NOT_FIXED, ROWS, SINGLE, Steps, Unroller
from crnn.interop.onnx.values import Data, Filled, Rows, Value, Zeros, axis_number

Operator = Callable[..., Any]
OF_VECTORS = ("Softmax", "LogSoftmax")
COMPARISONS: dict[str, Operator] = {"Greater": np.greater, "LessOrEqual": np.less_equal}


def operators(reader: Reader, x: str) -> tuple[Unroller, dict[str, Operator]]:
    """The functions of all operators, as in `crnn.interop.onnx.nodes`, for one graph and the input that has steps."""
    unroller = Unroller(Chains(reader), x)
    known = {**dict.fromkeys((*ELEMENTWISE, *COMPARISONS), _unknown), **OPERATORS}
    table = {kind: _operator(unroller, STEP_OPERATORS.get(kind), function) for kind, function in known.items()}
    return unroller, table


def _operator(unroller: Unroller, of_steps: Operator | None, function: Operator) -> Operator:
    """The function of an operator: ``of_steps`` where it knows the values, otherwise ``function``."""

    def evaluated(reader: Reader, node: Node, *given: Value) -> Any:
        if of_steps is not None:
            found = of_steps(unroller, node, *given)
            if found is not None:
                return found
        given = tuple(unroller.as_data(value) if isinstance(value, Steps) else value for value in given)
        return function(reader, node, *given)

    return evaluated


def _unknown(reader: Reader, node: Node, *given: Value) -> Value:
    raise ValueError("expected a part of a recurrent layer's step")


# ---- arithmetic ------------------------------------------------------------------------------------------------------


def _product(unroller: Unroller, node: Node, x: Value, W: Value) -> Value:
    """MatMul."""
    if isinstance(x, np.ndarray) and isinstance(W, np.ndarray):
        unroller.reader.charge(x.nbytes + W.nbytes + x.size // max(x.shape[-1], 1) * W.shape[-1] * W.itemsize)
        return np.asarray(np.matmul(x, W))
    if isinstance(x, Data) and x.what == "input" and x.name != unroller.x:
        x = unroller.state(x)
    if isinstance(x, Data) and x.what in ("input", "vectors"):
        return layer_nodes.linear(unroller.reader, x, in_precision("weights", array_in(W)))
    if isinstance(x, Rows | Filled):
        raise ValueError("expected an initial state of zeros")
    if not isinstance(x, Steps):
        return None
    if x.axes[-1:] != (COLUMNS,):
        raise ValueError("expected the product of the last axis")
    return replace(x, parts=(unroller.project(x.parts, unroller.matrix(array_in(W))),))


def _gemm(unroller: Unroller, node: Node, x: Value, W: Value, b: Value = None) -> Value:
    whole = isinstance(x, Data) and x.what in ("input", "vectors")
    if not isinstance(x, Steps | np.ndarray) and not whole:
        return None
    if node.take("alpha", 1.0) != 1 or node.take("beta", 1.0) != 1 or node.take("transA", 0):
        raise ValueError("expected x W + b")
    matrix = array_in(W).T if node.take("transB", 0) else array_in(W)
    product = _product(unroller, node, x, matrix)
    if b is not None and not isinstance(product, Steps):
        return product + array_in(b) if isinstance(product, np.ndarray) else layer_nodes.with_bias(product, b)
    return product if b is None else _sum(unroller, "Add", product, b)


def _arithmetic(unroller: Unroller, node: Node, x: Value, y: Value) -> Value:
    """Add, Sub, Mul and Div."""
    if not isinstance(x, Steps) and not isinstance(y, Steps):
        return None
    for value, other in ((x, y), (y, x)):
        scaled = isinstance(value, Steps) and isinstance(other, np.ndarray) and node.kind != "Add" and other.any()
        if scaled and len(value.parts) == 1 and unroller.is_linear(value.parts[0]):
            return None  # the scaling of a model's outputs
    if node.kind == "Div":
        raise ValueError("expected no division in a step")
    return _sum(unroller, node.kind, x, y)


def _sum(unroller: Unroller, kind: str, x: Value, y: Value) -> Steps:
    """x + y, x - y or x * y, of which one may be a constant."""
    like = x if isinstance(x, Steps) else y
    x, y = (_steps(unroller, value, like) for value in (x, y))
    long, short = (x, y) if len(x.axes) >= len(y.axes) else (y, x)
    if long.axes[len(long.axes) - len(short.axes) :] != short.axes or x.width != y.width:
        raise ValueError("expected two vectors of one size for each sequence")
    if len(x.parts) > 1 or len(y.parts) > 1:
        raise ValueError("expected no sum or product of vectors that have been put together")
    batch = unroller.batch(x.batch, y.batch)
    a, b = x.parts[0], y.parts[0]
    if kind == "Mul":
        return Steps(long.axes, (unroller.algebra.multiply(a, b),), batch)
    return Steps(long.axes, (unroller.algebra.add(a, b, -1.0 if kind == "Sub" else 1.0),), batch)


def _steps(unroller: Unroller, value: Value, like: Steps) -> Steps:
    """A constant as steps, which must be the same for each sequence; or an initial state."""
    if isinstance(value, Steps):
        return value
    if isinstance(value, Data):
        return unroller.state(value)
    if isinstance(value, Zeros):
        return Steps(like.axes, (Sum(like.width, {}),), like.batch)
    array = array_in(value)
    if array.dtype.kind != "f" or like.axes[-1:] != (COLUMNS,):
        raise ValueError("expected real numbers, one for each column")
    axes = (SINGLE,) * (array.ndim - len(like.axes)) + like.axes
    rows = array.reshape(-1, array.shape[-1]) if array.ndim else array.reshape(1, 1)
    if len(rows) == 0 or (rows != rows[0]).any() or any(
        size not in (1, like.batch if axis == BATCH else 1)
        for size, axis in zip(array.shape[:-1][::-1], axes[:-1][::-1], strict=False)
    ):
        raise ValueError("expected a constant that is the same for each sequence")
    if rows.shape[1] not in (1, like.width):
        raise ValueError(f"expected {like.width} numbers, got {rows.shape[1]}")
    vector = rows[0] if rows.shape[1] == like.width else rows[0][0]
    return Steps(axes, (unroller.algebra.constant(np.asarray(vector), like.width),), like.batch)


def _function(unroller: Unroller, node: Node, x: Value) -> Value:
    """Sigmoid, Tanh and Relu; Softmax of all columns."""
    if not isinstance(x, Steps):
        return None
    if node.kind in OF_VECTORS:
        axis = axis_number(node.take("axis", -1 if unroller.reader.opset >= 13 else 1), len(x.axes))
        if x.axes[axis:] != (COLUMNS,) or len(x.parts) > 1:
            raise ValueError("expected the axis of the columns")
    return replace(x, parts=tuple(unroller.algebra.apply(node.kind, part) for part in x.parts))


def _compared(unroller: Unroller, node: Node, x: Value, y: Value) -> Value:
    return np.asarray(COMPARISONS[node.kind](array_in(x), array_in(y)))


def _where(unroller: Unroller, node: Node, condition: Value, x: Value, y: Value) -> Value:
    if not isinstance(x, Steps) and not isinstance(y, Steps):
        return None
    chosen = array_in(condition)
    if chosen.dtype != bool or chosen.size != 1:
        raise ValueError("expected one condition that is known, got a mask, as for sequences of different lengths")
    value, like = (x, y) if chosen.any() else (y, x)
    return value if isinstance(value, Steps) else _steps(unroller, value, like)


# ---- constants -------------------------------------------------------------------------------------------------------


def _fill(unroller: Unroller, node: Node, shape: Value) -> Value:
    """ConstantOfShape."""
    found = OPERATORS["ConstantOfShape"](unroller.reader, node, shape)
    return _zeros(array_in(shape).reshape(-1).tolist()) if isinstance(found, Zeros) else found


def _expand(unroller: Unroller, node: Node, x: Value, shape: Value) -> Value:
    if not isinstance(x, np.ndarray) or x.dtype.kind != "f" or x.any() or not isinstance(shape, np.ndarray):
        return None
    sizes = shape.reshape(-1).tolist()
    before = (1,) * (len(sizes) - x.ndim) + x.shape
    return _zeros([size if old == 1 else old for old, size in zip(before, sizes, strict=True)])


def _zeros(sizes: Sequence[Any]) -> Value:
    """Zeros (B, H) or (n, B, H), as initial states are; others without a shape."""
    if len(sizes) not in (2, 3) or not isinstance(sizes[-1], int) or sizes[-1] < 1:
        return Zeros()
    first = (SINGLE if sizes[0] == 1 else ROWS,) * (len(sizes) - 2)
    return Steps((*first, BATCH, COLUMNS), (Sum(sizes[-1], {}),), sizes[-2], sizes[0])


def _reduce(unroller: Unroller, node: Node, x: Value, axes: Value = None) -> Value:
    """ReduceMax of one number."""
    if not isinstance(x, np.ndarray):
        return None
    if x.size != 1 or x.dtype.kind != "i":
        raise ValueError("expected one size")
    axes_in(node, axes)
    node.take("noop_with_empty_axes")
    return x.reshape((1,) * x.ndim if node.take("keepdims", 1) else ())


# ---- axes ------------------------------------------------------------------------------------------------------------


def _same(unroller: Unroller, node: Node, x: Value, *more: Value) -> Value:
    """Identity, Cast to real numbers, Dropout."""
    if not isinstance(x, Steps) or (more and node.kind != "Dropout"):
        return None
    if node.kind == "Cast":
        dtype = dtype_of(node.take("to", 0)).name
        node.take("saturate")
        if dtype not in ("float32", "float64"):
            raise ValueError(f"expected float32 or float64, got {dtype}")
    if node.kind == "Dropout" and len(more) > 1 and more[1] is not None and array_in(more[1]).any():
        raise ValueError("expected inference")
    for name in ("ratio", "seed"):
        node.take(name)
    return x


def _shape(unroller: Unroller, node: Node, x: Value) -> Value:
    if not isinstance(x, Steps):
        return None
    return values.as_sizes(x.sizes[node.take("start", 0) : node.take("end")])


def _squeeze(unroller: Unroller, node: Node, x: Value, axes: Value = None) -> Value:
    if not isinstance(x, Steps):
        return None
    chosen = {axis_number(axis, len(x.axes)) for axis in axes_in(node, axes) or ()}
    if any(x.axes[axis] != SINGLE for axis in chosen) or not chosen:
        raise ValueError("expected axes of size 1")
    return replace(x, axes=tuple(axis for i, axis in enumerate(x.axes) if i not in chosen))


def _unsqueeze(unroller: Unroller, node: Node, x: Value, axes: Value = None) -> Value:
    if not isinstance(x, Steps):
        return None
    given = axes_in(node, axes) or []
    n = len(x.axes) + len(given)
    new = {axis_number(axis, n) for axis in given} if n <= values.MOST_AXES else set()
    if len(new) != len(given):
        raise ValueError(f"expected different axes, and at most {values.MOST_AXES}")
    old = iter(x.axes)
    return replace(x, axes=tuple(SINGLE if i in new else next(old) for i in range(n)))


def _transpose(unroller: Unroller, node: Node, x: Value) -> Value:
    if not isinstance(x, Steps):
        return None
    perm = node.take("perm", list(range(len(x.axes)))[::-1])
    if sorted(perm) != list(range(len(x.axes))):
        raise ValueError("expected a permutation of the axes")
    return replace(x, axes=tuple(x.axes[i] for i in perm))


def _reshape(unroller: Unroller, node: Node, x: Value, shape: Value) -> Value:
    """Axes of size 1 may come and go."""
    if not isinstance(x, Steps):
        return None
    copies = not node.take("allowzero", 0)
    sizes = array_in(shape).reshape(-1).tolist()
    sizes = [x.sizes[i] if size == 0 and copies and i < len(x.axes) else size for i, size in enumerate(sizes)]
    rest = [axis for axis in x.axes if axis != SINGLE]
    axes: list[str] = []
    for left, size in zip(range(len(sizes), 0, -1), sizes, strict=True):
        fits = rest and (size in (-1, {BATCH: x.batch, COLUMNS: x.width}[rest[0]]))
        single = size == 1 and (left > len(rest) or not fits)
        axes.append(SINGLE if single or not fits else rest.pop(0))
        if not single and not fits:
            rest.append(SINGLE)
    if rest or len(axes) > values.MOST_AXES:
        raise ValueError("expected a shape that adds or removes axes of size 1")
    return replace(x, axes=tuple(axes))


def _concat(unroller: Unroller, node: Node, *given: Value) -> Value:
    axes = next((value.axes for value in given if isinstance(value, Steps)), ())
    if not axes:
        return None
    axis = axis_number(node.peek("axis", 0), len(axes))
    if axes[axis] == COLUMNS:
        given = tuple(_columns(unroller, value, axes) for value in given)
    if not all(isinstance(value, Steps) for value in given):
        return None
    node.take("axis")
    if len(given) == 1:
        return given[0]
    if any(value.axes != axes for value in given):
        raise ValueError("expected values of one step with the same axes")
    if axes[axis] == COLUMNS:
        batch = given[0].batch
        for value in given[1:]:
            batch = unroller.batch(batch, value.batch)
        return Steps(axes, tuple(part for value in given for part in value.parts), batch)
    if axes[axis] != SINGLE:
        raise ValueError("expected steps, or columns")
    return unroller.stacked(given, axis)


def _columns(unroller: Unroller, value: Value, axes: tuple[str, ...]) -> Value:
    """An initial state, if it is one that belongs to a step."""
    if isinstance(value, Data) and value.what == "input" and value.name != unroller.x:
        return unroller.state(value)
    if isinstance(value, np.ndarray) and value.ndim == len(axes) and value.ndim > 1 and not value.any():
        return _zeros(list(value.shape))
    return value


# ---- choices ---------------------------------------------------------------------------------------------------------


def _gather(unroller: Unroller, node: Node, x: Value, indices: Value) -> Value:
    if not isinstance(indices, np.ndarray) or indices.size != 1 or indices.ndim > 1 or indices.dtype.kind != "i":
        return None
    axis = _peek_axis(node, x)
    state = isinstance(x, Data) and x.what == "input" and x.name != unroller.x and axis == 0
    if axis is None or (isinstance(x, Data) and not state and not unroller.time_of(x, axis)):
        return None
    node.take("axis")
    if state:
        return _row(x, int(indices.reshape(())), keep_axis=bool(indices.ndim))
    if isinstance(x, Steps):
        if x.axes[axis] not in (SINGLE, ROWS) or (x.axes[axis] == SINGLE and int(indices.reshape(())) not in (0, -1)):
            raise ValueError("expected a choice of a step")
        kept = _with(x.axes, axis, SINGLE) if indices.ndim else x.axes[:axis] + x.axes[axis + 1 :]
        return replace(x, axes=kept)
    return unroller.chosen(x, axis, int(indices.reshape(())), keep_axis=bool(indices.ndim))


def _row(state: Data, index: int, keep_axis: bool) -> Data:
    """A row of an initial state (n, B, H)."""
    n = state.sizes[0]
    if not isinstance(n, int):
        raise ValueError("expected a known number of initial states")
    start = axis_number(index, n)
    found = values.sliced(state, 0, start, start + 1)
    return found if keep_axis else values.squeezed(found, [0])


def _with(axes: tuple[str, ...], axis: int, name: str) -> tuple[str, ...]:
    return (*axes[:axis], name, *axes[axis + 1 :])


def _peek_axis(node: Node, x: Value) -> int | None:
    return axis_number(node.peek("axis", 0), len(x.axes)) if isinstance(x, Data | Steps) else None


def _slice(
    unroller: Unroller,
    node: Node,
    x: Value,
    starts: Value = None,
    ends: Value = None,
    axes: Value = None,
    steps: Value = None,
) -> Value:
    if not isinstance(x, Steps | Data) or starts is None or ends is None:
        return None
    given = [array_in(value).reshape(-1).tolist() for value in (starts, ends)]
    where = list(range(len(given[0]))) if axes is None else array_in(axes).reshape(-1).tolist()
    strides = [1] * len(where) if steps is None else array_in(steps).reshape(-1).tolist()
    if not len(where) == len(given[0]) == len(given[1]) == len(strides) or len(where) > values.MOST_AXES:
        raise ValueError("expected as many starts as ends and axes")
    for start, stop, axis, stride in zip(*given, where, strides, strict=True):
        x = _range(unroller, x, start, stop, axis_number(axis, len(x.axes)), stride)
    return x


def _range(unroller: Unroller, x: Steps | Data, start: Any, stop: Any, axis: int, stride: int = 1) -> Steps | Data:
    """A range of an axis."""
    size = x.sizes[axis]
    if isinstance(x, Steps):
        if not isinstance(size, int) or stride != 1:
            raise ValueError("expected a choice of columns")
        chosen = range(*slice(start, stop).indices(size))
        if len(chosen) == size:
            return x
        if x.axes[axis] == ROWS and len(chosen) == 1:
            return replace(x, axes=_with(x.axes, axis, SINGLE))
        if x.axes[axis] != COLUMNS or len(x.parts) > 1:
            raise ValueError("expected a choice of columns")
        part = unroller.algebra.columns(x.parts[0], chosen.start, chosen.stop)
        return replace(x, parts=(part,))
    time = unroller.time_of(x, axis)
    known = isinstance(size, int)
    if time and stride == -1 and start in (-1, size - 1 if known else -1) and stop < -(size if known else 1 << 31):
        return unroller.flipped(x, axis)
    if stride != 1:
        raise ValueError("expected steps of 1, or all steps in the reverse order")
    if time and known:
        chosen = range(*slice(start, stop).indices(size))
        if len(chosen) == 1:
            return unroller.chosen(x, axis, chosen.start, keep_axis=True)
    elif time and start in (0, -1) and stop == start + 1:
        return unroller.chosen(x, axis, start, keep_axis=True)
    return values.sliced(x, axis, start, stop)


def _split(unroller: Unroller, node: Node, x: Value, sizes: Value = None) -> Value:
    axis = _peek_axis(node, x)
    if axis is None or (isinstance(x, Data) and not unroller.time_of(x, axis)):
        return None
    node.take("axis")
    node.take("num_outputs")
    given = node.take("split") if sizes is None else array_in(sizes).reshape(-1).tolist()
    n, size = len(node.outputs), x.sizes[axis]
    if not isinstance(size, int):
        raise ValueError(NOT_FIXED if isinstance(x, Data) else "expected a choice of columns")
    if given is None and size % n == 0:
        given = [size // n] * n
    if given is None or len(given) != n or sum(given) != size or any(each < 1 for each in given):
        raise ValueError("expected a size for each output")
    stops: Sequence[int] = np.cumsum(given).tolist()
    return [_range(unroller, x, stop - each, stop, axis) for each, stop in zip(given, stops, strict=True)]


STEP_OPERATORS: dict[str, Operator] = {
    "MatMul": _product,
    "Gemm": _gemm,
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _arithmetic),
    **dict.fromkeys((*ELEMENTWISE, *OF_VECTORS), _function),
    **dict.fromkeys(COMPARISONS, _compared),
    "Where": _where,
    "ConstantOfShape": _fill,
    "Expand": _expand,
    "ReduceMax": _reduce,
    **dict.fromkeys(("Identity", "Cast", "Dropout"), _same),
    "Shape": _shape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Concat": _concat,
    "Gather": _gather,
    "Slice": _slice,
    "Split": _split,
}
