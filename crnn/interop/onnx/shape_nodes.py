# SPDX-License-Identifier: MIT
"""Nodes about constants, sizes, ids and axes. Each function evaluates an operator: its inputs are values, None if not
given; it returns the value of the output, or a list of values."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from crnn.checks import Array
from crnn.interop.onnx import values
from crnn.interop.onnx.files import DTYPES, dtype_of, in_precision
from crnn.interop.onnx.layer_nodes import scaled, with_bias
from crnn.interop.onnx.reader import Node, Reader, array_in, axes_in, data_in, scalar_in
from crnn.interop.onnx.values import Atom, Data, Filled, Rows, Value, Zeros, atoms, axis_number

ELEMENTWISE: dict[str, Callable[..., Array]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Less": np.less,
    "Div": np.divide,
    "Equal": np.equal,
    "GreaterOrEqual": np.greater_equal,
    "Where": np.where,
}


# ---- constants and shapes --------------------------------------------------------------------------------------------


def constant(reader: Reader, node: Node) -> Value:
    tensor = node.take("value")
    if tensor is not None:
        return reader.tensors.of(tensor[0] if isinstance(tensor, list) else tensor, "value")
    for name in ("value_int", "value_ints", "value_float"):
        value = node.take(name)
        if value is not None:
            return np.array(value, np.float32 if name == "value_float" else np.int64)
    raise ValueError("expected a tensor of numbers")


def shape(reader: Reader, node: Node, x: Value) -> Value:
    sizes = list(x.shape) if isinstance(x, np.ndarray) else data_in(x).sizes
    return values.as_sizes(sizes[node.take("start", 0) : node.take("end")])


def fill(reader: Reader, node: Node, shape: Value) -> Value:
    """ConstantOfShape."""
    tensor = node.take("value")
    value = np.zeros(1) if tensor is None else reader.tensors.of(tensor, "value")
    sizes = array_in(shape)
    if value.size == 1 and value.dtype.kind in "ib" and sizes.dtype.kind == "i" and sizes.size == 1:
        reader.charge(8 * abs(int(sizes[0])))
        return np.full(sizes, value.reshape(()))
    if value.any():
        raise ValueError("expected zeros")
    return Zeros()


def expand(reader: Reader, node: Node, x: Value, shape: Value) -> Value:
    if isinstance(x, Rows | Zeros):
        return x
    array, sizes = array_in(x), array_in(shape).reshape(-1).tolist()
    known = len(sizes) <= values.MOST_AXES and all(isinstance(size, int) and size > 0 for size in sizes)
    if known and np.broadcast_shapes(array.shape, tuple(sizes)) == array.shape:
        return array
    return _repeated(array)


def tile(reader: Reader, node: Node, x: Value, repeats: Value) -> Value:
    if isinstance(x, Rows | Zeros):
        return x
    array, times = array_in(x), array_in(repeats).reshape(-1).tolist()
    if len(times) != array.ndim:
        raise ValueError("expected a number for each axis")
    if all(number == 1 for number in times):
        return array
    if any(number != 1 for i, number in enumerate(times) if i != 1 or array.ndim != 3) and array.size != 1:
        raise ValueError("expected an initial state that is repeated for each sequence")
    return _repeated(array)


def _repeated(array: Array) -> Value:
    """A constant that is repeated along the axis of the batch: zeros, an initial state, or a length."""
    if array.dtype.kind in "iO" and array.size == 1:
        return Filled(array.reshape(-1)[0])
    if not array.any():
        return Zeros()
    if array.ndim != 3 or array.shape[1] != 1 or array.dtype.kind != "f":
        raise ValueError("expected zeros, or an initial state (n, 1, H)")
    return Rows(array)


def arithmetic(reader: Reader, node: Node, *given: Value) -> Value:
    """Add, Mul and others: sizes, ids, or the bias of a head."""
    data = [each for each in given if isinstance(each, Data)]
    constants = [each for each in given if not isinstance(each, Data)]
    if len(data) == len(constants) == 1 and data[0].what in ("head", "input"):
        head = data[0].head
        if node.kind == "Add" and head is not None and head.bias is None and data[0].scaling is None:
            return with_bias(data[0], constants[0])
        if node.kind not in ("Add", "Mul") and (node.kind not in ("Sub", "Div") or given[0] is not data[0]):
            raise ValueError("expected x + c, x - c, x * c or x / c")
        return scaled(reader, data[0], node.kind, constants[0])
    if data and node.kind != "Div" and all(each.what == "ids" for each in data):
        arguments = [_of_ids(reader, each) for each in given]
        reader.charge(16 * max(argument.size for argument in arguments))
        return _with_probe(data[0], ELEMENTWISE[node.kind](*arguments))
    if data:
        raise ValueError("expected the bias of a linear layer, scaling, sizes, or ids")
    return _computed(reader, node.kind, [array_in(each) for each in given])


def _computed(reader: Reader, kind: str, arrays: list[Array]) -> Array:
    """A constant from constants."""
    shape = np.broadcast_shapes(*(array.shape for array in arrays))
    reader.charge(16 * math.prod(shape))
    unknown = any(array.dtype == object for array in arrays)
    if unknown and kind not in ("Mul", "Equal", "Where"):
        raise ValueError("expected numbers that are known")
    if kind == "Div" and arrays[0].dtype.kind != "f":  # ONNX rounds towards zero
        if any(array.dtype.kind != "i" or (array < 0).any() for array in arrays) or not arrays[1].all():
            raise ValueError("expected a division of real numbers, or of sizes")
        return np.asarray(arrays[0] // arrays[1])
    if not unknown:
        return np.asarray(ELEMENTWISE[kind](*arrays))
    function = np.frompyfunc(lambda *sizes: values.product(sizes), 2, 1) if kind == "Mul" else ELEMENTWISE[kind]
    found = np.asarray(function(*arrays))
    return found if found.dtype == bool else values.as_sizes(found.reshape(-1).tolist()).reshape(shape)


def _of_ids(reader: Reader, value: Value) -> Array:
    """What 0, 1, 2, ... becomes, or one number."""
    probe = reader.probe(value)
    return scalar_in(value) if probe is None else probe


def unary(reader: Reader, node: Node, x: Value) -> Value:
    """Cast and Not."""
    if node.kind == "Not":
        dtype = "bool"
    else:
        dtype = dtype_of(node.take("to", 0)).name
        node.take("saturate")
        if dtype not in DTYPES:
            raise ValueError(f"expected one of {', '.join(sorted(DTYPES))}, got {dtype}")
    if isinstance(x, Data) and x.what == "ids" and x.probe is None and dtype in ("int32", "int64"):
        return x
    if isinstance(x, Data) and x.what == "input" and dtype in ("int32", "int64"):
        if x.scaling is not None or x.rows is not None or len(x.axes) != 2:
            raise ValueError("expected ids, as real numbers that are whole")
        return replace(x, what="ids")
    probe = reader.probe(x)
    if probe is not None:
        reader.charge(16 * len(probe))
        return _with_probe(x, ~array_in(probe) if node.kind == "Not" else probe.astype(dtype))
    if node.kind == "Not":
        raise ValueError("expected ids")
    if isinstance(x, np.ndarray):
        reader.charge(x.size * np.dtype(dtype).itemsize)
        return x if x.dtype == object else x.astype(dtype)
    if isinstance(x, Filled) or (isinstance(x, Data) and x.answer == "ArgMax" and dtype in ("int32", "int64")):
        return x
    if dtype not in ("float32", "float64"):
        raise ValueError(f"expected float32 or float64, got {dtype}")
    return x


# ---- axes ------------------------------------------------------------------------------------------------------------


def same(reader: Reader, node: Node, x: Value) -> Value:
    """Identity."""
    return x


def dropout(reader: Reader, node: Node, x: Value, ratio: Value = None, training: Value = None) -> Value:
    node.take("ratio")
    node.take("seed")
    if training is not None and array_in(training).any():
        raise ValueError("expected inference")
    return x


def transpose(reader: Reader, node: Node, x: Value) -> Value:
    perm = node.take("perm")
    if isinstance(x, Zeros):
        return x
    if isinstance(x, np.ndarray):
        return np.transpose(x, perm)
    return values.transposed(data_in(x), range(len(data_in(x).axes))[::-1] if perm is None else perm)


def reshape(reader: Reader, node: Node, x: Value, shape: Value) -> Value:
    zeros_are_sizes = bool(node.take("allowzero", 0))
    sizes = array_in(shape).reshape(-1).tolist()
    if isinstance(x, Zeros):
        return x
    if not isinstance(x, np.ndarray):
        return values.reshaped(data_in(x), sizes, copy_zeros=not zeros_are_sizes)
    if not zeros_are_sizes:
        sizes = [x.shape[i] if size == 0 and i < x.ndim else size for i, size in enumerate(sizes)]
    reader.charge(x.nbytes)
    return x.reshape([int(size) for size in sizes])


def flatten(reader: Reader, node: Node, x: Value) -> Value:
    data, axis = data_in(x), node.take("axis", 1)
    axis = len(data.axes) if axis == len(data.axes) else axis_number(axis, len(data.axes))
    return values.reshaped(data, [values.product(data.sizes[:axis]), values.product(data.sizes[axis:])])


def squeeze(reader: Reader, node: Node, x: Value, axes: Value = None) -> Value:
    chosen = axes_in(node, axes)
    if isinstance(x, Zeros):
        return x
    if isinstance(x, np.ndarray):
        return np.squeeze(x, None if chosen is None else tuple(chosen))
    if chosen is None:
        raise ValueError("expected axes")
    return values.squeezed(data_in(x), chosen)


def unsqueeze(reader: Reader, node: Node, x: Value, axes: Value = None) -> Value:
    chosen = axes_in(node, axes)
    if chosen is None:
        raise ValueError("expected axes")
    if isinstance(x, Zeros):
        return x
    if isinstance(x, np.ndarray):
        return np.expand_dims(x, tuple(chosen))
    return values.unsqueezed(data_in(x), chosen)


def gather(reader: Reader, node: Node, x: Value, indices: Value) -> Value:
    axis = node.take("axis", 0)
    if reader.probe(indices) is not None:
        return _embedded(reader, x, indices, axis)
    if isinstance(indices, Data) and indices.answer == "ArgMax" and isinstance(x, np.ndarray):
        return _named(indices, x)
    chosen = array_in(indices)
    if chosen.dtype.kind != "i":
        raise ValueError("expected integers")
    if isinstance(x, np.ndarray):
        axis = axis_number(axis, x.ndim)
        reader.charge(chosen.size * (x.size // max(x.shape[axis], 1)) * x.itemsize)
        found = np.empty((*x.shape[:axis], *chosen.shape, *x.shape[axis + 1 :]), x.dtype)
        found[...] = np.take(x, chosen, axis)
        known = found.dtype == object and all(isinstance(size, int) for size in found.reshape(-1).tolist())
        return found.astype(np.int64) if known else found
    data = data_in(x)
    if chosen.ndim > 1:
        raise ValueError("expected one index, or a list")
    numbers = chosen.reshape(-1).tolist()
    return values.selected(data, axis_number(axis, len(data.axes)), numbers, keep_axis=chosen.ndim == 1)


def slices(
    reader: Reader,
    node: Node,
    x: Value,
    starts: Value = None,
    ends: Value = None,
    axes: Value = None,
    steps: Value = None,
) -> Value:
    from_attributes = [node.take(name) for name in ("starts", "ends", "axes")]
    starts, ends, axes = (
        given if value is None else array_in(value).reshape(-1).tolist()
        for value, given in zip((starts, ends, axes), from_attributes, strict=True)
    )
    axes = list(range(len(starts))) if axes is None else axes
    if steps is not None and (array_in(steps) != 1).any():
        raise ValueError("expected steps of 1")
    if not len(starts) == len(ends) == len(axes) or len(axes) > values.MOST_AXES:
        raise ValueError("expected as many starts as ends and axes")
    if isinstance(x, Zeros):
        return x
    for start, stop, axis in zip(starts, ends, axes, strict=True):
        x = _range(reader, x, start, stop, axis)
    return x


def _range(reader: Reader, x: Value, start: int, stop: int, axis: int) -> Value:
    if isinstance(x, Rows):
        if axis not in (0, -3):
            raise ValueError("expected rows of an initial state")
        return Rows(x.array[start:stop])
    if isinstance(x, np.ndarray):
        return x[(slice(None),) * axis_number(axis, x.ndim) + (slice(start, stop),)]
    return values.sliced(data_in(x), axis_number(axis, len(data_in(x).axes)), start, stop)


def split(reader: Reader, node: Node, x: Value, sizes: Value = None) -> Value:
    axis = node.take("axis", 0)
    given = node.take("split") if sizes is None else array_in(sizes).reshape(-1).tolist()
    node.take("num_outputs")
    n = len(node.outputs)
    if isinstance(x, Zeros):
        return [x] * n
    size = (x.shape if isinstance(x, np.ndarray) else data_in(x).sizes)[axis]
    if given is None:
        if not isinstance(size, int) or size % n:
            raise ValueError("expected equal parts")
        given = [size // n] * n
    ends = np.cumsum(given).tolist()
    if len(given) != n or (isinstance(size, int) and ends[-1] != size):
        raise ValueError("expected a size for each output")
    return [_range(reader, x, end - each, end, axis) for each, end in zip(given, ends, strict=True)]


def concat(reader: Reader, node: Node, *given: Value) -> Value:
    axis = node.take("axis", 0)
    if all(isinstance(each, Zeros) for each in given):
        return Zeros()
    if any(isinstance(each, Data) for each in given):
        data = [data_in(each) for each in given]
        return values.joined(data, axis_number(axis, len(data[0].axes)))
    arrays = [array_in(each) for each in given]
    reader.charge(sum(array.nbytes for array in arrays))
    return np.concatenate(arrays, axis)


# ---- ids -------------------------------------------------------------------------------------------------------------


def _with_probe(x: Data, probe: Array) -> Data:
    return replace(x, probe=probe)


def _embedded(reader: Reader, table: Value, ids: Data, axis: int) -> Data:
    """Rows of an embedding."""
    array, probe = in_precision("embedding", array_in(table)), reader.probe(ids)
    if array.ndim != 2 or axis not in (0, -2):
        raise ValueError("expected an embedding (D, E)")
    D, E = array.shape
    if probe is None or len(probe) < D or (probe[:D] != np.arange(D)).any():
        raise ValueError("expected ids as they are")
    reader.charge(array.nbytes)
    return Data("vectors", (*ids.axes, atoms(Atom("columns", E))), name=ids.name, table=array)


def _named(labels: Data, names: Array) -> Data:
    """The numbers of classes as their names."""
    assert labels.head is not None
    if names.shape != (labels.head.weights.shape[1],) or labels.names is not None:
        raise ValueError("expected a name for each class")
    return replace(labels, names=names)


def one_hot(reader: Reader, node: Node, ids: Value, depth: Value, pair: Value) -> Value:
    axis, probe = node.take("axis", -1), reader.probe(ids)
    reader.charge(0 if probe is None else 8 * len(probe))
    D = int(array_in(depth).reshape(-1)[0])
    if probe is None or (probe[:D] != np.arange(len(probe[:D]))).any() or array_in(pair).tolist() != [0, 1]:
        raise ValueError("expected ids as they are, and 0 and 1")
    if axis not in (-1, len(ids.axes)):
        raise ValueError("expected the last axis")
    return Data("vectors", (*ids.axes, atoms(Atom("columns", D))), name=ids.name)
