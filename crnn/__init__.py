# SPDX-License-Identifier: MIT
"""crnn: recurrent networks that train on the CPU and run one step at a time, from one small wheel."""

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
    "TextCorpus",
    "TextError",
    "TrainingLog",
    "Vocab",
    "VocabError",
    "__version__",
    "available_isas",
    "built_isas",
    "fit",
    "gradient_check",
    "gradient_flow",
    "isa",
    "load",
    "optim",
    "sampling",
    "save",
]
