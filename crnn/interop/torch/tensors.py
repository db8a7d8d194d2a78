# SPDX-License-Identifier: MIT
"""Tensors under PyTorch's names: which of them are a recurrent module's, and what they mean. Needs no torch.

    PyTorch, shape (out, in)                       crnn, shape (in, out)
    weight_ih_l0                                   layer0.W_xh
    weight_hh_l0                                   layer0.W_hh
    bias_ih_l0 + bias_hh_l0                        layer0.b_h
    bias_ih_l0, bias_hh_l0 (block n of a GRU)      layer0.b_h, layer0.b_hn (block n)
    weight_ih_l0_reverse                           layer0.reverse.W_xh
    weight_ih (an LSTMCell, GRUCell, RNNCell)      layer0.W_xh
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from crnn.checks import Array
from crnn.interop.layouts import from_crnn, to_crnn
from crnn.interop.parts import Layer, ModelParts
from crnn.io import safetensors
from crnn.io.model_file import check_finite

FIRST = "weight_ih_l0"  # a tensor that every recurrent module has
FIRST_OF_CELL = "weight_ih"  # and one that every cell module has
NAME = re.compile(r"(weight_ih|weight_hh|bias_ih|bias_hh)_l(0|[1-9][0-9]{0,3})(_reverse)?")
NAMES_OF_CELL = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
CELLS = {1: "tanh", 3: "gru", 4: "lstm"}  # by number of gates; 1 can also be relu
FILE_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}  # NumPy's dtypes by those of a file
Read = Callable[[str], Array]  # the tensor of a name, checked


@dataclass(frozen=True)
class Recurrent:
    """A recurrent module by its tensors."""

    cell: str
    input_size: int
    hidden_size: int  # of the top layer
    dtype: str
    layers: list[Layer]  # crnn's parameters
    names: frozenset[str]  # of its tensors, with their prefix

    @property
    def output_size(self) -> int:
        """Units of the top layer, all directions together."""
        return self.hidden_size * len(self.layers[0])


def listed(names: Collection[str]) -> str:
    """The first names, for a message: a file may contain very many and very long ones."""
    first = list(names)[:8]
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(f"{name!r:.80}" for name in first) + more if names else "no tensors"


# ---- arrays ----------------------------------------------------------------------------------------------------------


def as_floats(name: str, value: Any) -> Array:
    """A tensor or array as a NumPy array, float32 or float64, finite; borrowed if possible."""
    if hasattr(value, "detach"):
        if value.is_meta or type(value).__name__.startswith("Uninitialized"):
            raise ValueError(f"{name}: expected values, got a tensor without memory")
        value = value.detach().cpu()
        value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    array = np.asarray(value)
    if array.dtype.name in ("float16", "bfloat16"):  # packages such as ml_dtypes add bfloat16 to NumPy
        array = array.astype(np.float32)
    if array.dtype.name not in ("float32", "float64"):
        raise ValueError(f"{name}: expected float32, float64, float16 or bfloat16, got {array.dtype}")
    check_finite({name: array})
    return array


def of_file(name: str, entry: Mapping[str, Any]) -> Array:
    """The array of an entry of a safetensors file, float32 or float64. Raises ValueError for another dtype."""
    return as_floats(name, safetensors.to_array(name, entry, FILE_DTYPES))


# ---- from PyTorch ----------------------------------------------------------------------------------------------------


def recurrent_from(
    names: Collection[str], read: Read, prefix: str | None = None, nonlinearity: str | None = None
) -> Recurrent:
    """The one recurrent module among tensors of these names, or that whose names begin with ``prefix``.

    Raises ValueError unless all its tensors are present, finite, of the right shapes and of the same dtype.
    """
    if nonlinearity not in (None, "tanh", "relu"):
        raise ValueError(f"nonlinearity: expected tanh or relu, got {nonlinearity!r}")
    chosen = _select(names, prefix)
    return recurrent_of({bare: read(name) for bare, name in chosen.items()}, chosen.values(), nonlinearity)


def recurrent_of(tensors: Mapping[str, Array], names: Iterable[str], nonlinearity: str | None) -> Recurrent:
    """The recurrent module that has these tensors and no other. ``names``: their full names."""
    stacked = FIRST_OF_CELL not in tensors
    layers = _number_of_layers(tensors) if stacked else _only_a_cell(tensors)
    cell, D, H = _cell_and_sizes(tensors, "_l0" if stacked else "")
    if cell != "tanh" and nonlinearity:
        raise ValueError(f"nonlinearity: expected none for the weights of cell {cell!r}, got {nonlinearity!r}")
    cell = nonlinearity or cell
    directions = 2 if any(name.endswith("_reverse") for name in tensors) else 1
    dtype = _check_tensors(tensors, layers, directions, D, H, stacked)

    def converted(suffix: str, full: str) -> Mapping[str, Array]:
        matrices = (tensors[name + suffix] for name in ("weight_ih", "weight_hh"))
        biases = (tensors.get(name + suffix) for name in ("bias_ih", "bias_hh"))
        return to_crnn("torch", cell, *matrices, *biases, prefix=full)

    each = [tuple(converted(*place) for place in _places(layer, directions, stacked)) for layer in range(layers)]
    return Recurrent(cell, D, H, dtype, each, frozenset(names))


def stacked(parts: list[Recurrent]) -> Recurrent:
    """Recurrent modules, each of which reads the outputs of the one before, as one. Raises ValueError."""
    first = parts[0]
    for number, (below, above) in enumerate(pairwise(parts), 1):
        expected = (first.cell, first.dtype, len(first.layers[0]), below.output_size)
        got = (above.cell, above.dtype, len(above.layers[0]), above.input_size)
        names = ("cell", "dtype", "number of directions", "input_size")
        for name, wanted, found in zip(names, expected, got, strict=True):
            if wanted != found:
                raise ValueError(f"module[{number}]: expected {name} {wanted} after those before, got {found}")
    names_of_all = frozenset(name for part in parts for name in part.names)
    layers = [layer for part in parts for layer in part.layers]
    return Recurrent(first.cell, first.input_size, parts[-1].hidden_size, first.dtype, layers, names_of_all)


def _select(names: Collection[str], prefix: str | None) -> dict[str, str]:
    """The names of one module's tensors: from the name without the prefix to the full name."""
    ends = (FIRST, FIRST_OF_CELL)
    found = sorted({name.removesuffix(end) for name in names for end in ends if _ends_with(name, end)})
    if not found:
        raise ValueError(f"expected a tensor {FIRST}, perhaps after a prefix, found none among {listed(names)}")
    if prefix is None and len(found) == 1:
        prefix = found[0]
    if prefix not in found:
        raise ValueError(f"prefix: expected one of {listed(found)}, got {prefix!r:.80}")
    bare = {name.removeprefix(prefix): name for name in names if name.startswith(prefix)}
    return {short: name for short, name in bare.items() if short.startswith(("weight_", "bias_"))}


def _ends_with(name: str, end: str) -> bool:
    """Whether a name is ``end`` after a prefix; for a cell's tensor the prefix is a module's name or nothing."""
    return name.endswith(end) and (end == FIRST or name == end or name.endswith("." + end))


def _only_a_cell(names: Iterable[str]) -> int:
    """1, the number of layers of a cell module. Raises ValueError for a tensor that is not a cell's."""
    for name in names:
        if name not in NAMES_OF_CELL:
            raise ValueError(f"expected {', '.join(NAMES_OF_CELL)} of a cell and no other, got {name!r:.80}")
    return 1


def _number_of_layers(names: Iterable[str]) -> int:
    """The number of layers. Raises ValueError for a gap in their numbers, or for a name that is not a plain stack's."""
    layers: set[int] = set()
    for name in names:
        match = NAME.fullmatch(name)
        if match is None:
            found = f"{name!r:.80}{' of a projection (proj_size)' if name.startswith('weight_hr_l') else ''}"
            raise ValueError(f"expected weight_ih, weight_hh, bias_ih and bias_hh by layer and no other, got {found}")
        layers.add(int(match[2]))
    if len(layers) <= max(layers):
        raise ValueError(f"expected layers numbered without a gap, got {len(layers)} up to number {max(layers)}")
    return len(layers)


def _cell_and_sizes(tensors: Mapping[str, Array], suffix: str) -> tuple[str, int, int]:
    """The cell, D and H by the shapes of the first layer's matrices."""
    names = "weight_ih" + suffix, "weight_hh" + suffix
    first = {name: tensors[name].shape for name in names if name in tensors}
    if len(first) < 2 or any(len(shape) != 2 or 0 in shape for shape in first.values()):
        raise ValueError(f"{', '.join(names)}: expected two matrices, neither empty, got shapes {first}")
    (_, D), (rows, H) = first.values()
    cell = CELLS.get(rows // H, "")
    if not cell or rows % H:
        raise ValueError(f"{names[1]}: expected (H, H), (3H, H) of a GRU or (4H, H) of an LSTM, got {(rows, H)}")
    return cell, D, H


def _check_tensors(
    tensors: Mapping[str, Array], layers: int, directions: int, D: int, H: int, stacked: bool
) -> str:
    """The dtype. Raises ValueError unless all tensors are there, with the right shapes and the same dtype."""
    rows = len(tensors["weight_hh_l0" if stacked else "weight_hh"])
    biased = any(name.startswith("bias") for name in tensors)
    expected: dict[str, tuple[int, ...]] = {}
    for layer in range(layers):
        for suffix, _ in _places(layer, directions, stacked):
            expected["weight_ih" + suffix] = (rows, H * directions if layer else D)
            expected["weight_hh" + suffix] = (rows, H)
            if biased:
                expected["bias_ih" + suffix] = expected["bias_hh" + suffix] = (rows,)
    for name, shape in expected.items():
        if name not in tensors:
            raise ValueError(f"{name}: expected a tensor of shape {shape}, found none")
        if tensors[name].shape != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {tensors[name].shape}")
    dtypes = sorted({tensor.dtype.name for tensor in tensors.values()})
    if len(dtypes) > 1:
        raise ValueError(f"expected tensors of one dtype, got {' and '.join(dtypes)}")
    return dtypes[0]


def _places(layer: int, directions: int, stacked: bool = True) -> Iterator[tuple[str, str]]:
    """For each direction of a layer: suffix of PyTorch's names, prefix of crnn's names."""
    yield f"_l{layer}" if stacked else "", f"layer{layer}."
    if directions == 2:
        yield f"_l{layer}_reverse", f"layer{layer}.reverse."


# ---- to PyTorch ------------------------------------------------------------------------------------------------------


def recurrent_tensors(parts: ModelParts, *, stacked: bool = True) -> dict[str, Array]:
    """The tensors of the recurrent layers, fresh and C-contiguous, without a prefix.

    ``stacked=False``: those of a cell module. Raises ValueError for what PyTorch's modules do not have.
    """
    network = parts.network
    if len(set(network.hidden_sizes)) > 1:
        raise ValueError(f"hidden_size: expected one size for all layers, as in PyTorch, got {network.hidden_size}")
    if network.cell not in CELLS.values() and network.cell != "relu":
        raise ValueError(f"cell: expected one that PyTorch has, got {network.cell!r}")
    if network.recurrent_dropout:
        raise ValueError(f"recurrent_dropout: expected 0, as in PyTorch, got {network.recurrent_dropout}")
    states = [name for name in parts.params if name.endswith((".h0", ".c0"))]
    if states:
        raise ValueError(f"trainable_initial_state: expected False, as in PyTorch, got the parameters {listed(states)}")
    tensors: dict[str, Array] = {}
    for layer, directions in enumerate(parts.layers):
        for (suffix, _), params in zip(_places(layer, len(directions), stacked), directions, strict=True):
            arrays = from_crnn("torch", network.cell, params)
            for name, values in zip(NAMES_OF_CELL, arrays, strict=True):
                assert values is not None  # both biases are in PyTorch's layout
                tensors[name + suffix] = values
    return tensors
