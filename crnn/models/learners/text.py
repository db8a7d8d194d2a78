# SPDX-License-Identifier: MIT
"""TextLearner: a language model that learns the text that it reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike

from crnn._core import loss
from crnn._core.arrays import checked_ids
from crnn._float_mode import public_methods_in_ieee_mode
from crnn._options import takes_options
from crnn.array_input import as_ids
from crnn.checks import Array, Ids
from crnn.models.learners.readout import HeadReadout
from crnn.nn.learning.learner import Learner
from crnn.nn.state import StateLike
from crnn.stream.text_stream import text_stream_from
from crnn.text.errors import TextError
from crnn.text.generation import SamplingConfig, SamplingOptions
from crnn.text.vocab import Vocab
from crnn.text.windows import IGNORE_INDEX

__all__ = ["TextLearner"]


class TextLearner(Learner):
    """A language model that learns the text that it reads; ``model.learner()`` makes one. See `Learner`.

    Each token is predicted, and then learnt as the target of that prediction: a surprisal is that of the prediction
    that was made before the token was learnt. Text may be passed in pieces to `feed`, `surprisal` and `step`, in any
    order. If the tokens are words, a piece must not end within a word. A piece is checked before any of it is read.
    `predict` and `learn` are the two halves of `step`: `predict` reads a token and returns the logits of the next one,
    which is the target that `learn` takes; None or -1 = no target.

    With several streams, a piece is ids (T, B): T tokens of each.

    Attributes
    ----------
    vocab : Vocab

    Examples
    --------
    >>> import crnn
    >>> model = crnn.LanguageModel(crnn.Vocab.from_text("abc"), hidden_size=8)
    >>> learner = model.learner(lr=1e-2, bptt=16).feed("abc" * 500)
    >>> learner.top_tokens(1)[0][0], learner.snapshot().generate(4, temperature=0)
    ('a', 'abca')
    """

    _ending = BY_TOKEN = 0  # how the text so far ends, as in a `TextStream`
    IN_WORD, AT_SPACE = 1, 2
    _logits: Array  # (B, V) of the next tokens
    _known: Array  # bool (B,): whether there is a prediction of the next token
    _all_known: bool
    _last: Ids  # (B,): the last tokens

    # ---- what the kinds of models differ in -----------------------------------------------------------------------

    def _network(self) -> Any:
        return self._module.net

    def _new_readout(self) -> HeadReadout:
        model = self._module
        B = self.config.streams
        self._known, self._last, self._all_known = np.zeros(B, bool), np.zeros(B, np.int32), False
        self._logits = np.zeros((B, len(model.vocab)), model.dtype)
        return HeadReadout(
            model._parameters.values, model._parameters.grads, model._head.loss, tie_weights=model.tie_weights
        )

    def _inputs(self, x: Any) -> Array:
        return self._one("x", x)

    def _targets(self, y: Any) -> Array:
        if y is None:
            return self._readout.new_targets(1, self.config.streams)
        return self._one("y", y, IGNORE_INDEX)

    def _one(self, name: str, value: Any, allowed: int = 0) -> Ids:
        """An id of each stream, (1, B). Raises TypeError and ValueError."""
        if type(value) is int and not self._several and 0 <= value < len(self._logits[0]):
            return np.full((1, 1), value, np.int32)
        B, array = self.config.streams, as_ids(name, value)
        expected = "an integer id" if B == 1 else f"integer ids ({B},)"
        if array.dtype.kind not in "iu":
            raise TypeError(f"{name}: expected {expected}, got {array.dtype} of shape {array.shape}")
        if array.shape != (() if B == 1 else (B,)):
            raise ValueError(f"{name}: expected {expected}, got shape {array.shape}")
        return checked_ids(name, array.reshape(1, B), len(self.vocab), allowed)

    def _predictions(self, outputs: Array) -> Array:
        return self._logits.copy()

    def _run(self, inputs: Array) -> None:
        super()._run(inputs)
        self._logits[...] = self._window.outputs(1)[0]
        self._last, self._ending = inputs[-1].copy(), self.BY_TOKEN
        if not self._all_known:
            self._known[:] = self._all_known = True

    @property
    def vocab(self) -> Vocab:
        """The vocabulary of the model."""
        vocab: Vocab = self._module.vocab
        return vocab

    # ---- text -----------------------------------------------------------------------------------------------------

    def step(self, x: Any) -> Array:
        """Learn a token as the one that was to be predicted, read it, and return the logits of the next one.

        Parameters
        ----------
        x : int, or with several streams ids (B,)

        Returns
        -------
        array (V,), or (B, V)
            Fresh.
        """
        with self._exclusive:
            self._read(self._one("x", x), None)
            logits = self._logits.copy()
            return logits if self.config.streams > 1 else logits[0]

    def feed(self, text: str | bytes | ArrayLike) -> TextLearner:
        """Read and learn more text. Returns the learner itself.

        Parameters
        ----------
        text : str, bytes (unit "byte"), or ids (N,); with several streams ids (N, B)
            May be empty. With unit "word" it ends after a whole word: none continues in the next call.

        Raises
        ------
        VocabError
            A token is not in the vocabulary; then nothing is read.
        """
        with self._exclusive:
            self._read_text(text, None)
        return self

    def surprisal(self, text: str | bytes | ArrayLike) -> Array:
        """Read and learn more text, and return the surprisal of each token in nats, before it was learnt.

        Parameters
        ----------
        text : str, bytes (unit "byte"), or ids (N,); with several streams ids (N, B)

        Returns
        -------
        array (N,), or (N, B)
            Fresh. With several streams NaN for the first token of one, which nothing precedes.

        Raises
        ------
        TextError
            Nothing was read before by the one stream, so there is no prediction of the first token.
        VocabError
            As for `feed`.
        """
        with self._exclusive:
            found: list[Array] = []
            self._read_text(text, found)
            B = self.config.streams
            nats = np.concatenate(found) if found else np.empty((0, B), self._module.dtype)
            return nats if B > 1 else nats[:, 0]

    def _read_text(self, text: Any, nats: list[Array] | None) -> None:
        B = self.config.streams
        if isinstance(text, str | bytes):
            if B > 1:
                raise TypeError(f"text: expected ids (N, {B}), one column for each stream, got {type(text).__name__}")
            ids = self.vocab.encode(text)[:, None]
            ending = self.AT_SPACE if text[max(len(text) - 1, 0) :].isspace() else self.IN_WORD
            empty = len(text) == 0
        else:
            array, ending = as_ids("text", text), self.BY_TOKEN
            if array.ndim != (1 if B == 1 else 2) or (B > 1 and array.shape[1] != B):
                shape = "(N,)" if B == 1 else f"(N, {B})"
                raise ValueError(f"text: expected ids of shape {shape}, got shape {array.shape}")
            if array.size and array.dtype.kind not in "iu":
                raise TypeError(f"text: expected str, bytes or integer ids, got {array.dtype}")
            ids = checked_ids("text", (array if array.size else array.astype(np.int32)).reshape(-1, B), len(self.vocab))
            empty = not array.size
        if nats is not None and B == 1 and len(ids):
            self._need_known()
        self._read(ids, nats)
        if not empty:
            self._ending = ending

    def _read(self, ids: Ids, nats: list[Array] | None) -> None:
        """Read and learn ids (N, B), and append the surprisals to ``nats`` unless it is None."""
        start = 0
        while start < len(ids):
            self._learn_first(ids[start : start + 1], nats)
            self._finish_step()
            count = min(self._window.room, len(ids) - start)
            self._run(ids[start : start + count])
            self._pending = True
            if count > 1:
                self._learn_within(ids[start + 1 : start + count], nats)
            start += count

    def _learn_first(self, ids: Ids, nats: list[Array] | None) -> None:
        """Give the targets (1, B) of the last step, of the streams that have one."""
        if self._pending and self._all_known:
            losses = self._learn_targets(ids)
        else:
            unknown = ~self._known
            targets = np.where(unknown, np.int32(IGNORE_INDEX), ids)
            # not pending: `learn` has been called
            losses = self._learn_targets(targets) if self._pending else self._losses_of(targets)
            if nats is not None:
                losses = np.where(unknown, self._logits.dtype.type(np.nan), losses)
        if nats is not None:
            nats.append(np.array(losses, self._logits.dtype).reshape(1, -1))

    def _losses_of(self, targets: Ids) -> Array:
        """The losses (B,) of the last predictions."""
        losses = np.empty(targets.shape, self._logits.dtype)
        loss.softmax_cross_entropy(
            losses, None, self._logits[None], targets, 1.0, IGNORE_INDEX, 0, len(self._logits)
        )
        found: Array = losses[0]
        return found

    def _learn_within(self, targets: Ids, nats: list[Array] | None) -> None:
        """Give the targets (m, B) of the last m steps but the last one. They belong to one window."""
        window = self._window
        first = window.steps - 1 - len(targets)
        window.set_targets(first, targets)
        if nats is not None:
            losses = window.losses(first, window.steps - 1)
            assert losses is not None
            nats.append(losses.copy())

    def reset(self, streams: Any = None) -> None:
        super().reset(streams)
        self._known &= ~self._to_reset
        self._all_known = bool(self._known.all())

    # ---- predictions ----------------------------------------------------------------------------------------------

    def next_probabilities(self) -> Array:
        """The probability that each token is the next one, (V,), or with several streams (B, V), fresh.

        Raises
        ------
        TextError
            Nothing was read since the learner was made or reset.
        """
        with self._exclusive:
            self._need_known()
            p = np.empty_like(self._logits)
            loss.softmax(p, self._logits)
            return p if self.config.streams > 1 else p[0]

    def _need_known(self) -> None:
        if not self._all_known:
            raise TextError("learner: expected at least one token to continue from, got none; feed a text first")

    def top_tokens(self, count: int = 10) -> list[tuple[str | int, float]]:
        """The most probable next tokens of the one stream, as of `TextStream.top_tokens`."""
        found: list[tuple[str | int, float]] = self._one_stream("top_tokens").top_tokens(count)
        return found

    @takes_options(SamplingConfig)
    def generate(self, length: int = 200, **options: Unpack[SamplingOptions]) -> str:
        """The model's continuation of the text so far, with the current weights; see `TextStream.generate`.

        It is generated from a `snapshot`, and is not learnt.
        """
        text: str = self._one_stream("generate").generate(length, **options)
        return text

    @takes_options(SamplingConfig)
    def iter_generate(self, length: int = 200, **options: Unpack[SamplingOptions]) -> Iterator[str]:
        """Yield what `generate` returns, in pieces, from the state and the weights of this call."""
        found: Iterator[str] = self._one_stream("iter_generate").iter_generate(length, **options)
        return found

    def _one_stream(self, what: str) -> Any:
        if self.config.streams > 1:
            raise ValueError(f"{what}: expected a learner of one stream, got streams={self.config.streams}")
        return self.snapshot()

    def _snapshot(self, state: StateLike) -> Any:
        if self.config.streams > 1:
            return super()._snapshot(state)
        logits = self._logits[0] if self._known[0] else None
        last = int(self._last[0])
        return text_stream_from(self._module.stream().weights, self.vocab, state, logits, last, self._ending)

    # ---- files ----------------------------------------------------------------------------------------------------

    def _stored_own(self) -> tuple[dict[str, Array], dict[str, Any]]:
        return {"logits": self._logits, "known": self._known, "last": self._last}, {"ending": self._ending}

    def _restore_own(self, arrays: Mapping[str, Array], header: Any) -> None:
        endings = (self.BY_TOKEN, self.IN_WORD, self.AT_SPACE)
        ending = header.get("ending") if isinstance(header, dict) and len(header) == 1 else None
        if type(ending) is not int or ending not in endings:
            raise ValueError(f"own: expected ending, from 0 to 2, got {header!r:.100}")
        last = checked_ids("own.last", arrays["last"], len(self.vocab))
        self._logits, self._known, self._last, self._ending = arrays["logits"], arrays["known"], last, ending
        self._all_known = bool(self._known.all())


public_methods_in_ieee_mode(TextLearner)
