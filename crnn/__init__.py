# SPDX-License-Identifier: MIT
"""crnn: recurrent networks for the CPU, trained on whole sequences and run one step at a time.

Networks and models: `RNN`, `LanguageModel`, `SequenceClassifier`, `SequenceTagger`, `SequenceRegressor`,
`SequenceToSequence`. Time series: `Forecaster`, `SeasonalNaive`. Training: `fit`, `optim`. Inference one step at a
time: `Stream`, `StreamBatch`, `TextStream`. Text: `Vocab`, `TextCorpus`, `sampling`. Files: `save`, `load`, `export_c`;
`compress`, `decompress`.
Diagnostics: `gradient_check`, `gradient_flow`.
`verify` checks that results are bit-identical to those of every other machine.
"""

import os as _os
from typing import TYPE_CHECKING as _TYPE_CHECKING

from crnn._core.dispatch import available_isas, built_isas, isa
from crnn._float_mode import in_ieee_mode as _in_ieee_mode
from crnn._version import __version__
from crnn.nn.network import RNN
from crnn.stream import Stream, StreamBatch

if _TYPE_CHECKING:
    from crnn import optim, presets, sampling
    from crnn.c_export.files import export_c
    from crnn.compression.archive import compress, decompress
    from crnn.compression.header import ArchiveError
    from crnn.diagnostics import gradient_check, gradient_flow
    from crnn.io.model_file import ModelFileError
    from crnn.models.classifier import SequenceClassifier
    from crnn.models.files import Learner, load, save
    from crnn.models.forecasting.backtest import Backtest
    from crnn.models.forecasting.forecaster import Forecaster
    from crnn.models.forecasting.naive import SeasonalNaive
    from crnn.models.language_model import LanguageModel
    from crnn.models.outputs.metrics import Evaluation, RegressionEvaluation, SequenceEvaluation
    from crnn.models.regressor import SequenceRegressor
    from crnn.models.seq2seq import SequenceToSequence
    from crnn.models.tagger import SequenceTagger
    from crnn.stream.text_stream import TextStream
    from crnn.text import TextCorpus, TextError, Vocab, VocabError
    from crnn.training.communicator import RankError
    from crnn.training.fit import fit
    from crnn.training.log import TrainingLog
    from crnn.training.progress import Progress
    from crnn.verification.checker import PartResult, Verification, verify

__all__ = [
    "RNN",
    "ArchiveError",
    "Backtest",
    "Evaluation",
    "Forecaster",
    "LanguageModel",
    "Learner",
    "ModelFileError",
    "PartResult",
    "Progress",
    "RankError",
    "RegressionEvaluation",
    "SeasonalNaive",
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
    "Verification",
    "Vocab",
    "VocabError",
    "__version__",
    "available_isas",
    "built_isas",
    "compress",
    "decompress",
    "export_c",
    "fit",
    "get_include",
    "gradient_check",
    "gradient_flow",
    "isa",
    "load",
    "optim",
    "presets",
    "sampling",
    "save",
    "verify",
]


def get_include() -> str:
    """The folder of the C headers, for C programs and for Cython modules that ``cimport crnn.stream``.

    Examples
    --------
    >>> import crnn, os
    >>> sorted(os.listdir(crnn.get_include()))
    ['crnn.h', 'crnn_stream.h', 'kernels.def']
    """
    return _os.path.join(_os.path.dirname(__file__), "include")


# What a program that only runs a network does not need is imported when it is first used: models, text, training.
_LAZY = {
    "ArchiveError": "crnn.compression.header",
    "Backtest": "crnn.models.forecasting.backtest",
    "Evaluation": "crnn.models.outputs.metrics",
    "Forecaster": "crnn.models.forecasting.forecaster",
    "LanguageModel": "crnn.models.language_model",
    "Learner": "crnn.models.files",  # so that `Learner.load` knows all kinds of models
    "ModelFileError": "crnn.io.model_file",
    "PartResult": "crnn.verification.checker",
    "Progress": "crnn.training.progress",
    "RankError": "crnn.training.communicator",
    "RegressionEvaluation": "crnn.models.outputs.metrics",
    "SeasonalNaive": "crnn.models.forecasting.naive",
    "SequenceClassifier": "crnn.models.classifier",
    "SequenceEvaluation": "crnn.models.outputs.metrics",
    "SequenceRegressor": "crnn.models.regressor",
    "SequenceTagger": "crnn.models.tagger",
    "SequenceToSequence": "crnn.models.seq2seq",
    "TextCorpus": "crnn.text",
    "TextError": "crnn.text",
    "TextStream": "crnn.stream.text_stream",
    "TrainingLog": "crnn.training.log",
    "Verification": "crnn.verification.checker",
    "Vocab": "crnn.text",
    "VocabError": "crnn.text",
    "compress": "crnn.compression.archive",
    "decompress": "crnn.compression.archive",
    "export_c": "crnn.c_export.files",
    "fit": "crnn.training.fit",
    "gradient_check": "crnn.diagnostics",
    "gradient_flow": "crnn.diagnostics",
    "load": "crnn.models.files",
    "save": "crnn.models.files",
    "verify": "crnn.verification.checker",
}


@_in_ieee_mode  # Python rounds the constants of a module that it compiles as the mode says
def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in ("diagnostics", "optim", "presets", "sampling", "text"):
        return import_module(f"crnn.{name}")
    if name not in _LAZY:
        raise AttributeError(f"module 'crnn' has no attribute {name!r}")
    value: object = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
