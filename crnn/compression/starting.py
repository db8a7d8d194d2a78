# SPDX-License-Identifier: MIT
"""What an archive starts from, a model and a text: their digests, and a copy of the model for an alphabet."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from crnn.compression.header import START_BYTES
from crnn.compression.predictor import vocabulary_of
from crnn.io.digest import Digest
from crnn.models.language_model import LanguageModel
from crnn.nn.init import UNINITIALISED

__all__ = ["Start", "checked_model", "model_for"]


@dataclass(frozen=True)
class Start:
    """What compressor and decompressor both have before the content.

    Attributes
    ----------
    model : LanguageModel or None
    after : bytes
        Text that is read first; empty if there is none.
    """

    model: LanguageModel | None
    after: bytes

    def digests(self) -> tuple[bytes, bytes]:
        """Of the model and of the text, START_BYTES each; empty for what is not there."""
        of_model = b"" if self.model is None else digest_of(self.model)
        of_text = hashlib.blake2b(self.after, digest_size=START_BYTES).digest() if self.after else b""
        return of_model, of_text


def checked_model(model: Any) -> LanguageModel | None:
    """A model that was given as a start. Raises TypeError and ValueError for what cannot be one."""
    if model is None:
        return None
    if not isinstance(model, LanguageModel):
        raise TypeError(f"model: expected a LanguageModel, got {type(model).__name__}")
    found = {
        "unit='byte'": f"unit={model.vocab.unit!r}" if model.vocab.unit != "byte" else "",
        "dtype='float32'": f"dtype={model.dtype!r}" if model.dtype != "float32" else "",
        "precision=None": f"precision={model.precision!r}" if model.precision is not None else "",
        "adaptive_softmax=None": "adaptive_softmax" if model.adaptive_softmax is not None else "",
    }
    for expected, got in found.items():
        if got:
            raise ValueError(f"model: expected a LanguageModel with {expected}, got one with {got}")
    return model


def digest_of(model: LanguageModel) -> bytes:
    """SHA-256 of what the model computes: its configuration and its weights. Not of how it was trained."""
    digest = Digest({"kind": "LanguageModel", "config": model.config()})
    for name, values in sorted(model._parameters.read_only().items()):
        digest.add_array(name, values)
    return bytes.fromhex(digest.hexdigest())[:START_BYTES]


def model_for(alphabet: bytes, model: LanguageModel) -> LanguageModel:
    """A copy of a model of bytes that predicts only those of an alphabet."""
    chosen = list(alphabet)
    config = model.config()
    copy = LanguageModel(vocabulary_of(alphabet), **config, seed=UNINITIALISED)
    by_row = {"embedding" if model.net.embedding_size is not None else "layer0.W_xh", "b_y"}
    values = copy._parameters.values
    for name, given in model._parameters.read_only().items():
        if name in by_row:
            values[name][...] = given[chosen]
        elif name == "W_hy":
            values[name][...] = given[:, chosen]
        else:
            values[name][...] = given
    return copy
