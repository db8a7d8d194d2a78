# SPDX-License-Identifier: MIT
"""LiteRT (TensorFlow Lite) with our weights: a model file of its own operators for sequences, or of plain ones.

For sequences there are an LSTM and a tanh RNN, which keep the state in the model. A step of any cell is written with
products and elementwise operators, and the caller copies the state: that is faster for single steps, and for sequences
in int8 or of large layers. In int8 the weights are quantised for each unit, and inputs at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Run = Callable[[], Any]

ABSENT = -1  # index of an optional tensor
MOST_UNITS = 100  # of a layer, and a batch of 1, for which the operators for sequences are faster


class Writer:
    """Tensors and operators of a model file."""

    def __init__(self, precision: str) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema, self.precision = schema, precision
        self.buffers: list[Any] = [schema.BufferT()]
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: list[Any] = []

    def tensor(self, shape: tuple[int, ...], *, variable: bool = False) -> int:
        """A float32 tensor that is computed, given, or kept from run to run."""
        return self._add(self.schema.TensorType.FLOAT32, shape, 0, variable)

    def constant(self, values: Array) -> int:
        """A tensor of these values."""
        kind = self.schema.TensorType.INT32 if values.dtype == np.int32 else self.schema.TensorType.FLOAT32
        return self._add(kind, values.shape, self._buffer(values))

    def weights(self, values: Array) -> int:
        """A matrix (outputs, inputs) in the model's precision; int8 with a scale for each output."""
        if self.precision == "float32":
            return self.constant(np.ascontiguousarray(values, np.float32))
        scale = np.maximum(np.abs(values).max(axis=1, keepdims=True), 1e-30) / 127
        index = self._add(
            self.schema.TensorType.INT8, values.shape, self._buffer(np.rint(values / scale).astype(np.int8))
        )
        quantization = self.schema.QuantizationParametersT()
        quantization.scale = np.ravel(scale).astype(np.float32)
        quantization.zeroPoint = np.zeros(scale.size, np.int64)
        self.tensors[index].quantization = quantization
        return index

    def operator(self, name: str, inputs: list[int], *shapes: tuple[int, ...], options: str = "", **values: Any) -> Any:
        """An operator, and the index of its output, or of all outputs."""
        outputs = [self.tensor(shape) for shape in shapes]
        made, code = self.schema.OperatorT(), self.schema.OperatorCodeT()
        code.builtinCode = getattr(self.schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode = code.builtinCode
        made.opcodeIndex, made.inputs, made.outputs = len(self.codes), inputs, outputs
        if options:
            made.builtinOptions = getattr(self.schema, f"{options}T")()
            made.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
            for field, value in values.items():
                setattr(made.builtinOptions, field, value)
        self.codes.append(code)
        self.operators.append(made)
        return outputs[0] if len(outputs) == 1 else outputs

    def file(self, inputs: list[int], outputs: list[int]) -> bytes:
        """The model file."""
        import flatbuffers

        graph, model = self.schema.SubGraphT(), self.schema.ModelT()
        graph.tensors, graph.operators, graph.inputs, graph.outputs = self.tensors, self.operators, inputs, outputs
        model.version, model.subgraphs, model.buffers, model.operatorCodes = 3, [graph], self.buffers, self.codes
        builder = flatbuffers.Builder()
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _add(self, kind: int, shape: tuple[int, ...], buffer: int, variable: bool = False) -> int:
        made = self.schema.TensorT()
        made.shape, made.type, made.buffer, made.isVariable = list(shape), kind, buffer, variable
        made.name = f"t{len(self.tensors)}"
        self.tensors.append(made)
        return len(self.tensors) - 1

    def _buffer(self, values: Array) -> int:
        made = self.schema.BufferT()
        made.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self.buffers.append(made)
        return len(self.buffers) - 1


# ---- a layer ---------------------------------------------------------------------------------------------------------


class Operators:
    """One step of a layer of any cell in plain operators; the caller copies the state."""

    def __init__(self, writer: Writer, layer: Mapping[str, Array], B: int) -> None:
        self.writer, self.layer, self.B, self.H = writer, layer, B, len(layer["W_hh"])

    def step(self, cell: str, x: int) -> tuple[int, list[tuple[int, int]]]:
        """h of this step, and the indices of each part of the state before and after it."""
        h = self.writer.tensor((self.B, self.H))
        if cell == "gru":
            after = self.gru(x, h)
            return after, [(h, after)]
        H, W = self.H, np.concatenate([self.layer["W_xh"], self.layer["W_hh"]])
        joined = self.apply("CONCATENATION", x, h, width=len(W), options="ConcatenationOptions", axis=1)
        gates = self.product(joined, W, self.layer["b_h"])
        if cell == "tanh":
            after = self.apply("TANH", gates)
            return after, [(h, after)]
        c = self.writer.tensor((self.B, H))
        both = self.apply("LOGISTIC", self.part(gates, 0, 2 * H), width=2 * H)
        g, o = self.apply("TANH", self.part(gates, 2 * H, H)), self.apply("LOGISTIC", self.part(gates, 3 * H, H))
        kept, new = self.multiply(self.part(both, H, H), c), self.multiply(self.part(both, 0, H), g)
        c_after = self.add(kept, new)
        after = self.multiply(o, self.apply("TANH", c_after))
        return after, [(h, after), (c, c_after)]

    def gru(self, x: int, h: int) -> int:
        H, zeros = self.H, np.zeros(2 * self.H, np.float32)
        a = self.product(x, self.layer["W_xh"], self.layer["b_h"])
        u = self.product(h, self.layer["W_hh"], np.concatenate([zeros, self.layer["b_hn"]]))
        gates = self.apply("LOGISTIC", self.add(self.part(a, 0, 2 * H), self.part(u, 0, 2 * H), 2 * H), width=2 * H)
        reset = self.multiply(self.part(gates, 0, H), self.part(u, 2 * H, H))
        n = self.apply("TANH", self.add(self.part(a, 2 * H, H), reset))
        return self.add(n, self.multiply(self.part(gates, H, H), self.apply("SUB", h, n, options="SubOptions")))

    def apply(self, name: str, *inputs: int, width: int = 0, options: str = "", **values: Any) -> int:
        shape = (self.B, width or self.H)
        made: int = self.writer.operator(name, list(inputs), shape, options=options, **values)
        return made

    def add(self, a: int, b: int, width: int = 0) -> int:
        return self.apply("ADD", a, b, width=width, options="AddOptions")

    def multiply(self, a: int, b: int) -> int:
        return self.apply("MUL", a, b, options="MulOptions")

    def part(self, v: int, first: int, width: int) -> int:
        begin, size = (self.writer.constant(np.array(pair, np.int32)) for pair in ([0, first], [self.B, width]))
        return self.apply("SLICE", v, begin, size, width=width)

    def product(self, v: int, W: Array, b: Array) -> int:
        inputs = v, self.writer.weights(W.T), self.writer.constant(b)
        return self.apply("FULLY_CONNECTED", *inputs, width=W.shape[1], options="FullyConnectedOptions")


def sequence(writer: Writer, x: int, layer: Mapping[str, Array], cell: str, T: int, B: int) -> int:
    """LiteRT's own operator over all steps; the state is a variable of the model."""
    H = len(layer["W_hh"])
    gates = layer["W_xh"].shape[1] // H

    def blocks(name: str) -> list[int]:
        return [writer.weights(part.T) for part in np.split(layer[name], gates, axis=1)]

    biases = [writer.constant(np.ascontiguousarray(part)) for part in np.split(layer["b_h"], gates)]
    state = [writer.tensor((B, H), variable=True) for _ in range(1 + (cell == "lstm"))]
    common = {"timeMajor": True, "fusedActivationFunction": writer.schema.ActivationFunctionType.TANH}
    if cell == "lstm":  # without peepholes, projection, and normalisation
        weights = [*blocks("W_xh"), *blocks("W_hh"), *[ABSENT] * 3, *biases, ABSENT, ABSENT, *state, *[ABSENT] * 4]
        name, options = "UNIDIRECTIONAL_SEQUENCE_LSTM", "UnidirectionalSequenceLSTMOptions"
    else:
        weights = [*blocks("W_xh"), *blocks("W_hh"), *biases, *state]
        name, options = "UNIDIRECTIONAL_SEQUENCE_RNN", "SequenceRNNOptions"
    y: int = writer.operator(name, [x, *weights], (T, B, H), options=options, **common)
    return y


# ---- a model ---------------------------------------------------------------------------------------------------------


def litert_run(
    params: Mapping[str, Array], cell: str, x: Array, threads: int, precision: str, *, carried: bool, last: bool
) -> Run:
    """Outputs over x (T, B, D), from the zero state, or ``carried`` from that of the previous run.

    ``last``: of the last step only.
    """
    few = x.shape[1] == 1 and len(params["layer0.W_hh"]) <= MOST_UNITS
    own = few and precision == "float32" and cell != "gru" and not carried
    return (own_operators if own else plain_steps)(params, cell, x, threads, precision, carried=carried, last=last)


def own_operators(
    params: Mapping[str, Array], cell: str, x: Array, threads: int, precision: str, *, carried: bool, last: bool
) -> Run:
    """With LiteRT's operators for sequences; one call computes all steps."""
    T, B, _ = x.shape
    H, writer = len(params["layer0.W_hh"]), Writer(precision)
    given = y = writer.tensor(x.shape)
    for layer in _layers(params):
        y = sequence(writer, y, layer, cell, T, B)
    if last:
        begin, size = (writer.constant(np.array(part, np.int32)) for part in ([T - 1, 0, 0], [1, B, H]))
        y = writer.operator("SLICE", [y, begin, size], (1, B, H))
    y = _head(writer, y, params, (1 if last else T, B))
    model, [x_index], [y_index] = _interpreter(writer.file([given], [y]), threads)
    model.set_tensor(x_index, x)
    output = model.tensor(y_index)

    def run() -> Array:
        if not carried:
            model.reset_all_variables()
        model.invoke()
        return output().copy()  # as long as there is a view, the model refuses to run

    return run


def plain_steps(
    params: Mapping[str, Array], cell: str, x: Array, threads: int, precision: str, *, carried: bool, last: bool
) -> Run:
    """With plain operators; a call for each step."""
    T, B, D = x.shape
    writer = Writer(precision)
    given = y = writer.tensor((B, D))
    states: list[tuple[int, int]] = []
    for layer in _layers(params):
        y, state = Operators(writer, layer, B).step(cell, y)
        states += state
    y = _head(writer, y, params, (B,))
    content = writer.file([given, *(before for before, _ in states)], [y, *(after for _, after in states)])
    model, inputs, outputs = _interpreter(content, threads)
    (x_view, *befores), (y_view, *afters) = map(model.tensor, inputs), map(model.tensor, outputs)
    ys = np.empty((T, *y_view().shape), np.float32)
    x_view()[...] = x[0]

    def step() -> None:
        model.invoke()
        for before, after in zip(befores, afters, strict=True):
            before()[...] = after()

    def run() -> Array:
        if not carried:
            for before in befores:
                before()[...] = 0.0
        if T == 1:
            step()
            return y_view().copy()
        for t in range(T):
            x_view()[...] = x[t]
            step()
            if not last:
                ys[t] = y_view()
        return y_view().copy() if last else ys

    for before in befores:
        before()[...] = 0.0
    return run


def _layers(params: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
    for k in range(sum(name.endswith(".W_hh") for name in params)):
        prefix = f"layer{k}."
        yield {name.removeprefix(prefix): value for name, value in params.items() if name.startswith(prefix)}


def _head(writer: Writer, y: int, params: Mapping[str, Array], shape: tuple[int, ...]) -> int:
    if "W_hy" not in params:
        return y
    inputs = [y, writer.weights(params["W_hy"].T), writer.constant(params["b_y"])]
    shape, options = (*shape, len(params["b_y"])), "FullyConnectedOptions"
    made: int = writer.operator("FULLY_CONNECTED", inputs, shape, options=options, keepNumDims=len(shape) > 2)
    return made


def _interpreter(content: bytes, threads: int) -> tuple[Any, list[int], list[int]]:
    """A model that is ready to run, and the indices of its inputs and outputs."""
    from ai_edge_litert.interpreter import Interpreter

    model = Interpreter(model_content=content, num_threads=threads)
    model.allocate_tensors()
    inputs, outputs = model.get_input_details(), model.get_output_details()
    return model, [entry["index"] for entry in inputs], [entry["index"] for entry in outputs]
