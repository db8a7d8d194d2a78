# SPDX-License-Identifier: MIT
"""From a model to an ONNX graph.

    input --scaling, embedding--> x (T, B, D) --layers--> y (T, B, H * directions) --pooling, head, answers--> outputs

`WRITERS` has the function that writes a layer of each cell, `POOLED` that of each pooling, `ANSWERS` that of each kind
of model. The graph computes in the model's dtype, but standardises in float64, as crnn does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from crnn._version import __version__
from crnn.checks import Array, as_number, check_flag
from crnn.interop.layouts import from_crnn
from crnn.interop.onnx.builder import Builder
from crnn.interop.onnx.files import LARGEST, METADATA, digest, onnx
from crnn.interop.onnx.scan_steps import STEPS
from crnn.interop.parts import ONLY_TRAINING, Layer, ModelParts, parts_of
from crnn.nn.cells import CELLS

if TYPE_CHECKING:
    import onnx as onnx_module

OPSETS = range(13, 27)  # those that are tested
DEFAULT_OPSET = 17  # old enough for what is in use, with operators that all of it has

BATCH_FIRST = ("SequenceClassifier", "SequenceTagger", "SequenceRegressor")  # X is (N, T, D) in Python too
# The options of a model that graphs compute. One that is neither here nor in ONLY_TRAINING is refused until someone
# has decided.
EXPRESSED = {
    *("input_size", "hidden_size", "num_layers", "cell", "bidirectional", "dense_layers", "embedding_size", "dtype"),
    *("trainable_initial_state", "tie_weights", "adaptive_softmax", "pooling", "steps"),
    *("num_classes", "classes", "multilabel", "thresholds", "output_size", "loss", "quantiles"),
}


def model_proto(model: Any, *, opset: int, **options: bool | None) -> onnx_module.ModelProto:
    """See `crnn.interop.onnx.to_model`."""
    library = onnx()
    parts = parts_of(model, adaptive_softmax=True, dense_layers=True)
    graph = Builder(_checked_opset(opset), parts.network.dtype)
    _Writer(graph, parts, **_checked(parts, **options)).write()
    header = {"version": __version__} | model.contents()[1] | {"kind": parts.kind}
    proto: onnx_module.ModelProto = library.helper.make_model(
        graph.finish(parts.kind),
        opset_imports=graph.opsets(),
        ir_version=library.helper.find_min_ir_version_for(graph.opsets()),
        producer_name="crnn",
        producer_version=__version__,
    )
    header["sha256"] = digest(proto, graph.arrays, header)
    text = json.dumps(header)
    library.helper.set_model_props(proto, {METADATA: text})
    if proto.ByteSize() > LARGEST:
        raise ValueError(f"model: expected one of at most {LARGEST} bytes, which an ONNX file can hold")
    return proto


def _checked_opset(opset: Any) -> int:
    number = as_number(opset)
    if number is None or number not in OPSETS:
        raise ValueError(f"opset: expected an integer from {OPSETS[0]} to {OPSETS[-1]}, got {opset!r:.100}")
    return int(number)


def _checked(parts: ModelParts, ids: bool | None, lengths: bool | None, state: bool | None) -> dict[str, bool]:
    """The options of a graph, with their defaults. Raises ValueError for what it cannot express."""
    for name, value in parts.config.items():
        if name not in EXPRESSED | ONLY_TRAINING:
            raise ValueError(f"{name}: expected a model without this option, which ONNX lacks, got {value!r:.100}")
    size = sum(values.nbytes for values in parts.params.values())
    if size > LARGEST:
        raise ValueError(f"model: expected one of at most {LARGEST} bytes, which an ONNX file can hold, got {size}")
    pooling, bidirectional = parts.pooling, parts.network.bidirectional
    only_ids = parts.network.embedding_size is not None or parts.vocab is not None
    ids = only_ids if ids is None else check_flag("ids", ids)
    if only_ids and not ids:
        raise ValueError("ids: expected True for a model of ids, got False")
    if ids and "x" in parts.scaling:
        raise ValueError("ids: expected False for a model that standardises its inputs, got True")
    lengths = (bidirectional or pooling is not None) if lengths is None else check_flag("lengths", lengths)
    state = (not bidirectional and pooling is None) if state is None else check_flag("state", state)
    if state and (pooling == "flatten" or (bidirectional and pooling is not None)):
        raise ValueError("state: expected False for a model that pools whole sequences, got True")
    return {"ids": ids, "lengths": lengths and pooling != "flatten", "state": state}


class _Writer:
    """Writes the graph of a model."""

    def __init__(self, graph: Builder, parts: ModelParts, *, ids: bool, lengths: bool, state: bool) -> None:
        self.graph, self.parts, self.network = graph, parts, parts.network
        self.ids, self.with_lengths, self.with_state = ids, lengths, state
        self.dtype = parts.network.dtype
        self.batch_first = parts.kind in BATCH_FIRST
        self.steps = parts.config.get("steps") or "time"  # size of the axis of time
        self.lengths = self.mask = ""  # names of int32 (B,) and bool (T, B, 1), where there are lengths
        self.x = ""  # name of the first layer's input (T, B, K)
        self.after: list[tuple[str, str]] = []  # of each layer: names of h and c (directions, B, H) after the last step

    # ---- the network ----------------------------------------------------------------------------------------------

    def write(self) -> None:
        """Write inputs, nodes and outputs."""
        g = self.graph
        self._inputs()
        before = self._states_in()
        y = self.x
        for number, layer in enumerate(self.parts.layers):
            below, y = y, WRITERS[self.network.cell](self, number, layer, y, before[number])
            if y and number and self.network.dense_layers:
                y = g.concat([below, y], 2)
        if self.parts.head is None:
            g.output(y, "y", self.dtype, [self.steps, "batch", self.network.output_size])
        else:
            ANSWERS[self.parts.kind](self, self._head(y))
        if self.with_state:
            self._states_out()

    def _inputs(self) -> None:
        """Write the inputs up to the first layer, and lengths."""
        g = self.graph
        axes: list[Any] = ["batch", self.steps] if self.batch_first else [self.steps, "batch"]
        if self.ids:
            given = g.input("ids", "int64", axes)
        else:
            dtype = "float64" if "x" in self.parts.scaling else self.dtype
            given = g.input("x", dtype, [*axes, self.network.input_size])
        x = self._vectors(given)
        if self.batch_first:
            x = g.op("Transpose", x, perm=[1, 0, 2])
        self.x = x
        if self.with_lengths:
            self._lengths(x)

    @cached_property
    def batch(self) -> str:
        """The name of B, int64 (1,)."""
        return self.graph.size(self.x, 1)

    def _vectors(self, given: str) -> str:
        """Real vectors from the first input, in the model's dtype."""
        g = self.graph
        if self.parts.embedding is not None:
            return g.op("Gather", g.array("embedding", self.parts.embedding), given)
        if self.ids:
            depth = g.constant(np.array(self.network.input_size))
            return g.op("OneHot", given, depth, g.constant(np.array([0, 1], self.dtype)))
        if "x" not in self.parts.scaling:
            return given
        mean, std = self.parts.scaling["x"]
        centred = g.op("Sub", given, g.array("scaling.x.mean", mean))
        return g.cast(g.op("Div", centred, g.array("scaling.x.std", std)), self.dtype, "float64")

    def _lengths(self, x: str) -> None:
        """Write the input lengths; at most all steps are used."""
        g = self.graph
        lengths, steps = g.input("lengths", "int32", ["batch"]), g.size(x, 0)
        self.lengths = g.op("Min", lengths, g.cast(steps, "int32"))
        zero, one = (g.constant(np.array(number)) for number in (0, 1))
        times = g.op("Range", zero, g.op("Squeeze", steps, g.axes(0)), one)
        inside = g.op("Less", g.unsqueeze(times, 1), g.unsqueeze(g.cast(self.lengths, "int64"), 0))
        self.mask = g.unsqueeze(inside, 2)

    # ---- states ---------------------------------------------------------------------------------------------------

    def _state_names(self) -> list[str]:
        return ["h", "c"] if CELLS[self.network.cell].has_c else ["h"]

    @property
    def _joined(self) -> bool:
        """Whether the states of all layers are one array, as in Python."""
        return len(set(self.network.hidden_sizes)) == 1

    def _initial(self, name: str) -> list[Array]:
        """The trained initial h or c (directions, 1, H) of each layer."""
        return [np.stack([direction[name + "0"] for direction in layer])[:, None] for layer in self.parts.layers]

    def _states_in(self) -> list[dict[str, str]]:
        """The names of h and c (directions, B, H) of each layer before the first step; none where they are zeros."""
        g, N, sizes = self.graph, self.network.directions, self.network.hidden_sizes
        found: list[dict[str, str]] = [{} for _ in sizes]
        if not self.with_state and not self.network.trainable_initial_state:
            return found
        for name in self._state_names():
            if not self._joined:
                for number, size in enumerate(sizes):
                    layer = slice(number, number + 1)
                    found[number][name] = self._state_in(f"{name}_in_{number}", N, size, name, layer)
                continue
            every = self._state_in(f"{name}_in", len(sizes) * N, sizes[0], name, slice(None))
            for number, states in enumerate(found):
                states[name] = every if len(found) == 1 else g.slice(every, 0, number * N, number * N + N)
        return found

    def _state_in(self, name: str, rows: int, H: int, part: str, layers: slice) -> str:
        """h or c (rows, B, H) of some layers: an input, whose default is the trained initial state, or that state."""
        g = self.graph
        if not self.network.trainable_initial_state:
            return g.input(name, self.dtype, [rows, "batch", H])
        g.array(name, np.concatenate(self._initial(part)[layers]))
        if self.with_state:
            g.input(name, self.dtype, [rows, "states", H])
        one = g.constant(np.array([1]))
        return g.op("Expand", name, g.concat([one, self.batch, one], 0))

    def _states_out(self) -> None:
        """Write the outputs of states."""
        g, N = self.graph, self.network.directions
        sizes = self.network.hidden_sizes
        for i, name in enumerate(self._state_names()):
            after = [states[i] for states in self.after]
            if self._joined:
                joined = after[0] if len(after) == 1 else g.concat(after, 0)
                g.output(joined, f"{name}_out", self.dtype, [len(sizes) * N, "batch", sizes[0]])
                continue
            for number, (state, size) in enumerate(zip(after, sizes, strict=True)):
                g.output(state, f"{name}_out_{number}", self.dtype, [N, "batch", size])

    # ---- layers: each function returns the name of the outputs (T, B, H * directions), or "" if nothing reads them ---

    def operator(self, number: int, layer: Layer, x: str, before: Mapping[str, str]) -> str:
        """A layer as one of ONNX's operators."""
        g, cell = self.graph, self.network.cell
        arrays = [from_crnn("onnx", cell, direction) for direction in layer]
        W, R = np.stack([each[0] for each in arrays]), np.stack([each[1] for each in arrays])
        B = np.stack([np.concatenate([b, recurrent]) for _, _, b, recurrent in arrays if recurrent is not None])
        weights = [g.array(f"layer{number}.{name}", values) for name, values in zip("WRB", (W, R, B), strict=True)]
        kind, attributes = OPERATORS[cell]
        if "activations" in attributes:
            attributes = {"activations": attributes["activations"] * len(layer)}
        outputs = g.op_with_outputs(
            kind,
            [x, *weights, *([self.lengths, *before.values()] if self.lengths or before else [])],
            1 + len(self._state_names()),
            hidden_size=R.shape[2],
            direction="bidirectional" if len(layer) == 2 else "forward",
            **attributes,
        )
        self.after.append((outputs[1], outputs[-1]))
        if self._is_pooled_by_state(number):
            return ""
        if len(layer) == 1:
            return g.op("Squeeze", outputs[0], g.axes(1))
        return g.reshape(g.op("Transpose", outputs[0], perm=[0, 2, 1, 3]), [0, 0, -1])

    def min_gru(self, number: int, layer: Layer, x: str, before: Mapping[str, str]) -> str:
        """A layer of min_gru cells, which ONNX has no operator for.

        The gates z and n of all steps, then a Scan of h = (1 - z) * h' + z * n. After the end of a sequence z is 0.
        """
        g = self.graph
        outputs, finals = [], []
        for i, direction in enumerate(layer):
            xw = self._input_product(f"layer{number}.{'reverse.' * i}", direction, x)
            H = direction["b_h"].size // 2
            gates = CELLS["min_gru"].info.gate_names
            z, a = (g.slice(xw, 2, gates.index(gate) * H, gates.index(gate) * H + H) for gate in "zn")
            z = g.op("Sigmoid", z)
            positive = g.op("GreaterOrEqual", a, g.constant(np.zeros((), self.dtype)))
            n = g.op("Where", positive, g.op("Add", a, g.constant(np.array(0.5, self.dtype))), g.op("Sigmoid", a))
            if self.mask:
                z = g.op("Mul", z, g.cast(self.mask, self.dtype))
            keep = g.op("Sub", g.constant(np.ones((), self.dtype)), z)
            final, h = g.linear_scan(self._first("h", before, i, H), keep, g.op("Mul", z, n), reverse=i == 1)
            outputs.append(h)
            finals.append(g.unsqueeze(final, 0))
        self.after.append((self._joined_directions(finals, 0),) * 2)
        return self._scanned(number, outputs)

    def scan(self, number: int, layer: Layer, x: str, before: Mapping[str, str]) -> str:
        """A layer of a cell that ONNX has no operator for: a Scan of its step. After a sequence its state stays."""
        g, step = self.graph, STEPS[self.network.cell]
        outputs, finals = [], []
        for i, direction in enumerate(layer):
            prefix = f"layer{number}.{'reverse.' * i}"
            xw, H = self._input_product(prefix, direction, x), direction["W_hh"].shape[0]
            states = [self._first(name, before, i, H) for name in self._state_names()]
            inputs = {xw: self.dtype} | ({self.mask: "bool"} if self.mask else {})
            after, y = g.scan(states, inputs, partial(step, g, prefix, direction), reverse=i == 1)
            outputs.append(y)
            finals.append([g.unsqueeze(state, 0) for state in after])
        joined = [self._joined_directions(parts, 0) for parts in zip(*finals, strict=True)]
        self.after.append((joined[0], joined[-1]))
        return self._scanned(number, outputs)

    def _input_product(self, prefix: str, params: Mapping[str, Array], x: str) -> str:
        """x W_xh + b_h of all steps, (T, B, G*H)."""
        g = self.graph
        product = g.op("MatMul", x, g.array(prefix + "W_xh", params["W_xh"]))
        return g.op("Add", product, g.array(prefix + "b_h", params["b_h"]))

    def _joined_directions(self, values: Sequence[str], axis: int) -> str:
        return values[0] if len(values) == 1 else self.graph.concat(values, axis)

    def _scanned(self, number: int, outputs: Sequence[str]) -> str:
        """The outputs (T, B, H * directions) of a layer from those of each direction; 0 after the end of a sequence."""
        if self._is_pooled_by_state(number):
            return ""
        y = self._joined_directions(outputs, 2)
        return self.graph.op("Mul", y, self.graph.cast(self.mask, self.dtype)) if self.mask else y

    def _is_pooled_by_state(self, number: int) -> bool:
        """Whether nothing but the state after this layer's last step is used."""
        return self.parts.pooling == "last" and number == len(self.parts.layers) - 1

    def _first(self, name: str, before: Mapping[str, str], direction: int, H: int) -> str:
        """The name of h or c (B, H) of one direction before its first step."""
        g = self.graph
        if not before:
            shape = g.concat([self.batch, g.constant(np.array([H]))], 0)
            return g.op("Expand", g.constant(np.zeros((1, 1), self.dtype)), shape)
        first = g.slice(before[name], 0, direction, direction + 1)
        return g.op("Squeeze", first, g.axes(0))

    # ---- the head -------------------------------------------------------------------------------------------------

    def _head(self, y: str) -> str:
        """Write pooling and head. Returns the name of the logits (T, B, V), or (B, V) with pooling; or (B, T, V)."""
        g = self.graph
        pooling = self.parts.pooling
        if pooling is not None:
            y = POOLED[pooling](self, y)
        elif self.batch_first:
            y = g.op("Transpose", y, perm=[1, 0, 2])
        assert self.parts.head is not None
        weights, b_y = self.parts.head
        tied = "W_hy" not in self.parts.params
        W_hy = g.op("Transpose", "embedding", perm=[1, 0]) if tied else g.array("W_hy", weights)
        scores = g.op("Add", g.op("MatMul", y, W_hy), g.array("b_y", b_y))
        return self._log_probabilities(y, scores) if self.parts.tails else scores

    def _log_probabilities(self, y: str, scores: str) -> str:
        """Write an adaptive softmax, from the scores of the most frequent tokens and of the tails."""
        g, first = self.graph, self.parts.cutoffs[0]
        scores = g.op("LogSoftmax", scores, axis=-1)
        parts = [g.slice(scores, -1, 0, first)]
        for i, (W_hp, W_py) in enumerate(self.parts.tails):
            projected = g.op("MatMul", y, g.array(f"tail{i}.W_hp", W_hp))
            within = g.op("LogSoftmax", g.op("MatMul", projected, g.array(f"tail{i}.W_py", W_py)), axis=-1)
            parts.append(g.op("Add", within, g.slice(scores, -1, first + i, first + i + 1)))
        return g.concat(parts, -1)

    def last(self, y: str) -> str:
        """The last output of each direction, (B, F)."""
        g, read = self.graph, []
        for h, _ in self.after[0 if self.network.dense_layers else -1 :]:
            if self.network.directions == 1:
                read.append(g.op("Squeeze", h, g.axes(0)))
            else:
                read.append(g.reshape(g.op("Transpose", h, perm=[1, 0, 2]), [0, -1]))
        return read[0] if len(read) == 1 else g.concat(read, 1)

    def mean(self, y: str) -> str:
        """The mean of the outputs, (B, F), which are 0 after the end of a sequence."""
        g, F = self.graph, self.network.output_size
        total = g.reduce("ReduceSum", y, 0)
        count = g.unsqueeze(g.cast(self.lengths or g.size(self.x, 0), self.dtype), 1)
        if self.with_state:
            total = g.op("Add", total, g.input("sum_in", self.dtype, ["batch", F]))
            count = g.op("Add", count, g.input("steps_in", self.dtype, ["batch", 1]))
            g.output(total, "sum_out", self.dtype, ["batch", F])
            g.output(count, "steps_out", self.dtype, ["batch", 1])
        return g.op("Div", total, count)

    def max(self, y: str) -> str:
        """The maximum of the outputs, (B, F)."""
        g, F = self.graph, self.network.output_size
        if self.mask:
            y = g.op("Where", self.mask, y, g.constant(np.array(-np.inf, self.dtype)))
        largest = g.reduce("ReduceMax", y, 0)
        if self.with_state:
            largest = g.op("Max", largest, g.input("max_in", self.dtype, ["batch", F]))
            g.output(largest, "max_out", self.dtype, ["batch", F])
        return largest

    def flatten(self, y: str) -> str:
        """The outputs of all steps, (B, T * F)."""
        return self.graph.reshape(self.graph.op("Transpose", y, perm=[1, 0, 2]), [0, -1])

    # ---- answers: each function writes the outputs of a kind of model ----------------------------------------------

    def _axes(self, *last: Any) -> list[Any]:
        """The axes of an answer that ends with these."""
        if self.parts.pooling is not None:
            return ["batch", *last]
        return (["batch", self.steps] if self.batch_first else [self.steps, "batch"]) + list(last)

    def tokens(self, logits: str) -> None:
        """logits."""
        assert self.parts.vocab is not None
        self.graph.output(logits, "logits", self.dtype, self._axes(len(self.parts.vocab)))

    def classes(self, logits: str) -> None:
        """logits, probabilities and labels."""
        g, config, V = self.graph, self.parts.config, self.parts.config["num_classes"]
        g.output(logits, "logits", self.dtype, self._axes(V))
        if config["multilabel"]:
            probabilities = g.op("Sigmoid", logits)
            g.output(probabilities, "probabilities", self.dtype, self._axes(V))
            if config["thresholds"] is None:
                positive = g.op("Greater", logits, g.constant(np.zeros((), self.dtype)))
            else:
                thresholds = g.constant(np.array(config["thresholds"]), "thresholds")
                positive = g.op("Greater", g.cast(probabilities, "float64", self.dtype), thresholds)
            g.output(positive, "labels", "bool", self._axes(V))
            return
        g.output(g.op("Softmax", logits, axis=-1), "probabilities", self.dtype, self._axes(V))
        label, dtype = g.op("ArgMax", logits, axis=-1, keepdims=0), "int64"
        if config["classes"] is not None:
            names, dtype = _class_names(config["classes"])
            label = g.op("Gather", g.constant(names, "classes"), label)
        g.output(label, "labels", dtype, self._axes())

    def values(self, outputs: str) -> None:
        """values, in the units of the targets."""
        g, config, P, dtype = self.graph, self.parts.config, self.parts.config["output_size"] or 1, self.dtype
        quantiles = config["loss"] == "quantile"
        values, lead = outputs, [0] * (len(self._axes()))
        if quantiles:
            values = g.reshape(values, [*lead, -1, P])
        if "y" in self.parts.scaling:
            mean, std = self.parts.scaling["y"]
            values, dtype = g.cast(values, "float64", self.dtype), "float64"
            values = g.op("Mul", values, g.array("scaling.y.std", std))
            values = g.op("Add", values, g.array("scaling.y.mean", mean))
        if quantiles:
            n = len(lead)
            values = g.op("Transpose", values, perm=[*range(n), n + 1, n])
        g.output(values, "values", dtype, self._axes(P, *([len(config["quantiles"])] if quantiles else [])))


def _class_names(classes: list[Any]) -> tuple[Array, str]:
    """The names of classes as a tensor, and its type. Raises ValueError for a name that it cannot hold."""
    if not isinstance(classes[0], str):
        if all(isinstance(name, bool) for name in classes):
            return np.array(classes), "bool"
        if any(abs(name) >= 1 << 63 for name in classes):
            raise ValueError("classes: expected integers that int64 can hold")
        return np.array(classes, np.int64), "int64"
    for name in classes:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise ValueError(f"classes: expected names that UTF-8 can hold, got {name!r:.100}") from None
    return np.array(classes, object), "str"


OPERATORS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "tanh": ("RNN", {"activations": ["Tanh"]}),
    "relu": ("RNN", {"activations": ["Relu"]}),
    "lstm": ("LSTM", {}),
    "gru": ("GRU", {"linear_before_reset": 1}),
    "original_gru": ("GRU", {"linear_before_reset": 0}),
}
WRITERS: dict[str, Callable[[_Writer, int, Layer, str, Mapping[str, str]], str]] = {
    **dict.fromkeys(OPERATORS, _Writer.operator),
    **dict.fromkeys(STEPS, _Writer.scan),
    "min_gru": _Writer.min_gru,
}
POOLED: dict[str, Callable[[_Writer, str], str]] = {
    "last": _Writer.last,
    "mean": _Writer.mean,
    "max": _Writer.max,
    "flatten": _Writer.flatten,
}
ANSWERS: dict[str, Callable[[_Writer, str], None]] = {
    "LanguageModel": _Writer.tokens,
    "SequenceClassifier": _Writer.classes,
    "SequenceTagger": _Writer.classes,
    "SequenceRegressor": _Writer.values,
}
