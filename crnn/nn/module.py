# SPDX-License-Identifier: MIT
"""Module: what networks and models share. Parameters in one flat buffer, a configuration, a file, streams, copies."""

from __future__ import annotations

import math
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

from numpy.typing import NDArray

from crnn.checks import DTYPES
from crnn.io import model_file, registry
from crnn.io.atomic_write import PathLike
from crnn.io.model_file import Header
from crnn.nn.init import UNDRAWN
from crnn.nn.params import Parameters, Shapes
from crnn.stream import Stream, StreamBatch, StreamWeights
from crnn.stream.parts import StreamParts
from crnn.stream.weights import stream_weights

Array = NDArray[Any]
JsonTypes = Mapping[str, tuple[type, ...]]  # of the values of a configuration, by option

SIZES = ("input_size", "embedding_size", "num_classes", "output_size", "steps", "longest_target")


class Module(ABC):
    """A network or a model: named parameters in one flat buffer, made from a configuration that JSON can hold.

    A class that can be saved names itself and says what its file's header holds::

        class LanguageModel(Module, kind="LanguageModel", config_types={...}, attachments={"vocab": Vocab.from_dict}):

    ``config_types``: the options in `config`, with the types that JSON may give them. ``attachments``: arguments that
    stand beside the configuration, with the function that makes each from what `to_dict` of it wrote.
    """

    config_types: ClassVar[JsonTypes] = {}
    attachments: ClassVar[Mapping[str, Callable[[object], Any]]] = {}
    _parameters: Parameters
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
        cls.config_types = cls.config_types if config_types is None else config_types
        cls.attachments = cls.attachments if attachments is None else attachments
        if kind is not None:
            registry.register(kind, cls._from_file)

    # ---- parameters -----------------------------------------------------------------------------------------------

    @property
    def params(self) -> Mapping[str, Array]:
        """Parameters by name: writable views into `flat_params`."""
        return self._parameters.values

    @property
    def grads(self) -> Mapping[str, Array]:
        """Gradients by the parameters' names: writable views into `flat_grads`."""
        return self._parameters.grads

    @property
    def flat_params(self) -> Array:
        """All parameters as one 1-d array, writable."""
        return self._parameters.flat

    @property
    def flat_grads(self) -> Array:
        """All gradients as one 1-d array, writable. `backward` adds to it; set it to 0 before a new step."""
        return self._parameters.flat_grads

    # ---- configuration --------------------------------------------------------------------------------------------

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The arguments that make a model of this shape, without `attachments`. JSON-able."""

    @classmethod
    @abstractmethod
    def shapes_of(cls, config: Mapping[str, Any], **attached: Any) -> Shapes:
        """Names and shapes of the parameters of a model with this `config` and these `attachments`."""

    @classmethod
    def _statistics_of(cls, config: Mapping[str, Any]) -> dict[str, int]:
        """Names and sizes of the float64 vectors that a file holds beside the parameters."""
        return {}

    @property
    def _statistics(self) -> dict[str, Array]:
        """The values of `_statistics_of`."""
        return {}

    def _set_statistics(self, values: Mapping[str, Array]) -> None:
        """Take over `_statistics` from a file. Raises ValueError for values that are none."""
        return

    def _attached(self) -> dict[str, Any]:
        """The values of `attachments` that are not None."""
        named = {name: getattr(self, name) for name in self.attachments}
        return {name: value for name, value in named.items() if value is not None}

    def astype(self, dtype: str) -> Self:
        """A copy in another precision."""
        make: Any = type(self)  # of whatever signature
        copy: Self = make(**self._attached(), **(self.config() | {"dtype": dtype}), seed=UNDRAWN)
        copy.flat_params[...] = self.flat_params
        copy._set_statistics({name: values.copy() for name, values in self._statistics.items()})
        if hasattr(self, "seed"):
            copy.seed = self.seed  # type: ignore[attr-defined]
        return copy

    # ---- files ----------------------------------------------------------------------------------------------------

    def save(self, path: PathLike) -> None:
        """Write a safetensors file, whole or not at all; `crnn.load` reads it. Raises OSError where the system does."""
        registry.check_kind(type(self).__name__)
        model_file.write(path, *self._contents())

    def to_bytes(self) -> bytes:
        """The content of the file that `save` writes. TypeError for a class that no file can name."""
        registry.check_kind(type(self).__name__)
        return model_file.to_bytes(*self._contents())

    def _contents(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """What the file holds: tensors, borrowed, and the header."""
        header = {"kind": type(self).__name__, "config": self.config()}
        header |= {name: value.to_dict() for name, value in self._attached().items()}
        return dict(self.params) | self._statistics, header

    @classmethod
    def _from_file(cls, header: Header, tensors: Mapping[str, Array], finite: bool = True) -> Self:
        """The model of a file, once all in it is what its configuration demands. Raises TypeError and ValueError."""
        config = check_config(header.get("config"), cls.config_types)
        attached = {name: read(header.get(name)) for name, read in cls.attachments.items()}
        attached = {name: value for name, value in attached.items() if value is not None}
        shapes = cls.shapes_of(config, **attached)
        if sum(math.prod(shape) for shape in shapes.values()) > model_file.PARAMETER_LIMIT:
            raise ValueError(f"expected at most {model_file.PARAMETER_LIMIT} parameters")
        sizes = cls._statistics_of(config)
        for name, shape in shapes.items():
            model_file.check_tensor(name, tensors, shape, config["dtype"], finite=finite)
        for name, size in sizes.items():
            model_file.check_tensor(name, tensors, (size,), "float64", finite=finite)
        model_file.check_no_more(tensors, {**shapes, **sizes})
        make: Any = cls  # of whatever signature
        model: Self = make(**attached, **config, seed=UNDRAWN)
        for name, values in model.params.items():
            values[...] = tensors[name]
        model._set_statistics({name: tensors[name] for name in sizes})
        return model

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        unsaved = {"seed": self.seed} if hasattr(self, "seed") else {}
        return _restored, (type(self), self.to_bytes(), unsaved)

    # ---- streams --------------------------------------------------------------------------------------------------

    @abstractmethod
    def _stream_parts(self) -> StreamParts:
        """What one step computes. Raises ValueError where there is no output at every step."""

    def stream(self) -> Any:
        """A `crnn.Stream`: one step at a time, from the initial state, with the weights as they are now.

        Raises ValueError for a model that reads a sequence from both ends or has no output at every step. The weights
        are packed once for all streams, and again when they have changed.
        """
        return Stream(self._weights_for_streams())

    def stream_batch(self, n: int = 0) -> StreamBatch:
        """A `crnn.StreamBatch`: ``n`` independent streams, stepped together. More can be added."""
        return StreamBatch(self._weights_for_streams(), n)

    def _weights_for_streams(self) -> StreamWeights:
        weights = stream_weights(self._stream_parts(), self._stream_weights)
        self._stream_weights = weakref.ref(weights)
        return weights


def _restored(cls: type[Module], content: bytes, attributes: Mapping[str, Any]) -> Module:
    """For pickle and copy: a model that may have diverged, and what its file does not hold."""
    tensors, header = model_file.from_bytes("pickle", content)
    model = cls._from_file(header, tensors, finite=False)
    for name, value in attributes.items():
        setattr(model, name, value)
    return model


def check_config(config: Any, types: JsonTypes) -> dict[str, Any]:
    """A configuration from a file, whose values have the right types, and no size that is none."""
    known = isinstance(config, dict) and set(config) == set(types)
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
