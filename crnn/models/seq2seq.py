# SPDX-License-Identifier: MIT
"""SequenceToSequence: an encoder reads a sequence, a decoder that starts from its last state writes another.

    x_1 .. x_T --encoder--> state --decoder, fed with mark, y_1 .. y_M--> head --> y_1 .. y_M, mark
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike

from crnn import _parallel as parallel
from crnn._core import loss as kernels
from crnn._options import takes_options
from crnn.checks import Array, check_flag, check_size, check_threads
from crnn.models.data import Batch, SequenceData, by_length, check_sequences, encode_texts
from crnn.models.decoding import Hypothesis, Steps, beam_search, greedy
from crnn.models.head import Head, HeadTape
from crnn.models.losses import CrossEntropy
from crnn.models.metrics import SequenceEvaluation
from crnn.models.predictor import Predictor, Workspace
from crnn.models.sequence_model import SCALE_TYPES, SequenceModel, head_shapes
from crnn.models.standardizer import Standardizer
from crnn.models.targets import TokenTargets
from crnn.nn.config import NetworkConfig, NetworkOptions, config_from, network_json_types
from crnn.nn.dropout import Masks
from crnn.nn.init import UNINITIALISED, initial_matrix, uniform_draws
from crnn.nn.network import RNN
from crnn.nn.params import Parameters, Shapes
from crnn.nn.state import State
from crnn.nn.tape import Tape
from crnn.stream import StreamWeights
from crnn.stream.parts import StreamParts
from crnn.text.vocab import Vocab
from crnn.text.windows import IGNORE_INDEX

NOTHING = np.zeros(1, np.int32)  # in place of a target, where there is none
OWN_TYPES = {  # options that the model adds, with the types a file may hold
    "output_size": (int,),
    "real_source": (bool,),
    "reverse_source": (bool,),
    "label_smoothing": (float, int),
    "longest_target": (int, type(None)),
}


def _optional_vocab(data: object) -> Vocab | None:
    return None if data is None else Vocab.from_dict(data)


class SequenceToSequence(
    SequenceModel[SequenceEvaluation],
    kind="SequenceToSequence",
    config_types=network_json_types("trainable_initial_state") | SCALE_TYPES | OWN_TYPES,
    attachments={"source_vocab": _optional_vocab, "target_vocab": _optional_vocab},
):
    """Writes a sequence for every sequence it reads. Sutskever, Vinyals, Le 2014; Cho et al. 2014.

    Conventions
    -----------
    X is a list of N sequences: strings, with a ``source_vocab``; otherwise ids (T_i,) from 0 to input_size-1, or with
    ``real_source`` numbers (T_i, D), standardised as those of `SequenceClassifier` are. y is a list of N strings, with
    a ``target_vocab``, or of ids (M_i,) from 0 to output_size-1; they may be empty. Equally long ones may be one array.

    The decoder has one more token, ``output_size``, which starts and ends a sequence: it is the decoder's first input
    and its last output. So the head has output_size + 1 outputs. In training the decoder reads the right tokens,
    whatever it would have written (teacher forcing). Losses are in nats, of every token and of the one that ends the
    sequence.

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
    input_init : str, optional
        As in `RNN`; unless given, glorot, and unit_variance for the rows of W_xh that one-hot ids select.
    label_smoothing : float
        Share of a target that is spread over all tokens, in evaluation too. Szegedy et al. 2016.
    scale : bool
        Standardise real inputs by the training data.
    longest_target : int, optional
        Tokens of the longest target so far: kept by `fit`, used by `predict`.
    seed : int
        As in `RNN`.
    trainable_initial_state : bool
        False: the decoder starts from the encoder's last state.
    {options}

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

    _targets: TokenTargets

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
        reverse_source: bool = False,
        label_smoothing: float = 0.0,
        scale: bool = True,
        longest_target: int | None = None,
        seed: int = 0,
        **options: Unpack[NetworkOptions],
    ) -> None:
        self.source_vocab, self.target_vocab = source_vocab, target_vocab
        self.input_size = _size_of("input_size", input_size, "source_vocab", source_vocab)
        self.output_size = _size_of("output_size", output_size, "target_vocab", target_vocab)
        self.real_source = check_flag("real_source", real_source)
        if real_source and source_vocab is not None:
            raise ValueError("real_source: expected False with a source_vocab, got True")
        self.reverse_source, self.scale = check_flag("reverse_source", reverse_source), check_flag("scale", scale)
        self.longest_target = None if longest_target is None else check_size("longest_target", longest_target)
        self.label_smoothing, self.seed = label_smoothing, 0 if seed is UNINITIALISED else seed
        self.pooling = self.steps = None
        self.input_init = options.get("input_init")
        named = {"input_size": self.input_size, "hidden_size": hidden_size, "num_layers": num_layers, "cell": cell}
        both = config_from({"input_init": None} | named | options, type(self).__name__)
        if both.trainable_initial_state:
            raise ValueError("trainable_initial_state: expected False for a SequenceToSequence, got True")
        encoder, decoder = stacks(both, self.output_size, self.real_source)
        loss = CrossEntropy(self.output_size + 1, smoothing=label_smoothing)
        self._targets = TokenTargets(self.output_size, target_vocab)
        self._parameters = Parameters(stack_shapes(encoder, decoder), both.dtype)
        self.net = self._network("decoder.", decoder, seed if seed is UNINITIALISED else seed + 2)
        self.encoder = self._network("encoder.", encoder, seed)
        self._head = Head(self.params, self.grads, loss)
        self._predictor = Predictor(self.net, self._head)
        if seed is not UNINITIALISED:
            draw = uniform_draws(seed + 1)
            if self.input_init is None and both.embedding_size is None:
                for net in self.networks[self.real_source :]:
                    net.initialise_rows(draw)
            weights = self.params["W_hy"]
            weights[...] = initial_matrix("glorot", draw, weights.shape, "W_hy")
        self.scalings = {name: Standardizer(size) for name, size in self.scaled_sizes(self.config()).items()}

    def _network(self, prefix: str, config: NetworkConfig, seed: int) -> RNN:
        return RNN.from_parameters(self._parameters.part(prefix, config.shapes()), config, seed)

    @staticmethod
    def outputs_of(config: Mapping[str, Any]) -> int:
        return int(config["output_size"]) + 1

    @classmethod
    def shapes_of(cls, config: Mapping[str, Any], **attached: Any) -> Shapes:
        return stack_shapes(*stacks(config_from(config), config["output_size"], config["real_source"]))

    @classmethod
    def scaled_sizes(cls, config: Mapping[str, Any]) -> dict[str, int]:
        return {"x": config["input_size"]} if config["real_source"] else {}

    def config(self) -> dict[str, Any]:
        of_encoder = self.encoder.config() | {"embedding_size": self.decoder.embedding_size}
        return {name: of_encoder.get(name, getattr(self, name, None)) for name in self.config_types}

    @property
    def decoder(self) -> RNN:
        """The network that writes."""
        return self.net

    @property
    def networks(self) -> list[RNN]:
        return [self.encoder, self.decoder]

    @property
    def _mark(self) -> int:
        """The token that starts and ends a written sequence."""
        return self.output_size

    def __repr__(self) -> str:
        return (
            f"SequenceToSequence({self.encoder.describe()}, output_size={self.output_size}, "
            f"{self.flat_params.size:,} parameters, dtype={self.dtype!r})"
        )

    def _stream_parts(self) -> StreamParts:
        raise ValueError(
            "stream: expected a model with an output at every step, got a SequenceToSequence, which reads the whole "
            "source first; its decoder, model.net, has streams"
        )

    # ---- data -----------------------------------------------------------------------------------------------------

    def _sequences(self, name: str, X: Any) -> list[Array]:
        if self.source_vocab is not None:
            x = encode_texts(name, X, self.source_vocab)
            empty = next((i for i, ids in enumerate(x) if not len(ids)), None)
            if empty is not None:
                raise ValueError(f"{name}[{empty}]: expected at least one token, got {X[empty]!r}")
        else:
            x = check_sequences(name, X, self.input_size, ids=not self.real_source, real=self.real_source)
        return [np.ascontiguousarray(sequence[::-1]) for sequence in x] if self.reverse_source else x

    def _learn_scaling(self, x: list[Array], y: list[Array]) -> None:
        """And how long targets are."""
        super()._learn_scaling(x, y)
        self.longest_target = max(self.longest_target or 1, *(len(ids) - 1 for ids in y))

    def _check_targets(self, targets: ArrayLike, batch: Batch) -> Array:
        array = np.asarray(targets)
        wanted = self._head.loss.check("y", array, max(len(array), 1), batch.x.shape[1], self.dtype)
        there = wanted != IGNORE_INDEX
        if not there[0].all() or (there[1:] > there[:-1]).any():
            raise ValueError(f"y: expected at least one token of each sequence, and {IGNORE_INDEX} only after its last")
        return wanted

    def _target_lengths(self, targets: Array, lengths: ArrayLike | None) -> Array | None:
        counts = np.count_nonzero(targets != IGNORE_INDEX, axis=0)
        return None if (counts == len(targets)).all() else counts.astype(np.int32)

    # ---- one batch ------------------------------------------------------------------------------------------------

    def _decoder_start(self, after: State) -> State:
        """The decoder's first state: the encoder's last one, its directions side by side."""
        before, D = self.decoder.stack.new_state(after.batch), self.encoder.directions
        for (_, own), (_, theirs) in zip(before.parts, after.parts, strict=True):
            for layer, array in enumerate(own):
                np.concatenate(theirs[layer * D : (layer + 1) * D], axis=1, out=array)
        return before

    def _encoder_gradient(self, dbefore: State) -> State:
        """The gradient at the encoder's last state."""
        dafter, D = self.encoder.stack.new_state(dbefore.batch), self.encoder.directions
        for (_, own), (_, theirs) in zip(dafter.parts, dbefore.parts, strict=True):
            for place, array in enumerate(own):
                H = array.shape[1]
                array[...] = theirs[place // D][:, place % D * H : (place % D + 1) * H]
        return dafter

    def _pass(self, x: Array, targets: Array, space: Workspace, **options: Any) -> tuple[list[Tape], HeadTape]:
        seed, scale, threads = options.get("dropout_seed"), options.get("scale"), options.get("threads", 1)
        masks = None
        if seed is not None:  # other masks than the decoder's
            masks = Masks([*(seed if isinstance(seed, list) else [seed]), 1])
        state, lengths, keep = options.pop("state", None), options.pop("lengths", None), options.get("keep", True)
        encoder = self.encoder.run_forward(x, state, lengths, threads, space.encoder, masks, keep=keep)
        space.encoder = encoder
        inputs = np.concatenate([np.full((1, targets.shape[1]), self._mark, np.int32), targets[:-1]])
        inputs[inputs == IGNORE_INDEX] = self._mark  # beyond a sequence's end, where nothing is computed
        tape, head = self._predictor.window(
            self.decoder.stack.check_input(inputs),
            targets,
            space,
            state=self._decoder_start(encoder.after).value,
            lengths=self._target_lengths(targets, None),
            **options,
        )
        if scale is not None and tape.dbefore is not None:
            self.encoder.backward(encoder, None, self._encoder_gradient(tape.dbefore).value, threads=threads)
        return [encoder, tape], head

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
        data = X if isinstance(X, SequenceData) else self.data(X, y)
        totals = np.zeros(len(data))
        likeliest: list[Array] = [data.x[0]] * len(data)
        for chosen, batch, targets in by_length(data, check_size("batch_size", batch_size)):
            wanted = self._check_targets(targets, batch)
            _, head = self._pass(batch.x, wanted, Workspace(), lengths=batch.lengths, threads=threads, keep=False)
            tokens = head.outputs.argmax(axis=2)
            for b, i in enumerate(chosen):
                count = len(data.targets[i])
                totals[i] = kernels.sum(head.losses[:count, b].copy())
                likeliest[i] = tokens[:count, b]
        # fsum rounds once, so the sum is the same in every order
        count = sum(len(wanted) for wanted in data.targets)
        return self._targets.evaluation(math.fsum(totals), count, likeliest, data.targets)

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
        hypotheses = [Hypothesis([], 0.0)] * len(x)
        weights = StreamWeights(self._predictor.stream_parts(type(self).__name__, ids_only=True))
        for chosen, batch, _ in by_length(data, check_size("batch_size", batch_size)):
            source = self.encoder.run_forward(batch.x, None, batch.lengths, threads, None, None, keep=False)
            start = self._decoder_start(source.after)
            parts = min(threads, len(chosen))

            def decode(part: int, chosen: Array = chosen, start: State = start, parts: int = parts) -> None:
                first, last = parallel.part_range(len(chosen), part, parts)
                rows = start.rows(first, last)
                best = greedy(Steps(weights, rows, last - first, self._mark), max_length, scored=scores or beam > 1)
                if beam > 1:
                    found = beam_search(Steps(weights, rows, last - first, self._mark), max_length, beam)
                    best = [max(pair, key=lambda each: each.score) for pair in zip(best, found, strict=True)]
                for i, each in zip(chosen[first:last], best, strict=True):
                    hypotheses[i] = each

            parallel.run(parts, decode)
        answers = [self._targets.decode(each.tokens) for each in hypotheses]
        return (answers, np.array([each.score for each in hypotheses])) if scores else answers


takes_options(NetworkConfig)(SequenceToSequence)


def stacks(both: NetworkConfig, output_size: int, real_source: bool) -> tuple[NetworkConfig, NetworkConfig]:
    """The configurations of encoder and decoder, from the options that they share."""
    options = both.to_dict() | {"num_layers": None, "hidden_size": list(both.hidden_sizes)}
    encoder = options | {"embedding_size": None if real_source else both.embedding_size}
    sizes = [H * both.directions for H in both.hidden_sizes]
    decoder = options | {"input_size": output_size + 1, "hidden_size": sizes, "bidirectional": False}
    return NetworkConfig(**encoder), NetworkConfig(**decoder)


def stack_shapes(encoder: NetworkConfig, decoder: NetworkConfig) -> Shapes:
    """Names and shapes of the parameters: the encoder's, the decoder's, then the head's."""
    shapes = {prefix + name: shape for prefix, config in (("encoder.", encoder), ("decoder.", decoder))
              for name, shape in config.shapes().items()}  # fmt: skip
    return shapes | head_shapes(decoder, None, decoder.input_size)


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
