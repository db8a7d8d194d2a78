# SPDX-License-Identifier: MIT
"""Network: the weights of a model as they are stored in C, and the statements of a step."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import numpy as np

from crnn.c_export import numbers
from crnn.c_export.cells import Layer, layer_of, table_of
from crnn.c_export.numbers import flushed
from crnn.c_export.storage import SCRATCH, STORAGES, Bf16Matrix, Int8Matrix, Matrix, Vector
from crnn.checks import Array
from crnn.stream.parts import StreamParts

SIZES = {"float": 4, "int8_t": 1, "uint64_t": 8}  # of the types of a state's fields


@dataclass(frozen=True)
class Network:
    """A model in C.

    Attributes
    ----------
    parts : StreamParts
    layers : list of Layer
    embedding : Vector, Matrix or None
        Rows (D, E), or a matrix (E, D) of them in fewer bits. With tied weights they are the columns of the head's
        matrix, and this is None.
    table : Vector or None
        Rows (D, G*H) that replace the first layer's product with a one-hot vector, in a model that takes ids only.
    head : (Matrix, Vector) or None
    tails : list of (Matrix, Matrix)
        Of an adaptive softmax, see `StreamParts`.
    """

    parts: StreamParts
    layers: list[Layer]
    embedding: Matrix | Vector | None
    table: Vector | None
    head: tuple[Matrix, Vector] | None
    tails: list[tuple[Matrix, Matrix]]

    # ---- sizes -------------------------------------------------------------------------------------------------------

    @property
    def takes_ids(self) -> bool:
        """Whether the input of a step can only be an id."""
        return self.parts.ids_only or self.parts.embedding is not None

    @property
    def x_type(self) -> str:
        """C type of real inputs: double if they are standardised."""
        return "float" if self.parts.x is None else "double"

    @property
    def y_type(self) -> str:
        """C type of the outputs: double if they are converted to the units of the targets."""
        return "float" if self.parts.y is None else "double"

    @property
    def output_size(self) -> int:
        """Elements of y."""
        if self.head is None:
            return self.read_size
        return self.head[0].N - len(self.tails) + sum(up.N for _, up in self.tails)

    @property
    def read_size(self) -> int:
        """Elements that the head reads: h of the top layer, or with dense layers of all."""
        return sum(layer.H for layer in self.layers) if self.parts.dense_layers else self.layers[-1].H

    @property
    def x_size(self) -> int:
        """Elements of the first layer's input that a step has to keep; 0 for ids that select a row of constants."""
        return 0 if self.table or isinstance(self.embedding, Vector) or self.looked_up else self.layers[0].W_xh.K

    @property
    def pooled(self) -> str | None:
        """The pooling that a stream keeps more state for."""
        return self.parts.pooling if self.parts.pooling in ("max", "mean") else None

    @property
    def has_c(self) -> bool:
        """Whether layers have c."""
        return "c" in self.layers[0].state

    @property
    def scratch_size(self) -> int:
        """Elements of a state that mean nothing between steps, without the input."""
        sizes = [layer.recipe.scratch * layer.H for layer in self.layers]
        raw = self.output_size if self.parts.y is not None else 0
        if self.head and self.tails:
            sizes.append(self.head[0].N + max(down.N for down, _ in self.tails))
        return max(*sizes, (self.read_size if self.pooled == "mean" else 0) + raw)

    @property
    def state_fields(self) -> list[tuple[str, str, int, str]]:
        """(C type, name, elements, comment) of each field of the state."""
        dense = self.parts.dense_layers  # h are side by side, because layers read them so
        fields = [("float", "h", self.read_size, "h of all layers, the lowest first")] if dense else []
        fields += [
            ("float", f"{name}_{number}", layer.H, f"{name} of layer {number}")
            for number, layer in enumerate(self.layers)
            for name in layer.state
            if not (dense and name == "h")
        ]
        if self.pooled:
            meaning = {"max": "maximum of all steps", "mean": "sum of all steps"}[self.pooled]
            fields.append(("float", "pooled", self.read_size, meaning))
        if self.x_size:
            fields.append(("float", "x", self.x_size, "scratch: the input"))
        fields.append(("float", "scratch", self.scratch_size, "scratch"))
        needed = [matrix.scratch for matrix in self.matrices]
        for name, (c_type, comment) in SCRATCH.items():
            count = max((scratch.get(name, 0) for scratch in needed), default=0)
            if count:
                fields.append((c_type, name, count, comment))
        if self.pooled == "mean":
            fields.append(("uint64_t", "steps", 1, "how many steps the sum has"))
        return fields

    @property
    def state_bytes(self) -> int:
        """sizeof the state."""
        size = 0
        for c_type, _, count, _ in self.state_fields:
            size += -size % SIZES[c_type] + SIZES[c_type] * count
        return size + -size % (8 if self.pooled == "mean" else 4)

    @property
    def scratch_bytes(self) -> int:
        """Of these, what means nothing between steps."""
        return sum(SIZES[c_type] * count for c_type, _, count, comment in self.state_fields if "scratch" in comment)

    @property
    def matrices(self) -> list[Matrix]:
        """Those that products use."""
        matrices = [matrix for layer in self.layers for matrix in layer.matrices]
        return [*matrices[1 if self.table else 0 :], *(self.head or ())[:1], *chain.from_iterable(self.tails)]

    @property
    def constants(self) -> list[Matrix | Vector]:
        """All weights that a step reads, in the order in which they are defined."""
        found: list[Matrix | Vector] = [self.embedding] if self.embedding else []
        for number, layer in enumerate(self.layers):
            found += [self.table] if self.table and number == 0 else [layer.W_xh, layer.b_h]
            found += [*layer.recurrent.values(), *layer.vectors.values(), *layer.starts.values()]
        return [*found, *(self.head or ()), *chain.from_iterable(self.tails)]

    @property
    def precision(self) -> str:
        """That of the weights, for the comment of the file."""
        given = self.parts.precisions
        if len(set(given.values())) == 1 and len(given) == sum(self._matrices_by_layer()):
            return next(iter(given.values()))
        return ", ".join(["float32", *(f"{name} {precision}" for name, precision in given.items())])

    def _matrices_by_layer(self) -> list[int]:
        """How many parameters of each layer are matrices, and those of the head."""
        of_head = int(self.head is not None) + 2 * len(self.tails)
        return [*(1 + bool(layer.recurrent) for layer in self.layers), of_head]

    @property
    def scalings(self) -> dict[str, Array]:
        """The statistics by their names in C."""
        pairs = {"x": self.parts.x, "y": self.parts.y}
        return {
            f"{name}_{which}": values
            for name, pair in pairs.items()
            if pair is not None
            for which, values in zip(("mean", "std"), pair, strict=True)
        }

    @property
    def constant_bytes(self) -> int:
        """Bytes of all constants."""
        return sum(each.nbytes for each in self.constants) + sum(8 * len(each) for each in self.scalings.values())

    @property
    def multiply_adds(self) -> int:
        """Of the products of a step."""
        return sum(matrix.K * matrix.N for matrix in self.matrices if matrix is not self.looked_up)

    # ---- statements --------------------------------------------------------------------------------------------------

    @property
    def pieces(self) -> set[str]:
        """The C functions that the statements call."""
        found = {"arithmetic", "copy"}.union(*(layer.recipe.pieces for layer in self.layers))
        found |= {matrix.pieces["add"] for matrix in self.matrices if matrix is not self.looked_up}
        if self.pooled:
            found.add(f"pool_{self.pooled}")
        if self.tails:
            found |= {"clear", "log_softmax"}
        if self.parts.embedding is not None and not isinstance(self.embedding, Vector):
            found.add(self._embedded.pieces["column"])
        if self.looked_up or self.takes_both:
            found.add(self.layers[0].W_xh.pieces["row"])
        return found if self.takes_ids else found | {"finite"}

    @property
    def looked_up(self) -> Matrix | None:
        """The first layer's W_xh where ids select its rows, and it is never multiplied."""
        if self.takes_ids and self.parts.embedding is None and self.table is None:
            return self.layers[0].W_xh
        return None

    @property
    def takes_both(self) -> bool:
        """Whether the input may be an id as well as numbers."""
        return not self.takes_ids and self.parts.x is None

    def first_sums(self, x: str) -> list[str]:
        """Statements that begin the first layer with its input."""
        layer = self.layers[0]
        return [*layer.b_h.start("a"), *layer.W_xh.add("a", x)]

    def first_sums_of_id(self) -> list[str]:
        """The same for an id."""
        layer = self.layers[0]
        if self.table:
            return self.table.start("a", "id")
        if self.parts.embedding is None:
            normal = layer.W_xh.has_normal_rows and numbers.is_normal(layer.b_h.values)
            return [layer.W_xh.row("a", "id", layer.b_h.name), f"normal = {int(normal)};"]
        if isinstance(self.embedding, Vector):
            return self.first_sums(f"{self.embedding.name} + id * {layer.W_xh.K}")
        return [self._embedded.column("state->x", "id"), *self.first_sums("state->x")]

    @property
    def _embedded(self) -> Matrix:
        """The matrix that has the embedding's rows as columns."""
        if self.embedding is not None and not isinstance(self.embedding, Vector):
            return self.embedding
        assert self.head is not None  # whose weights are tied
        return self.head[0]

    def _state(self, name: str, number: int) -> str:
        """Where the h or c of a layer is in C."""
        if name == "h" and self.parts.dense_layers:
            return f"state->h + {sum(layer.H for layer in self.layers[:number])}"
        return f"state->{name}_{number}"

    def _read(self, number: int) -> str:
        """Where the outputs of the layers below ``number`` are in C, as that layer reads them."""
        return "state->h" if self.parts.dense_layers else self._state("h", number - 1)

    def layer_statements(self, number: int) -> list[str]:
        """Statements of a layer; the first one's sums with its input are in ``a`` before."""
        layer = self.layers[number]
        h = f"    float *const h = {self._state('h', number)}"
        c = f", *const c = {self._state('c', number)};" if self.has_c else ";"
        found = [f"    enum {{ H = {layer.H} }};", h + c]
        if number:
            sums = [*layer.b_h.start("a"), *layer.W_xh.add("a", self._read(number))]
            found += [f"    {line}" for line in sums]
        return ["{", *found, *(f"    {line}" for line in layer.statements()), "}"]

    def output_statements(self) -> list[str]:
        """Statements from the top layer's h, or those of all layers, to y."""
        x, H = self._read(len(self.layers)), self.read_size
        if self.head is None:
            return [f"copy(y, {x}, {H});"]
        found: list[str] = []
        if self.pooled == "max":
            found, x = [f"pool_max(state->pooled, {x}, {H});"], "state->pooled"
        elif self.pooled == "mean":
            call = f"pool_mean(a, state->pooled, {x}, (float)(1.0f / (float)++state->steps), {H});"
            found, x = [call], "a"
        raw = "y" if self.parts.y is None else f"a + {H}" if self.pooled == "mean" else "a"
        W_hy, b_y = self.head
        if self.tails:
            return self._adaptive_softmax(x)
        found += [*b_y.start(raw), *W_hy.add(raw, x)]
        if self.parts.y is not None:
            columns = len(self.parts.y[0])
            column = "j" if columns == W_hy.N else f"j % {columns}"
            found += [
                f"for (j = 0; j < {W_hy.N}; ++j) {{",
                f"    volatile double product = (double)({raw})[j] * y_std[{column}]; /* rounded before the sum */",
                f"    y[j] = product + y_mean[{column}];",
                "}",
            ]
        return found

    def _adaptive_softmax(self, x: str) -> list[str]:
        """Statements from x to the log-probabilities y. a has the scores of head and tails, then a projection."""
        assert self.head is not None
        W_hy, b_y = self.head
        S, first = W_hy.N, W_hy.N - len(self.tails)
        found = [*b_y.start("a"), *W_hy.add("a", x), f"log_softmax(a, {S}, 0.0f);", f"copy(y, a, {first});"]
        for number, (down, up) in enumerate(self.tails):
            score, projected, y = f"a[{S - len(self.tails) + number}]", f"a + {S}", f"y + {first}"
            found += [f"clear({projected}, {down.N});", "normal = 1;", *down.add(projected, x)]
            found += [f"clear({y}, {up.N});", "normal = 1;", *up.add(y, projected)]
            found.append(f"log_softmax({y}, {up.N}, {score});")
            first += up.N
        return found

    def start_statements(self) -> list[str]:
        """Statements that set a state to that before the first step."""
        found = ["int i;"]
        for number, layer in enumerate(self.layers):
            for name in layer.state:
                start = layer.starts.get(f"{name}0")
                value = f"{start.name}[i]" if start else "0.0f"
                array = self._state(name, number)
                array = f"({array})" if "+" in array else array
                found += [f"for (i = 0; i < {layer.H}; ++i)", f"    {array}[i] = {value};"]
        if self.pooled:
            value = "minus_infinity()" if self.pooled == "max" else "0.0f"
            found += [f"for (i = 0; i < {self.read_size}; ++i)", f"    state->pooled[i] = {value};"]
        return [*found, "state->steps = 0;"] if self.pooled == "mean" else found


def network_of(parts: StreamParts) -> Network:
    """The network whose weights are ``parts``, float32."""
    layers = [layer_of(number, parts.cell, params, parts.precisions) for number, params in enumerate(parts.layers)]
    embedding: Matrix | Vector | None = None
    table = None
    head: tuple[Matrix, Vector] | None = None
    if parts.b_y is not None:
        W_hy = parts.W_hy
        if W_hy is None:
            assert parts.embedding is not None  # tied weights
            W_hy = parts.embedding.T
        stored = STORAGES[parts.precisions.get("W_hy", "float32")]
        head = stored("W_hy", flushed(W_hy)), Vector("b_y", flushed(parts.b_y))
    if parts.embedding is not None and (parts.W_hy is not None or parts.b_y is None):
        embedding = _embedding(flushed(parts.embedding))
    if parts.ids_only and parts.embedding is None and "layer0.W_xh" not in parts.precisions:
        table = table_of(0, parts.layers[0])
    tails = [
        (_of_tail(parts, number, "W_hp"), _of_tail(parts, number, "W_py")) for number in range(len(parts.tails))
    ]
    return Network(parts, layers, embedding, table, head, tails)


def _of_tail(parts: StreamParts, number: int, name: str) -> Matrix:
    """A matrix of a tail of an adaptive softmax."""
    stored = STORAGES[parts.precisions.get(f"tail{number}.{name}", "float32")]
    return stored(f"tail{number}_{name}", flushed(parts.tails[number][name]))


def _embedding(rows: Array) -> Matrix | Vector:
    """The rows (D, E) of an embedding, in as few bits as hold them exactly."""
    for stored in (Int8Matrix.of, Int8Matrix.of_int4, Bf16Matrix.of):
        matrix = stored("embedding", np.ascontiguousarray(rows.T))  # which has its rows as columns
        if np.array_equal(matrix.values.view(np.uint32), rows.T.copy().view(np.uint32)):
            return matrix
    return Vector("embedding", rows)
