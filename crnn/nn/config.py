# SPDX-License-Identifier: MIT
"""NetworkConfig: the options of a network, each declared once with its type, default, check and help text.

`RNN` and the models, their docstrings, the header of model files and the flags of ``crnn train`` all read this list. A
new option is declared in `NetworkConfig`, and for type checkers in `NetworkOptions`, and implemented in stack.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, TypedDict

import numpy as np

from crnn._options import check_options, option, options_of, unexpected
from crnn.checks import (
    check_dtype,
    check_finite,
    check_flag,
    check_layers,
    check_probability,
    check_size,
    memory_for,
)
from crnn.nn.cells import CELLS, cell_parameters, check_cell
from crnn.nn.init import check_init, check_rule, rules_by_parameter
from crnn.nn.params import Shapes
from crnn.nn.precision import check_precision, precision_of


class NetworkOptions(TypedDict, total=False):
    """The options that `RNN` and the models take by name, for type checkers. `NetworkConfig` says what they mean."""

    bidirectional: bool
    dense_layers: bool
    embedding_size: int | None
    forget_bias: float
    dropout: float
    variational_dropout: bool
    recurrent_dropout: float
    output_dropout: float | None
    input_dropout: float
    embedding_dropout: float
    weight_dropout: float
    trainable_initial_state: bool
    dtype: str
    precision: str | Mapping[str, str] | None
    recurrent_init: str
    input_init: str | None
    init: str | None


def check_hidden_size(name: str, value: Any) -> int | list[int]:
    """One size for all layers, or a list with the size of each layer. Raises ValueError, which calls it ``name``."""
    if hasattr(value, "__array__"):  # a Series, a tensor
        value = np.asarray(value)
    single = isinstance(value, str) or not isinstance(value, Sequence | np.ndarray)
    if single or (isinstance(value, np.ndarray) and value.ndim == 0):
        return check_size(name, value)
    if not len(value):
        raise ValueError(f"{name}: expected a size for each layer, got {list(value)}")
    return [check_size(name, size) for size in value]


def memory_of(options: Mapping[str, Any]) -> AbstractContextManager[None]:
    """`crnn.checks.memory_for` the sizes among the options of a network."""
    names = ("input_size", "hidden_size", "num_layers", "embedding_size")
    return memory_for(**{name: options.get(name) for name in names})


@dataclass(frozen=True, kw_only=True, repr=False, match_args=False)
class NetworkConfig:
    """The options of a network, checked and normalised."""

    input_size: int = option(check=check_size, help="D: size of the input at each step, or how many ids there are.")
    hidden_size: int | Sequence[int] = option(
        check=check_hidden_size,
        help="H: units of every layer, or a list with the units of each layer.",
        flag="--hidden",
    )
    num_layers: int | None = option(
        None,
        check=check_layers,
        help="Number of layers: 1 unless given, or as many as there are sizes in hidden_size.",
        flag="--layers",
        json_types=(int,),
    )
    cell: str = option("tanh", check=check_cell, help=f"One of {', '.join(CELLS)}.", flag="--cell")
    bidirectional: bool = option(
        False,
        check=check_flag,
        help="A second recurrence in every layer reads each sequence from its last step to its first.",
        flag="--bidirectional",
    )
    dense_layers: bool = option(
        False,
        check=check_flag,
        help="Every layer reads the outputs of all layers below it, side by side, the lowest first; y has those of all "
        "layers (dense connections). Huang, Liu, van der Maaten, Weinberger 2017.",
        flag="--dense-layers",
        omit_default=True,
    )
    embedding_size: int | None = option(
        None,
        check=check_size,
        help="Ids select rows of a trained (D, embedding_size) matrix instead of standing for one-hot vectors.",
        flag="--embedding",
    )
    forget_bias: float = option(
        1.0,
        check=check_finite,
        help="lstm, ln_lstm: initial bias of the forget gate. Jozefowicz, Zaremba, Sutskever 2015.",
        flag="--forget-bias",
    )
    dropout: float = option(
        0.0,
        check=check_probability,
        help="Probability of dropping an element of a layer's output before the next layer, and before the head of a "
        "model, while training. The other elements are scaled up.",
        flag="--dropout",
    )
    variational_dropout: bool = option(
        False,
        check=check_flag,
        help="Use one dropout mask for all steps of a sequence. Gal, Ghahramani 2016.",
        flag="--variational-dropout",
    )
    recurrent_dropout: float = option(
        0.0,
        check=check_probability,
        help="Probability of dropping an element of h before the product with W_hh, with one mask for all steps.",
        flag="--recurrent-dropout",
    )
    output_dropout: float | None = option(
        None,
        check=check_probability,
        help="Probability of dropping an element of the input of a model's head, if it is not that of dropout.",
        flag="--output-dropout",
    )
    input_dropout: float = option(
        0.0,
        check=check_probability,
        help="Probability of dropping an element of the first layer's input, which is an embedding's output or a real "
        "x. As of a layer's output, see dropout. Zaremba, Sutskever, Vinyals 2014.",
        flag="--input-dropout",
    )
    embedding_dropout: float = option(
        0.0,
        check=check_probability,
        help="Probability of dropping the embedding of an id, for a whole window and batch. Gal, Ghahramani 2016.",
        flag="--embedding-dropout",
    )
    weight_dropout: float = option(
        0.0,
        check=check_probability,
        help="Probability of dropping an element of W_hh, for a whole window and batch (weight drop). Merity, Keskar, "
        "Socher 2017.",
        flag="--weight-dropout",
    )
    trainable_initial_state: bool = option(
        False,
        check=check_flag,
        help="The state before the first step is a parameter; it is used where no state is given.",
        flag="--trainable-initial-state",
    )
    dtype: str = option("float32", check=check_dtype, help="float32 or float64.", flag="--dtype")
    precision: str | Mapping[str, str] | None = option(
        None,
        check=check_precision,
        help="Products with weight matrices in fewer bits, in a float32 network: bf16, int8 or int4, for inference "
        "only. A dict says so for some matrices by their parameters' names. None: in the network's dtype. See "
        "docs/quantisation.md.",
        json_types=(type(None), str, dict),
    )
    recurrent_init: str = option(
        "orthogonal",
        check=check_rule,
        help="How each gate's block of W_hh is initialised: orthogonal, identity, glorot, uniform (the textbook's "
        "1/sqrt(n)), unit_variance or zeros, optionally after a gain, as in 0.5*identity; or uniform(a), uniform in "
        "+-a. Identity with a relu cell is the IRNN of Le, Jaitly, Hinton 2015.",
        flag="--recurrent-init",
    )
    input_init: str | None = option(
        "glorot",
        check=check_rule,
        help="The same for W_xh; None is glorot. Biases start at zero, an embedding with variance 1.",
        flag="--input-init",
    )
    init: str | None = option(
        None,
        check=check_init,
        help="uniform(a): draw all parameters uniformly in +-a, biases, embedding and a model's head included; "
        "forget_bias is added. Or rules for some of them, by name: embedding=uniform(0.1), W_hy=glorot, b_y=zeros. "
        "They take precedence over the rules for W_hh and W_xh.",
        flag="--init",
    )

    def __post_init__(self) -> None:
        check_options(self)
        for name in ("recurrent_dropout", "weight_dropout"):
            if getattr(self, name) and not CELLS[self.cell].info.recurrent_gates:
                raise ValueError(f"{name}: expected 0 for {self.cell!r}, which has no W_hh")
        given, layers = self.hidden_size, self.num_layers
        sizes = [given] * (layers or 1) if isinstance(given, int) else list(given)
        if layers is not None and layers != len(sizes):
            raise ValueError(f"hidden_size: expected a size for each of {layers} layers, got {sizes}")
        if self.precision is not None and self.dtype != "float32":
            raise ValueError(f"precision: expected None for dtype {self.dtype!r}, got {self.precision!r}")
        object.__setattr__(self, "num_layers", len(sizes))
        object.__setattr__(self, "hidden_size", sizes if len(set(sizes)) > 1 else sizes[0])

    @cached_property
    def hidden_sizes(self) -> tuple[int, ...]:
        """H of each layer."""
        sizes = self.hidden_size
        return (sizes,) * (self.num_layers or 1) if isinstance(sizes, int) else tuple(sizes)

    @cached_property
    def drops(self) -> bool:
        """Whether training has masks."""
        return any(getattr(self, name) for name in DROPOUTS)

    @property
    def head_dropout(self) -> float:
        """The probability of dropping an element of a head's input."""
        return self.dropout if self.output_dropout is None else self.output_dropout

    def check_dropouts(self, *, ids_only: bool = False) -> None:
        """Raise ValueError for dropout of an embedding that there is not. ``ids_only``: x is never real."""
        if self.embedding_size is None:
            for name in ("embedding_dropout", "input_dropout") if ids_only else ("embedding_dropout",):
                if getattr(self, name):
                    raise ValueError(f"{name}: expected 0 without an embedding_size, got {getattr(self, name)}")

    def rule_of(self, name: str) -> str | None:
        """The rule of `init` for the parameter ``name``; None if it gives none."""
        return rules_by_parameter("init", self.init).get(name.rpartition(".")[2])

    @property
    def directions(self) -> int:
        """2 if bidirectional, otherwise 1."""
        return 2 if self.bidirectional else 1

    def precision_of(self, name: str) -> str | None:
        """The precision of products with the parameter ``name``, or None for that of `dtype`."""
        return precision_of(self.precision, name)

    @property
    def _output_sizes(self) -> tuple[int, ...]:
        """H of each layer whose output is in y."""
        return self.hidden_sizes if self.dense_layers else self.hidden_sizes[-1:]

    @property
    def output_size(self) -> int:
        """Columns of y: units of the top layer, or with `dense_layers` of all layers, all directions together."""
        return sum(self._output_sizes) * self.directions

    @property
    def widest(self) -> int:
        """Columns of the largest output of a layer that reads forward."""
        return max(self.output_size, *self.hidden_sizes)

    @property
    def output_blocks(self) -> list[tuple[int, int, bool]]:
        """For every direction in y: its first column, how many it has, whether it is reverse."""
        if not self.bidirectional:
            return [(0, self.output_size, False)]
        ends = accumulate(H for H in self._output_sizes for _ in range(2))
        return [(start, end - start, i % 2 == 1) for i, (start, end) in enumerate(pairwise((0, *ends)))]

    def to_dict(self) -> dict[str, Any]:
        """The options by name. JSON-able."""
        values = {each.name: getattr(self, each.name) for each in options_of(NetworkConfig)}
        return values | ({} if isinstance(self.precision, str | None) else {"precision": dict(self.precision)})

    def prefixes(self) -> list[tuple[str, int, int, bool]]:
        """For every direction of every layer: prefix of its parameters' names, input size, H, whether it is reverse."""
        prefixes: list[tuple[str, int, int, bool]] = []
        K = self.embedding_size or self.input_size
        for layer, H in enumerate(self.hidden_sizes):
            prefixes.append((f"layer{layer}.", K, H, False))
            if self.bidirectional:
                prefixes.append((f"layer{layer}.reverse.", K, H, True))
            K = H * self.directions + (K if self.dense_layers and layer else 0)
        return prefixes

    def shapes(self) -> Shapes:
        """Names and shapes of the network's parameters, in the order of the flat buffer."""
        shapes: dict[str, tuple[int, ...]] = {}
        if self.embedding_size is not None:
            shapes["embedding"] = (self.input_size, self.embedding_size)
        for prefix, K, H, _ in self.prefixes():
            shapes |= {prefix + name: shape for name, shape in cell_parameters(self.cell, K, H).items()}
            if self.trainable_initial_state:
                names = ("h0", "c0") if CELLS[self.cell].has_c else ("h0",)
                shapes |= {prefix + name: (H,) for name in names}
        return shapes


# The options that are probabilities of dropping something while training.
DROPOUTS = ("dropout", "output_dropout", "recurrent_dropout", "input_dropout", "embedding_dropout", "weight_dropout")


def config_from(options: Mapping[str, Any], owner: str | None = None, **arguments: Any) -> NetworkConfig:
    """The configuration of a model's network, from the model's options.

    Parameters
    ----------
    options : mapping of str to value
    owner : str, optional
        Name of the class whose arguments these are: an option that `NetworkConfig` does not have, or that is among
        ``arguments``, is then a TypeError. If not given, such options are ignored.
    **arguments
        Options that the class determines.

    Raises
    ------
    TypeError, ValueError
        As the checks of the options raise them.
    """
    names = [each.name for each in options_of(NetworkConfig)]
    unknown = sorted(set(options) - (set(names) - set(arguments)))
    if owner is not None and unknown:
        raise TypeError(unexpected(unknown[0], [*names, *arguments, "seed"], owner))
    options = {**options, **arguments}
    return NetworkConfig(**{name: options[name] for name in names if name in options})


def in_file(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a network or model as files hold it: without the options that they hold only if set."""
    omitted = {each.name: each.default for each in options_of(NetworkConfig) if each.omit_default}
    return {name: value for name, value in config.items() if name not in omitted or value != omitted[name]}


def network_json_types(*without: str) -> dict[str, tuple[type, ...]]:
    """The types that each network option may have in a file's header, except those named in ``without``."""
    return {each.name: each.json_types for each in options_of(NetworkConfig) if each.name not in without}
