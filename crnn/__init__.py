# SPDX-License-Identifier: MIT
"""crnn: recurrent networks that train on the CPU and run one step at a time, from one small wheel."""

import os as _os
from typing import TYPE_CHECKING as _TYPE_CHECKING

from crnn import optim, sampling
from crnn._core.dispatch import available_isas, built_isas, isa
from crnn._version import __version__
from crnn.classify import SequenceClassifier, SequenceTagger
from crnn.evaluation import Evaluation, RegressionEvaluation, SequenceEvaluation
from crnn.log import TrainingLog
from crnn.models import LanguageModel
from crnn.network import RNN
from crnn.regress import SequenceRegressor
from crnn.stream import Stream
from crnn.stream_batch import StreamBatch
from crnn.text import TextCorpus, TextError, Vocab, VocabError
from crnn.text_stream import TextStream
from crnn.training import fit

if _TYPE_CHECKING:
    from crnn.diagnostics import gradient_check, gradient_flow
    from crnn.seq2seq import SequenceToSequence
    from crnn.serialize import ModelFileError, load, save

__all__ = [
    "RNN",
    "Evaluation",
    "LanguageModel",
    "ModelFileError",
    "RegressionEvaluation",
    "SequenceClassifier",
    "SequenceEvaluation",
    "SequenceRegressor",
    "SequenceTagger",
    "SequenceToSequence",
    "Stream",
    "StreamBatch",
    "TextCorpus",
    "TextError",
    "TextStream",
    "TrainingLog",
    "Vocab",
    "VocabError",
    "__version__",
    "available_isas",
    "built_isas",
    "fit",
    "get_include",
    "gradient_check",
    "gradient_flow",
    "isa",
    "load",
    "optim",
    "sampling",
    "save",
]


def get_include() -> str:
    """Folder of crnn.h and its like, for C programs and for Cython modules that ``cimport crnn.stream``.

    Examples
    --------
    >>> import crnn, os
    >>> sorted(os.listdir(crnn.get_include()))
    ['crnn.h', 'crnn_stream.h', 'kernels.def']
    """
    return _os.path.join(_os.path.dirname(__file__), "include")


# What many programs never use is imported when it is first asked for: a third of the time that an import would take.
_LATER = {
    "gradient_check": "diagnostics",
    "gradient_flow": "diagnostics",
    "SequenceToSequence": "seq2seq",
    "ModelFileError": "serialize",
    "load": "serialize",
    "save": "serialize",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in _LATER.values():
        return import_module(f"crnn.{name}")
    if name not in _LATER:
        raise AttributeError(f"module 'crnn' has no attribute {name!r}")
    value: object = getattr(import_module(f"crnn.{_LATER[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
