# SPDX-License-Identifier: MIT
"""ModelParts: a model taken apart, in crnn's terms, on its way from or to another format.

    another format --layouts--> layers, embedding, head --model_from--> RNN, SequenceClassifier, ...
    model --parts_of--> ModelParts --layouts--> another format

What a format cannot express it refuses with `ModelParts.refuse`, so that no option or parameter is dropped unnoticed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crnn.checks import Array
from crnn.io.model_file import check_finite
from crnn.models.classifier import SequenceClassifier
from crnn.models.inputs.standardizer import Standardizer
from crnn.models.language_model import LanguageModel
from crnn.models.regressor import SequenceRegressor
from crnn.models.tagger import SequenceTagger
from crnn.nn.config import NetworkConfig, config_from
from crnn.nn.module import Module
from crnn.nn.network import RNN
from crnn.text.vocab import Vocab

# The kinds of models with one network, by name: what can be made of recurrent layers and a head.
KINDS: dict[str, type[Module]] = {
    kind.__name__: kind for kind in (RNN, LanguageModel, SequenceClassifier, SequenceTagger, SequenceRegressor)
}
# The options on which the results of a trained model do not depend. Of the others, formats list those they express.
ONLY_TRAINING = {
    *("forget_bias", "dropout", "variational_dropout", "recurrent_init", "input_init", "init"),
    *("recurrent_dropout", "output_dropout", "input_dropout", "embedding_dropout", "weight_dropout"),
    *("scale", "class_weight", "label_smoothing", "delta", "activation_penalty", "temporal_penalty"),
}
# Of these, those that a format for modules that train has no place for.
RARE_DROPOUTS = ("input_dropout", "embedding_dropout", "weight_dropout")
Layer = tuple[Mapping[str, Array], ...]  # the parameters of each direction of a layer, by name without prefix


@dataclass(frozen=True)
class ModelParts:
    """A model's network, head and scaling."""

    kind: str  # a name in KINDS
    config: Mapping[str, Any]  # arguments that make such a model, without vocabulary and what `parts_of` refuses
    network: NetworkConfig
    params: Mapping[str, Array]  # by crnn's names; copies
    scaling: Mapping[str, tuple[Array, Array]]  # mean and std of "x" and "y", where they are not the identity
    vocab: Vocab | None

    @property
    def layers(self) -> list[Layer]:
        """The parameters of each layer: one mapping, or two if the network is bidirectional."""
        by_prefix: dict[str, dict[str, Array]] = {prefix: {} for prefix, *_ in self.network.prefixes()}
        for full_name, values in self.params.items():
            prefix, dot, name = full_name.rpartition(".")
            if prefix + dot in by_prefix:
                by_prefix[prefix + dot][name] = values
        named = list(by_prefix.values())
        step = self.network.directions
        return [tuple(named[i : i + step]) for i in range(0, len(named), step)]

    @property
    def embedding(self) -> Array | None:
        """(V, E), or None."""
        return self.params.get("embedding")

    @property
    def head(self) -> tuple[Array, Array] | None:
        """W_hy (H, V) and b_y (V,), or None for an RNN. Tied weights are the transposed embedding."""
        if "b_y" not in self.params:
            return None
        tied = "W_hy" not in self.params
        return self.params["embedding"].T if tied else self.params["W_hy"], self.params["b_y"]

    @property
    def cutoffs(self) -> list[int]:
        """Those of an adaptive softmax, otherwise none."""
        return self.config.get("adaptive_softmax") or []

    @property
    def tails(self) -> list[tuple[Array, Array]]:
        """W_hp (H, P) and W_py (P, N) of each tail of an adaptive softmax. The head then has a column for each."""
        return [(self.params[f"tail{i}.W_hp"], self.params[f"tail{i}.W_py"]) for i in range(len(self.cutoffs))]

    @property
    def pooling(self) -> str | None:
        """How the head reads the outputs of the steps; None: each step."""
        pooling: str | None = self.config.get("pooling")
        return pooling

    def refuse_rare_dropouts(self, format: str) -> None:
        """Raise ValueError for dropout that a module of the format would not apply when it is trained."""
        self.refuse(format, **dict.fromkeys(RARE_DROPOUTS, 0))
        if self.network.output_dropout not in (None, self.network.dropout):
            expected, got = self.network.dropout, self.network.output_dropout
            raise ValueError(f"output_dropout: expected None or {expected}, which {format} can express, got {got}")

    def refuse(self, format: str, **expected: Any) -> None:
        """Raise ValueError for the first option whose value is not the one that the format can express.

        ``expected`` are options of the model or its network, such as ``bidirectional=False``; a tuple holds several
        values.
        """
        for name, values in expected.items():
            values = values if isinstance(values, tuple) else (values,)
            value = self.config[name] if name in self.config else getattr(self.network, name)
            if value not in values:
                wanted = " or ".join(map(repr, values))
                raise ValueError(f"{name}: expected {wanted}, which {format} can express, got {value!r}")


def parts_of(
    model: object, *kinds: str, adaptive_softmax: bool = False, dense_layers: bool = False
) -> ModelParts:
    """The parts of a model, as copies: another thread may be training it, and what is written is what was checked.

    Parameters
    ----------
    model : RNN, LanguageModel, SequenceClassifier, SequenceTagger or SequenceRegressor
    *kinds : str
        The kinds that are expected; all of `KINDS` if not given.
    adaptive_softmax, dense_layers : bool
        Whether the format can express them.

    Raises
    ------
    TypeError
        The model is of another kind.
    ValueError
        It waits for `fit`, or is quantised, or has an adaptive softmax or dense layers, which the format lacks, or a
        value is NaN or infinite; the message names the parameter.
    """
    kind = next((kind for kind in kinds or KINDS if isinstance(model, KINDS[kind])), None)  # of subclasses too
    if kind is None or not isinstance(model, Module):
        raise TypeError(f"model: expected one of {', '.join(kinds or KINDS)}, got {type(model).__name__}")
    if getattr(model, "deferred", False):
        raise ValueError("model: expected one with weights, got one that waits for fit")
    config = model.config()
    precision = config.pop("precision")
    if precision is not None:
        raise ValueError(
            f"precision: expected a model in float32 or float64, got {precision!r}, whose products other libraries "
            "compute differently; model.astype('float32') has the same weights"
        )
    cutoffs = config.get("adaptive_softmax")
    if cutoffs is not None and not adaptive_softmax:
        raise ValueError(f"adaptive_softmax: expected None, because this format has no such layer, got {cutoffs}")
    if not dense_layers and config.pop("dense_layers"):
        raise ValueError("dense_layers: expected False, because this format only has layers that read the one below")
    params = {name: values.copy() for name, values in model._parameters.values.items()}
    check_finite(params)
    scalings: dict[str, Standardizer] = getattr(model, "scalings", {})
    scaling = {name: (each.mean.copy(), each.std.copy()) for name, each in scalings.items() if not each.is_identity}
    net: Any = getattr(model, "net", model)
    vocab = getattr(model, "vocab", None)
    return ModelParts(kind, config, config_from(net.config()), params, scaling, vocab)


def model_from(
    kind: str,
    cell: str,
    layers: Sequence[Layer],
    *,
    embedding: Array | None = None,
    head: tuple[Array, Array] | None = None,
    tails: Sequence[tuple[Array, Array]] = (),
    vocab: Vocab | None = None,
    scaling: Mapping[str, tuple[Array, Array]] | None = None,
    **options: Any,
) -> Any:
    """The model that has these parts, as copies.

    Parameters
    ----------
    kind : str
        A name in `KINDS`.
    cell : str
    layers : sequence of tuple of mapping
        Parameters of each direction of each layer by crnn's names without prefix, as `crnn.interop.layouts.to_crnn`
        returns them.
    embedding : array (D, E), optional
    head : (W_hy (H, V), b_y (V,)), optional
        None for an RNN. A LanguageModel with the option ``tie_weights`` takes W_hy for the transposed embedding.
    tails : sequence of (W_hp (H, P), W_py (P, N))
        Of a LanguageModel with the option ``adaptive_softmax``.
    vocab : Vocab, optional
        Of a LanguageModel.
    scaling : mapping of str to (mean, std), optional
        Of inputs "x" and targets "y"; float64.
    **options
        Further arguments of the model, such as ``pooling`` or ``classes``.

    Raises
    ------
    ValueError
        The parts do not fit each other or the kind, or a value is NaN or infinite; the message names it.
    """
    params: dict[str, Array] = {} if embedding is None else {"embedding": embedding}
    for number, directions in enumerate(layers):
        for prefix, direction in zip((f"layer{number}.", f"layer{number}.reverse."), directions, strict=False):
            params |= {prefix + name: values for name, values in direction.items()}
    config: dict[str, Any] = {
        "input_size": len(params["layer0.W_xh"] if embedding is None else embedding),
        "hidden_size": [len(directions[0]["W_hh"]) for directions in layers],
        "num_layers": len(layers),
        "cell": cell,
        "bidirectional": len(layers[0]) == 2,
        "embedding_size": None if embedding is None else embedding.shape[1],
        "dtype": params["layer0.W_xh"].dtype.name,
        **options,
    }
    hidden = config["hidden_size"]
    config["hidden_size"] = hidden[0] if len(set(hidden)) == 1 else hidden
    if head is not None:
        params |= {"b_y": head[1]} if options.get("tie_weights") else {"W_hy": head[0], "b_y": head[1]}
    for i, matrices in enumerate(tails):
        params |= {f"tail{i}.{name}": values for name, values in zip(("W_hp", "W_py"), matrices, strict=True)}
    check_finite(params)
    cls = KINDS[kind]
    if kind == "LanguageModel":
        del config["input_size"]  # the vocabulary determines it
    header: dict[str, Any] = {"kind": kind, "config": config}
    if vocab is not None:
        header["vocab"] = vocab.to_dict()
    return cls.from_contents(header, params | _statistics(cls, config, scaling or {}))


def _statistics(
    cls: type[Module], config: Mapping[str, Any], scaling: Mapping[str, tuple[Array, Array]]
) -> dict[str, Array]:
    """What a file of this class holds besides the parameters: means and stds, 0 and 1 where there is no scaling."""
    values: dict[str, Array] = {}
    for name, (mean, std) in scaling.items():
        values |= {f"scaling.{name}.mean": mean, f"scaling.{name}.std": std}
    default = {"mean": np.zeros, "std": np.ones}
    sizes = cls.statistics_of(config)
    unknown = sorted(set(values) - set(sizes))
    if unknown:
        raise ValueError(f"scaling: expected that of a model that scales, got {unknown[0]} for a {cls.__name__}")
    return {name: values.get(name, default[name.rpartition(".")[2]](size)) for name, size in sizes.items()}
