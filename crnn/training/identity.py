# SPDX-License-Identifier: MIT
"""What a checkpoint belongs to: a network with its vocabulary and scaling, and data. Differences are named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from crnn._options import options_of
from crnn.checks import Array
from crnn.io.mapped import check_complete, mapping_of
from crnn.io.model_file import ModelFileError
from crnn.nn.config import NetworkConfig

__all__ = ["check_same", "check_same_kind", "check_same_scaling", "data_identity", "model_identity"]

BLOCK = 1 << 20  # elements that are converted at a time
# Of a model's header: runs, arguments of the constructor from which they find what is in the configuration, and names.
HOW = ("training", "learning", "seed", "given", "feature_names")
# What a file means that has been written before there was the option.
NETWORK_DEFAULTS = {each.name: each.default for each in options_of(NetworkConfig)}
SHOWN = 5  # tokens that a message names

Header = Mapping[str, Any]


# ---- identity --------------------------------------------------------------------------------------------------------


def model_identity(header: Header) -> dict[str, Any]:
    """The header of a model as a file holds it: kind, configuration, vocabulary; not how it learns or has learnt."""
    identity: dict[str, Any] = json.loads(json.dumps({k: v for k, v in header.items() if k not in HOW}))
    return identity


def data_identity(train: Any, valid: Any) -> dict[str, str | None]:
    """Digests of training and validation data, which are arrays or have a method ``arrays``; None for no data."""
    return {"data": _digest(train), "valid": None if valid is None else _digest(valid)}


def _digest(data: Any) -> str:
    """SHA-256 of all arrays of some data, the same on every machine and for every integer type."""
    digest = hashlib.sha256()
    arrays: Iterable[Any] = data.arrays() if hasattr(data, "arrays") else [data]
    for each in arrays:
        array = np.asarray(each)
        dtype = "<i4" if array.dtype.kind in "iub" else array.dtype.newbyteorder("<")
        digest.update(f"{np.dtype(dtype).str}{array.shape}".encode())
        flat = array.reshape(-1)
        mapping = mapping_of(array)
        for first in range(0, flat.size, BLOCK):
            check_complete("data", mapping)
            digest.update(np.ascontiguousarray(flat[first : first + BLOCK], dtype).data)
    return digest.hexdigest()


# ---- differences -----------------------------------------------------------------------------------------------------


def check_same(file: str, stored: Header, header: Header, data: Header, own_data: Header) -> None:
    """Raise ValueError if a checkpoint belongs to another model or other data.

    Parameters
    ----------
    file : str
        The checkpoint's name.
    stored, header : dict
        `model_identity` of the checkpoint's model, and of the one that is trained.
    data, own_data : dict
        `data_identity` of what each was trained on.
    """
    check_same_kind(file, stored, header["kind"])
    different = _different_options(stored.get("config"), header["config"])
    if different:
        (name, there, here), *others = different
        also = "".join(f"; {name}: {there!r}, got {here!r}" for name, there, here in others)
        raise ValueError(f"{name}: expected {there!r}, as in {file}, got {here!r}{also}")
    for name in dict.fromkeys([*model_identity(stored), *header]):
        if name != "config" and _tokens(stored.get(name)) != _tokens(header.get(name)):
            raise ValueError(_vocabulary_difference(name, file, stored.get(name), header.get(name)))
    for name, what in (("data", "training"), ("valid", "validation")):
        if data.get(name) != own_data[name]:
            raise ValueError(
                f"{name}: expected the {what} data of {file}, got {'none' if own_data[name] is None else 'other data'}"
                "; resuming needs the same data, split alike"
            )


def check_same_kind(file: str, stored: Header, kind: str) -> None:
    """Raise ModelFileError unless a checkpoint's model is of this kind."""
    if stored.get("kind") != kind:
        raise ModelFileError(f"model: expected a {stored.get('kind')!s:.100}, as in {file}, got a {kind}")


def check_same_scaling(stored: Mapping[str, Array], own: Mapping[str, Array]) -> None:
    """Raise ValueError if two sets of statistics differ."""
    for name, values in own.items():
        if stored[name].tobytes() != values.tobytes():
            raise ValueError(f"{name}: expected the model's scaling, which belongs to its weights, got another one")


def _different_options(there: Any, here: Header) -> list[tuple[str, Any, Any]]:
    """Name and both values of each option of two configurations that differs."""
    if not isinstance(there, dict):
        raise ValueError(f"expected a config, got {there!r:.200}")
    absent = {name: value for name, value in NETWORK_DEFAULTS.items() if name in here or name in there}
    there, here = absent | there, {**absent, **here}
    names = dict.fromkeys([*here, *there])
    return [(name, there.get(name), here.get(name)) for name in names if there.get(name) != here.get(name)]


def _vocabulary_difference(name: str, file: str, there: Any, here: Any) -> str:
    """Why two attachments differ, if they are vocabularies: which tokens are only in one of them."""
    start = f"{name}: expected that of {file}"
    if not (isinstance(there, dict) and isinstance(here, dict)):
        return f"{start}, got another one"
    if there.get("unit") != here.get("unit"):
        return f"{start}, of {there.get('unit')}s, got one of {here.get('unit')}s"
    old, new = there.get("tokens", []), here.get("tokens", [])
    if not (isinstance(old, list) and isinstance(new, list)):
        return f"{start}, got another one"
    parts = [_some(tokens, word) for tokens, word in ((_only(old, new), "without"), (_only(new, old), "with"))]
    difference = " and ".join(filter(None, parts)) or "the same tokens in another order"
    return f"{start}, with {len(old)} tokens, got one of {len(new)}: {difference}"


def _tokens(attachment: Any) -> Any:
    """What matters of an attachment: of a vocabulary, unit and tokens, but not the encoding of a file."""
    if isinstance(attachment, dict) and "unit" in attachment:
        return attachment["unit"], attachment.get("tokens")
    return attachment


def _only(tokens: list[Any], others: list[Any]) -> list[str]:
    known = set(map(str, others))
    return [str(token) for token in tokens if str(token) not in known]


def _some(tokens: list[str], word: str) -> str:
    """``without 'a', 'b' and 7 more``; empty if there are no tokens."""
    if not tokens:
        return ""
    more = f" and {len(tokens) - SHOWN} more" if len(tokens) > SHOWN else ""
    return f"{word} {', '.join(map(repr, tokens[:SHOWN]))}{more}"
