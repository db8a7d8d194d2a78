# SPDX-License-Identifier: MIT
"""CELLS: for each cell, how a step of a layer is written in C.

A step begins with ``a`` (G*H) = x W_xh + b_h, which has room for `Recipe.scratch` times H elements, and ends with the
new ``h`` (H), and ``c`` (H) if there is one. Its order of sums is that of the cell's kernel in src_c/cells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from crnn.c_export.numbers import flushed
from crnn.c_export.storage import STORAGES, Matrix, Vector
from crnn.checks import Array
from crnn.nn.cells import CELLS as CLASSES


@dataclass(frozen=True)
class Layer:
    """A layer's weights as they are stored."""

    W_xh: Matrix
    b_h: Vector
    recurrent: Mapping[str, Matrix]  # by the names that the recipe gives them
    vectors: Mapping[str, Vector]  # the cell's own, by name
    starts: Mapping[str, Vector]  # h0 and c0, if they are not zero
    H: int
    cell: str

    @property
    def recipe(self) -> Recipe:
        """That of the cell."""
        return CELLS[self.cell]

    @property
    def state(self) -> tuple[str, ...]:
        """The vectors that a step hands on to the next."""
        return ("h", "c") if CLASSES[self.cell].has_c else ("h",)

    @property
    def matrices(self) -> list[Matrix]:
        """All of them."""
        return [self.W_xh, *self.recurrent.values()]

    def statements(self) -> list[str]:
        """The C text of a step, after the product with x."""
        return self.recipe.statements(self)


@dataclass(frozen=True)
class Recipe:
    """A cell.

    Attributes
    ----------
    equations : str
        For the comment of the file.
    scratch : int
        Elements of ``a``, as multiples of H.
    matrices : mapping
        How W_hh is cut into matrices: for each, the number of its first gate and the one after its last.
    pieces : tuple of str
        The C functions that the statements call, see `crnn.c_export.pieces`.
    statements : callable
        The step of a `Layer`.
    """

    equations: tuple[str, ...]
    scratch: int
    matrices: Mapping[str, tuple[int, int]]
    pieces: tuple[str, ...]
    statements: Callable[[Layer], list[str]]


def layer_of(number: int, cell: str, params: Mapping[str, Array], precisions: Mapping[str, str]) -> Layer:
    """The weights of a layer, from its parameters by name; ``precisions`` as in `StreamParts`."""
    recipe, info = CELLS[cell], CLASSES[cell].info

    def stored(name: str, values: Array, of: str) -> Matrix:
        return STORAGES[precisions.get(f"layer{number}.{of}", "float32")](f"{name}_{number}", flushed(values))

    H = params["W_xh"].shape[1] // info.gates
    recurrent = {
        name: stored(name, params["W_hh"][:, first * H : end * H], "W_hh")
        for name, (first, end) in recipe.matrices.items()
    }
    return Layer(
        W_xh=stored("W_xh", params["W_xh"], "W_xh"),
        b_h=Vector(f"b_h_{number}", flushed(params["b_h"])),
        recurrent=recurrent,
        vectors={name: Vector(f"{name}_{number}", flushed(params[name])) for name in info.vectors},
        starts={name: Vector(f"{name}_{number}", flushed(params[name])) for name in ("h0", "c0") if name in params},
        H=H,
        cell=cell,
    )


def table_of(number: int, layer: Mapping[str, Array]) -> Vector:
    """For ids: each row of W_xh with b_h added, as the kernel adds them."""
    with np.errstate(over="ignore"):
        return Vector(f"table_{number}", flushed(flushed(layer["W_xh"]) + flushed(layer["b_h"])))


def _tanh(layer: Layer) -> list[str]:
    return [*layer.recurrent["W_hh"].add("a", "h"), "tanh_finish(h, a, H);"]


def _relu(layer: Layer) -> list[str]:
    return [*layer.recurrent["W_hh"].add("a", "h"), "relu_finish(h, a, H);"]


def _lstm(layer: Layer) -> list[str]:
    return [*layer.recurrent["W_hh"].add("a", "h"), "lstm_finish(h, c, a, H);"]


def _gru(layer: Layer) -> list[str]:
    return [
        "copy(a + 3 * H, a + 2 * H, H);",
        *layer.vectors["b_hn"].start("a + 2 * H", more=True),
        *layer.recurrent["W_hh"].add("a", "h"),
        "gru_finish(h, a, H);",
    ]


def _original_gru(layer: Layer) -> list[str]:
    return [
        *layer.recurrent["W_hrz"].add("a", "h"),
        "original_gru_reset(h, a, H);",
        *layer.recurrent["W_hn"].add("a + 2 * H", "a + 3 * H"),
        "original_gru_finish(h, a, H);",
    ]


def _min_gru(layer: Layer) -> list[str]:
    return ["min_gru_finish(h, a, H);"]


def _ln_lstm(layer: Layer) -> list[str]:
    names, vectors = CLASSES["ln_lstm"].info.gate_names, layer.vectors
    calls = (
        f"normalise(a + {number} * H, {vectors[f'gain_{name}'].name}, {vectors[f'bias_{name}'].name}, H);"
        for number, name in enumerate(names)
    )
    return [*layer.recurrent["W_hh"].add("a", "h"), *calls, "ln_lstm_finish(h, c, a, H);"]


CELLS = {
    "tanh": Recipe(("h = tanh(x W_xh + h' W_hh + b_h)",), 1, {"W_hh": (0, 1)}, ("tanh_finish",), _tanh),
    "relu": Recipe(("h = max(x W_xh + h' W_hh + b_h, 0)",), 1, {"W_hh": (0, 1)}, ("relu_finish",), _relu),
    "lstm": Recipe(
        (
            "i, f, o = sigmoid(x W_xh + h' W_hh + b_h)    g = tanh(the same)    gates in the order i, f, g, o",
            "c = f c' + i g    h = o tanh(c)",
        ),
        4,
        {"W_hh": (0, 4)},
        ("lstm_finish",),
        _lstm,
    ),
    "gru": Recipe(
        (
            "r, z = sigmoid(x W_xh + h' W_hh + b_h)    gates in the order r, z, n",
            "n = tanh(x W_xn + b_n + r (h' W_hn + b_hn))    the reset gate acts after the product, as in PyTorch",
            "h = (1 - z) n + z h'",
        ),
        4,
        {"W_hh": (0, 3)},
        ("copy", "gru_finish"),
        _gru,
    ),
    "original_gru": Recipe(
        (
            "r, z = sigmoid(x W_xh + h' W_hh + b_h)    gates in the order r, z, n",
            "n = tanh(x W_xn + (r h') W_hn + b_n)    the reset gate acts before the product",
            "h = (1 - z) n + z h'",
        ),
        4,
        {"W_hrz": (0, 2), "W_hn": (2, 3)},
        ("original_gru_reset", "original_gru_finish"),
        _original_gru,
    ),
    "min_gru": Recipe(
        (
            "z = sigmoid(x W_xz + b_z)    n = g(x W_xn + b_n), g(a) = a + 0.5 for a >= 0, else sigmoid(a)",
            "h = (1 - z) h' + z n    gates in the order z, n",
        ),
        2,
        {},
        ("min_gru_finish",),
        _min_gru,
    ),
    "ln_lstm": Recipe(
        (
            "a = x W_xh + h' W_hh + b_h    gates in the order i, f, g, o    n = (a - mean) / sqrt(variance + 1e-5)",
            "over the units of each gate    i, f, o = sigmoid(gain n + bias)    g = tanh(gain n + bias)",
            "c = f c' + min(i, 1 - f) g    h = o c",
        ),
        4,
        {"W_hh": (0, 4)},
        ("ln_lstm_finish",),
        _ln_lstm,
    ),
}
