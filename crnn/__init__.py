# SPDX-License-Identifier: MIT
"""crnn: recurrent networks that train on the CPU and run one step at a time, from one small wheel."""

import os as _os

from crnn import optim, sampling
from crnn._core.dispatch import available_isas, built_isas, isa
from crnn._version import __version__
from crnn.classify import SequenceClassifier, SequenceTagger
from crnn.diagnostics import gradient_check, gradient_flow
from crnn.evaluation import Evaluation, RegressionEvaluation, SequenceEvaluation
from crnn.log import TrainingLog
from crnn.models import LanguageModel
from crnn.network import RNN
from crnn.regress import SequenceRegressor
from crnn.seq2seq import SequenceToSequence
from crnn.serialize import ModelFileError, load, save
from crnn.stream import Stream, StreamBatch
from crnn.text import TextCorpus, TextError, Vocab, VocabError
from crnn.training import fit

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
    """Folder of crnn.h and crnn_stream.h, for C programs and for Cython modules that ``cimport crnn.stream``.

    Examples
    --------
    >>> import crnn, os
    >>> sorted(os.listdir(crnn.get_include()))
    ['crnn.h', 'crnn_stream.h']
    """
    return _os.path.join(_os.path.dirname(__file__), "include")
