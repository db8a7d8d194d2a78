# SPDX-License-Identifier: MIT
"""LanguageModel: a network on token ids with a softmax head, and the vocabulary of the tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self, Unpack

from numpy.typing import ArrayLike

from crnn._options import options_of, takes_options
from crnn.array_input import ids_1d
from crnn.checks import Array, check_flag
from crnn.models.extending import check_larger, check_same_ids, copy_known_tokens
from crnn.models.fitting.starting_weights import Snapshot, StartingPoint, run_fit
from crnn.models.language.generating import GeneratingModel
from crnn.models.language.network import (
    DrawnModel,
    allocated,
    checked_cutoffs,
    initialise,
    model_shapes,
    network_of,
    with_embedding,
)
from crnn.models.language.options import LANGUAGE_TYPES, LanguageConfig, LanguageOptions, split_options
from crnn.models.language.passes import TextPasses
from crnn.models.language.scores import evaluated, ids_of, scores_of, surprisals_of
from crnn.models.learners.text import TextLearner
from crnn.models.observations import TEXTS
from crnn.models.outputs.adaptive import AdaptiveHead
from crnn.models.outputs.clusters import check_cutoffs
from crnn.models.outputs.head import Head
from crnn.models.outputs.losses import CrossEntropy
from crnn.models.outputs.metrics import Evaluation
from crnn.models.passes.predictor import Predictor
from crnn.nn.config import NetworkConfig, config_from, network_json_types
from crnn.nn.init import UNINITIALISED
from crnn.nn.learning.config import LearnerConfig
from crnn.nn.module import Module
from crnn.nn.network import RNN
from crnn.nn.params import Shapes
from crnn.stream.parts import StreamParts
from crnn.stream.text_stream import TextStream
from crnn.text.vocab import Vocab
from crnn.text.windows import BPTTWindows, contiguous_batches
from crnn.training.communicator import on_all_ranks
from crnn.training.config import TrainingConfig, TrainingOptions
from crnn.training.fit import fit_in_training
from crnn.training.log import TrainingLog

CONFIG_TYPES = network_json_types("input_size")  # which is the vocabulary's
CONFIG_TYPES |= LANGUAGE_TYPES | {"tie_weights": (bool,), "adaptive_softmax": (type(None), list)}

# `quantize` compares this many logits of a text, but at least so many rows of them, in so many pieces.
CALIBRATION_LOGITS, CALIBRATION_ROWS, CALIBRATION_PIECES = 1 << 22, 256, 16


class LanguageModel(
    GeneratingModel,
    TextPasses,
    Module,
    kind="LanguageModel",
    config_types=CONFIG_TYPES,
    attachments={"vocab": Vocab.from_dict},
):
    """Predicts the next token of a text from all previous tokens.

    Conventions
    -----------
    T is the number of steps of a window, B of streams that are read in parallel, V is len(vocab). ids and targets are
    integer arrays (T, B), time-major: targets[t, b] is the token after ids[t, b], or `IGNORE_INDEX` (-1) = missing,
    ignored by the loss. state is as in `RNN`. Losses are in nats. Parameters are those of `RNN`, ``W_hy`` (H, V) and
    ``b_y`` (V,), in one flat buffer.

    Parameters
    ----------
    vocab : Vocab
    cell, hidden_size, num_layers
        As in `RNN`.
    tie_weights : bool
        W_hy is the transpose of the embedding, whose size must be that of the top layer, and is if not given. Press,
        Wolf 2017.
    adaptive_softmax : list of int or True, optional
        Cutoffs c_1 < c_2 < ... < V: the c_1 most frequent tokens are scored as always, those of each range between two
        cutoffs only where one of them is the target, through a smaller projection of h. Trains a model of many words in
        a fraction of the time; evaluation is exact. True: cutoffs by a rule of thumb. Needs a vocabulary by frequency,
        ``TextCorpus.from_file(..., order="frequency")``. See docs/text.md. Grave et al. 2016.
    seed : int
        Seed of the initial weights. The head's weights are initialised by the glorot rule, its biases are zero.
    input_init : str, optional
        As in `RNN`. If not given: unit_variance for the rows of W_xh that one-hot ids select, glorot for the others.
    bidirectional : bool
        Must be False: a language model predicts from previous tokens only.
    {options}

    Examples
    --------
    >>> import crnn
    >>> corpus = crnn.TextCorpus.from_text("to be or not to be, " * 200, valid=0.1, test=0.1)
    >>> model = crnn.LanguageModel(corpus.vocab, hidden_size=32, seed=1)
    >>> model.fit(corpus).evaluate(corpus.test).perplexity < 1.2
    True
    >>> model.generate("to be or", length=12, temperature=0)
    ' not to be, '
    """

    loss_unit: str = "nats"  # for `crnn.fit`
    observed = TEXTS
    vocab: Vocab
    tie_weights: bool
    adaptive_softmax: list[int] | None
    input_init: str | None
    _options: LanguageConfig
    net: RNN
    _log: TrainingLog | None = None
    _starting: StartingPoint = StartingPoint()
    _seed: int | None = None  # that the weights were drawn with
    _head: Head | AdaptiveHead
    _predictor: Predictor

    def __init__(
        self,
        vocab: Vocab,
        cell: str = "lstm",
        hidden_size: int | Sequence[int] = 256,
        num_layers: int | None = None,
        *,
        tie_weights: bool = False,
        adaptive_softmax: Sequence[int] | bool | None = None,
        seed: int = 0,
        **options: Unpack[LanguageOptions],
    ) -> None:
        if not isinstance(vocab, Vocab):
            hint = "; it has one: corpus.vocab" if hasattr(vocab, "vocab") else ""
            raise TypeError(f"vocab: expected a Vocab, got {type(vocab).__name__}{hint}")
        self.vocab = vocab
        self.tie_weights = check_flag("tie_weights", tie_weights)
        self.input_init = options.get("input_init")
        network = {"input_size": len(vocab), "hidden_size": hidden_size, "num_layers": num_layers, "cell": cell}
        self._options, of_network = split_options(options)
        config = network_of({"input_init": None, **of_network}, type(self).__name__, network, self.tie_weights)
        new = seed is not UNINITIALISED
        cutoffs = checked_cutoffs(adaptive_softmax, config, self.tie_weights, vocab, new=new)
        self.adaptive_softmax = cutoffs
        self._parameters = allocated(config, self.tie_weights, vocab, cutoffs)
        self.net = RNN.from_parameters(self._parameters.part("", config.shapes()), config, seed)
        smoothing, values = self._options.label_smoothing, self._parameters.read_only()
        if smoothing and cutoffs is not None:
            raise ValueError(
                "label_smoothing: expected 0 with adaptive_softmax, which would have to compute the scores of all "
                f"tokens at every step to smooth over them, got {smoothing}"
            )
        loss = CrossEntropy(len(vocab), smoothing=smoothing, smooths_gradients_only=smoothing > 0)
        if cutoffs is None:
            tied, precision = self.tie_weights, config.precision
            self._head = Head(values, self.grads, loss, tie_weights=tied, precision=precision)
        else:
            self._head = AdaptiveHead(values, self.grads, loss, cutoffs, config.precision)
        self._predictor = Predictor(self.net, self._head, self._options.penalty())
        if new:
            self._seed = seed
            initialise(self.net, self._parameters.values, self.tie_weights, self.input_init, seed)
            self._parameters.settle(config.precision)

    @classmethod
    def shapes_of(cls, config: Mapping[str, Any], **attached: Any) -> Shapes:
        """Names and shapes of the parameters of a model with this `config` and this ``vocab``."""
        if "vocab" not in attached:
            raise ValueError("vocab: expected a vocabulary, got none")
        network = config_from(dict(config) | {"input_size": len(attached["vocab"])})
        network = with_embedding(network, config["tie_weights"])
        cutoffs = check_cutoffs(config.get("adaptive_softmax"), network.input_size, network.output_size)
        return model_shapes(network, config["tie_weights"], cutoffs)

    def config(self) -> dict[str, Any]:
        """The arguments that make a model of this shape, without the vocabulary, as values that JSON can hold."""
        config = self.net.config() | {"tie_weights": self.tie_weights} | self._options.given()
        if self.adaptive_softmax is not None:  # earlier releases read the files of all other models
            config["adaptive_softmax"] = list(self.adaptive_softmax)
        del config["input_size"]  # the vocabulary determines it
        return config

    @property
    def dtype(self) -> str:
        """float32 or float64."""
        return self.net.dtype

    @property
    def precision(self) -> str | Mapping[str, str] | None:
        """What `quantize` has rounded: "int8", "int4", "bf16", a mapping from weight matrices to them, or None."""
        return self.net.precision

    def __repr__(self) -> str:
        net = self.net
        embedding = f"embedding_size={net.embedding_size}, " if net.embedding_size else ""
        tied = "dense_layers=True, " if net.dense_layers else ""
        tied += "tie_weights=True, " if self.tie_weights else ""
        tied += "" if self.adaptive_softmax is None else f"adaptive_softmax={self.adaptive_softmax}, "
        precision = "" if self.precision is None else f"precision={self.precision!r}, "
        return (
            f"LanguageModel({len(self.vocab)} {self.vocab.unit}s, cell={net.cell!r}, hidden_size={net.hidden_size}, "
            f"num_layers={net.num_layers}, {embedding}{tied}{precision}"
            f"{self.num_parameters:,} parameters, dtype={self.dtype!r})"
        )

    def _calibration_outputs(self, inputs: Any) -> list[Array]:
        """Logits of the beginning of a text, or of ids (N,), in pieces that are read side by side."""
        if isinstance(inputs, list | tuple) and any(isinstance(each, str | bytes) for each in inputs):
            raise TypeError(f"calibration: expected one text, got {len(inputs)} in a {type(inputs).__name__}")
        ids = ids_of(inputs, self.vocab)[: max(CALIBRATION_ROWS, CALIBRATION_LOGITS // len(self.vocab))]
        if not len(ids):
            raise ValueError("calibration: expected a text, got an empty one")
        pieces = min(CALIBRATION_PIECES, len(ids))
        return [self.forward(ids[: len(ids) // pieces * pieces].reshape(pieces, -1).T)[0]]

    def _stream_parts(self) -> StreamParts:
        return self._predictor.stream_parts(type(self).__name__, ids_only=True)

    def stream(self) -> TextStream:
        """A `crnn.TextStream`: reads and generates text incrementally, from the initial state.

        It keeps the current weights: later changes do not affect it. Packed weights are shared by all streams until the
        model's weights change.
        """
        return TextStream(self._weights_for_streams(), self.vocab)

    def _new_learner(self, config: LearnerConfig) -> Any:
        if self.adaptive_softmax is not None:
            raise ValueError("learner: expected adaptive_softmax=None, got one, whose outputs are computed in blocks")
        return TextLearner(self, config, ids=True)

    def extended(self, vocab: Vocab, *, seed: int = 0) -> LanguageModel:
        """A model with the same weights for a vocabulary that also has other tokens. Shares no memory with this one.

        Parameters
        ----------
        vocab : Vocab
            Has all tokens of the model's vocabulary, in any order, as `Vocab.extended` and
            ``TextCorpus.from_file(..., vocab=model.vocab, extend_vocab=True)`` make it.
        seed : int
            The weights of new tokens, rows of the embedding or of W_xh and columns of W_hy, are initialised as those
            of a new model with this seed. Their elements of b_y are the smallest of the known tokens, so that tokens
            without training data are not predicted. In the last tail of an adaptive softmax they have the weights of
            the last known token.

        Raises
        ------
        VocabError
            The vocabulary lacks a token, or has another unit; or the model has an adaptive softmax, and a known token
            another id.

        Examples
        --------
        >>> import crnn
        >>> model = crnn.LanguageModel(crnn.Vocab.from_text("ab"), hidden_size=4)
        >>> model.extended(model.vocab.extended("c")).vocab.tokens
        ('a', 'b', 'c')
        """
        self.check_trainable()  # what is added has to be learnt
        check_larger(self.vocab, vocab)
        if self.adaptive_softmax is not None:
            check_same_ids(self.vocab, vocab)
        model = self._made(vocab=vocab, **self.config(), seed=seed)
        copy_known_tokens(self, model)
        model._take_attributes(self)
        return model

    # ---- training -------------------------------------------------------------------------------------------------

    @takes_options(TrainingConfig)
    @on_all_ranks
    def fit(
        self, data: Any, *, valid: Any = None, warm_start: bool = False, **options: Unpack[TrainingOptions]
    ) -> Self:
        """Train on a corpus. Returns the model; its attribute `log` is the log of the training.

        A fit begins from the starting weights: those of the seed, or those that have been put there by loading a file,
        by a conversion, an assignment, or `crnn.fit`, which always continues from the current weights.

        Parameters
        ----------
        data : TextCorpus or 1-d array of ids
        valid : 1-d array of ids, optional
            Validation data; if not given, those of the corpus.
        warm_start : bool
            Continue from the current weights, also if an earlier fit has learnt them.
        **options
            As in `crnn.fit`.

        Raises
        ------
        TypeError, ValueError
            An argument is wrong; the model is then unchanged.
        FloatingPointError, KeyboardInterrupt
            As in `crnn.fit`. Before the first update the model is unchanged.
        """
        self.check_trainable()
        settings: dict[str, Any] = dict(options)
        continues = check_flag("warm_start", warm_start)

        def begin(current: Snapshot | None) -> Snapshot:
            assert current is not None
            self._starting = self._starting.before(current)
            return self._starting.beginning(current, continues=continues)

        def train() -> None:
            self._log = settings.pop("log", None) or TrainingLog()
            fit_in_training(self, data, valid=valid, log=self._log, **settings)

        run_fit(self, begin, train)
        return self

    @property
    def log(self) -> TrainingLog | None:
        """The log of the last `fit`, also if it was interrupted; None before the first."""
        return self._log

    def _drawing(self) -> DrawnModel | None:
        """How the initial weights were drawn; None if no fit needs that, or they were not. See `Snapshot`."""
        if self._seed is None or self._starting.left is not None:
            return None
        return DrawnModel(type(self), self._attached() | self.config() | self._arguments_of_copy(), self._seed)

    def _unsaved(self) -> dict[str, Any]:
        return {"_starting": self._starting, "_log": self._log}

    # ---- whole texts ----------------------------------------------------------------------------------------------

    def check_valid(self, data: Any) -> None:
        """Raise TypeError or ValueError unless ``data`` are ids, and enough for `evaluate`. For `crnn.fit`."""
        if isinstance(data, float | str):
            raise TypeError(
                f"valid: expected ids of another text, or None for those of the corpus, got {data!r:.100}; the corpus "
                "takes the share of a text that is for validation, such as TextCorpus.from_text(text, valid=0.1)"
            )
        ids = ids_1d("valid", data)
        if len(ids) < 2:
            raise ValueError(f"valid: expected at least 2 ids, one to predict from another, got {len(ids)}")

    def windows(self, ids: ArrayLike, batch_size: int, bptt: int) -> BPTTWindows:
        """The training windows of ids (N,), for `crnn.fit`: see `crnn.text.windows.contiguous_batches`."""
        return contiguous_batches(ids, batch_size, bptt)

    def evaluate(
        self,
        text: str | bytes | ArrayLike,
        *,
        batch_size: int = 1,
        threads: int = 1,
        dynamic: bool | Mapping[str, Any] = False,
    ) -> Evaluation:
        """Evaluate the predictions of all tokens of a text but the first.

        Parameters
        ----------
        text : str, bytes, or ids (N,)
            N at least 2.
        batch_size : int
            1: the state is carried through the whole text. More: the text is cut into as many contiguous streams, each
            from the initial state. This is faster, and slightly pessimistic. Every token is predicted in both cases.
        threads : int
        dynamic : bool or dict
            True, or options: dynamic evaluation. A copy of the model predicts ``bptt`` steps of all streams, and then
            learns them by one update, before it predicts the next ones; the model does not change. Krause et al. 2018;
            see docs/text.md. Options are ``optimizer``, ``lr``, ``bptt``, ``clip_norm``, ``clip_value``, ``decay`` and
            ``max_change``, as in `learner`, and ``statistics``: a text or ids to take the mean squares of the gradient
            from, instead of an optimizer. docs/text.md has the defaults.

        Returns
        -------
        Evaluation

        Raises
        ------
        TypeError, TextError, ValueError
            The text has fewer than 2 tokens, or an argument is wrong. With ``dynamic`` also if the model is quantised.
        """
        return evaluated(self, text, batch_size, threads, dynamic)

    def score(
        self, texts: Iterable[str | bytes], *, prompt: str | bytes | None = None, threads: int = 1
    ) -> list[float]:
        """Mean surprisal in nats per token of each text. Each is read from the initial state.

        A token that became ``<unk>`` costs that and its spelling (`Vocab.spelling`): otherwise texts of unknown words
        would seem normal. Many texts are computed in batches, which changes no bit.

        Parameters
        ----------
        texts : iterable of str or bytes
            Each of at least 2 tokens, or with a ``prompt`` of at least 1.
        prompt : str or bytes, optional
            Read before every text; its tokens do not count. Without a prompt the first token of each text does not
            count, because there is nothing to predict it from.
        threads : int

        Raises
        ------
        TextError
            A text is too short; the message has its index.
        """
        return scores_of(self, texts, prompt, threads)

    def surprisals(self, sequences: Sequence[ArrayLike], *, threads: int = 1) -> list[Array]:
        """-log of the probability of each token but the first, in nats, of texts that are given as ids.

        Each is read from the initial state. They are computed in batches, bit-identical to `losses` of each alone.

        Parameters
        ----------
        sequences : list of integers (N_i,)
            N_i at least 2.
        threads : int

        Returns
        -------
        list of array (N_i - 1,), fresh

        Raises
        ------
        TypeError, ValueError
            A sequence is no ids of this model, or too short; the message has its index.
        """
        return surprisals_of(self, sequences, threads)


takes_options(
    tuple(each for each in options_of(NetworkConfig) if each.name != "input_size"),  # the size of the vocabulary
    LanguageConfig,
    defaults={"input_init": None},
)(LanguageModel)
