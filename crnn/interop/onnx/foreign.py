# SPDX-License-Identifier: MIT
"""Files of other programs: recurrent layers one after the other, and perhaps one linear layer.

The nodes are evaluated (`crnn.interop.onnx.nodes`), and what the outputs then are decides about the model: outputs of
layers are those of an `RNN`; a linear layer on each step, or on what was pooled, is the head of a model of sequences.
Every node, initializer and input must have had a part in that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crnn.checks import Array
from crnn.interop.onnx import values
from crnn.interop.onnx.files import Tensors, dtype_of
from crnn.interop.onnx.layer_nodes import FORWARD, RECURRENT, REVERSE
from crnn.interop.onnx.nodes import OPERATORS, evaluate
from crnn.interop.onnx.reader import Reader, ReadLayer, called
from crnn.interop.onnx.unrolled.graph import evaluate_unrolled
from crnn.interop.onnx.values import Atom, Data, Head, Rows, Scaling, Unknown, Zeros, atoms
from crnn.interop.parts import KINDS, model_from
from crnn.models.outputs.targets import ClassTargets
from crnn.nn.cells import CELLS
from crnn.text.vocab import Vocab

OPSETS = range(7, 29)
POOLED = {values.MEAN: "mean", values.MAX: "max"}
KIND_OF_ANSWER = {"": "SequenceRegressor"}  # otherwise classes
WITH_CLASSES = {"SequenceClassifier": True, "SequenceTagger": False}  # whether they pool


@dataclass(frozen=True)
class Outputs:
    """What the outputs of a graph are."""

    head: Head | None
    pooling: str | None
    steps: int | None
    answers: set[str]
    scaling: Scaling | None
    names: list[Any] | None  # of the classes


def model_of(proto: Any, tensors: Tensors, *, kind: str | None, classes: Any, vocab: Vocab | None) -> Any:
    """See `crnn.interop.onnx.from_model`."""
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r:.100}")
    if vocab is not None and not isinstance(vocab, Vocab):
        raise TypeError(f"vocab: expected a Vocab, got {type(vocab).__name__}")
    reader = Reader(tensors, _opset(proto))
    _read_inputs(proto, reader)
    if any(node.op_type in RECURRENT for node in proto.graph.node):
        _evaluate(proto, reader)
    else:
        evaluate_unrolled(proto, reader)
    outputs = _outputs(proto, reader)
    _check_all_used(proto, reader)
    return _model(reader, outputs, kind, classes, vocab)


def _evaluate(proto: Any, reader: Reader) -> None:
    """Evaluate a graph with recurrent nodes."""
    for node in proto.graph.node:
        if node.op_type not in OPERATORS:
            what = "recurrent layers, one linear layer, and what arranges axes"
            raise ValueError(f"{called(node)}: expected nothing but {what}")
    for node in proto.graph.node:
        evaluate(reader, node)


# ---- the graph -------------------------------------------------------------------------------------------------------


def _opset(proto: Any) -> int:
    versions = [each.version for each in proto.opset_import if each.domain in ("", "ai.onnx")]
    if len(versions) != 1 or versions[0] not in OPSETS:
        raise ValueError(f"opset_import: expected a version from {OPSETS[0]} to {OPSETS[-1]}, got {versions[:5]}")
    if len(proto.training_info):
        raise ValueError("training_info: expected none")
    return int(versions[0])


def _read_inputs(proto: Any, reader: Reader) -> None:
    """Set the values of the graph's inputs. Those with an initializer are constants."""
    for each in proto.graph.input:
        if each.name in reader.tensors.named:
            continue
        tensor = each.type.tensor_type
        if not each.type.HasField("tensor_type") or each.name in reader.values or not each.name:
            raise ValueError(f"input {each.name!r:.100}: expected a tensor with a unique name")
        dtype = dtype_of(tensor.elem_type)
        if dtype.kind not in "if" or len(tensor.shape.dim) > values.MOST_AXES:
            raise ValueError(f"input {each.name!r:.100}: expected numbers, of at most {values.MOST_AXES} axes")
        axes = []
        for i, dim in enumerate(tensor.shape.dim):
            size = dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None
            name = f"{each.name} {i}"
            axes.append(atoms(Atom(name, Unknown(1, (name,)) if size is None else size)))
        reader.values[each.name] = Data("ids" if dtype.kind == "i" else "input", tuple(axes), name=each.name)


def _check_all_used(proto: Any, reader: Reader) -> None:
    """Raise ValueError unless every node, initializer and input leads to an output."""
    makers = {name: node for node in proto.graph.node for name in node.output if name}
    wanted = [each.name for each in proto.graph.output]
    used: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name not in used:
            used.add(name)
            wanted += [each for each in makers[name].input if each] if name in makers else []
    for node in proto.graph.node:
        if not used & set(node.output):
            raise ValueError(f"{called(node)}: expected an output's")
    for what, names in (("initializer", list(reader.tensors.named)), ("input", [i.name for i in proto.graph.input])):
        for name in names:
            if name not in used:
                raise ValueError(f"{what} {name!r:.100}: expected one that an output depends on")
    given = {name for name in used if isinstance(reader.values[name], Data) and reader.values[name].name == name}
    sources = {reader.layers[0].source.name} | reader.lengths
    sources |= {value.name for layer in reader.layers for value in layer.states.values() if isinstance(value, Data)}
    for name in sorted(given - sources):
        raise ValueError(f"input {name!r:.100}: expected x or ids, sequence_lens, or a state")


def _outputs(proto: Any, reader: Reader) -> Outputs:
    """What the outputs are. Raises ValueError for one that no model has."""
    top, heads, answers, scaling = len(reader.layers) - 1, list[Head](), set[str](), list[Scaling | None]()
    names: list[Any] | None = None
    for each in proto.graph.output:
        value = reader.values.get(each.name)
        if isinstance(value, Data) and value.head is not None:
            heads.append(value.head)
            answers.add(value.answer)
            scaling.append(value.scaling)
            names = names if value.names is None else value.names.tolist()
        elif not isinstance(value, Data) or value.what not in ("hidden", "cell"):
            raise ValueError(f"output {each.name!r:.100}: expected outputs or states of layers, or those of a head")
        elif {part[0] for part in value.parts} & ({*POOLED, values.END} if reader.lengths else set(POOLED)):
            raise ValueError(f"output {each.name!r:.100}: expected a linear layer on what was pooled")
        elif _in_passing(value):
            raise ValueError(f"output {each.name!r:.100}: expected outputs of all steps, or the state after the last")
        elif {part[0] for part in value.parts} == {values.EVERY} and {part[1] for part in value.parts} != {top}:
            raise ValueError(f"output {each.name!r:.100}: expected the outputs of the last layer")
    if not heads:
        return Outputs(None, None, None, answers, None, None)
    head = heads[0]
    same = all(each.weights is head.weights and each.bias is head.bias for each in heads)
    if not same or any(each is not scaling[0] for each in scaling):
        raise ValueError("expected one linear layer, or outputs with its bias")
    pooling, steps = _pooling(head.source, reader, top)
    return Outputs(head, pooling, steps, answers, scaling[0], names)


def _in_passing(value: Data) -> bool:
    """Whether some of the outputs are those of another step than the last one of their direction, or there twice."""
    others = {(values.FIRST, FORWARD), (values.LAST, REVERSE), (values.END, REVERSE)}
    return len(set(value.parts)) < len(value.parts) or any((moment, d) in others for moment, _, d in value.parts)


def _pooling(source: Data, reader: Reader, top: int) -> tuple[str | None, int | None]:
    """The pooling of a head's input, and the number of steps of a flattened one. Raises ValueError."""
    layer = reader.layers[top]
    padded = [moment for moment, *_ in source.parts if moment in (values.END, values.MEAN, values.MAX)]
    if reader.lengths and padded:
        raise ValueError(
            "expected, with sequence_lens, the state after the last step of each sequence: the end, the mean and the "
            "maximum of y contain padding"
        )
    moments = {(values.LAST if moment == values.END else moment, direction) for moment, _, direction in source.parts}
    if {part[1] for part in source.parts} != {top} or len(moments) != len(source.parts):
        raise ValueError("expected a linear layer on the outputs of the last recurrent layer")
    if (values.LAST, REVERSE) in moments or (values.FIRST, FORWARD) in moments:
        raise ValueError(
            "expected the last step of each direction, which for the reverse one is the first step: its output at the "
            "last step, as in y[:, -1], has read one step only"
        )
    kinds = {POOLED.get(moment, moment) for moment, _ in moments}
    kinds = {"last" if kind in (values.LAST, values.FIRST) else kind for kind in kinds}
    if len(kinds) > 1:
        raise ValueError(f"expected one kind of pooling, got {' and '.join(sorted(kinds))}")
    kind = kinds.pop()
    if kind != values.EVERY:
        return kind, None
    if [atom.name for atom in source.axes[-1][:1]] != ["time"]:
        return None, None
    steps = source.axes[-1][0].size
    if not isinstance(steps, int) or len(moments) != len(layer.params) or reader.lengths:
        raise ValueError("expected a known number of steps that are flattened")
    return "flatten", steps


# ---- the model -------------------------------------------------------------------------------------------------------


def _model(reader: Reader, outputs: Outputs, kind: str | None, classes: Any, vocab: Vocab | None) -> Any:
    """The model of what was read. Raises ValueError."""
    layers, first = reader.layers, reader.layers[0].source
    cells = sorted({layer.cell for layer in layers})
    if len(cells) > 1:
        raise ValueError(f"expected one kind of cell, got {' and '.join(cells)}")
    if len({layer.lengths for layer in layers}) > 1:
        raise ValueError("sequence_lens: expected the same of all layers")
    both = any(REVERSE in layer.params for layer in layers)
    directions = (FORWARD, REVERSE) if both else (FORWARD,)
    params = [_layer(reader, number, directions) for number in range(len(layers))]
    _add_states(layers, params, directions)
    options: dict[str, Any] = {"trainable_initial_state": "h0" in params[0][0]}
    if first.what == "vectors":
        options["embedding"] = first.table
    head = None
    if outputs.head is not None:
        V = outputs.head.weights.shape[1]
        bias = np.zeros(V, outputs.head.weights.dtype) if outputs.head.bias is None else outputs.head.bias
        order = _order(outputs.head.source.parts, directions)
        head = _rows(outputs.head.weights, order, outputs.steps or 1), bias
        kind, more = _kind(outputs, kind, classes, vocab, V, first)
        options |= more
        if kind == "LanguageModel":
            embedding = options.get("embedding")
            options["tie_weights"] = embedding is not None and np.array_equal(embedding.T, head[0])
    elif kind not in (None, "RNN") or classes is not None or vocab is not None:
        raise ValueError("kind, classes, vocab: expected none for outputs of recurrent layers, which make an RNN")
    scaling = _scaling(first, outputs)
    if scaling and "scale" not in options:
        raise ValueError(f"expected no scaling of {' and '.join(scaling)} for the kind {kind or 'RNN'}")
    options |= {"scale": True} if scaling else {}
    layers_of = [tuple(each) for each in params]
    return model_from(kind or "RNN", cells[0], layers_of, head=head, scaling=scaling, **options)


def _scaling(first: Data, outputs: Outputs) -> dict[str, tuple[Array, Array]]:
    """Mean and std of the inputs "x" and the targets "y" where the graph scales them. Raises ValueError."""
    found: dict[str, tuple[Array, Array]] = {}
    sizes = {"x": first.sizes[-1], "y": 0 if outputs.head is None else outputs.head.weights.shape[1]}
    for name, each in (("x", first.scaling), ("y", outputs.scaling)):
        if each is not None:
            mean, std = (np.broadcast_to(values, (sizes[name],)).copy() for values in (each.mean, each.std))
            if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
                raise ValueError(f"{name}: expected to be scaled by finite factors above 0")
            found[name] = mean, std
    return found


def _kind(
    outputs: Outputs, kind: str | None, classes: Any, vocab: Vocab | None, V: int, first: Data
) -> tuple[str, dict[str, Any]]:
    """The kind of a model with a head, and its options. Raises ValueError for one that it cannot be."""
    pooled = outputs.pooling is not None
    classes = outputs.names if classes is None and vocab is None else classes
    answers = outputs.answers - {""}
    if "Sigmoid" in answers and len(answers) > 1:
        raise ValueError("expected the softmax or the sigmoid of a linear layer, got both")
    if vocab is not None and first.what == "input":
        raise ValueError("vocab: expected none for a graph whose input is not ids")
    tokens = vocab is not None and not pooled and classes is None and "Sigmoid" not in answers and len(vocab) == V
    if kind is None:
        with_classes = "SequenceClassifier" if pooled else "SequenceTagger"
        kind = "LanguageModel" if tokens else with_classes if answers or classes else "SequenceRegressor"
    if kind == "LanguageModel":
        if not tokens:
            raise ValueError("kind: expected, for a LanguageModel, ids, and a vocab as large as the layer at each step")
        return kind, {"vocab": vocab}
    if kind == "RNN" or WITH_CLASSES.get(kind, pooled) != pooled:
        what = f"pooling {outputs.pooling!r}" if pooled else "an output at every step"
        raise ValueError(f"kind: expected another one for a linear layer with {what}, got {kind!r}")
    options: dict[str, Any] = {"scale": False} | ({} if vocab is None else {"vocab": vocab})
    if kind != "SequenceTagger":
        options |= {"pooling": outputs.pooling, "steps": outputs.steps}
    if kind == "SequenceRegressor":
        if answers or classes is not None:
            names = ", ".join(sorted(answers)) or "classes"
            raise ValueError(f"kind: expected one with classes for {names}, got {kind}")
        return kind, options | {"output_size": V}
    options |= {"num_classes": V, "classes": None, "multilabel": "Sigmoid" in answers}
    if classes is not None:
        options["classes"] = ClassTargets(V, classes, multilabel=False, dtype="float32").classes
    return kind, options


def _layer(reader: Reader, number: int, directions: Sequence[int]) -> list[dict[str, Array]]:
    """The parameters of a layer by direction. A direction that it does not have has zeros, and so zeros as outputs."""
    layer = reader.layers[number]
    found = []
    for direction in directions:
        params = layer.params.get(direction)
        if params is None:
            params = {name: np.zeros_like(values) for name, values in next(iter(layer.params.values())).items()}
            reader.charge(sum(each.nbytes for each in params.values()))
        if number:
            params = params | {"W_xh": _rows(params["W_xh"], _order(layer.source.parts, directions), 1)}
        found.append(params)
    return found


def _order(parts: Sequence[values.Part], directions: Sequence[int]) -> list[int | None]:
    """For each direction of the layer that is read: which block it is of what is read, if any."""
    places = {direction: i for i, (_, _, direction) in enumerate(parts)}
    return [places.get(direction) for direction in directions]


def _rows(weights: Array, order: Sequence[int | None], steps: int) -> Array:
    """Weights whose rows are blocks of directions, for each of the steps, in another order; zeros where it has None."""
    n = sum(block is not None for block in order)
    blocks = weights.reshape(steps, n, -1, weights.shape[1])
    zeros = np.zeros_like(blocks[:, 0])
    chosen = [zeros if block is None else blocks[:, block] for block in order]
    return np.stack(chosen, 1).reshape(-1, weights.shape[1])


def _add_states(
    layers: Sequence[ReadLayer], params: Sequence[Sequence[dict[str, Array]]], directions: Sequence[int]
) -> None:
    """Add initial states that are constants to the parameters, if one is not zero."""
    _check_state_inputs(layers)
    names = ["h", "c"] if CELLS[layers[0].cell].has_c else ["h"]
    initial = [{name: _initial(layers, number, name) for name in names} for number in range(len(layers))]
    if all(value is None for states in initial for value in states.values()):
        return
    for layer, states, found in zip(layers, initial, params, strict=True):
        own = list(layer.params)
        for direction, each in zip(directions, found, strict=True):
            for name in names:
                rows = states[name]
                zeros = np.zeros(len(each["W_hh"]), each["W_hh"].dtype)
                each[name + "0"] = zeros if rows is None or direction not in own else rows[own.index(direction)]


def _check_state_inputs(layers: Sequence[ReadLayer]) -> None:
    """Raise ValueError unless each input of a state, or each part of it, belongs to one layer, in their order."""
    seen: list[tuple[str, range]] = []
    for number, layer in enumerate(layers):
        before, n = sum(len(each.params) for each in layers[:number]), len(layer.params)
        for name, value in layer.states.items():
            if not isinstance(value, Data):
                continue
            rows = range(n) if value.rows is None else value.rows
            own = value.what == "input" and len(value.axes) == 3 and (value.name, rows) not in seen
            if value.rows is None:
                own = own and (value.sizes[0] == n or len(layers) == 1)
            if not own or (value.rows is not None and rows != range(before, before + n)):
                state = f"initial_{name} of layer {number}"
                raise ValueError(f"{state}: expected zeros, a constant, or the layer's own input")
            seen.append((value.name, rows))


def _initial(layers: Sequence[ReadLayer], number: int, name: str) -> Array | None:
    """The initial h or c (directions, H) of a layer; None if it is zeros, or an input. Raises ValueError."""
    layer = layers[number]
    value, n = layer.states.get(name), len(layer.params)
    if value is None or isinstance(value, Zeros):
        return None
    H = len(next(iter(layer.params.values()))["W_hh"])
    if isinstance(value, Data):
        return None
    array = value.array if isinstance(value, Rows) else value
    if array.ndim != 3 or (len(array), array.shape[2]) != (n, H) or (array != array[:, :1]).any():
        raise ValueError(f"initial_{name} of layer {number}: expected the same state for each sequence of a batch")
    return array[:, 0] if array.any() else None


def options_given(given: Mapping[str, Any]) -> None:
    """Raise ValueError for an option that a file of crnn's does not need."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"{name}: expected none for a file of crnn's, which says it, got {value!r:.100}")
