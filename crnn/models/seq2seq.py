# SPDX-License-Identifier: MIT
"""SequenceToSequence: an encoder reads a source sequence, a decoder predicts a target sequence from its last state."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, ClassVar, Unpack

import numpy as np
from numpy.typing import ArrayLike

from crnn import _parallel as parallel
from crnn._core import loss as kernels
from crnn._options import takes_options
from crnn.checks import Array, check_flag, check_number, check_seed, check_size, check_threads
from crnn.models.fitting.built import Built, head_shapes
from crnn.models.fitting.estimator import ESTIMATING, ModelOptions
from crnn.models.fitting.training_data import Part
from crnn.models.fitting.weighting import of_rows
from crnn.models.inputs.data import Batch, SequenceData, by_length, check_sequences, sequences_of
from crnn.models.inputs.scalings import Scalings
from crnn.models.inputs.standardizer import Standardizer
from crnn.models.inputs.text_inputs import encode_inputs, optional_vocab, size_of
from crnn.models.observations import SEQUENCES
from crnn.models.outputs.decoding import Hypothesis, decode
from crnn.models.outputs.head import Head
from crnn.models.outputs.losses import CrossEntropy
from crnn.models.outputs.metrics import SequenceEvaluation
from crnn.models.outputs.targets import TokenTargets
from crnn.models.passes.encoder_decoder import EncoderDecoder
from crnn.models.passes.evaluating import JudgedTokens
from crnn.models.passes.predictor import Workspace
from crnn.models.passes.window_options import WindowOptions
from crnn.models.sequence_model import SCALE_TYPES, SequenceModel
from crnn.nn.config import NetworkConfig, config_from, network_json_types
from crnn.nn.init import UNINITIALISED, uniform_draws
from crnn.nn.learning.config import LearnerConfig
from crnn.nn.module import JsonTypes
from crnn.nn.network import RNN
from crnn.nn.params import Parameters, Shapes
from crnn.nn.precision import Precision, part_of
from crnn.nn.state import State
from crnn.stream import StreamWeights
from crnn.stream.parts import StreamParts
from crnn.text.vocab import Vocab
from crnn.text.windows import IGNORE_INDEX

NO_TARGET = np.zeros(1, np.int32)  # placeholder in data without targets
OWN_TYPES: JsonTypes = {  # the options that the model adds, with the types that a file may hold
    "output_size": (int,),
    "real_source": (bool,),
    "reverse_source": (bool,),
    "label_smoothing": (float, int),
    "longest_target": (int, type(None)),
}


class SequenceToSequence(
    SequenceModel[SequenceEvaluation],
    kind="SequenceToSequence",
    config_types={**network_json_types("trainable_initial_state"), **SCALE_TYPES, **OWN_TYPES},
    attachments={"source_vocab": optional_vocab, "target_vocab": optional_vocab},
):
    """Predicts a target sequence for every source sequence. Sutskever, Vinyals, Le 2014; Cho et al. 2014.

    Conventions
    -----------
    X is a list of N source sequences: strings, with a ``source_vocab``; otherwise ids (T_i,) in 0 .. input_size-1, or
    with ``real_source`` real (T_i, D), standardised by the training data. y is a list of N target sequences: strings,
    with a ``target_vocab``; otherwise ids (M_i,) in 0 .. output_size-1. Targets may be empty. Sequences of the same
    length may be one array.

    The decoder has an additional token with the id ``output_size``, which starts and ends every target: it is the
    decoder's first input and its last output. The head has V = output_size + 1 outputs. In training and evaluation the
    decoder reads the true tokens, whatever it predicts (teacher forcing). Losses are in nats, and include that of the
    token which ends the sequence.

    Parameters are those of two `RNN`, ``encoder.layer0.W_xh``, ``decoder.layer0.W_xh`` and so on, and those of the
    head, ``W_hy`` and ``b_y``, in one flat buffer. Results do not depend on the number of threads, or on the batch that
    a sequence is in.

    Parameters
    ----------
    input_size : int, optional
        Number of source ids, or D; may be left out with a ``source_vocab``.
    output_size : int, optional
        Number of target ids; may be left out with a ``target_vocab``.
    hidden_size, num_layers, cell
        As in `RNN`, for the encoder, and for the decoder if the encoder is not bidirectional.
    source_vocab, target_vocab : Vocab, optional
    real_source : bool
        The sources are real.
    bidirectional : bool
        The encoder reads in both directions. A layer of the decoder then has as many units as both directions of the
        encoder's layer, and starts from their last states, concatenated.
    embedding_size : int, optional
        Size of the embeddings of source and target ids. If not given, ids are one-hot vectors.
    reverse_source : bool
        The encoder reads the source in reverse order, which brings its beginning close to that of the target.
    input_init : str, optional
        As in `RNN`. If not given: unit_variance for the rows of W_xh that one-hot ids select, glorot for the others.
    label_smoothing : float
        Fraction of the target probability that is spread evenly over all tokens, in evaluation too.
        Szegedy et al. 2016.
    scale : bool
        Standardise real inputs by the training data.
    longest_target : int, optional
        Number of tokens of the longest training target, which limits the length of predictions. Updated by `fit`.
    seed : int
        As in `RNN`.
    trainable_initial_state : bool
        Must be False: the decoder starts from the encoder's last state.
    {options}

    Examples
    --------
    >>> import numpy as np, crnn
    >>> numbers = [str(n) for n in np.random.default_rng(0).permutation(1000)]
    >>> backwards = [number[::-1] for number in numbers]
    >>> digits = crnn.Vocab.from_text("0123456789")
    >>> model = crnn.SequenceToSequence(hidden_size=32, source_vocab=digits, target_vocab=digits, cell="gru", seed=0)
    >>> model.fit(numbers[:800], backwards[:800]).evaluate(numbers[800:], backwards[800:]).exact_match > 0.9
    True
    >>> model.predict(["271", "90"])
    ['172', '09']
    """

    observed = SEQUENCES
    learnt_names: ClassVar[tuple[str, ...]] = ("longest_target",)
    takes_masks: ClassVar[bool] = False
    source_vocab: Vocab | None
    target_vocab: Vocab | None
    input_size: int
    output_size: int
    encoder: RNN
    net: RNN  # the decoder
    real_source: bool
    reverse_source: bool
    scale: bool
    longest_target: int | None
    label_smoothing: float
    seed: int
    pooling: str | None  # always None
    steps: int | None  # always None
    input_init: str | None
    _precision: Precision  # of all; the networks have their parts of it
    scalings: Scalings
    _targets: TokenTargets
    _predictor: EncoderDecoder

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
        **options: Unpack[ModelOptions],
    ) -> None:
        self._begin(locals())

    @classmethod
    def _missing(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return {}  # the data decide nothing

    def _build(self, arguments: Mapping[str, Any]) -> Built:
        vocabs = {name: arguments[name] for name in ("source_vocab", "target_vocab")}
        longest, seed = arguments["longest_target"], arguments["seed"]
        built = Built(
            **vocabs,
            input_size=size_of("input_size", arguments["input_size"], "source_vocab", vocabs["source_vocab"]),
            output_size=size_of("output_size", arguments["output_size"], "target_vocab", vocabs["target_vocab"]),
            longest_target=None if longest is None else check_size("longest_target", longest),
            label_smoothing=check_number("label_smoothing", arguments["label_smoothing"], 0.0, 1.0),
            seed=0 if seed is UNINITIALISED else check_seed("seed", seed),
            input_init=arguments["input_init"],
            pooling=None,
            steps=None,
            **{name: check_flag(name, arguments[name]) for name in ("real_source", "reverse_source", "scale")},
        )
        if built.real_source and built.source_vocab is not None:
            raise ValueError("real_source: expected False with a source_vocab, got True")
        shared = config_from(arguments, input_size=built.input_size)
        if shared.trainable_initial_state:
            raise ValueError("trainable_initial_state: expected False for a SequenceToSequence, got True")
        _compose_networks(built, shared, initialised=seed is not UNINITIALISED)
        return built

    @staticmethod
    def outputs_of(config: Mapping[str, Any]) -> int:
        return int(config["output_size"]) + 1

    @classmethod
    def shapes_of(cls, config: Mapping[str, Any], **attached: Any) -> Shapes:
        return model_shapes(*network_configs(config_from(config), config["output_size"], config["real_source"]))

    @classmethod
    def scaled_sizes(cls, config: Mapping[str, Any]) -> dict[str, int]:
        return {"x": config["input_size"]} if config["real_source"] else {}

    def config(self) -> dict[str, Any]:
        network = self.encoder.config() | {"embedding_size": self.decoder.embedding_size}
        network["precision"] = copy(self._precision)
        return {name: network.get(name, getattr(self, name, None)) for name in self.config_types}

    @property
    def n_features_in_(self) -> int:
        return self.input_size

    @property
    def decoder(self) -> RNN:
        """The network that predicts the target; the same as ``net``."""
        return self.net

    def __repr__(self) -> str:
        return (
            f"SequenceToSequence({self.encoder.describe()}, output_size={self.output_size}, "
            f"{self.num_parameters:,} parameters, dtype={self.dtype!r})"
        )

    def _stream_parts(self) -> StreamParts:
        raise ValueError(
            "stream: expected a model with an output at every step, got a SequenceToSequence, which reads the whole "
            "source first; its decoder, model.net, has streams"
        )

    def _new_learner(self, config: LearnerConfig) -> Any:
        raise ValueError(
            "learner: expected a model with an output at every step, got a SequenceToSequence, which reads the whole "
            "source first"
        )

    # ---- data -----------------------------------------------------------------------------------------------------

    def _sequences(self, name: str, X: Any) -> list[Array]:
        if self.source_vocab is not None:
            x = encode_inputs(name, X, self.source_vocab)
        else:
            x = check_sequences(name, X, self.input_size, ids=not self.real_source, real=self.real_source)
        return [np.ascontiguousarray(sequence[::-1]) for sequence in x] if self.reverse_source else x

    @property
    def weighs_steps(self) -> bool:
        return False

    def _prepare_targets(self, part: Part) -> None:
        self._set_learnt({"longest_target": max(self.longest_target or 1, *(len(ids) - 1 for ids in part.targets))})

    def _check_targets(self, targets: ArrayLike, batch: Batch) -> Array:
        array, lengths = np.asarray(targets), batch.target_lengths
        shape = (max(len(array), 1), batch.size) if lengths is None else (1, lengths.rows)
        wanted = self._head.loss.check("y", array, *shape, self.dtype)
        if (wanted == IGNORE_INDEX).any():
            raise ValueError(f"y: expected tokens, got {IGNORE_INDEX}; the batch has the numbers of tokens")
        return wanted

    # ---- evaluation and prediction --------------------------------------------------------------------------------

    def evaluate(
        self, X: Any, y: Any = None, *, mask: Any = None, batch_size: int = 256, threads: int = 1
    ) -> SequenceEvaluation:
        """Evaluate the predictions for X against y.

        Parameters
        ----------
        X, y, batch_size, threads
            As in `SequenceModel.evaluate`.
        mask : None

        Returns
        -------
        SequenceEvaluation
            Per target token, given the true tokens before it; the ends of sequences count as tokens. ``exact_match`` is
            the fraction of the sequences that `predict` reproduces exactly.
        """
        data = X if isinstance(X, SequenceData) else self.data(X, y, mask=mask)
        totals, predicted = self._read(data, batch_size, threads)
        # fsum rounds once, so the sum does not depend on the order.
        count = sum(len(wanted) for wanted in data.targets)
        if data.weights is not None:
            totals *= np.array([weights[0] for weights in data.weights])
        judged = JudgedTokens(predicted, math.fsum(totals), count)
        return self._targets.evaluation(judged, data.targets, data.weights)

    def _calibration_outputs(self, inputs: Any) -> list[Array]:
        """Logits of the targets given the true tokens before them, for inputs (X, y)."""
        if not isinstance(inputs, tuple) or len(inputs) != 2:
            raise TypeError(f"calibration: expected (X, y), got {type(inputs).__name__}")
        data = self.data(*inputs)
        outputs = []
        for chosen in by_length(data.lengths, 256):
            batch, targets = data.batch(chosen)
            _, head = self._predictor.window(
                batch.x,
                self._check_targets(targets, batch),
                Workspace(),
                WindowOptions(lengths=batch.lengths, target_lengths=batch.target_lengths, keep=False),
            )
            outputs.append(head.outputs)
        return outputs

    def _read(self, data: SequenceData, batch_size: int, threads: int) -> tuple[Array, list[Array]]:
        """The sum of the losses (N,) of each target, and the tokens that are predicted given the true ones before."""
        threads = check_threads(threads)
        totals = np.zeros(len(data))
        predicted: list[Array] = [data.x[0]] * len(data)
        for chosen in by_length(data.lengths, check_size("batch_size", batch_size)):
            batch, targets = data.batch(chosen)
            wanted = self._check_targets(targets, batch)
            options = WindowOptions(
                lengths=batch.lengths,
                target_lengths=batch.target_lengths,
                threads=threads,
                keep=False,
                predictions=True,
            )
            _, head = self._predictor.window(batch.x, wanted, Workspace(), options)
            assert head.predictions is not None
            tokens = sequences_of(head.predictions, batch.target_lengths)
            losses = sequences_of(head.losses, batch.target_lengths)
            for i, of_sequence, best in zip(chosen, losses, tokens, strict=True):
                totals[i] = kernels.sum(of_sequence)
                predicted[i] = best
        return totals, predicted

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The fraction of the sequences that `predict` reproduces exactly.

        Parameters
        ----------
        X : sequences, see the class
        y : targets, see the class
        sample_weight : array (N,), optional
            Weights of the sequences.

        Raises
        ------
        TypeError, ValueError
            An argument is wrong.
        """
        data = self.data(X, y)
        weights = None
        if sample_weight is not None:
            weights = [rows[0] for rows in of_rows(sample_weight, data.targets, by_step=False)]
        _, predicted = self._read(data, 256, 1)
        exact = np.array([np.array_equal(*pair) for pair in zip(predicted, data.targets, strict=True)])
        return float(np.average(exact, weights=weights))

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
        """Predict the target sequence of each source sequence.

        Parameters
        ----------
        X : sequences, see the class
        max_length : int, optional
            Largest number of tokens of a prediction; if not given, twice that of the longest training target.
        beam : int
            1: greedy decoding, which chooses the most probable token at every step. More: beam search with this many
            hypotheses. The result is the hypothesis with the highest score, that of greedy decoding included, so beam
            search never gives a lower score than greedy decoding.
        scores : bool
            Return the scores as well.
        batch_size : int
            Sequences that are decoded at a time; does not change the result.
        threads : int

        Returns
        -------
        sequences : list of N strings, or of N int32 arrays (M_i,)
            Strings with a ``target_vocab``.
        scores : float64 array (N,), only with ``scores=True``
            Mean log-probability in nats per token, the end of the sequence included. The mean does not favour short
            sequences as the sum would.

        Raises
        ------
        ValueError
            ``max_length`` is not given for an untrained model, or an argument is wrong.
        """
        threads, beam = check_threads(threads), check_size("beam", beam)
        if max_length is None:
            if self.longest_target is None:
                raise ValueError("max_length: expected an integer of at least 1 for an untrained model, got None")
            max_length = 2 * self.longest_target
        check_size("max_length", max_length)
        x = self._sequences("X", self._named("X", X))
        data = self._data(x, [NO_TARGET] * len(x))
        hypotheses = self._decoded(data, max_length, beam, scores, batch_size, threads)
        sequences = [self._targets.decode(hypothesis.tokens) for hypothesis in hypotheses]
        return (sequences, np.array([hypothesis.score for hypothesis in hypotheses])) if scores else sequences

    def _decoded(
        self,
        data: SequenceData,
        max_length: int,
        beam: int = 1,
        scores: bool = False,
        batch_size: int = 256,
        threads: int = 1,
    ) -> list[Hypothesis]:
        """The decoded target of each sequence of some data; arguments as in `predict`."""
        hypotheses = [Hypothesis([], 0.0)] * len(data)
        weights = StreamWeights(self._predictor.stream_parts(type(self).__name__, ids_only=True))
        for chosen in by_length(data.lengths, check_size("batch_size", batch_size)):
            batch = data.inputs(chosen)
            start = self._predictor.decoder_start(self.encoder.last_state(batch.x, batch.lengths, threads))
            parts = min(threads, len(chosen))

            def decode_part(part: int, chosen: Array = chosen, start: State = start, parts: int = parts) -> None:
                first, last = parallel.part_range(len(chosen), part, parts)
                rows = start.rows(first, last)
                decoded = decode(weights, rows, last - first, self.output_size, max_length, beam, scored=scores)
                for i, hypothesis in zip(chosen[first:last], decoded, strict=True):
                    hypotheses[i] = hypothesis

            parallel.run(parts, decode_part)
        return hypotheses


takes_options(NetworkConfig, ESTIMATING, defaults={"input_init": None})(SequenceToSequence)


def _compose_networks(built: Built, shared: NetworkConfig, *, initialised: bool) -> None:
    """Add encoder, decoder and head to a model. ``shared``: the options of both networks."""
    shared.check_dropouts(ids_only=True)  # the decoder's are
    built._precision = shared.precision
    encoder, decoder = network_configs(shared, built.output_size, built.real_source)
    loss = CrossEntropy(built.output_size + 1, smoothing=built.label_smoothing)
    built._targets = TokenTargets(built.output_size, built.target_vocab)
    built._parameters = Parameters(model_shapes(encoder, decoder), shared.dtype)

    def network(prefix: str, config: NetworkConfig, seed: int) -> RNN:
        """A network on the parameters whose names begin with ``prefix``."""
        parameters = built._parameters.part(prefix, config.shapes())
        return RNN.from_parameters(parameters, config, seed if initialised else UNINITIALISED)

    built.net = network("decoder.", decoder, built.seed + 2)
    built.encoder = network("encoder.", encoder, built.seed)
    params = built._parameters.values
    built._head = Head(built._parameters.read_only(), built._parameters.grads, loss, precision=shared.precision)
    built._predictor = EncoderDecoder(built.encoder, built.net, built._head, boundary=built.output_size)
    if initialised:
        draw = uniform_draws(built.seed + 1)
        if built.input_init is None and shared.embedding_size is None:
            for net in [built.net] if built.real_source else [built.encoder, built.net]:
                net.initial_weights.draw_rows(draw)
        built.net.initial_weights.draw_head(params, draw)
        built._parameters.settle(shared.precision)
    built.scalings = Scalings({"x": Standardizer(built.input_size)} if built.real_source else {})


def network_configs(
    shared: NetworkConfig, output_size: int, real_source: bool
) -> tuple[NetworkConfig, NetworkConfig]:
    """The configurations of encoder and decoder, from the options that they share."""
    options = shared.to_dict() | {"num_layers": None, "hidden_size": list(shared.hidden_sizes)}
    encoder = options | ({"embedding_size": None, "embedding_dropout": 0.0} if real_source else {})
    sizes = [H * shared.directions for H in shared.hidden_sizes]
    decoder = options | {"input_size": output_size + 1, "hidden_size": sizes, "bidirectional": False}
    if isinstance(shared.precision, dict):
        encoder["precision"] = part_of(shared.precision, "encoder.")
        decoder["precision"] = part_of(shared.precision, "decoder.")
    return NetworkConfig(**encoder), NetworkConfig(**decoder)


def model_shapes(encoder: NetworkConfig, decoder: NetworkConfig) -> Shapes:
    """Names and shapes of the parameters: the encoder's, the decoder's, then the head's."""
    shapes = {"encoder." + name: shape for name, shape in encoder.shapes().items()}
    shapes |= {"decoder." + name: shape for name, shape in decoder.shapes().items()}
    return shapes | head_shapes(decoder, None, decoder.input_size)
