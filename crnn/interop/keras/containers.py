# SPDX-License-Identifier: MIT
"""Keras's files as JSON and arrays: ``.keras`` archives, ``.weights.h5``, older ``.h5``. Independent of layers.

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
HEAP = b"GCOL\1\0\0\0"  # the beginning of a heap of texts in HDF5
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
            raise ValueError(f"expected contents in proportion to the size of the archive, got {declared} bytes")
        document = _json(CONFIG, archive.read(CONFIG), size)
        metadata = _json(METADATA, archive.read(METADATA), size) if METADATA in names else {}
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


def _json(name: str, text: bytes, size: int) -> dict[str, Any]:
    """The object of a JSON text in a file of ``size`` bytes. Raises ValueError, which calls it ``name``."""
    if len(text) > HEADER_LIMIT:
        raise ValueError(f"{name}: expected at most {HEADER_LIMIT} bytes, got {len(text)}")
    try:
        value = json_header.loads(text.decode(), header_memory(size))
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
    content = buffer.getvalue()
    try:
        _json(METADATA, members[METADATA], len(content))
    except ValueError as error:
        raise ValueError(f"expected a smaller vocabulary, got {error}") from None
    return content


# ---- HDF5 ------------------------------------------------------------------------------------------------------------


def _read_h5(source: Any, size: int) -> Contents:
    """The contents of an HDF5 file of ``size`` bytes, a binary file object."""
    _check_heaps(source, size)
    with h5py().File(source, "r") as file:
        names = _paths_of(file)
        datasets = _checked(file, names, size)
        arrays = {path: _array(dataset) for path, dataset in datasets.items()}
        root = file.get("model_weights", file)
        layer_names, config = _names(root, "layer_names"), _attribute(file, "model_config", size)
        if layer_names is None:
            return Contents(config, {}, {}, arrays)
        start = "model_weights/" if "model_weights" in file else ""
        layers = [name for name in (*layer_names, "top_level_model_weights") if name in root]
        missing = sorted(set(layer_names) - set(layers))
        if missing:
            raise ValueError(f"layer_names: expected a group {missing[0]!r:.100}, found none")
        of_layers = {name: _names(root[name], "weight_names") or [] for name in layers}
        paths = {name: [f"{start}{name}/{each}" for each in of] for name, of in of_layers.items()}
        compiled = _attribute(file, "training_config", size) or {}
        return Contents(config, compiled, {}, arrays, layers, paths)


def _check_heaps(source: BinaryIO, size: int) -> None:
    """Raise ValueError for a damaged heap of texts, in which HDF5 would search without end or beyond its memory.

    A heap is "GCOL", version 1, its size; then objects: number, references, size, data padded to 8 bytes. The object 0,
    the free rest, is the last one.
    """
    content = source.read()
    source.seek(0)
    start = content.find(HEAP)
    while start >= 0:
        end, at = start + int.from_bytes(content[start + 8 : start + 16], "little"), start + 16
        whole = 16 <= end - start <= size - start
        while whole and at + 16 <= end:
            length = int.from_bytes(content[at + 8 : at + 16], "little")
            if not int.from_bytes(content[at : at + 2], "little"):
                whole = length == end - at
                break
            at += 16 + (length + 7) // 8 * 8
            whole = at <= end
        if not whole:
            raise ValueError("expected an HDF5 file, got a damaged one")
        start = content.find(HEAP, start + 8)


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
    allowed, datasets = size + SPARE, {}
    for path in paths:
        dataset = file[path]
        if dataset.is_virtual or dataset.external:
            raise ValueError(f"{path!r:.200}: expected an array stored in this file, got one stored elsewhere")
        if dataset.shape is None:
            raise ValueError(f"{path!r:.200}: expected an array, got an empty one")
        if dataset.chunks is not None:  # HDF5 allocates what damaged chunks are said to take
            raise ValueError(f"{path!r:.200}: expected an array in one piece, as Keras writes it, got chunks")
        allowed -= math.prod(dataset.shape) * dataset.dtype.itemsize
        if allowed < 0:
            raise ValueError(f"{path!r:.200}: expected an array that fits into the file, got shape {dataset.shape}")
        if dataset.dtype.kind not in "fiub" and not _is_bfloat16(dataset):
            raise ValueError(f"{path!r:.200}: expected numbers, got {dataset.dtype}")
        datasets[path] = dataset
    return datasets


def _is_bfloat16(dataset: Any) -> bool:
    return dataset.dtype == np.dtype("V2") and _texts(dataset, "dtype") == ["bfloat16"]


def _array(dataset: Any) -> Array:
    """The numbers of a dataset in the machine's byte order, bfloat16 as float32."""
    array = np.asarray(dataset[()])
    if array.dtype.kind == "V":
        return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _texts(owner: Any, name: str) -> list[str] | None:
    """The texts in an attribute of a group or dataset; None if it has none of this name.

    What the attribute is said to hold is checked before HDF5 converts it, which it does not do safely for every type.
    """
    if name not in owner.attrs:
        return None
    attribute = owner.attrs.get_id(name)
    kind, shape = attribute.get_type(), attribute.shape
    count = None if shape is None else math.prod(shape)
    if not isinstance(kind, h5py().h5t.TypeStringID) or count is None:
        raise ValueError(f"{name}: expected texts, got {attribute.dtype}")
    length = 1 if kind.is_variable_str() else kind.get_size()
    if count > MOST_NAMES or count * length > HEADER_LIMIT:
        raise ValueError(f"{name}: expected at most {MOST_NAMES} texts, {HEADER_LIMIT} bytes, got {count} of {length}")
    values = np.asarray(owner.attrs[name]).reshape(-1).tolist()
    return [each.decode() if isinstance(each, bytes) else str(each) for each in values]


def _attribute(file: Any, name: str, size: int) -> Mapping[str, Any] | None:
    """The JSON object of an attribute of the file, or None."""
    texts = _texts(file, name)
    if texts is None:
        return None
    if len(texts) != 1:
        raise ValueError(f"{name}: expected a JSON text, got {len(texts)}")
    return _json(name, texts[0].encode("utf-8", "surrogateescape"), size)


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
        names += [] if _is_empty(group, part) else _texts(group, part) or []
        if len(names) > MOST_NAMES:
            raise ValueError(f"{name}: expected at most {MOST_NAMES} names")
    if len(set(names)) != len(names):
        raise ValueError(f"{name}: expected each name once, got one twice")
    return names


def _is_empty(group: Any, name: str) -> bool:
    """Whether an attribute is a list of nothing, which Keras stores as numbers."""
    return 0 in (group.attrs.get_id(name).shape or ())


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
