# SPDX-License-Identifier: MIT
"""The nodes of a graph of another program: what its values are.

`OPERATORS` has a method of `Reader` for each operator that is read. A node is evaluated with constants by NumPy, with
what depends on the inputs by `crnn.interop.onnx.values`. What a method does not know, an attribute, an input or a use,
it refuses; the error names the node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from crnn.checks import Array
from crnn.interop.layouts import LAYOUTS, to_crnn
from crnn.interop.onnx import values
from crnn.interop.onnx.files import Tensors, dtype_of, in_precision, onnx
from crnn.interop.onnx.values import Atom, Data, Head, Rows, Unknown, Value, Zeros, atoms, axis_number

BUDGET = 64 << 20, 4  # bytes that constants may take, and as many for each byte of the initializers
ANSWERS = ("Softmax", "LogSoftmax", "Sigmoid", "ArgMax")
ACTIVATIONS = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"], "RNN": ["tanh"]}  # by default
FORWARD, REVERSE = 0, 1
DIRECTIONS = {"forward": (FORWARD,), "reverse": (REVERSE,), "bidirectional": (FORWARD, REVERSE)}


@dataclass(frozen=True)
class ReadLayer:
    """A recurrent layer: its cell, where its input comes from, and its parameters by direction."""

    cell: str
    source: Data
    params: dict[int, dict[str, Array]]  # by direction; W_xh reads the parts of the source in their order
    states: dict[str, Value]  # "h" and "c" before the first step, where they are given


class Node:
    """A node whose attributes are taken out one by one."""

    def __init__(self, proto: Any, opset: int) -> None:
        self.kind, self.opset = proto.op_type, opset
        self.inputs, self.outputs = list(proto.input), list(proto.output)
        self.name = f"node {proto.name or (self.outputs or [''])[0]!r:.100} ({proto.op_type:.40})"
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

    def expect_no_more(self) -> None:
        """Raise ValueError if an attribute is left."""
        for name in self._attributes:
            raise ValueError(f"expected no attribute {name!r:.100}")


class Reader:
    """Evaluates nodes in their order.

    Attributes
    ----------
    values : dict of str to value
        By name; "" is an input that is not given.
    layers : list of ReadLayer
    lengths : set of str
        Names of the inputs that are lengths of sequences.
    """

    def __init__(self, tensors: Tensors, opset: int) -> None:
        self.tensors, self.opset = tensors, opset
        self.values: dict[str, Value] = {}
        self.layers: list[ReadLayer] = []
        self.lengths: set[str] = set()
        self.time: values.Axis = ()  # the axes of the first layer's input
        self.batch: values.Axis = ()
        self._left = BUDGET[0] + BUDGET[1] * sum(tensor.ByteSize() for tensor in tensors.named.values())
        self._largest_table = 0  # ids that an embedding of the file could have

    def evaluate(self, proto: Any) -> None:
        """Evaluate a node. Raises ValueError, which names it."""
        node = Node(proto, self.opset)
        try:
            if node.kind not in OPERATORS:
                raise ValueError(f"expected one of {', '.join(OPERATORS)}")
            given = [self._value(name) for name in node.inputs]
            found = OPERATORS[node.kind](self, node, *given)
            node.expect_no_more()
        except TypeError:
            raise ValueError(f"{node.name}: expected as many inputs as it has, and attributes of its types") from None
        except (ValueError, IndexError, OverflowError, KeyError) as error:
            raise ValueError(f"{node.name}: {error}") from None
        for name, value in zip(node.outputs, found if isinstance(found, list) else [found], strict=False):
            if name in self.values and name:
                raise ValueError(f"{node.name}: expected an output that no other node has, got {name!r:.100}")
            self.values[name] = value

    def _value(self, name: str) -> Value:
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

    # ---- constants and shapes -------------------------------------------------------------------------------------

    def constant(self, node: Node) -> Value:
        tensor = node.take("value")
        if tensor is not None:
            return self.tensors.of(tensor[0] if isinstance(tensor, list) else tensor, "value")
        for name in ("value_int", "value_ints", "value_float"):
            value = node.take(name)
            if value is not None:
                return np.array(value, np.float32 if name == "value_float" else np.int64)
        raise ValueError("expected a tensor of numbers")

    def shape(self, node: Node, x: Value) -> Value:
        sizes = list(x.shape) if isinstance(x, np.ndarray) else _data(x).sizes
        return values.as_sizes(sizes[node.take("start", 0) : node.take("end")])

    def fill(self, node: Node, shape: Value) -> Value:
        """ConstantOfShape."""
        tensor = node.take("value")
        value = np.zeros(1) if tensor is None else self.tensors.of(tensor, "value")
        if value.any():
            raise ValueError("expected zeros")
        return Zeros()

    def expand(self, node: Node, x: Value, shape: Value) -> Value:
        if isinstance(x, Rows | Zeros):
            return x
        array = _array(x)
        if not array.any():
            return Zeros()
        if array.ndim != 3 or array.shape[1] != 1 or array.dtype.kind != "f":
            raise ValueError("expected zeros, or an initial state (n, 1, H)")
        return Rows(array)

    def arithmetic(self, node: Node, *given: Value) -> Value:
        """Add, Mul and others: sizes, ids, or the bias of a head."""
        data = [each for each in given if isinstance(each, Data)]
        constants = [each for each in given if not isinstance(each, Data)]
        if node.kind == "Add" and len(data) == len(constants) == 1 and data[0].what == "head":
            return _with_bias(data[0], constants[0])
        if data and all(each.what == "ids" for each in data):
            self.charge(16 * self._largest_table)
            arguments = [self._probe(each) if isinstance(each, Data) else _scalar(each) for each in given]
            return self._ids(data[0], ELEMENTWISE[node.kind](*arguments))
        sizes = [] if data else [_array(each) for each in given]
        if node.kind != "Mul" or not sizes or any(a.dtype.kind not in "iO" or a.size != 1 for a in sizes):
            raise ValueError("expected the bias of a linear layer, sizes, or ids")
        size = values.product([array.reshape(-1)[0] for array in sizes])
        return values.as_sizes([size]).reshape(np.broadcast_shapes(*(array.shape for array in sizes)))

    def unary(self, node: Node, x: Value) -> Value:
        """Cast and Not."""
        if node.kind == "Not":
            dtype = "bool"
        else:
            dtype = dtype_of(node.take("to", 0)).name
            node.take("saturate")
        probe = self._probe(x)
        if probe is not None:
            self.charge(16 * self._largest_table)
            return self._ids(x, ~_array(probe) if node.kind == "Not" else probe.astype(dtype))
        if node.kind == "Not":
            raise ValueError("expected ids")
        if isinstance(x, np.ndarray):
            self.charge(x.size * np.dtype(dtype).itemsize)
            return x if x.dtype == object else x.astype(dtype)
        if dtype not in ("float32", "float64"):
            raise ValueError(f"expected float32 or float64, got {dtype}")
        return x

    # ---- axes -----------------------------------------------------------------------------------------------------

    def same(self, node: Node, x: Value) -> Value:
        """Identity."""
        return x

    def dropout(self, node: Node, x: Value, ratio: Value = None, training: Value = None) -> Value:
        node.take("ratio")
        node.take("seed")
        if training is not None and _array(training).any():
            raise ValueError("expected inference")
        return x

    def transpose(self, node: Node, x: Value) -> Value:
        perm = node.take("perm")
        if isinstance(x, Zeros):
            return x
        if isinstance(x, np.ndarray):
            return np.transpose(x, perm)
        return values.transposed(_data(x), range(len(_data(x).axes))[::-1] if perm is None else perm)

    def reshape(self, node: Node, x: Value, shape: Value) -> Value:
        zeros_are_sizes = bool(node.take("allowzero", 0))
        sizes = _array(shape).reshape(-1).tolist()
        if isinstance(x, Zeros):
            return x
        if not isinstance(x, np.ndarray):
            return values.reshaped(_data(x), sizes, copy_zeros=not zeros_are_sizes)
        if not zeros_are_sizes:
            sizes = [x.shape[i] if size == 0 and i < x.ndim else size for i, size in enumerate(sizes)]
        return x.reshape([int(size) for size in sizes])

    def flatten(self, node: Node, x: Value) -> Value:
        data, axis = _data(x), node.take("axis", 1)
        axis = len(data.axes) if axis == len(data.axes) else axis_number(axis, len(data.axes))
        return values.reshaped(data, [values.product(data.sizes[:axis]), values.product(data.sizes[axis:])])

    def squeeze(self, node: Node, x: Value, axes: Value = None) -> Value:
        chosen = _axes(node, axes)
        if isinstance(x, Zeros):
            return x
        if isinstance(x, np.ndarray):
            return np.squeeze(x, None if chosen is None else tuple(chosen))
        if chosen is None:
            raise ValueError("expected axes")
        return values.squeezed(_data(x), chosen)

    def unsqueeze(self, node: Node, x: Value, axes: Value = None) -> Value:
        chosen = _axes(node, axes)
        if chosen is None:
            raise ValueError("expected axes")
        if isinstance(x, Zeros):
            return x
        if isinstance(x, np.ndarray):
            return np.expand_dims(x, tuple(chosen))
        return values.unsqueezed(_data(x), chosen)

    def gather(self, node: Node, x: Value, indices: Value) -> Value:
        axis = node.take("axis", 0)
        if self._probe(indices) is not None:
            return self._embedded(x, indices, axis)
        chosen = _array(indices)
        if chosen.dtype.kind != "i":
            raise ValueError("expected integers")
        if isinstance(x, np.ndarray):
            axis = axis_number(axis, x.ndim)
            self.charge(chosen.size * (x.size // max(x.shape[axis], 1)) * x.itemsize)
            return np.take(x, chosen, axis)
        data = _data(x)
        if chosen.ndim > 1:
            raise ValueError("expected one index, or a list")
        numbers = chosen.reshape(-1).tolist()
        return values.selected(data, axis_number(axis, len(data.axes)), numbers, keep_axis=chosen.ndim == 1)

    def slice(
        self, node: Node, x: Value, starts: Value = None, ends: Value = None, axes: Value = None, steps: Value = None
    ) -> Value:
        from_attributes = [node.take(name) for name in ("starts", "ends", "axes")]
        starts, ends, axes = (
            given if value is None else _array(value).reshape(-1).tolist()
            for value, given in zip((starts, ends, axes), from_attributes, strict=True)
        )
        axes = list(range(len(starts))) if axes is None else axes
        if steps is not None and (_array(steps) != 1).any():
            raise ValueError("expected steps of 1")
        if not len(starts) == len(ends) == len(axes) or len(axes) > values.MOST_AXES:
            raise ValueError("expected as many starts as ends and axes")
        if isinstance(x, Zeros):
            return x
        for start, stop, axis in zip(starts, ends, axes, strict=True):
            x = self._range(x, start, stop, axis)
        return x

    def _range(self, x: Value, start: int, stop: int, axis: int) -> Value:
        if isinstance(x, Rows):
            if axis not in (0, -3):
                raise ValueError("expected rows of an initial state")
            return Rows(x.array[start:stop])
        if isinstance(x, np.ndarray):
            return x[(slice(None),) * axis_number(axis, x.ndim) + (slice(start, stop),)]
        return values.sliced(_data(x), axis_number(axis, len(_data(x).axes)), start, stop)

    def split(self, node: Node, x: Value, sizes: Value = None) -> Value:
        axis = node.take("axis", 0)
        given = node.take("split") if sizes is None else _array(sizes).reshape(-1).tolist()
        node.take("num_outputs")
        n = len(node.outputs)
        if isinstance(x, Zeros):
            return [x] * n
        size = (x.shape if isinstance(x, np.ndarray) else _data(x).sizes)[axis]
        if given is None:
            if not isinstance(size, int) or size % n:
                raise ValueError("expected equal parts")
            given = [size // n] * n
        ends = np.cumsum(given).tolist()
        if len(given) != n or (isinstance(size, int) and ends[-1] != size):
            raise ValueError("expected a size for each output")
        return [self._range(x, end - each, end, axis) for each, end in zip(given, ends, strict=True)]

    def concat(self, node: Node, *given: Value) -> Value:
        axis = node.take("axis", 0)
        if all(isinstance(each, Zeros) for each in given):
            return Zeros()
        if any(isinstance(each, Data) for each in given):
            data = [_data(each) for each in given]
            return values.joined(data, axis_number(axis, len(data[0].axes)))
        arrays = [_array(each) for each in given]
        self.charge(sum(array.nbytes for array in arrays))
        if any(array.dtype == object for array in arrays):
            return values.as_sizes([size for array in arrays for size in array.tolist()])
        return np.concatenate(arrays, axis)

    # ---- ids ------------------------------------------------------------------------------------------------------

    def _probe(self, x: Value) -> Array | None:
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

    def _ids(self, x: Data, probe: Array) -> Data:
        return replace(x, probe=probe)

    def _embedded(self, table: Value, ids: Data, axis: int) -> Data:
        """Rows of an embedding."""
        array, probe = in_precision("embedding", _array(table)), self._probe(ids)
        if array.ndim != 2 or axis not in (0, -2):
            raise ValueError("expected an embedding (D, E)")
        D, E = array.shape
        if probe is None or len(probe) < D or (probe[:D] != np.arange(D)).any():
            raise ValueError("expected ids as they are")
        self.charge(array.nbytes)
        return Data("vectors", (*ids.axes, atoms(Atom("columns", E))), name=ids.name, table=array)

    def one_hot(self, node: Node, ids: Value, depth: Value, pair: Value) -> Value:
        axis, probe = node.take("axis", -1), self._probe(ids)
        D = int(_array(depth).reshape(-1)[0])
        if probe is None or (probe[:D] != np.arange(len(probe[:D]))).any() or _array(pair).tolist() != [0, 1]:
            raise ValueError("expected ids as they are, and 0 and 1")
        if axis not in (-1, len(ids.axes)):
            raise ValueError("expected the last axis")
        return Data("vectors", (*ids.axes, atoms(Atom("columns", D))), name=ids.name)

    # ---- layers ---------------------------------------------------------------------------------------------------

    def recurrent(
        self,
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
        W, R = in_precision("W", _array(W)), in_precision("R", _array(R))
        bias = None if B is None or isinstance(B, Zeros) else in_precision("B", _array(B))
        data = _data(x)
        time, batch = self._check_source(data, bool(batch_first))
        H = _check_weights(cell, len(directions), data.sizes[2], W, R, bias)
        if node.take("hidden_size", H) != H:
            raise ValueError(f"hidden_size: expected {H}, as in R")
        if lengths is not None:
            self._lengths(lengths)
        self.charge(W.nbytes + R.nbytes)
        params = {}
        for i, direction in enumerate(directions):
            both = [None, None] if bias is None else np.split(bias[i], 2)
            params[direction] = to_crnn("onnx", cell, W[i], R[i], *both)
        states = {name: value for name, value in (("h", h), ("c", c)) if value is not None}
        layer = len(self.layers)
        self.layers.append(ReadLayer(cell, data, params, states))
        moments = {FORWARD: values.LAST, REVERSE: values.FIRST}
        ends = tuple((moments[direction], layer, direction) for direction in directions)
        middle, units = atoms(values.blocks(len(directions))), atoms(Atom("units", H))
        final = (batch, middle, units) if batch_first else (middle, batch, units)
        y_axes = (batch, time, middle, units) if batch_first else (time, middle, batch, units)
        y = Data("hidden", y_axes, tuple((values.EVERY, layer, d) for d in directions))
        return [y, Data("hidden", final, ends), Data("cell", final, ends)]

    def _check_source(self, data: Data, batch_first: bool) -> tuple[values.Axis, values.Axis]:
        """The axes of time and batch of a layer's input. Raises ValueError if it cannot be one."""
        if len(data.axes) != 3 or data.what not in ("input", "vectors", "hidden") or data.rows is not None:
            raise ValueError("expected x (T, B, D), an embedding, or the outputs of a layer")
        first, second, _ = data.axes
        time, batch = (second, first) if batch_first else (first, second)
        time = atoms(*(replace(atom, name="time") for atom in time))
        if data.what == "hidden":
            last = len(self.layers) - 1
            wanted = {(values.EVERY, last, direction) for direction in self.layers[last].params}
            if not set(data.parts) <= wanted or len(set(data.parts)) < len(data.parts):
                raise ValueError("expected the outputs of all steps of the previous layer")
            if (time, batch) != (self.time, self.batch):
                raise ValueError("expected the axes of time and batch where they were")
        elif self.layers:
            raise ValueError("expected the outputs of the previous layer")
        self.time, self.batch = time, batch
        return time, batch

    def _lengths(self, lengths: Value) -> None:
        data = _data(lengths)
        if data.what != "ids" or data.probe is not None or len(data.axes) != 1 or self.lengths - {data.name}:
            raise ValueError("sequence_lens: expected an input")
        self.lengths.add(data.name)

    # ---- the head -------------------------------------------------------------------------------------------------

    def reduce(self, node: Node, x: Value, axes: Value = None) -> Value:
        """ReduceMean and ReduceMax."""
        chosen = _axes(node, axes)
        keep = bool(node.take("keepdims", 1))
        data, moment = _data(x), values.MEAN if node.kind == "ReduceMean" else values.MAX
        if chosen is None or len(chosen) != 1:
            raise ValueError("expected one axis")
        return values.reduced(data, axis_number(chosen[0], len(data.axes)), moment, keep)

    def matmul(self, node: Node, x: Value, W: Value) -> Value:
        return self._head(_data(x), in_precision("weights", _array(W)), None)

    def gemm(self, node: Node, x: Value, W: Value, b: Value = None) -> Value:
        if node.take("alpha", 1.0) != 1 or node.take("beta", 1.0) != 1 or node.take("transA", 0):
            raise ValueError("expected x W + b")
        weights = in_precision("weights", _array(W))
        head = self._head(_data(x), weights.T if node.take("transB", 0) else weights, None)
        return head if b is None else _with_bias(head, b)

    def _head(self, data: Data, weights: Array, bias: Array | None) -> Data:
        if data.what != "hidden":
            raise ValueError("expected one linear layer, on the outputs of recurrent layers")
        if weights.ndim != 2 or not data.axes or weights.shape[0] != data.sizes[-1] or not weights.size:
            raise ValueError(f"expected weights ({data.sizes[-1:]}, V), got shape {weights.shape}")
        self.charge(weights.nbytes)
        axes = (*data.axes[:-1], atoms(Atom("outputs", weights.shape[1])))
        return Data("head", axes, head=Head(weights, bias, data))

    def answer(self, node: Node, x: Value) -> Value:
        """Softmax and others of the head's outputs."""
        data = _data(x)
        old = -1 if self.opset >= 13 else 1  # the default then, with all axes behind it
        axis = node.take("axis", 0 if node.kind == "ArgMax" else old) if node.kind != "Sigmoid" else -1
        keep = bool(node.take("keepdims", 1)) if node.kind == "ArgMax" else True
        if node.kind == "ArgMax" and node.take("select_last_index", 0):
            raise ValueError("expected the first of equal numbers")
        argmax = node.kind == "ArgMax" and data.answer in ("Softmax", "LogSoftmax")
        if data.what != "head" or (data.answer and not argmax):
            raise ValueError("expected the outputs of a linear layer")
        if axis_number(axis, len(data.axes)) != len(data.axes) - 1:
            raise ValueError("expected the last axis")
        axes = data.axes if node.kind != "ArgMax" else [*data.axes[:-1], *([()] if keep else [])]
        return data.with_axes(axes, answer=node.kind)


# ---- values as one kind ----------------------------------------------------------------------------------------------


def _array(value: Value) -> Array:
    if not isinstance(value, np.ndarray):
        raise ValueError("expected a constant where the value depends on the inputs")
    return value


def _data(value: Value) -> Data:
    if not isinstance(value, Data):
        raise ValueError("expected a value that depends on the inputs, got a constant")
    return value


def _scalar(value: Value) -> Array:
    array = _array(value)
    if array.size != 1:
        raise ValueError("expected one number")
    return array.reshape(())


def _axes(node: Node, given: Value) -> list[int] | None:
    """The axes of an operator, which are an input since version 13 or 18, an attribute before."""
    attribute = node.take("axes")
    axes = attribute if given is None else _array(given).reshape(-1).tolist()
    if axes is not None and (len(axes) > values.MOST_AXES or any(isinstance(axis, Unknown) for axis in axes)):
        raise ValueError("expected a few axes")
    return axes


def _with_bias(data: Data, bias: Value) -> Data:
    """A head with its bias."""
    head, array = data.head, in_precision("bias", _array(bias))
    assert head is not None
    V = head.weights.shape[1]
    if head.bias is not None or data.answer or array.size != V or array.shape[-1:] not in ((V,), ()):
        raise ValueError(f"expected one bias ({V},)")
    return replace(data, head=replace(head, bias=array.reshape(V)))


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


ELEMENTWISE: dict[str, Callable[..., Array]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Less": np.less,
    "GreaterOrEqual": np.greater_equal,
    "Where": np.where,
}
OPERATORS: dict[str, Callable[..., Value | Sequence[Value]]] = {
    **dict.fromkeys(("LSTM", "GRU", "RNN"), Reader.recurrent),
    "MatMul": Reader.matmul,
    "Gemm": Reader.gemm,
    **dict.fromkeys(ANSWERS, Reader.answer),
    **dict.fromkeys(("ReduceMean", "ReduceMax"), Reader.reduce),
    "Gather": Reader.gather,
    "OneHot": Reader.one_hot,
    "Slice": Reader.slice,
    "Split": Reader.split,
    "Concat": Reader.concat,
    "Transpose": Reader.transpose,
    "Reshape": Reader.reshape,
    "Flatten": Reader.flatten,
    "Squeeze": Reader.squeeze,
    "Unsqueeze": Reader.unsqueeze,
    "Shape": Reader.shape,
    "Constant": Reader.constant,
    "ConstantOfShape": Reader.fill,
    "Expand": Reader.expand,
    **dict.fromkeys(ELEMENTWISE, Reader.arithmetic),
    **dict.fromkeys(("Cast", "Not"), Reader.unary),
    "Identity": Reader.same,
    "Dropout": Reader.dropout,
}
