# SPDX-License-Identifier: MIT
"""The layers of a file that has weights and no configuration, as far as shapes and names of groups tell."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from crnn.checks import Array
from crnn.interop.keras.architecture import POOLED, RECURRENT, KerasLayer, grouped
from crnn.interop.keras.containers import Contents

# The place of a class in the chain; of other classes 1.
PLACES = {"Normalization": 0, "Embedding": 0, "Dense": 2, "Normalization of outputs": 3}


@dataclass(frozen=True)
class Stated:
    """What shapes do not say."""

    cell: str | None
    pooling: str | None
    activation: str  # of the head


@dataclass(frozen=True)
class _Group:
    """The arrays of a layer."""

    kind: str  # its class
    inner: str  # the class of the layers in a Bidirectional
    name: str
    arrays: list[Array]

    @property
    def recurrent(self) -> bool:
        return self.kind in (*RECURRENT, "Bidirectional")


def layers_of_weights(contents: Contents, stated: Stated) -> list[KerasLayer]:
    """The layers, in their order, with the configuration that they must have. Raises ValueError."""
    groups = _groups(contents)
    last = max((i for i, group in enumerate(groups) if group.recurrent), default=-1)
    layers: list[KerasLayer] = []
    for i, group in enumerate(groups):
        config = _configuration(group, stated, returns=i < last or stated.pooling != "last")
        layers.append(KerasLayer(group.kind.partition(" ")[0], group.name, config, group.arrays))
        if i == last and stated.pooling in POOLED:
            layers.append(KerasLayer(POOLED[stated.pooling], stated.pooling, {}))
    return layers


def _groups(contents: Contents) -> list[_Group]:
    """The groups in the order of the layers."""
    arrays = {name: list(of.values()) for name, of in grouped(contents).items()}
    listed = contents.layer_names is not None
    order = [name for name in contents.layer_names or () if name in arrays] if listed else sorted(arrays, key=_number)
    groups: list[_Group] = []
    for name in order:
        after = any(group.recurrent for group in groups)
        groups.append(_Group(*_kind_of(name, arrays[name], after), name, arrays[name]))
    scaling = [i for i, group in enumerate(groups) if group.kind == "Normalization"]
    if scaling and _is_of_outputs(groups, scaling):
        wrong = groups[scaling[-1]]
        groups[scaling[-1]] = _Group("Normalization of outputs", "", wrong.name, wrong.arrays)
    if not listed:  # groups have no order except the numbers in their names
        groups.sort(key=lambda group: PLACES.get(group.kind, 1))
    return groups


def _is_of_outputs(groups: Sequence[_Group], scaling: Sequence[int]) -> bool:
    """Whether the last of the Normalization layers scales outputs."""
    if len(scaling) > 1:
        return True
    size = groups[scaling[0]].arrays[0].size
    if any(group.kind == "Embedding" for group in groups):
        return True
    inputs = [len(group.arrays[0]) for group in groups if group.recurrent][:1]
    outputs = [group.arrays[0].shape[1] for group in groups if group.kind == "Dense"][-1:]
    return [size] != inputs and [size] == outputs


def _configuration(group: _Group, stated: Stated, *, returns: bool) -> dict[str, Any]:
    """The configuration of a layer."""
    if group.kind == "Dense":
        return {"activation": stated.activation}
    if group.kind == "Normalization of outputs":
        return {"invert": True}
    if not group.recurrent:
        return {}
    config: dict[str, Any] = {"return_sequences": returns}
    kind = group.inner or group.kind
    if kind == "SimpleRNN":
        config["activation"] = stated.cell or "tanh"
    elif kind == "GRU" and stated.cell == "original_gru":
        config["reset_after"] = False
    return {"layer": {"class_name": kind, "config": config}} if group.inner else config


def _number(group: str) -> tuple[int, str]:
    """The number at the end of a group's name, by which Keras tells layers of a class apart."""
    match = re.fullmatch(r"(.*?)_([1-9][0-9]{0,4})", group)
    return (int(match[2]), match[1]) if match else (0, group)


def _kind_of(name: str, arrays: Sequence[Array], after_recurrent: bool) -> tuple[str, str]:
    """The class of the layer that has these arrays, and that of the layers in a Bidirectional."""
    shapes = [array.shape for array in arrays]
    ranks = [len(shape) for shape in shapes]
    if ranks in ([1, 1], [1, 1, 0]):
        return "Normalization", ""
    if ranks == [2]:
        named = re.match(r"embedding|dense|time_distributed", name)
        embedding = named[0] == "embedding" if named else not after_recurrent
        return "Embedding" if embedding else "Dense", ""
    if ranks == [2, 1]:
        return "Dense", ""
    both = len(arrays) in (4, 6)
    if ranks[:2] == [2, 2] and len(arrays) in (2, 3, 4, 6):
        (_, columns), (H, gates) = shapes[:2]
        kind = {1: "SimpleRNN", 3: "GRU", 4: "LSTM"}.get(columns // H if H else 0)
        if kind and columns == gates == H * (columns // H):
            return ("Bidirectional", kind) if both else (kind, "")
    raise ValueError(f"{name!r:.100}: expected the arrays of a layer that crnn has, got shapes {shapes!r:.200}")
