# SPDX-License-Identifier: MIT
"""How well a language model predicts texts: what its methods `evaluate`, `score` and `surprisals` compute."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from crnn._core import loss
from crnn._core.arrays import checked_ids
from crnn.array_input import as_ids, items
from crnn.checks import Array, Ids, check_size, check_threads
from crnn.models.language.dynamic import dynamic_pass
from crnn.models.language.surprisals import surprisals
from crnn.models.outputs.metrics import Evaluation
from crnn.models.passes.predictor import Predictor, Workspace
from crnn.models.passes.window_options import WindowOptions
from crnn.text.errors import TextError
from crnn.text.vocab import Vocab
from crnn.text.windows import IGNORE_INDEX, contiguous_batches

__all__ = ["evaluated", "ids_of", "scores_of", "surprisals_of"]

WINDOW = 4096  # most tokens of a window, of all its streams together
STEPS = 256  # most steps of a window
BLOCK = 1 << 16  # characters or bytes of texts that are sorted by length together


def evaluated(model: Any, text: str | bytes | ArrayLike, batch_size: int, threads: int, dynamic: Any) -> Evaluation:
    """See `LanguageModel.evaluate`."""
    ids = ids_of(text, model.vocab)
    if len(ids) < 2:
        raise TextError(f"text: expected at least 2 tokens, one to predict from another, got {len(ids)}")
    threads = check_threads(threads)
    batch_size = min(check_size("batch_size", batch_size), len(ids) - 1)
    if isinstance(dynamic, np.bool_):
        dynamic = bool(dynamic)
    if dynamic is False:
        windows = _windows(model, ids, batch_size, threads)
    else:
        learning = dynamic_pass(
            model, dynamic, batch_size, threads, lambda other: ids_of(other, model.vocab, "dynamic: statistics")
        )
        windows = learning.windows(ids)
    total, count, correct = 0.0, 0, 0
    for losses, predictions, targets in windows:
        total += loss.sum(losses.reshape(-1))
        predicted = targets != IGNORE_INDEX
        count += int(np.count_nonzero(predicted))
        correct += int(np.count_nonzero((predictions == targets) & predicted))
    return Evaluation(total / count, correct / count, count)


def _windows(model: Any, ids: Ids, batch_size: int, threads: int) -> Iterator[tuple[Array, Array, Array]]:
    """Losses, predictions and targets (T, B) of each window; valid until the next."""
    predictor: Predictor = model._predictor
    bptt = max(1, min(WINDOW // batch_size, STEPS))
    workspace, state = Workspace(), None
    for x, y in contiguous_batches(ids, batch_size, bptt, drop_last=False):
        window, targets = model.window(x, y)
        options = WindowOptions(state=state, threads=threads, keep=False, predictions=True)
        (tape,), head = predictor.window(window.x, targets, workspace, options)
        state = tape.after.value
        assert head.predictions is not None
        yield head.losses, head.predictions, targets


def ids_of(text: str | bytes | ArrayLike, vocab: Vocab, name: str = "text") -> Array:
    """Ids (N,) of a text, or given ids. Errors call them ``name``."""
    if isinstance(text, str | bytes):
        return vocab.encode(text, name)
    ids = as_ids(name, text)
    if ids.ndim != 1:
        raise ValueError(f"{name}: expected a text, or ids of shape (N,), got {ids.dtype} of shape {ids.shape}")
    return ids


def scores_of(
    model: Any, texts: Iterable[str | bytes], prompt: str | bytes | None, threads: int
) -> list[float]:
    """See `LanguageModel.score`."""
    if isinstance(texts, str | bytes):
        raise TypeError("texts: expected several texts, as in [text], got one")
    threads, vocab = check_threads(threads), model.vocab
    before = vocab.encode(prompt, "prompt") if prompt else np.empty(0, np.int32)
    skip = max(len(before) - 1, 0)
    scores: list[float] = []
    for block in _blocks(texts):
        own = vocab.encode_each(block, "texts", len(scores))
        sequences = [np.concatenate([before, ids]) for ids in own] if len(before) else own
        for number, ids in enumerate(sequences, len(scores)):
            if len(ids) - 1 - skip < 1:
                text = block[number - len(scores)]
                raise TextError(f"texts[{number}]: expected at least one token with one before it, got {text!r}")
        nats = surprisals(model._predictor, sequences, threads)
        scores += [
            (loss.sum(of_text[skip:] if skip else of_text) + _spelling(vocab, text, ids, len(of_text) - skip))
            / (len(of_text) - skip)
            for text, ids, of_text in zip(block, own, nats, strict=True)
        ]
    return scores


def _blocks(texts: Iterable[str | bytes]) -> Iterator[list[str | bytes]]:
    """Neighbours in lists of `BLOCK` characters or bytes, or a little more, so that no more of them are in memory."""
    block: list[str | bytes] = []
    size = 0
    for text in texts:
        block.append(text)
        size += len(text) if isinstance(text, str | bytes) else 0
        if size >= BLOCK:
            yield block
            block, size = [], 0
    if block:
        yield block


def _spelling(vocab: Vocab, text: str | bytes, ids: Ids, count: int) -> float:
    """What it costs to spell the last ``count`` tokens of a text, which are unknown, if any are."""
    if vocab.unknown_id is None:
        return 0.0
    return float(vocab.spelling(text, ids)[len(ids) - count :].sum())


def surprisals_of(model: Any, sequences: Sequence[ArrayLike], threads: int) -> list[Array]:
    """See `LanguageModel.surprisals`."""
    threads = check_threads(threads)
    sequences = items("sequences", sequences, "a list of sequences of ids")
    return surprisals(model._predictor, _checked(sequences, len(model.vocab)), threads)


def _checked(sequences: Sequence[ArrayLike], limit: int) -> list[Ids]:
    """Copies of sequences of at least two ids below ``limit``. Raises ValueError."""
    if len(sequences) > 1 and all(map(_are_ids, sequences)):  # as `Vocab` returns them: checked in one call
        together = np.concatenate(cast("Sequence[Ids]", sequences))
        if together.min() >= 0 and together.max() < limit:
            lengths = list(map(len, cast("Sequence[Ids]", sequences)))
            return [together[end - n : end] for n, end in zip(lengths, accumulate(lengths), strict=True)]
    checked = []
    for number, ids in enumerate(sequences):
        name = f"sequences[{number}]"
        array = as_ids(name, ids)
        if array.ndim != 1 or array.dtype.kind not in "iu" or array.size < 2:
            raise ValueError(f"{name}: expected at least 2 integer ids (N,), got {array.dtype} of shape {array.shape}")
        checked.append(checked_ids(name, array, limit))
    return checked


def _are_ids(ids: object) -> bool:
    """Whether these are an array of at least two ids (N,), int32."""
    return type(ids) is np.ndarray and ids.dtype == np.int32 and ids.ndim == 1 and ids.size > 1
