# SPDX-License-Identifier: MIT
"""fit: train a model. Knows it by the protocol `Trainable`, not by its cells or head."""

from __future__ import annotations

from typing import Any, Unpack

from crnn import optim
from crnn._options import build_config, takes_options
from crnn.text.corpus import TextCorpus
from crnn.training.checkpoint import Checkpoint
from crnn.training.config import TrainingConfig, TrainingOptions
from crnn.training.log import TrainingLog
from crnn.training.protocols import Trainable
from crnn.training.run import Run
from crnn.training.trainer import Trainer

__all__ = ["fit"]


@takes_options(TrainingConfig)
def fit(
    model: Trainable,
    data: Any,
    *,
    valid: Any = None,
    log: TrainingLog | None = None,
    **options: Unpack[TrainingOptions],
) -> TrainingLog:
    """Train a model by truncated backpropagation through time.

    The training tokens of a language model are split into ``batch_size`` contiguous streams, which are processed in
    parallel, in windows of ``bptt`` steps. Gradients flow within a window; the state is carried across windows. The
    ``fit`` methods of the models of whole sequences call this function with batches of ``batch_size`` sequences; they
    ignore ``bptt`` and ``carry``.

    Parameters
    ----------
    model : LanguageModel, or another `Trainable`
        Changed in place.
    data : TextCorpus or 1-d array of ids
        Training data, as the model's ``windows`` takes it. A corpus also provides the validation data.
    valid : 1-d array of ids, optional
        Validation data, to evaluate on after every epoch. The weights of the best epoch are kept.
    log : TrainingLog, optional
        An empty log to record in. Its entries are available even if training is interrupted.
    {options}

    Returns
    -------
    TrainingLog
        Losses, learning rates, gradient norms and times; ``log.best`` is the entry of the best epoch.

    Raises
    ------
    FloatingPointError
        A loss or gradient is NaN or infinite; the message states the number of the update. The weights are those before
        that update.
    KeyboardInterrupt
        Raised after the current update is done, the checkpoint is written, and the weights of the best epoch so far are
        restored.
    """
    config = build_config(TrainingConfig, options)
    train, valid = _split(model, data, valid)
    if config.patience is not None and valid is None:
        raise ValueError("patience: expected validation data with it, got none")
    if valid is not None:  # fail now rather than after an epoch
        model.check_valid(valid)
    windows = model.windows(train, config.batch_size, config.bptt)
    cut = {"windows": len(windows), "batch_size": config.batch_size, "bptt": config.bptt}
    chosen = optim.Adam(lr=2e-3) if config.optimizer is None else config.optimizer
    optimizer = optim.optimizer_from("optimizer", chosen)
    run = Run(model, optimizer, TrainingLog() if log is None else log, cut)
    run.log.unit = model.loss_unit
    checkpoint = Checkpoint(config.checkpoint)
    if config.resume and checkpoint.exists():
        checkpoint.read_into(run)
    if config.log_file is not None:
        run.log.append_to(config.log_file)
    return Trainer(run, windows, valid, config).train()


def _split(model: Trainable, data: Any, valid: Any) -> tuple[Any, Any]:
    """Training and validation data. A corpus provides both, unless ``valid`` is given."""
    if not isinstance(data, TextCorpus):
        return data, valid
    if getattr(model, "vocab", data.vocab) != data.vocab:
        raise ValueError(
            "data: expected a corpus with the model's vocabulary, got one with a different vocabulary; make it with "
            "vocab=model.vocab"
        )
    return data.train, data.valid if valid is None and len(data.valid) > 1 else valid
