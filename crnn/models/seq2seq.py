# SPDX-License-Identifier: MIT
"""SequenceToSequence: an encoder reads a sequence, a decoder that starts from its last state writes another.

x_1 .. x_T --encoder--> state --decoder, fed with mark, y_1 .. y_M--> head --> y_1 .. y_M, mark
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crnn._core import loss as kernels
from crnn.checks import check_dtype, check_flag, check_size, check_threads
from crnn.models.base import Workspace
from crnn.models.data import Batch, SequenceData, Standardizer, array_of, by_length, check_entries, check_sequences
from crnn.models.decoding import Steps, Written, beam_search, greedy
from crnn.models.head import HeadTape
from crnn.models.losses import CrossEntropy
from crnn.models.metrics import SequenceEvaluation
from crnn.models.sequence_model import SequenceModel
from crnn.nn.dropout import Masks
from crnn.nn.init import initial_matrix, uniform_draws
from crnn.nn.network import RNN, Shapes, check_sizes
from crnn.nn.state import State, StateLike
from crnn.nn.tape import Tape
from crnn.stream.streaming import StreamParts
from crnn.text.vocab import Vocab, VocabError
from crnn.text.windows import IGNORE_INDEX

Array = NDArray[Any]
NOTHING = np.zeros(1, np.int32)  # in place of a target, where there is none


class SequenceToSequence(SequenceModel[SequenceEvaluation]):
    """Writes a sequence for every sequence it reads. Sutskever, Vinyals, Le 2014; Cho et al. 2014.

    Conventions
    -----------
    X is a list of N sequences: strings, with a ``source_vocab``; otherwise ids (T_i,) from 0 to input_size-1, or with
    ``real_source`` numbers (T_i, D), standardised as those of `SequenceClassifier` are. y is a list of N strings, with
    a ``target_vocab``, or of ids (M_i,) from 0 to output_size-1; they may be empty. Equally long ones may be one array.

    The decoder knows one token more, the mark ``output_size``: it is what the decoder is fed first, and what it writes
    last. As it is never both an input and an output at the same place, one token is enough. So the head has
    output_size + 1 outputs. In training the decoder is fed with the right tokens, whatever it would have written
    (teacher forcing). Losses are in nats, of every token and of the mark at the end.

    Parameters are those of two `RNN`, ``encoder.layer0.W_xh`` and ``decoder.layer0.W_xh`` and so on, and of the head,
    ``W_hy`` and ``b_y``, in one flat buffer. Results do not depend on ``threads``, on how sequences are batched, or on
    their order.

    Parameters
    ----------
    input_size, output_size : int, optional
        How many source and target ids there are, or D; not needed with vocabularies.
    hidden_size, num_layers, cell
        As in `RNN`, for the encoder, and for the decoder if the encoder is not bidirectional.
    source_vocab, target_vocab : Vocab, optional
    real_source : bool
        X are numbers.
    bidirectional : bool
        The encoder reads in both directions. A layer of the decoder then has as many units as both, and starts from
        the forward direction's last state beside the reverse direction's.
    embedding_size : int, optional
        For source and target, wherever they are ids. Not given: they are one-hot vectors.
    reverse_source : bool
        The source is read from its end, so that its beginning is near to the target's.
    dropout, variational_dropout, recurrent_dropout, reset_after, forget_bias, dtype, recurrent_init
        As in `RNN`; dropout also before the head.
    input_init : str, optional
        As in `RNN`; not given: glorot, and unit for the rows that one-hot ids select.
    label_smoothing : float
        Share of a target that is spread over all tokens, in evaluation too. Szegedy et al. 2016.
    scale : bool
        Standardise real inputs by the training data.
    longest_target : int, optional
        Tokens of the longest target so far: kept by `fit`, used by `predict`.
    seed : int

    Examples
    --------
    >>> import numpy as np, crnn
    >>> numbers = [str(n) for n in np.random.default_rng(0).permutation(1000)]
    >>> backwards = [number[::-1] for number in numbers]
    >>> digits = crnn.Vocab.from_text("0123456789")
    >>> model = crnn.SequenceToSequence(hidden_size=32, source_vocab=digits, target_vocab=digits, cell="gru", seed=0)
    >>> log = model.fit(numbers[:800], backwards[:800], epochs=20, optimizer=crnn.optim.Adam(lr=1e-2))
    >>> model.evaluate(numbers[800:], backwards[800:]).exact_match > 0.9
    True
    >>> model.predict(["271", "90"])
    ['172', '09']
    """

    vocab_names = ("source_vocab", "target_vocab")

    def __init__(
        self,
        input_size: int | None = None,
        output_size: int | None = None,
        hidden_size: int | Sequence[int] = 128,
        num_layers: int | None = None,
        cell: str = "lstm",
        *,
        source_vocab: Vocab | None = None,
        target_vocab: Vocab | None = None,
        real_source: bool = False,
        bidirectional: bool = False,
        embedding_size: int | None = None,
        reverse_source: bool = False,
        dropout: float = 0.0,
        variational_dropout: bool = False,
        recurrent_dropout: float = 0.0,
        reset_after: bool = True,
        forget_bias: float = 1.0,
        label_smoothing: float = 0.0,
        scale: bool = True,
        longest_target: int | None = None,
        dtype: str = "float32",
        recurrent_init: str = "orthogonal",
        input_init: str | None = None,
        seed: int = 0,
    ) -> None:
        self.source_vocab, self.target_vocab = source_vocab, target_vocab
        self.input_size = _size_of("input_size", input_size, "source_vocab", source_vocab)
        self.output_size = _size_of("output_size", output_size, "target_vocab", target_vocab)
        self.real_source = check_flag("real_source", real_source)
        if real_source and source_vocab is not None:
            raise ValueError("real_source: expected False with a source_vocab, got True")
        self.reverse_source, self.scale = check_flag("reverse_source", reverse_source), check_flag("scale", scale)
        self.longest_target = None if longest_target is None else check_size("longest_target", longest_target)
        self.label_smoothing, self.input_init, self.seed = label_smoothing, input_init, seed
        encoder, decoder = self._stacks(
            {
                "input_size": self.input_size,
                "output_size": self.output_size,
                "real_source": self.real_source,
                "hidden_size": hidden_size,
                "num_layers": num_layers,
                "cell": cell,
                "bidirectional": check_flag("bidirectional", bidirectional),
                "embedding_size": embedding_size,
                "dropout": dropout,
                "variational_dropout": variational_dropout,
                "recurrent_dropout": recurrent_dropout,
                "reset_after": reset_after,
                "forget_bias": forget_bias,
                "dtype": check_dtype("dtype", dtype),
                "recurrent_init": recurrent_init,
                "input_init": input_init,
            }
        )
        loss = CrossEntropy(self.output_size + 1, smoothing=label_smoothing)
        shapes = self._shapes(encoder, decoder)
        self._build(decoder | {"seed": seed + 2}, shapes, loss, prefix="decoder.")
        self.encoder = self._network(encoder | {"seed": seed}, "encoder.")
        draw = uniform_draws(seed + 1)
        if input_init is None and embedding_size is None:
            for net in self._networks[self.real_source :]:
                net.initialise_rows(draw)
        self.params["W_hy"][...] = initial_matrix("glorot", draw, shapes["W_hy"], "W_hy")  # type: ignore[arg-type]
        self.scalings = {name: Standardizer(size) for name, size in self.scaled_sizes(self.config()).items()}

    @staticmethod
    def _stacks(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """RNN's arguments for encoder and decoder, without a seed."""
        names = (
            "cell", "dropout", "variational_dropout", "recurrent_dropout", "reset_after", "forget_bias", "dtype",
            "recurrent_init",
        )  # fmt: skip
        shared = {name: config[name] for name in names} | {"input_init": config["input_init"] or "glorot"}
        sizes = check_sizes(config["hidden_size"], config["num_layers"])
        encoder = {
            "input_size": config["input_size"],
            "hidden_size": sizes,
            "bidirectional": config["bidirectional"],
            "embedding_size": None if config["real_source"] else config["embedding_size"],
        }
        decoder = {
            "input_size": config["output_size"] + 1,
            "hidden_size": tuple(2 * H for H in sizes) if config["bidirectional"] else sizes,
            "embedding_size": config["embedding_size"],
        }
        return encoder | shared, decoder | shared

    @staticmethod
    def _shapes(encoder: Mapping[str, Any], decoder: Mapping[str, Any]) -> Shapes:
        V = decoder["input_size"]
        stacks = {"encoder.": RNN.parameter_shapes(**encoder), "decoder.": RNN.parameter_shapes(**decoder)}
        named = {prefix + name: shape for prefix, shapes in stacks.items() for name, shape in shapes.items()}
        return named | {"W_hy": (decoder["hidden_size"][-1], V), "b_y": (V,)}

    @classmethod
    def shapes_of(cls, config: Mapping[str, Any]) -> Shapes:
        """Names and shapes of the parameters of a model with this `config`."""
        return cls._shapes(*cls._stacks(config))

    @classmethod
    def scaled_sizes(cls, config: Mapping[str, Any]) -> dict[str, int]:
        """What is standardised, and how many columns it has."""
        return {"x": config["input_size"]} if config["real_source"] else {}

    def config(self) -> dict[str, Any]:
        """The arguments that make a model of this shape, but for the vocabularies. JSON-able."""
        of_encoder = self.encoder.config()
        del of_encoder["trainable_initial_state"]
        names = (
            "output_size", "real_source", "reverse_source", "label_smoothing", "scale", "longest_target", "input_init",
        )  # fmt: skip
        own = {name: getattr(self, name) for name in names}
        return of_encoder | own | {"embedding_size": self.decoder.embedding_size}

    @property
    def decoder(self) -> RNN:
        """The network that writes."""
        return self.net

    @property
    def _networks(self) -> list[RNN]:
        return [self.encoder, self.decoder]

    @property
    def _mark(self) -> int:
        return self.output_size

    def __repr__(self) -> str:
        return (
            f"SequenceToSequence({self.encoder.describe()}, output_size={self.output_size}, "
            f"{self.flat_params.size:,} parameters, dtype={self.dtype!r})"
        )

    def _stream_parts(self) -> StreamParts:
        raise ValueError(
            "stream: expected a model with an output at every step, got a SequenceToSequence, which reads the whole "
            "source first; its decoder, model.net, has streams of its own"
        )

    # ---- data -----------------------------------------------------------------------------------------------------

    def _sequences(self, name: str, X: Any) -> list[Array]:
        if self.source_vocab is not None:
            x = _encode_texts(name, X, self.source_vocab)
            empty = next((i for i, ids in enumerate(x) if not len(ids)), None)
            if empty is not None:
                raise ValueError(f"{name}[{empty}]: expected at least one token, got {X[empty]!r}")
        else:
            x = check_sequences(name, X, self.input_size, ids=not self.real_source, real=self.real_source)
        return [np.ascontiguousarray(sequence[::-1]) for sequence in x] if self.reverse_source else x

    def _encode(self, name: str, y: Any, x: list[Array]) -> list[Array]:
        check_entries(name, y, len(x))
        if self.target_vocab is not None:
            targets = _encode_texts(name, y, self.target_vocab)
        else:
            targets = [_check_ids(f"{name}[{i}]", entry, self.output_size) for i, entry in enumerate(y)]
        return [np.append(ids, np.int32(self._mark)) for ids in targets]

    def _learn_scaling(self, x: list[Array], y: list[Array]) -> None:
        """And how long targets are."""
        super()._learn_scaling(x, y)
        self.longest_target = max(self.longest_target or 1, *(len(ids) - 1 for ids in y))

    def _data(self, x: list[Array], targets: list[Array]) -> SequenceData:
        return SequenceData(self._scaled(x), targets, single=False, padding=IGNORE_INDEX)

    def _check_targets(self, targets: ArrayLike, batch: Batch) -> Array:
        array = np.asarray(targets)
        wanted = self._head.loss.check("y", array, max(len(array), 1), batch.x.shape[1], self.dtype)
        there = wanted != IGNORE_INDEX
        if not there[0].all() or (there[1:] > there[:-1]).any():
            raise ValueError(
                f"y: expected at least one token of each sequence, and {IGNORE_INDEX} only behind its last"
            )
        return wanted

    def _target_lengths(self, targets: Array, lengths: ArrayLike | None) -> Array | None:
        counts = np.count_nonzero(targets != IGNORE_INDEX, axis=0)
        return None if (counts == len(targets)).all() else counts.astype(np.int32)

    # ---- one batch ------------------------------------------------------------------------------------------------

    def _handed_over(self, after: State) -> State:
        """The decoder's first state: the encoder's last one, its directions side by side."""
        before, D = self.decoder._new_state(after.batch), self.encoder.directions
        for (_, own), (_, theirs) in zip(before.parts, after.parts, strict=True):
            for layer, array in enumerate(own):
                np.concatenate(theirs[layer * D : (layer + 1) * D], axis=1, out=array)
        return before

    def _handed_back(self, dbefore: State) -> State:
        """The gradient at the encoder's last state."""
        dafter, D = self.encoder._new_state(dbefore.batch), self.encoder.directions
        for (_, own), (_, theirs) in zip(dafter.parts, dbefore.parts, strict=True):
            for place, array in enumerate(own):
                H = array.shape[1]
                array[...] = theirs[place // D][:, place % D * H : (place % D + 1) * H]
        return dafter

    def _pass(
        self,
        x: Array,
        targets: Array,
        space: Workspace,
        *,
        only: Array | None = None,
        state: StateLike | None = None,
        lengths: ArrayLike | None = None,
        scale: float | None = None,
        threads: int = 1,
        dropout_seed: int | list[int] | None = None,
        keep: bool = True,
    ) -> tuple[list[Tape], HeadTape]:
        masks = None
        if dropout_seed is not None:  # other masks than the decoder's
            masks = Masks([*(dropout_seed if isinstance(dropout_seed, list) else [dropout_seed]), 1])
        source = self.encoder._run_forward(x, state, lengths, threads, space.source, masks, keep=keep)
        space.source = source
        fed = np.concatenate([np.full((1, targets.shape[1]), self._mark, np.int32), targets[:-1]])
        fed[fed == IGNORE_INDEX] = self._mark  # behind the end: read by nobody
        tapes, head = super()._pass(
            self.decoder._check_input(fed),
            targets,
            space,
            only=only,
            state=self._handed_over(source.after).value,
            lengths=self._target_lengths(targets, None),
            scale=scale,
            threads=threads,
            dropout_seed=dropout_seed,
            keep=keep,
        )
        dbefore = tapes[0].dbefore
        if scale is not None and dbefore is not None:
            self.encoder.backward(source, None, self._handed_back(dbefore).value, threads=threads)
        return [source, *tapes], head

    # ---- using ----------------------------------------------------------------------------------------------------

    def evaluate(self, X: Any, y: Any = None, *, batch_size: int = 256, threads: int = 1) -> SequenceEvaluation:
        """How well the model predicts y from X; X may also be the model's own `data`.

        Returns
        -------
        SequenceEvaluation
            Nats and accuracy of a token, given the right ones before it, over ``count`` tokens, ends included;
            ``exact_match`` is the share of sequences that `predict` would write without a mistake.
        """
        threads = check_threads(threads)
        data = X if isinstance(X, SequenceData) else self._data(*self._for_evaluation(X, y))
        totals = np.zeros(len(data))
        count = right = exact = 0
        for chosen, batch, targets in by_length(data, check_size("batch_size", batch_size)):
            wanted = self._check_targets(targets, batch)
            _, head = self._pass(batch.x, wanted, Workspace(), lengths=batch.lengths, threads=threads, keep=False)
            # Greedy decoding is fed with its own tokens: as long as they are right, with just these.
            tokens = np.count_nonzero(wanted != IGNORE_INDEX, axis=0).tolist()
            hits = np.count_nonzero(head.outputs.argmax(axis=2) == wanted, axis=0).tolist()
            count, right = count + sum(tokens), right + sum(hits)
            exact += sum(hit == whole for hit, whole in zip(hits, tokens, strict=True))
            for b, i in enumerate(chosen):
                totals[i] = kernels.sum(head.losses[: tokens[b], b].copy())
        # fsum: rounded once, so the same in every order
        return SequenceEvaluation(math.fsum(totals) / count, right / count, count, exact / len(data))

    def predict(
        self,
        X: Any,
        *,
        max_length: int | None = None,
        beam: int = 1,
        scores: bool = False,
        batch_size: int = 256,
        threads: int = 1,
    ) -> Any:
        """What the model writes for each sequence: N strings, or arrays of ids (M_i,).

        Parameters
        ----------
        X : sequences, see the class
        max_length : int, optional
            Tokens to write at most; not given: twice as many as the longest training target has.
        beam : int
            1: always the likeliest token. More: beam search with so many hypotheses. Of the finished ones, and of what
            ``beam=1`` would write, it takes that with the highest score, so a wider beam is never worse than none. Of
            equal scores the first found counts.
        scores : bool
            Return a pair of the sequences and their scores, float64 (N,): the mean log-probability in nats of the
            sequence's tokens and its end. To divide by the length keeps short sequences from being preferred.
        batch_size : int
            Sequences that are worked on side by side.
        """
        threads, beam = check_threads(threads), check_size("beam", beam)
        if max_length is None:
            if self.longest_target is None:
                raise ValueError("max_length: expected an integer of at least 1 for an untrained model, got None")
            max_length = 2 * self.longest_target
        check_size("max_length", max_length)
        x = self._sequences("X", X)
        data = self._data(x, [NOTHING] * len(x))
        written: list[Written] = [Written([], 0.0)] * len(x)
        for chosen, batch, _ in by_length(data, check_size("batch_size", batch_size)):
            source = self.encoder._run_forward(batch.x, None, batch.lengths, threads, None, None, keep=False)
            before = self._handed_over(source.after)
            best = greedy(Steps(self, before, self._mark, threads), max_length, scored=scores or beam > 1)
            if beam > 1:
                found = beam_search(Steps(self, before, self._mark, threads), max_length, beam)
                best = [max(pair, key=lambda each: each.score) for pair in zip(best, found, strict=True)]
            for i, each in zip(chosen, best, strict=True):
                written[i] = each
        answers = [self._decoded(each.tokens) for each in written]
        return (answers, np.array([each.score for each in written])) if scores else answers

    def _decoded(self, tokens: list[int]) -> str | Array:
        ids = np.array(tokens, np.int32)
        return ids if self.target_vocab is None else self.target_vocab.decode(ids)


def _size_of(name: str, size: int | None, vocab_name: str, vocab: Vocab | None) -> int:
    """How many ids there are: given, or the vocabulary's."""
    if vocab is None:
        if size is None:
            raise ValueError(f"{name}: expected it or a {vocab_name}, got neither")
        return check_size(name, size)
    if not isinstance(vocab, Vocab):
        raise TypeError(f"{vocab_name}: expected a Vocab, got {type(vocab).__name__}")
    if size not in (None, len(vocab)):
        raise ValueError(f"{name}: expected {len(vocab)}, as many as {vocab_name} has, got {size!r}")
    return len(vocab)


def _encode_texts(name: str, texts: Any, vocab: Vocab) -> list[Array]:
    if isinstance(texts, str | bytes) or not isinstance(texts, Sequence | np.ndarray):
        raise TypeError(f"{name}: expected a list of strings, got {type(texts).__name__}")
    if not len(texts):
        raise ValueError(f"{name}: expected at least one string, got none")
    encoded: list[Array] = []
    for i, text in enumerate(texts):
        try:
            encoded.append(vocab.encode(text))
        except (TypeError, VocabError) as error:
            raise type(error)(f"{name}[{i}]{str(error).removeprefix('text')}") from None
    return encoded


def _check_ids(name: str, value: Any, limit: int) -> Array:
    """Ids (M,), perhaps none."""
    ids = array_of(name, value)
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise ValueError(f"{name}: expected integer ids (M,), got {ids.dtype} of shape {ids.shape}")
    if ids.size and (ids.min() < 0 or ids.max() >= limit):
        raise ValueError(f"{name}: expected ids from 0 to {limit - 1}, got {ids.min()} to {ids.max()}")
    return ids.astype(np.int32)
