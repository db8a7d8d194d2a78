# SPDX-License-Identifier: MIT
"""Module: the base of networks and models, with parameters in a flat buffer, configuration, files, streams, copies."""

from __future__ import annotations

import inspect
import math
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, ClassVar, Self, Unpack

import numpy as np
from numpy.typing import NDArray

from crnn._attributes import declared, fixed_attributes
from crnn._float_mode import in_ieee_mode, public_methods_in_ieee_mode
from crnn._options import build_config, takes_options
from crnn.checks import DTYPES
from crnn.io import model_file, registry
from crnn.io.atomic_write import PathLike
from crnn.io.model_file import Header
from crnn.nn.config import in_file
from crnn.nn.init import UNINITIALISED
from crnn.nn.learning.config import LearnerConfig, LearnerOptions
from crnn.nn.params import NamedArrays, Parameters, Shapes
from crnn.nn.precision import check_trainable, on_grid, precision_of, restored, stored, terms_axis
from crnn.nn.quantize import quantized
from crnn.stream import Stream, StreamBatch, StreamWeights
from crnn.stream.parts import StreamParts
from crnn.stream.weights import stream_weights

Array = NDArray[Any]
JsonTypes = Mapping[str, tuple[type, ...]]  # the types that a value in a file's configuration may have, by option

SIZES = ("input_size", "embedding_size", "num_classes", "output_size", "steps", "longest_target")  # limited in files


class Module(ABC):
    """A network or a model: named parameters in one flat buffer, described by a configuration that JSON can hold.

    A subclass that can be saved registers itself and declares what the header of its file holds::

        class LanguageModel(Module, kind="LanguageModel", config_types={...}, attachments={"vocab": Vocab.from_dict}):

    ``kind`` is the name of the class in files; a class without one cannot be saved. ``config_types`` maps each option
    in `config` to the types that its JSON value may have. ``attachments`` are arguments of the class that are saved
    besides the configuration: each has a method ``to_dict``, and the mapping holds the function that reverses it.
    """

    config_types: ClassVar[JsonTypes] = {}
    attachments: ClassVar[Mapping[str, Callable[[object], Any]]] = {}
    _registered: ClassVar[type[Module] | None] = None  # the class with a ``kind`` that this is, or derives from
    _parameters: Parameters
    _training_runs: tuple[Mapping[str, Any], ...] = ()
    _stream_weights: weakref.ref[StreamWeights] | None = None

    def __init_subclass__(
        cls,
        *,
        kind: str | None = None,
        config_types: JsonTypes | None = None,
        attachments: Mapping[str, Callable[[object], Any]] | None = None,
        **rest: Any,
    ) -> None:
        super().__init_subclass__(**rest)
        public_methods_in_ieee_mode(cls)
        cls.config_types = cls.config_types if config_types is None else config_types
        cls.attachments = cls.attachments if attachments is None else attachments
        if kind is not None:
            cls._registered = cls
            registry.register(kind, cls.from_contents)

    # ---- parameters -----------------------------------------------------------------------------------------------

    @property
    def params(self) -> Mapping[str, Array]:
        """Parameters by name: writable views into `flat_params`, whose values may change at any time.

        ``params[name] = values`` copies the values there.
        """
        return NamedArrays(self._parameters.hand_out().values)

    @property
    def grads(self) -> Mapping[str, Array]:
        """Gradients by the parameters' names: writable views into `flat_grads`."""
        return NamedArrays(self._parameters.grads)

    @property
    def flat_params(self) -> Array:
        """All parameters as one 1-d array, writable."""
        return self._parameters.hand_out().flat

    @property
    def num_parameters(self) -> int:
        """n, the number of parameters: the size of `flat_params`, which need not be taken for it."""
        return self._parameters.size

    @property
    def flat_grads(self) -> Array:
        """All gradients as one 1-d array, writable. Backward passes ACCUMULATE into it: set it to 0 before a step."""
        return self._parameters.flat_grads

    @property
    def training_runs(self) -> tuple[Mapping[str, Any], ...]:
        """A record of each run that has trained the model, oldest first, as `crnn.training.record.training_record`
        makes it. Files and copies have it; it does not know of other changes of the weights.
        """
        return self._training_runs

    @training_runs.setter
    def training_runs(self, records: Sequence[Mapping[str, Any]]) -> None:
        self._training_runs = check_records(records)

    # ---- configuration --------------------------------------------------------------------------------------------

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The arguments that make a model of this shape, without `attachments`. JSON-able."""

    @classmethod
    @abstractmethod
    def shapes_of(cls, config: Mapping[str, Any], **attached: Any) -> Shapes:
        """Names and shapes of the parameters of a model with this `config` and these `attachments`."""

    @classmethod
    def statistics_of(cls, config: Mapping[str, Any]) -> dict[str, int]:
        """Names and sizes of the float64 vectors that a file holds besides the parameters."""
        return {}

    @property
    def _statistics(self) -> dict[str, Array]:
        """The values of `statistics_of`."""
        return {}

    def _set_statistics(self, values: Mapping[str, Array]) -> None:
        """Set `_statistics` to values from a file. Raises ValueError for impossible values."""
        return

    def _attached(self) -> dict[str, Any]:
        """The values of `attachments` that are not None."""
        named = {name: getattr(self, name) for name in self.attachments}
        return {name: value for name, value in named.items() if value is not None}

    def astype(self, dtype: str) -> Self:
        """A copy in float32 or float64, whose products are in that precision too. Shares no memory with this one.

        Raises ValueError, which names the parameter, if a value is NaN, infinite, or too large for the precision.
        """
        return self._changed(self._parameters.read_only(), dtype=dtype, precision=None)

    def quantize(
        self, precision: str | Mapping[str, str] = "int8", calibration: Any = None, *, tolerance: float | None = None
    ) -> Self:
        """A copy with weights and products in fewer bits, for inference. This model does not change.

        An int8 model takes about a quarter of the memory in files and streams, and its steps take less time; int4
        takes an eighth, is faster from 256 units on, and loses more. docs/quantisation.md says how much. The copy is a
        model of the same class: it streams, is saved, loaded and exported to C. Its results are bit-identical on every
        machine too.

        Parameters
        ----------
        precision : str or mapping
            "int8", "int4", "bf16", or a mapping from names of weight matrices, such as ``"layer0.W_hh"``, to them;
            matrices that it does not name stay as they are.
        calibration : optional
            Inputs as the model gets them: x of a network, a text for a language model, X of the sequence models, (X, y)
            of `SequenceToSequence`, a series of a `Forecaster`, or (series, past, future). Each matrix is tried on its
            own, and stays as it is, with a warning, if that changes the outputs by more than ``tolerance``.
        tolerance : float, optional
            With ``calibration``, 0.02 unless given. Root mean square of the change of the outputs, divided by their
            standard deviation.

        Returns
        -------
        model
            Its option ``precision`` says what was quantised.

        Raises
        ------
        ValueError
            The model is not float32; ``precision`` names no weight matrix of it; a weight is NaN or infinite; more
            inputs than a product of integers can sum exactly, 131,071.

        Examples
        --------
        >>> import numpy as np, crnn
        >>> net = crnn.RNN(input_size=8, hidden_size=16, cell="gru", seed=0)
        >>> small, x = net.quantize(), np.random.default_rng(0).standard_normal((20, 1, 8), np.float32)
        >>> float(abs(small(x)[0] - net(x)[0]).max()) < 0.02, len(small.to_bytes()) < len(net.to_bytes())
        (True, True)
        """
        return quantized(self, precision, calibration, tolerance)

    def _changed(self, params: Mapping[str, Array], **options: Any) -> Self:
        """A copy with other parameters, of the same shapes, and with other options, such as ``dtype``."""
        arguments = self.config() | options | self._arguments_of_copy()
        copy = self._made(**self._attached(), **arguments, seed=UNINITIALISED)
        with np.errstate(over="ignore"):
            for name, values in copy._parameters.values.items():
                values[...] = params[name]
        model_file.check_finite(copy._parameters.values)
        copy._parameters.settle(copy.config()["precision"])
        copy._set_statistics({name: values.copy() for name, values in self._statistics.items()})
        copy._take_unsaved(self)
        copy._take_attributes(self)
        return copy

    @classmethod
    def _made(cls, **arguments: Any) -> Self:
        """An instance, by the constructor of crnn's class. That of a user's subclass may take others: it is not called.
        """
        model = cls.__new__(cls)
        constructor: Any = (cls._registered or cls).__init__  # each class has its own signature
        constructor(model, **arguments)
        return model

    def _attributes_of_subclass(self) -> dict[str, Any]:
        """The attributes that a user's subclass has added."""
        known = self._registered or type(self)
        if type(self) is known:
            return {}
        names = {name for each in known.__mro__ for name in vars(each)} | declared(known)
        return {name: value for name, value in vars(self).items() if name not in names}

    def _take_attributes(self, other: Module) -> None:
        """Copies of `_attributes_of_subclass`, but of those that this model has."""
        for name, value in other._attributes_of_subclass().items():
            if name not in vars(self):
                vars(self)[name] = deepcopy(value)

    def check_trainable(self) -> None:
        """Raise ValueError for a model that is for inference only, as an int8 model is."""
        check_trainable(self.config()["precision"])

    @abstractmethod
    def _calibration_outputs(self, inputs: Any) -> list[Array]:
        """The model's outputs, before any activation of the head, for inputs as `quantize` documents them."""

    def _take_unsaved(self, other: Self) -> None:
        """Take from another model what its file does not have, and the records of its training."""
        self.training_runs = other.training_runs

    def _unsaved(self) -> dict[str, Any]:
        """The attributes that a pickle has and a file does not."""
        return {}

    def _arguments_of_copy(self) -> dict[str, Any]:
        """Copies of further arguments of the constructor, which `config` does not have."""
        return {}

    @classmethod
    def _arguments_of_file(cls, header: Header) -> dict[str, Any]:
        """Such arguments from the header of a file. Raises ValueError for wrong ones."""
        return {}

    def _learnt(self) -> dict[str, Any]:
        """What training has learnt besides parameters and statistics, by name."""
        return {}

    def _set_learnt(self, values: Mapping[str, Any]) -> None:
        """Set what `_learnt` returned."""
        return

    # ---- files ----------------------------------------------------------------------------------------------------

    def save(self, path: PathLike) -> None:
        """Write a safetensors file, atomically; `crnn.load` reads it.

        Raises OSError if the file cannot be written, TypeError for a class that is not registered, and ValueError,
        which names the parameter, if a value is NaN or infinite. An existing file is then unchanged.
        """
        registry.check_kind(type(self).__name__)
        model_file.write(path, *self.contents())

    def to_bytes(self) -> bytes:
        """The content of the file that `save` writes. Raises TypeError and ValueError as `save` does."""
        registry.check_kind(type(self).__name__)
        return model_file.to_bytes(*self.contents())

    def contents(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """The content of the file: tensors, borrowed and read-only, and header.

        The tensors are the parameters, in the order of `flat_params`, those in int8 or int4 as integers and scales;
        then the statistics that standardise data.
        """
        header: dict[str, Any] = {"kind": type(self).__name__, "config": in_file(self.config())}
        header |= {name: value.to_dict() for name, value in self._attached().items()}
        header |= {"training": list(self.training_runs)} if self.training_runs else {}
        tensors, bf16 = stored(self._parameters.read_only(), self.config()["precision"])
        header |= {"bf16": bf16} if bf16 else {}
        return tensors | self._statistics, header

    @classmethod
    def from_contents(cls, header: Header, tensors: Mapping[str, Array]) -> Self:
        """The model of a file, after everything in it has been checked. Raises TypeError and ValueError."""
        config = check_config(header.get("config"), cls.config_types, cls)
        attached = {name: read(header.get(name)) for name, read in cls.attachments.items()}
        attached = {name: value for name, value in attached.items() if value is not None}
        shapes = cls.shapes_of(config, **attached)
        if sum(math.prod(shape) for shape in shapes.values()) > model_file.PARAMETER_LIMIT:
            raise ValueError(f"expected at most {model_file.PARAMETER_LIMIT} parameters")
        sizes = cls.statistics_of(config)
        tensors = restored(tensors, config["precision"], shapes)
        for name, shape in shapes.items():
            model_file.check_tensor(name, tensors, shape, config["dtype"])
        for name, size in sizes.items():
            model_file.check_tensor(name, tensors, (size,), "float64")
        model_file.check_no_more(tensors, {**shapes, **sizes})
        model = cls._made(**attached, **config, **cls._arguments_of_file(header), seed=UNINITIALISED)
        for name, values in model._parameters.values.items():
            values[...] = tensors[name]
            kind = precision_of(config["precision"], name)
            if not on_grid(values, kind, terms_axis(name)):
                raise ValueError(f"{name}: expected values that {kind} can hold")
        model._parameters.settle(config["precision"])
        model._set_statistics({name: tensors[name] for name in sizes})
        model.training_runs = header.get("training", [])
        return model

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        attributes = self._attributes_of_subclass() | self._unsaved()
        return _restored, (type(self), model_file.to_bytes(*self.contents()), attributes)

    # ---- streams --------------------------------------------------------------------------------------------------

    @abstractmethod
    def _stream_parts(self) -> StreamParts:
        """The weights of one step. Raises ValueError for a model without an output at every step."""

    def stream(self) -> Any:
        """A `crnn.Stream`: inference one step at a time, from the initial state.

        It keeps the current weights: later changes do not affect it. Packed weights are shared by all streams until the
        model's weights change. With pooling an output is that for the sequence so far. Raises ValueError for a model
        that needs whole sequences: bidirectional, with pooling "flatten", or `SequenceToSequence`.
        """
        return Stream(self._weights_for_streams())

    def stream_batch(self, n: int = 0) -> StreamBatch:
        """A `crnn.StreamBatch`: ``n`` independent streams that are stepped together. More can be added.

        Weights and errors as in `stream`.
        """
        return StreamBatch(self._weights_for_streams(), n)

    @takes_options(LearnerConfig)
    def learner(self, **options: Unpack[LearnerOptions]) -> Any:
        """A `crnn.Learner`: inference one step at a time by a copy of this model that learns as it goes.

        This model never changes.

        Parameters
        ----------
        {options}

        Raises
        ------
        TypeError, ValueError
            An option is wrong, or the model cannot learn from a stream: it needs whole sequences, or is quantised.

        Examples
        --------
        >>> import crnn
        >>> model = crnn.LanguageModel(crnn.Vocab.from_text("ab"), hidden_size=8)
        >>> learner = model.learner(lr=1e-2, bptt=16).feed("ab")
        >>> before = learner.surprisal("ab" * 16).mean()
        >>> bool(learner.feed("ab" * 500).surprisal("ab" * 16).mean() < before / 4)
        True
        """
        return self._new_learner(build_config(LearnerConfig, options))

    @abstractmethod
    def _new_learner(self, config: LearnerConfig) -> Any:
        """`learner` with checked options. Raises ValueError for a model that cannot learn from a stream."""

    def _weights_for_streams(self) -> StreamWeights:
        """The packed weights, reused while a stream holds them and the parameters are unchanged."""
        weights = stream_weights(self._stream_parts(), self._stream_weights)
        self._stream_weights = weakref.ref(weights)
        return weights


public_methods_in_ieee_mode(Module)
fixed_attributes()(Module)


@in_ieee_mode
def _restored(cls: type[Module], content: bytes, attributes: Mapping[str, Any]) -> Module:
    """The model that pickle or copy restores; ``attributes`` are not in a file."""
    tensors, header = model_file.from_bytes("pickle", content, borrow=True)
    model = cls.from_contents(header, tensors)
    for name, value in attributes.items():
        setattr(model, name, value)
    return model


def check_records(records: Any) -> tuple[Mapping[str, Any], ...]:
    """Records of training runs, such as those of a file, fresh. Raises ValueError."""
    if not isinstance(records, list | tuple) or not all(isinstance(record, dict) for record in records):
        raise ValueError(f"training_runs: expected a list of records, got {records!r:.200}")
    return tuple(deepcopy(records))


def check_config(config: Any, types: JsonTypes, cls: Callable[..., Any]) -> dict[str, Any]:
    """A configuration from a file, as a fresh dict. Raises ValueError for wrong options, types, sizes or dtypes.

    Options that did not exist when the file was written have their default in the signature of ``cls``.
    """
    known = isinstance(config, dict) and set(config) <= set(types)
    if known and len(config) < len(types):
        signature = inspect.signature(cls).parameters
        defaults = {name: signature[name].default for name in types}  # inspect.Parameter.empty has a wrong type
        config = {name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items()} | config
    if not known or any(type(config[name]) not in allowed for name, allowed in types.items()):
        raise ValueError(f"expected a config of {sorted(types)}, got {config!r:.200}")
    hidden, layers = config["hidden_size"], config["num_layers"]
    sizes = hidden if isinstance(hidden, list) else [hidden]
    sizes = sizes + [config[name] for name in SIZES if config.get(name) is not None]
    sensible = 0 < layers < 10_000 and len(sizes) < 10_000
    sensible = sensible and all(type(size) is int and 0 < size < model_file.PARAMETER_LIMIT for size in sizes)
    if not sensible or config["dtype"] not in DTYPES:
        raise ValueError(f"expected a sensible config, got {config!r:.200}")
    return dict(config)
