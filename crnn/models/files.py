# SPDX-License-Identifier: MIT
"""Saving and loading models of every kind. Importing this module registers all kinds."""

from __future__ import annotations

import os
from typing import Any

import crnn.models.classifier
import crnn.models.forecasting.forecaster
import crnn.models.language_model
import crnn.models.regressor
import crnn.models.seq2seq
import crnn.models.tagger  # noqa: F401
from crnn._float_mode import in_ieee_mode
from crnn.io import model_file, registry
from crnn.io.atomic_write import PathLike
from crnn.nn.learning.learner import Learner
from crnn.nn.module import Module

__all__ = ["Learner", "from_bytes", "load", "save", "to_bytes"]


def save(model: Module, path: PathLike) -> None:
    """Write a model to ``path`` atomically, as a safetensors file.

    Raises OSError if the file cannot be written, TypeError for a user's subclass, which could not be loaded, and
    ValueError, which names the parameter, if a value is NaN or infinite. An existing file is then unchanged.
    """
    model.save(path)


@in_ieee_mode
def load(path: PathLike) -> Any:
    """Read a model that `save` wrote.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    model : RNN, LanguageModel, or another registered kind

    Raises
    ------
    ModelFileError
        The file is truncated, damaged, or not a crnn model; the message says what was found.
    OSError
        The file cannot be read.

    Examples
    --------
    >>> import crnn, tempfile, os
    >>> corpus = crnn.TextCorpus.from_text("hello world " * 50)
    >>> model = crnn.LanguageModel(corpus.vocab, hidden_size=8)
    >>> path = os.path.join(tempfile.mkdtemp(), "m.safetensors")
    >>> model.save(path)
    >>> crnn.load(path)
    LanguageModel(8 chars, cell='lstm', hidden_size=8, num_layers=1, 616 parameters, dtype='float32')
    """
    with model_file.opened(path) as (tensors, header):  # raises at its end if the file is damaged
        return registry.build(os.fsdecode(path), tensors, header)


def to_bytes(model: Module) -> bytes:
    """The content of the file that `save` writes. Raises TypeError and ValueError as `save` does."""
    return model.to_bytes()


@in_ieee_mode
def from_bytes(content: bytes) -> Any:
    """Read a model from what `to_bytes` returned, or from the content of a file. Raises ModelFileError as `load` does.

    Examples
    --------
    >>> import crnn
    >>> from crnn.models.files import from_bytes, to_bytes
    >>> from_bytes(to_bytes(crnn.RNN(2, 3)))
    RNN(input_size=2, hidden_size=3, num_layers=1, cell='tanh', embedding_size=None, dtype='float32')
    """
    if not isinstance(content, bytes | bytearray | memoryview):
        raise TypeError(f"content: expected bytes, got {type(content).__name__}")
    return registry.build("content", *model_file.from_bytes("content", bytes(content), borrow=True))
