# SPDX-License-Identifier: MIT
"""LanguageModel: a network on token ids, a softmax head, and the vocabulary that gives them meaning."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crnn import generation, parallel
from crnn._core import loss
from crnn.files import PathLike
from crnn.heads import HeadTape, SoftmaxHead
from crnn.initial import initial_matrix, uniform_draws
from crnn.network import RNN, Tape, check_size
from crnn.params import Parameters, ParameterViews, check_dtype
from crnn.text import IGNORE, StreamBatches, TextError, Vocab, contiguous_batches

Array = NDArray[Any]
Ids = NDArray[np.int32]


LN2 = math.log(2.0)


@dataclass(frozen=True)
class Evaluation:
    """How well a model predicts a text: the mean over ``count`` predicted tokens."""

    nats: float
    accuracy: float
    count: int

    @property
    def bits(self) -> float:
        """Bits per token; per character for a character model."""
        return self.nats / LN2

    @property
    def perplexity(self) -> float:
        """exp(nats): the usual figure for words."""
        return math.exp(self.nats) if self.nats < 700 else math.inf


@dataclass(eq=False)
class Workspace:
    """Arrays of one window shape, kept from window to window while training."""

    tape: Tape | None = None
    head: HeadTape | None = field(default=None)


class LanguageModel(ParameterViews):
    """Predicts the next token from all before it.

    Conventions
    -----------
    ids and targets are integer arrays (T, B), time-major; targets[t, b] is the token after ids[t, b], or `IGNORE` (-1)
    where there is none. state is (L, B, H). Losses are in nats. Parameters are those of `RNN`, ``W_hy`` (H, V) and
    ``b_y`` (V,), V being len(vocab), in one flat buffer.

    Parameters
    ----------
    vocab : Vocab
    cell, hidden_size, num_layers, embedding_size, dtype, recurrent_init, input_init, seed
        As in `RNN`; without an ``input_init`` it is glorot, and unit for the rows that one-hot ids select. The head's
        weights are Glorot-uniform, its biases zero.

    Examples
    --------
    >>> import crnn
    >>> corpus = crnn.TextCorpus.from_text("to be or not to be, " * 200, valid=0.1, test=0.1)
    >>> model = crnn.LanguageModel(corpus.vocab, hidden_size=32, seed=1)
    >>> log = crnn.fit(model, corpus, epochs=8, batch_size=4, bptt=16, optimizer=crnn.optim.Adam(lr=1e-2))
    >>> model.evaluate(corpus.test).perplexity < 1.2
    True
    >>> model.generate("to be or", length=12, temperature=0)
    ' not to be, '
    """

    def __init__(
        self,
        vocab: Vocab,
        cell: str = "tanh",
        hidden_size: int = 256,
        num_layers: int = 1,
        *,
        embedding_size: int | None = None,
        dtype: str = "float32",
        recurrent_init: str = "orthogonal",
        input_init: str | None = None,
        seed: int = 0,
    ) -> None:
        if embedding_size is not None:
            check_size("embedding_size", embedding_size)
        if not isinstance(vocab, Vocab):
            raise TypeError(f"vocab: expected a Vocab, got {type(vocab).__name__}")
        self.vocab = vocab
        self.dtype = check_dtype(dtype)
        V, H, L = len(vocab), check_size("hidden_size", hidden_size), check_size("num_layers", num_layers)
        of_net = RNN.parameter_shapes(V, H, L, embedding_size)
        self._parameters = Parameters(of_net | {"W_hy": (H, V), "b_y": (V,)}, self.dtype)
        size = Parameters.count(of_net)
        buffers = self.flat_params[:size], self.flat_grads[:size]
        self.net = RNN(
            V,
            H,
            L,
            cell,
            embedding_size=embedding_size,
            dtype=self.dtype,
            recurrent_init=recurrent_init,
            input_init=input_init or "glorot",
            seed=seed,
            _parameters=Parameters(of_net, self.dtype, buffers),
        )
        self.input_init = input_init
        draw = uniform_draws(seed + 1)
        if input_init is None and embedding_size is None:
            first = self.params["layer0.W_xh"]
            first[...] = initial_matrix("unit", draw, first.shape, "input_init")
        self.params["W_hy"][...] = initial_matrix("glorot", draw, (H, V), "W_hy")
        self._head = SoftmaxHead(self._parameters, self.dtype)

    def __repr__(self) -> str:
        net = self.net
        embedding = f"embedding_size={net.embedding_size}, " if net.embedding_size else ""
        return (
            f"LanguageModel({len(self.vocab)} {self.vocab.unit}s, cell={net.cell!r}, hidden_size={net.hidden_size}, "
            f"num_layers={net.num_layers}, {embedding}{self.flat_params.size:,} parameters, dtype={self.dtype!r})"
        )

    def config(self) -> dict[str, Any]:
        """The arguments that make a model of this shape, but for the vocabulary. JSON-able."""
        net = self.net
        return {
            "cell": net.cell,
            "hidden_size": net.hidden_size,
            "num_layers": net.num_layers,
            "embedding_size": net.embedding_size,
            "dtype": self.dtype,
            "recurrent_init": net.recurrent_init,
            "input_init": self.input_init,
        }

    def astype(self, dtype: str) -> LanguageModel:
        """A copy of the model in another precision."""
        copy = LanguageModel(self.vocab, **(self.config() | {"dtype": dtype}))
        copy.flat_params[...] = self.flat_params
        return copy

    # ---- one window -----------------------------------------------------------------------------------------------

    def forward(
        self, ids: ArrayLike, state: ArrayLike | None = None, *, threads: int = 1
    ) -> tuple[Array, Array]:
        """Logits (T, B, V) and the state (L, B, H) after the last step, both fresh."""
        space = Workspace()
        tape, head = self._start(self._check_ids("ids", ids), state, space)
        parts = min(parallel.check_threads(threads), tape.batch)

        def rows(part: int) -> None:
            b0, b1 = parallel.share(tape.batch, part, parts)
            self.net._forward_rows(tape, b0, b1)
            self._head.forward_rows(head, tape.h[-1], b0, b1)

        parallel.run(parts, rows)
        return head.logits, tape.h0_next

    def losses(
        self,
        ids: ArrayLike,
        targets: ArrayLike,
        state: ArrayLike | None = None,
        *,
        threads: int = 1,
        workspace: Workspace | None = None,
    ) -> tuple[Array, Array]:
        """Losses in nats (T, B), 0 at ignored targets, and the state after the last step.

        With a ``workspace`` both belong to it, otherwise they are fresh.
        """
        space = workspace or Workspace()
        tape, head = self._start(self._check_ids("ids", ids), state, space)
        wanted = self._check_targets(targets, tape.x.shape)
        parts = min(parallel.check_threads(threads), tape.batch)

        def rows(part: int) -> None:
            b0, b1 = parallel.share(tape.batch, part, parts)
            self.net._forward_rows(tape, b0, b1)
            self._head.forward_rows(head, tape.h[-1], b0, b1)
            self._head.loss_rows(head, wanted, IGNORE, b0, b1)

        parallel.run(parts, rows)
        return head.losses, tape.h0_next

    def loss_and_gradients(
        self,
        ids: ArrayLike,
        targets: ArrayLike,
        state: ArrayLike | None = None,
        *,
        reduction: str = "mean",
        threads: int = 1,
        workspace: Workspace | None = None,
    ) -> tuple[float, int, Array]:
        """Forward, loss and backpropagation through the T steps of a window; adds to `grads`.

        Parameters
        ----------
        ids, targets : int array (T, B)
        state : array (L, B, H), optional
            Before the first step. No gradient flows into it: this is where backpropagation is truncated.
        reduction : {"mean", "sum"}
            Whether the gradient is that of the mean loss per predicted token or of their sum.

        Returns
        -------
        total : float
            Sum of the losses in nats.
        count : int
            Predicted tokens.
        state : array (L, B, H)
            After the last step; belongs to the workspace, if one was given.
        """
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction: expected mean or sum, got {reduction!r}")
        threads = parallel.check_threads(threads)
        tape, head = self._start(self._check_ids("ids", ids), state, workspace or Workspace())
        wanted = self._check_targets(targets, tape.x.shape)
        count = int(np.count_nonzero(wanted != IGNORE))
        scale = 1.0 / max(count, 1) if reduction == "mean" else 1.0
        net = self.net
        net._pack_backward(tape)
        self._head.pack_backward(head)
        parts = min(threads, tape.batch)

        def rows(part: int) -> None:
            b0, b1 = parallel.share(tape.batch, part, parts)
            net._forward_rows(tape, b0, b1)
            self._head.forward_rows(head, tape.h[-1], b0, b1)
            self._head.backward_rows(head, tape.da[-1], wanted, scale, IGNORE, b0, b1)
            net._backward_rows(tape, None, b0, b1)

        def columns(part: int) -> None:
            net._weight_gradients(tape, part, threads)
            self._head.weight_gradients(head, tape.h[-1], tape.scratch(part), part, threads)

        parallel.run(parts, rows)
        parallel.run(threads, columns)
        net._finish_gradients(tape)
        return loss.sum(head.losses.reshape(-1)), count, tape.h0_next

    def _start(self, ids: Ids, state: ArrayLike | None, space: Workspace) -> tuple[Tape, HeadTape]:
        """Tapes for a window, from the workspace where they fit, with the weights packed."""
        tape = self.net._new_tape(ids, state, space.tape)
        if space.head is None or tape is not space.tape:
            space.head = self._head.new_tape(tape.steps, tape.batch)
        space.tape = tape
        self.net._pack_forward(tape)
        self._head.pack_forward(space.head)
        return tape, space.head

    def _check_ids(self, name: str, ids: ArrayLike) -> Ids:
        array = np.asarray(ids)
        if array.dtype.kind not in "iu":
            raise TypeError(f"{name}: expected an integer array (T, B), got {array.dtype}")
        return self.net._check_input(array)

    def _check_targets(self, targets: ArrayLike, shape: tuple[int, ...]) -> Ids:
        array = np.asarray(targets)
        if array.dtype.kind not in "iu" or array.shape != shape:
            raise ValueError(
                f"targets: expected integers of shape {shape}, got {array.dtype} of shape {array.shape}"
            )
        if array.dtype != np.int32 and (array.min() < IGNORE or array.max() >= len(self.vocab)):
            raise ValueError(
                f"targets: expected ids from 0 to {len(self.vocab) - 1}, or {IGNORE} for none, "
                f"got {array.min()} to {array.max()}"
            )
        return np.ascontiguousarray(array, np.int32)  # int32 is checked where it is read

    # ---- whole texts ----------------------------------------------------------------------------------------------

    def windows(self, ids: ArrayLike, batch_size: int, bptt: int) -> StreamBatches:
        """The training windows of a stream of ids. `fit` asks its model for them."""
        return contiguous_batches(ids, batch_size, bptt)

    def evaluate(
        self, text: str | bytes | ArrayLike, *, batch_size: int = 1, threads: int = 1
    ) -> Evaluation:
        """How well the model predicts a text, or a 1-d array of ids, from its second token to its last.

        Parameters
        ----------
        batch_size : int
            1: the state is carried through the whole text. More: the text is cut into as many contiguous streams of
            equal length, each from a zero state, which is faster and slightly pessimistic. No token is lost either way.
        """
        ids = self._ids_of(text)
        if len(ids) < 2:
            raise TextError(f"text: expected at least 2 tokens, one to predict from another, got {len(ids)}")
        batch_size = min(check_size("batch_size", batch_size), len(ids) - 1)
        bptt = max(1, min(4096 // batch_size, 256))
        space, state = Workspace(), None
        total, count, right = 0.0, 0, 0
        for x, y in contiguous_batches(ids, batch_size, bptt, keep_tail=True):
            losses, state = self.losses(x, y, state, threads=threads, workspace=space)
            assert space.head is not None
            total += loss.sum(losses.reshape(-1))
            predicted = y != IGNORE
            count += int(np.count_nonzero(predicted))
            right += int(np.count_nonzero((space.head.logits.argmax(axis=2) == y) & predicted))
        return Evaluation(total / count, right / count, count)

    def score(self, texts: Iterable[str | bytes], *, prime: str | bytes | None = None) -> list[float]:
        """Nats per token of each text, each from a zero state.

        Parameters
        ----------
        prime : str, optional
            What comes before every text; its own tokens are not counted. Without one the first token of a text has
            nothing to be predicted from and is not counted either, so a text needs two; with one it needs one.
        """
        if isinstance(texts, str | bytes):
            raise TypeError("texts: expected several texts, as in [text], got one")
        before = self.vocab.encode(prime) if prime else np.empty(0, np.int32)
        scores = []
        for number, text in enumerate(texts):
            ids = np.concatenate([before, self.vocab.encode(text)])
            skip = max(len(before) - 1, 0)
            if len(ids) - 1 - skip < 1:
                raise TextError(f"texts[{number}]: expected at least one token with one before it, got {text!r}")
            losses, _ = self.losses(ids[:-1, None], ids[1:, None])
            scores.append(loss.sum(losses[skip:, 0].copy()) / (len(ids) - 1 - skip))
        return scores

    def _ids_of(self, text: str | bytes | ArrayLike) -> Array:
        if isinstance(text, str | bytes):
            return self.vocab.encode(text)
        ids = np.asarray(text)
        if ids.ndim != 1:
            raise ValueError(f"text: expected a text, or ids of shape (N,), got {ids.dtype} of shape {ids.shape}")
        return ids

    # ---- text from the model --------------------------------------------------------------------------------------

    def generate(
        self,
        prime: str = "",
        length: int = 200,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: str | None = None,
        seed: int | None = None,
    ) -> str:
        """The text that the model goes on with after ``prime``. See `iter_generate`."""
        pieces = self.iter_generate(
            prime, length, temperature=temperature, top_k=top_k, top_p=top_p, stop=stop, seed=seed
        )
        return "".join(pieces)

    def iter_generate(
        self,
        prime: str = "",
        length: int | None = 200,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: str | None = None,
        seed: int | None = None,
    ) -> Iterator[str]:
        """Yield the continuation of ``prime`` piece by piece as it is drawn.

        Parameters
        ----------
        prime : str
            Read before anything is drawn; not part of what is yielded. Empty: a newline, if the vocabulary has one.
        length : int or None
            Tokens to draw at most; None: for ever.
        temperature, top_k, top_p, seed
            As in `crnn.sampling.Sampler`: 0 takes the likeliest token; the same seed gives the same text everywhere.
        stop : str, optional
            Ends before this text; what could become part of it is held back until it is clear.
        """
        return generation.iter_generate(
            self, prime, length, temperature=temperature, top_k=top_k, top_p=top_p, stop=stop, seed=seed
        )

    def save(self, path: PathLike) -> None:
        """Write the model to a safetensors file, whole or not at all. `crnn.load` reads it."""
        from crnn.serialize import save

        save(self, path)


class Stepper:
    """One token in, logits out: a model's weights packed once, and a state. For generation and line scoring."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._token = np.zeros((1, 1), np.int32)
        self._tape, self._head = model._start(self._token, None, Workspace())

    def step(self, token: int) -> Array:
        """Logits (V,) of the token after ``token``; overwritten by the next step."""
        tape = self._tape
        self._token[0, 0] = token
        self._model.net._forward_rows(tape, 0, 1)
        tape.h0[...] = tape.h0_next
        self._model._head.forward_rows(self._head, tape.h[-1], 0, 1)
        logits: Array = self._head.logits[0, 0]
        return logits
