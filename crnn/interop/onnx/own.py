# SPDX-License-Identifier: MIT
"""Files that `crnn.interop.onnx.save` wrote: the same model, bit for bit.

The header in their metadata is that of a model file: kind, configuration, vocabulary. The parameters are initializers
under crnn's names, except those of ONNX's operators. A digest shows whether graph and header are as they were written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from crnn.checks import Array
from crnn.interop.layouts import LAYOUTS, to_crnn
from crnn.interop.onnx.files import HELPERS, METADATA, Tensors, digest
from crnn.interop.onnx.writing import WRITERS
from crnn.interop.parts import KINDS
from crnn.io import json_header, model_file, safetensors
from crnn.nn.module import check_config

OPERATOR = re.compile(r"(layer(?:0|[1-9][0-9]{0,3})\.)([WRB])")
STATE = re.compile(r"([hc])_in(?:_(0|[1-9][0-9]{0,3}))?")


def header_of(proto: Any) -> dict[str, Any] | None:
    """The header of a file of crnn's, otherwise None. Raises ValueError for a damaged one."""
    texts = [entry.value for entry in proto.metadata_props if entry.key == METADATA]
    if not texts:
        return None
    size = sum(tensor.ByteSize() for tensor in proto.graph.initializer)
    header = json_header.loads(texts[0], safetensors.header_memory(size))
    kind = header.get("kind") if isinstance(header, dict) else None
    if len(texts) > 1 or not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"metadata {METADATA!r}: expected one header of {', '.join(KINDS)}, got {texts[0]!r:.100}")
    return dict(header)


def model_of(header: dict[str, Any], proto: Any, tensors: Tensors) -> Any:
    """The model of a file with this header. Raises ValueError for one that is not as it was written."""
    arrays = {name: tensors.array(name) for name in tensors.named if not name.startswith(HELPERS)}
    model_file.check_finite(arrays)
    if header.get("sha256") != digest(proto, arrays, header):
        raise ValueError(
            "expected graph and header as crnn wrote them, with the digest that the file names, got changed ones; "
            f"without the metadata {METADATA!r} it is read like the file of another program"
        )
    cls = KINDS[header["kind"]]
    config = check_config(header.get("config"), cls.config_types, cls)
    if config["cell"] not in WRITERS:
        raise ValueError(f"cell: expected one that ONNX files have, got {config['cell']!r:.200}")
    stored = dict(_parameters(config, arrays))
    most = sum(array.size for array in arrays.values())
    for name, size in cls.statistics_of(config).items():
        if size > most:
            raise ValueError(f"expected a config whose sizes are those of the tensors, got {config!r:.200}")
        stored.setdefault(name, np.zeros(size) if name.endswith(".mean") else np.ones(size))
    try:
        return cls.from_contents(header, stored)
    except TypeError as error:
        raise ValueError(str(error)) from None


def _parameters(config: dict[str, Any], arrays: dict[str, Array]) -> Iterator[tuple[str, Array]]:
    """Parameters and statistics by crnn's names."""
    directions = 2 if config["bidirectional"] else 1
    for name, array in arrays.items():
        operator, state = OPERATOR.fullmatch(name), STATE.fullmatch(name)
        if state is not None:
            if array.ndim != 3 or array.shape[1] != 1:
                raise ValueError(f"{name}: expected an initial state (L, 1, H), got shape {array.shape}")
            first = int(state[2] or 0) * directions
            yield from ((f"{_prefix(first + i, directions)}{state[1]}0", row[0]) for i, row in enumerate(array))
        elif operator is None:
            yield name, array
        elif operator[2] == "W":
            weights = [arrays.get(operator[1] + letter, array[:0]) for letter in "WRB"]
            yield from _layer(config["cell"], operator[1], *weights)


def _layer(cell: str, prefix: str, W: Array, R: Array, B: Array) -> Iterator[tuple[str, Array]]:
    """The parameters of a layer from the initializers of its operator."""
    shapes = W.ndim == R.ndim == 3 and B.ndim == 2 and len(W) == len(R) == len(B) <= 2 and W.shape[:2] == R.shape[:2]
    if not shapes or B.shape[1] != 2 * W.shape[1] or W.shape[1] != R.shape[2] * len(LAYOUTS["onnx"].gates[cell]):
        raise ValueError(f"{prefix}W, R, B: expected those of {cell}, got shapes {W.shape}, {R.shape}, {B.shape}")
    for direction in range(len(W)):
        both = np.split(B[direction], 2)
        found = to_crnn("onnx", cell, W[direction], R[direction], *both)
        yield from ((prefix + "reverse." * direction + name, values) for name, values in found.items())


def _prefix(row: int, directions: int) -> str:
    """The prefix of a row of a state."""
    return f"layer{row // directions}.{'reverse.' * (row % directions)}"
