# SPDX-License-Identifier: MIT
"""Keras's files as JSON and arrays: ``.keras`` archives, ``.weights.h5``, and the older ``.h5``. Knows no layer.

A file is hostile input. Declared sizes are compared with the size of the file before anything of that size is
allocated; links to other places and other files are refused; JSON is measured before it is parsed.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, TypeVar

import numpy as np

from crnn.checks import Array
from crnn.io import json_header
from crnn.io.atomic_write import PathLike
from crnn.io.model_file import ModelFileError
from crnn.io.safetensors import HEADER_LIMIT, header_memory

MOST_EXPANSION = 20  # times the size of a file that its decompressed contents may have, and
SPARE = 1 << 20  # bytes more
MOST_OBJECTS = 5_000  # groups and arrays in an HDF5 file
DEEPEST = 16  # groups in each other
MOST_NAMES = 10_000  # in an attribute
METADATA, CONFIG, WEIGHTS = "metadata.json", "config.json", "model.weights.h5"  # the members of a ``.keras`` archive
UNREAD = ("optimizer", "optimizer_weights", "metrics")  # groups of the states of training, which are not converted
DAMAGE: tuple[type[Exception], ...] = (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError)
DAMAGE += (EOFError, ArithmeticError, zlib.error, zipfile.BadZipFile, zipfile.LargeZipFile)
T = TypeVar("T")


@dataclass(frozen=True)
class Contents:
    """What a file of Keras holds."""

    config: Mapping[str, Any] | None  # of the model: class_name, config; None for weights only
    compiled: Mapping[str, Any]  # how the model was trained, such as its loss
    extra: Mapping[str, Any]  # what crnn has written for itself, of unknown origin
    arrays: dict[str, Array]  # by path
    layer_names: list[str] | None = None  # of the older format: groups of layers, in their order, and
    weight_names: Mapping[str, list[str]] = field(default_factory=dict)  # paths of their arrays, in their order


def h5py() -> Any:
    """The module h5py. Raises ImportError that names the extra."""
    try:
        import h5py as module
    except ImportError:
        raise ImportError("Keras's files need h5py: pip install 'crnn[keras]'") from None
    return module


def read(path: PathLike) -> Contents:
    """The contents of a file.

    Raises OSError if it cannot be opened, ModelFileError, which names it, if it is damaged or not of these formats, and
    ImportError without h5py.
    """
    name = os.fsdecode(path)
    h5py()
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a FIFO would wait for its writer
        raise ModelFileError(f"{name}: expected a regular file")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        return naming(name, lambda: _read_archive(file, size) if _is_zip(file) else _read_h5(file, size))


def naming(name: str, function: Callable[[], T]) -> T:
    """The value of a function that reads a file. Its errors become a ModelFileError that names the file."""
    try:
        return function()
    except ModelFileError:
        raise
    except DAMAGE as error:
        message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        raise ModelFileError(f"{name}: {message}") from None


def _is_zip(file: BinaryIO) -> bool:
    start = file.read(4)
    file.seek(0)
    return start[:2] == b"PK"


# ---- archives --------------------------------------------------------------------------------------------------------


def _read_archive(file: BinaryIO, size: int) -> Contents:
    """The contents of a ``.keras`` archive of ``size`` bytes."""
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        names = [member.filename for member in members if not member.is_dir()]
        if len(set(names)) != len(names):
            raise ValueError("expected each member of the archive once, got one twice")
        more = sorted(set(names) - {METADATA, CONFIG, WEIGHTS})
        if more:
            raise ValueError(f"expected {METADATA}, {CONFIG} and {WEIGHTS}, got also {more[0]!r:.100}")
        for name in (CONFIG, WEIGHTS):
            if name not in names:
                raise ValueError(f"expected a member {name}, got {', '.join(map(repr, names))[:200]}")
        declared = sum(member.file_size for member in members)
        if declared > MOST_EXPANSION * size + SPARE:
            raise ValueError(f"expected an archive that holds no more than its size allows, got {declared} bytes")
        document = _json(CONFIG, archive.read(CONFIG))
        metadata = _json(METADATA, archive.read(METADATA)) if METADATA in names else {}
        weights = archive.read(WEIGHTS)
    contents = _read_h5(io.BytesIO(weights), len(weights))
    if contents.config is not None:
        raise ValueError(f"{WEIGHTS}: expected weights only, got a model")
    compiled, extra = document.get("compile_config"), metadata.get("crnn")
    return Contents(
        document,
        compiled if isinstance(compiled, dict) else {},
        extra if isinstance(extra, dict) else {},
        contents.arrays,
        contents.layer_names,
        contents.weight_names,
    )


def _json(name: str, text: bytes) -> dict[str, Any]:
    """The object of a JSON text. Raises ValueError, which calls it ``name``."""
    if len(text) > HEADER_LIMIT:
        raise ValueError(f"{name}: expected at most {HEADER_LIMIT} bytes, got {len(text)}")
    try:
        value = json_header.loads(text.decode(), header_memory(0))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{name}: expected a JSON object")
    return value


def to_archive(config: Mapping[str, Any], weights: bytes, extra: Mapping[str, Any]) -> bytes:
    """The content of a ``.keras`` archive. The same for the same arguments: it holds no time."""
    metadata = {"keras_version": "3.0.0", "date_saved": "1980-01-01@00:00:00", "crnn": extra}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        members = {METADATA: json.dumps(metadata).encode(), CONFIG: json.dumps(config).encode(), WEIGHTS: weights}
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # of 1980
    return buffer.getvalue()


# ---- HDF5 ------------------------------------------------------------------------------------------------------------


def _read_h5(source: Any, size: int) -> Contents:
    """The contents of an HDF5 file of ``size`` bytes, a binary file object."""
    with h5py().File(source, "r") as file:
        names = _paths_of(file)
        datasets = _checked(file, names, size)
        arrays = {path: _array(path, dataset) for path, dataset in datasets.items()}
        root = file.get("model_weights", file)
        layer_names = _names(root, "layer_names")
        if layer_names is None:
            return Contents(_attribute(file, "model_config"), {}, {}, arrays)
        start = "model_weights/" if "model_weights" in file else ""
        layers = [name for name in (*layer_names, "top_level_model_weights") if name in root]
        missing = sorted(set(layer_names) - set(layers))
        if missing:
            raise ValueError(f"layer_names: expected a group {missing[0]!r:.100}, found none")
        of_layers = {name: _names(root[name], "weight_names") or [] for name in layers}
        paths = {name: [f"{start}{name}/{each}" for each in of] for name, of in of_layers.items()}
        return Contents(
            _attribute(file, "model_config"), _attribute(file, "training_config") or {}, {}, arrays, layers, paths
        )


def _paths_of(file: Any) -> list[str]:
    """The paths of all arrays but those of UNREAD. Raises ValueError for links and for too many or nested groups."""
    found: list[str] = []
    pending: list[tuple[str, int]] = [("", 0)]
    seen = 0
    while pending:
        path, depth = pending.pop()
        group = file[path] if path else file
        for name in group:
            seen += 1
            inner = f"{path}{name}"
            if seen > MOST_OBJECTS or depth > DEEPEST:
                raise ValueError(f"expected at most {MOST_OBJECTS} groups and arrays, {DEEPEST} in each other")
            if not isinstance(group.get(name, getlink=True), h5py().HardLink):
                raise ValueError(f"{inner!r:.200}: expected a group or an array, got a link")
            kind = group.get(name, getclass=True)
            if depth == 0 and name in UNREAD:
                continue
            if kind is h5py().Group:
                pending.append((inner + "/", depth + 1))
            elif kind is h5py().Dataset:
                found.append(inner)
            else:
                raise ValueError(f"{inner!r:.200}: expected a group or an array, got a data type")
    return sorted(found)


def _checked(file: Any, paths: Iterable[str], size: int) -> dict[str, Any]:
    """The datasets at the paths, none of which is stored elsewhere or takes more memory than the file's size allows."""
    allowed, datasets = MOST_EXPANSION * size + SPARE, {}
    for path in paths:
        dataset = file[path]
        if dataset.is_virtual or dataset.external:
            raise ValueError(f"{path!r:.200}: expected an array stored in this file, got one stored elsewhere")
        if dataset.shape is None:
            raise ValueError(f"{path!r:.200}: expected an array, got an empty one")
        chunk = math.prod(dataset.chunks) if dataset.chunks else 0
        allowed -= max(math.prod(dataset.shape), chunk) * dataset.dtype.itemsize
        if allowed < 0:
            raise ValueError(f"{path!r:.200}: expected an array that fits into the file, got shape {dataset.shape}")
        if dataset.dtype.kind not in "fiub" and dataset.attrs.get("dtype") != "bfloat16":
            raise ValueError(f"{path!r:.200}: expected numbers, got {dataset.dtype}")
        datasets[path] = dataset
    return datasets


def _array(path: str, dataset: Any) -> Array:
    """The numbers of a dataset in the machine's byte order, bfloat16 as float32."""
    array = np.asarray(dataset[()])
    if dataset.attrs.get("dtype") == "bfloat16" and array.dtype.itemsize == 2:
        return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{path!r:.200}: expected numbers, got {array.dtype}")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _attribute(file: Any, name: str) -> Mapping[str, Any] | None:
    """The JSON object of an attribute of the file, or None."""
    value = file.attrs.get(name)
    if value is None:
        return None
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogateescape")
    if not isinstance(value, bytes):
        raise ValueError(f"{name}: expected a JSON text, got {type(value).__name__}")
    return _json(name, value)


def _names(group: Any, name: str) -> list[str] | None:
    """The names in an attribute of a group, which Keras cuts into several, name0, name1 ..., if it is long."""
    if name in group.attrs:
        parts = [name]
    else:
        numbered = (re.fullmatch(rf"{name}([0-9]+)", each) for each in group.attrs)
        parts = [f"{name}{number}" for number in sorted(int(each[1]) for each in numbered if each)]
        if not parts:
            return None
    names: list[str] = []
    for part in parts:
        if len(names) + math.prod(group.attrs.get_id(part).shape or (0,)) > MOST_NAMES:
            raise ValueError(f"{name}: expected at most {MOST_NAMES} names")
        values = np.asarray(group.attrs[part]).reshape(-1).tolist()
        names += [each.decode() if isinstance(each, bytes) else str(each) for each in values]
    if len(set(names)) != len(names):
        raise ValueError(f"{name}: expected each name once, got one twice")
    return names


def to_h5(groups: Mapping[str, Mapping[str, Array]]) -> bytes:
    """The content of a ``.weights.h5`` file: for each group its arrays by name, in Keras's layout."""
    buffer = io.BytesIO()
    with h5py().File(buffer, "w") as file:
        file.create_group("vars")
        for group, arrays in groups.items():
            inner = file.create_group(f"layers/{group}")
            inner.require_group("vars")
            for name, array in arrays.items():
                inner[name] = np.asarray(array, array.dtype.newbyteorder("<"))
    return buffer.getvalue()
