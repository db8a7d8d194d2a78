# SPDX-License-Identifier: MIT
"""crnn: recurrent networks that train on the CPU and run one step at a time, from one small wheel."""

import os as _os
from typing import TYPE_CHECKING as _TYPE_CHECKING

from crnn import optim, sampling
from crnn._core.dispatch import available_isas, built_isas, isa
from crnn._version import __version__
from crnn.models.classifier import SequenceClassifier
from crnn.models.language_model import LanguageModel
from crnn.models.metrics import Evaluation, RegressionEvaluation, SequenceEvaluation
from crnn.models.regressor import SequenceRegressor
from crnn.models.tagger import SequenceTagger
from crnn.nn.network import RNN
from crnn.stream.stream import Stream
from crnn.stream.stream_batch import StreamBatch
from crnn.stream.text_stream import TextStream
from crnn.text.corpus import TextCorpus
from crnn.text.reading import TextError
from crnn.text.vocab import Vocab, VocabError
from crnn.training.fit import fit
from crnn.training.log import TrainingLog

if _TYPE_CHECKING:
    from crnn.diagnostics import gradient_check, gradient_flow
    from crnn.io.model_file import ModelFileError
    from crnn.models.files import load, save
    from crnn.models.seq2seq import SequenceToSequence

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
    "gradient_check": "crnn.diagnostics",
    "gradient_flow": "crnn.diagnostics",
    "SequenceToSequence": "crnn.models.seq2seq",
    "ModelFileError": "crnn.io.model_file",
    "load": "crnn.models.files",
    "save": "crnn.models.files",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name == "diagnostics":
        return import_module("crnn.diagnostics")
    if name not in _LATER:
        raise AttributeError(f"module 'crnn' has no attribute {name!r}")
    value: object = getattr(import_module(_LATER[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
