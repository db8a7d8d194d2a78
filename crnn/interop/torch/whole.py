# SPDX-License-Identifier: MIT
"""Whole models: a recurrent module, perhaps an embedding, and a head, as a model of crnn and back. Needs no torch.

    name of a tensor           shape
    embedding.weight           (V, E)      if there is one
    rnn.weight_ih_l0 ...                   see tensors.py
    head.weight, head.bias     (V, F)      F: units of the top layer, or those of all steps for pooling "flatten"
    head.head.weight, .bias    (S, F)      instead of them with an adaptive softmax, whose tails' matrices are
    head.tail.0.0.weight ...   (P, F)      those of an ``nn.AdaptiveLogSoftmaxWithLoss``
    head.tail.0.1.weight ...   (N, P)
    scaling.x.mean, .std       (D,)        float64; likewise scaling.y

These are the names that are written. Those that are read may be others, except of the scaling.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from crnn.array_input import real_numbers
from crnn.checks import Array, check_probability
from crnn.interop.parts import KINDS, ModelParts, model_from
from crnn.interop.torch.tensors import Read, Recurrent, listed, recurrent_from, recurrent_tensors
from crnn.models.outputs.clusters import DIVISOR
from crnn.nn.init import UNINITIALISED
from crnn.text.vocab import Vocab

# What the argument ``kind`` of the functions may be, and the class that it means.
TASKS = {
    "language_model": "LanguageModel",
    "classifier": "SequenceClassifier",
    "tagger": "SequenceTagger",
    "regressor": "SequenceRegressor",
}
NETWORK = "RNN"  # the kind of model without a head
# Options that the tensors determine.
FROM_TENSORS = frozenset({"input_size", "hidden_size", "num_layers", "cell", "bidirectional", "embedding_size"})
FROM_TENSORS |= {"adaptive_softmax"}
FROM_TENSORS |= {"dtype", "num_classes", "output_size", "trainable_initial_state", "scale", "vocab", "tie_weights"}


@dataclass(frozen=True)
class Wanted:
    """What the caller says about tensors, which do not say it themselves."""

    kind: str  # NETWORK, or a name in TASKS
    head: str | None = None  # the name of a module, as in ``head.weight``
    embedding: str | None = None
    vocab: Vocab | None = None
    scaling: Mapping[str, tuple[Any, Any]] | None = None
    options: Mapping[str, Any] | None = None  # of the model


@dataclass(frozen=True)
class Head:
    """A linear module, or an adaptive softmax."""

    weight: Array  # (V, F); of an adaptive softmax (S, F)
    bias: Array | None  # (V,)
    tails: Sequence[tuple[Array, Array]] = ()  # (P, F) and (N, P) of each

    @property
    def outputs(self) -> int:
        """V."""
        return len(self.weight) - len(self.tails) + sum(len(up) for _, up in self.tails)

    @property
    def cutoffs(self) -> list[int]:
        """Those of an adaptive softmax, otherwise none."""
        sizes = [len(up) for _, up in self.tails]
        return [self.outputs - sum(sizes[i:]) for i in range(len(sizes))]

    @staticmethod
    def adaptive(tensors: Mapping[str, Array]) -> Head:
        """That of the tensors of an ``nn.AdaptiveLogSoftmaxWithLoss``, by name. Raises ValueError for others."""
        tails: list[tuple[Array, Array]] = []
        while f"tail.{len(tails)}.0.weight" in tensors:
            names = [f"tail.{len(tails)}.{n}.weight" for n in (0, 1)]
            if names[1] not in tensors:
                break
            tails.append((tensors[names[0]], tensors[names[1]]))
        expected = {"head.weight", *(f"tail.{i}.{n}.weight" for i in range(len(tails)) for n in (0, 1))}
        if set(tensors) - {"head.bias"} != expected or any(array.ndim != 2 for each in tails for array in each):
            raise ValueError(
                f"head: expected the tensors of an nn.AdaptiveLogSoftmaxWithLoss, got {listed(sorted(tensors))}"
            )
        weight = tensors["head.weight"]
        if weight.ndim != 2 or len(weight) <= len(tails):
            raise ValueError(f"head.weight: expected a row for each token and tail, got shape {weight.shape}")
        for i, (down, up) in enumerate(tails):
            P = weight.shape[1] // DIVISOR ** (i + 1)
            if down.shape != (P, weight.shape[1]) or up.shape[1] != P or not len(up):
                raise ValueError(
                    f"tail.{i}: expected a projection to {P} units, as div_value={DIVISOR} makes it, got shapes "
                    f"{down.shape} and {up.shape}"
                )
        return Head(weight, tensors.get("head.bias"), tails)

    @property
    def for_two_classes(self) -> Head:
        """Two logits that have the probabilities of one: softmax([0, z]) = [1 - sigmoid(z), sigmoid(z)]."""
        bias = np.zeros(1, self.weight.dtype) if self.bias is None else self.bias
        weight, bias = (np.concatenate([np.zeros_like(array), array]) for array in (self.weight, bias))
        return Head(weight, bias)


def is_one_logit(kind: str, outputs: int, options: Mapping[str, Any]) -> bool:
    """Whether a head's one output is the logit of the second of two classes."""
    return kind in ("classifier", "tagger") and outputs == 1 and not options.get("multilabel")


def check_kind(kind: Any, vocab: Any, head: Any = None, embedding: Any = None) -> str:
    """The kind of model that is meant, which may also be said by its class. Raises TypeError and ValueError."""
    if isinstance(kind, type):
        kind = kind.__name__
    kind = next((name for name, cls in TASKS.items() if cls == kind), kind)
    if kind is None and vocab is not None:
        kind = "language_model"
    if kind is None:
        if head is not None or embedding is not None:
            raise TypeError(f"kind: expected one of {', '.join(TASKS)} with a head or an embedding, got None")
        return NETWORK
    if kind not in TASKS:
        raise ValueError(f"kind: expected one of {', '.join(TASKS)}, got {kind!r:.80}")
    if kind == "language_model" and not isinstance(vocab, Vocab):
        raise TypeError(f"vocab: expected a Vocab, got {type(vocab).__name__}")
    if kind != "language_model" and vocab is not None:
        raise ValueError(f"vocab: expected none for kind={kind!r}, got a {type(vocab).__name__}")
    return str(kind)


# ---- from PyTorch ----------------------------------------------------------------------------------------------------


def network_of(recurrent: Recurrent, dropout: Any, embedding: Array | None = None) -> Any:
    """The RNN of a recurrent module."""
    dropout = check_probability("dropout", dropout)
    return model_from(NETWORK, recurrent.cell, recurrent.layers, embedding=embedding, dropout=dropout)


def model_of(
    wanted: Wanted, recurrent: Recurrent, head: Head, embedding: Array | None = None, *, tied: bool = False
) -> Any:
    """The model of a recurrent module, a head and perhaps an embedding. Raises TypeError and ValueError."""
    kind = TASKS[wanted.kind]
    if head.tails and wanted.kind != "language_model":
        raise ValueError(f"head: expected an nn.Linear for a {wanted.kind}, got an nn.AdaptiveLogSoftmaxWithLoss")
    if is_one_logit(wanted.kind, len(head.weight), wanted.options or {}):
        head = head.for_two_classes
    V, F = head.weight.shape
    if wanted.kind == "language_model":
        _check_language_model(wanted, recurrent, head, embedding)
    options = dict(wanted.options or {})
    _check_options(kind, options)
    if wanted.kind in ("classifier", "regressor"):
        options.setdefault("pooling", "last")
    if options.get("pooling") == "flatten" and F % recurrent.output_size == 0:
        options.setdefault("steps", F // recurrent.output_size)
    width = recurrent.output_size * (options.get("steps") or 1)
    _check_part("head.weight", head.weight, (V, width), recurrent.dtype)
    bias = np.zeros(V, recurrent.dtype) if head.bias is None else head.bias
    _check_part("head.bias", bias, (V,), recurrent.dtype)
    if embedding is not None:
        _check_part("embedding.weight", embedding, (len(embedding), recurrent.input_size), recurrent.dtype)
    if wanted.kind == "language_model":
        options["tie_weights"] = tied
    else:
        options |= _outputs(wanted.kind, V, options)
        # Weights without a scaling are made for unscaled numbers: training must not standardise them. Ids have none.
        options["scale"] = bool(wanted.scaling) or (embedding is not None and wanted.kind != "regressor")
    return model_from(
        kind,
        recurrent.cell,
        recurrent.layers,
        embedding=embedding,
        head=(head.weight.T, bias),
        tails=[(down.T, up.T) for down, up in head.tails],
        vocab=wanted.vocab,
        scaling=_statistics(wanted.scaling),
        **_normalised(kind, recurrent, embedding, wanted.vocab, options),
        **({"adaptive_softmax": head.cutoffs} if head.tails else {}),
    )


def _check_options(kind: str, options: Mapping[str, Any]) -> None:
    """Raise TypeError for what is no option of the model, or is one that the tensors determine."""
    known = sorted(set(KINDS[kind].config_types) - FROM_TENSORS)
    for name in options:
        if name not in known:
            raise TypeError(f"{name}: expected an option of a {kind} that tensors do not determine: {', '.join(known)}")


def _check_part(name: str, array: Array, shape: tuple[int, ...], dtype: str) -> None:
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"{name}: expected {dtype} of shape {shape}, got {array.dtype} of shape {array.shape}")


def _check_language_model(wanted: Wanted, recurrent: Recurrent, head: Head, embedding: Array | None) -> None:
    """Raise ValueError unless the parts fit the vocabulary."""
    if len(recurrent.layers[0]) > 1:
        raise ValueError("module: expected one direction for a language model, got bidirectional=True")
    size, D, dtype = len(wanted.vocab or ()), recurrent.input_size, recurrent.dtype
    if embedding is None and size != D:
        raise ValueError(f"module: expected input_size={size}, one-hot tokens of the vocabulary, got {D}")
    if embedding is not None:
        _check_part("embedding.weight", embedding, (size, D), dtype)
    shortlist = size - head.outputs + len(head.weight)
    _check_part("head.weight", head.weight, (shortlist, recurrent.output_size), dtype)
    for i, tail in enumerate(head.tails):
        for n, array in enumerate(tail):
            _check_part(f"tail.{i}.{n}.weight", array, array.shape, dtype)


def _outputs(kind: str, V: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """The option that says how many outputs there are."""
    if kind != "regressor":
        return {"num_classes": V}
    quantiles = options.get("quantiles", (0.1, 0.5, 0.9))
    values = len(quantiles) if options.get("loss") == "quantile" else 1
    if V % values:
        raise ValueError(f"quantiles: expected a number that divides the {V} outputs of the head, got {values}")
    return {"output_size": V // values}


def _statistics(scaling: Mapping[str, tuple[Any, Any]] | None) -> dict[str, tuple[Array, Array]]:
    """Mean and std of "x" and "y" in float64, fresh."""
    statistics: dict[str, tuple[Array, Array]] = {}
    scaling = {} if scaling is None else scaling
    if not isinstance(scaling, Mapping):
        raise TypeError(f"scaling: expected a mapping such as {{'x': (mean, std)}}, got {type(scaling).__name__}")
    for name, pair in scaling.items():
        if name not in ("x", "y") or not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ValueError(f"scaling: expected x or y, each with a pair (mean, std), got {name!r:.80}: {pair!r:.80}")
        mean, std = (np.atleast_1d(real_numbers(f"scaling[{name!r}]", values)).astype(np.float64) for values in pair)
        statistics[name] = mean, std
    return statistics


def _normalised(
    kind: str, recurrent: Recurrent, embedding: Array | None, vocab: Vocab | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """The options as the model's configuration has them, checked by its constructor."""
    make: Any = KINDS[kind]
    sizes = {"hidden_size": 1, "cell": recurrent.cell}  # of a small stand-in
    sizes |= {"vocab": vocab} if vocab is not None else {"input_size": 1}
    stand_in = dict(options)
    if embedding is not None:
        sizes["embedding_size"] = 1
    model = make(**sizes, **stand_in, seed=UNINITIALISED)
    config = model.config()
    return {name: value for name, value in config.items() if name in options or name not in FROM_TENSORS}


# ---- tensors by name -------------------------------------------------------------------------------------------------


def model_from_names(
    names: Collection[str], read: Read, wanted: Wanted, prefix: str | None, nonlinearity: str | None, dropout: Any
) -> Any:
    """The model of tensors by name. In a whole model every one of them has a place, or is named in the error."""
    recurrent = recurrent_from(names, read, prefix, nonlinearity)
    rest = [name for name in names if name not in recurrent.names]
    if wanted.kind == NETWORK:
        if rest and prefix is None:
            first = min(recurrent.names)
            own = first[: first.rindex("bias_" if "bias_" in first.rpartition(".")[2] else "weight_")]
            raise ValueError(
                f"expected the tensors of one recurrent module and no others, got {listed(sorted(rest))} too; kind "
                f"says which model they make, such as regressor, and prefix={own!r} leaves them out"
            )
        return network_of(recurrent, dropout)
    scaling = _scaling_of(rest, read)
    rest = [name for name in rest if not (scaling and name.startswith("scaling."))]
    adaptive = _adaptive_names(rest, wanted.head)
    if adaptive:
        wanted = replace(wanted, head=None)  # it has been found
    groups = _groups([name for name in rest if name not in adaptive.values()])
    head_name, embedding_name = _choose(groups, read, recurrent, wanted, bool(adaptive))
    chosen = {name: groups.pop(name) for name in (head_name, embedding_name) if name is not None}
    unused = [name for group in groups.values() for name in group.values()]
    unused += [name for group in chosen.values() for short, name in group.items() if short not in ("weight", "bias")]
    unused += [chosen[embedding_name]["bias"]] if embedding_name and "bias" in chosen[embedding_name] else []
    if unused:
        raise ValueError(
            "expected the tensors of one recurrent module, an embedding and a head, and no others, "
            f"got {listed(sorted(unused))}"
        )
    embedding = None if embedding_name is None else _matrix(read, chosen[embedding_name]["weight"])
    if head_name is None:
        head = Head.adaptive({short: read(name) for short, name in adaptive.items()})
    else:
        group = chosen[head_name]
        head = Head(_matrix(read, group["weight"]), read(group["bias"]) if "bias" in group else None)
    tied = wanted.kind == "language_model" and embedding is not None and np.array_equal(embedding, head.weight)
    options = dict(wanted.options or {}) | ({"dropout": dropout} if dropout else {})
    if scaling and wanted.scaling is not None:
        raise ValueError("scaling: expected none, because the tensors have one, got one")
    wanted = Wanted(wanted.kind, vocab=wanted.vocab, scaling=scaling or wanted.scaling, options=options)
    return model_of(wanted, recurrent, head, embedding, tied=tied)


def _adaptive_names(names: Collection[str], head: str | None) -> dict[str, str]:
    """The names of an adaptive softmax's tensors, by their names in it; none if there is none, or ``head`` is another.

    ``head``: the name of the module that is the head, if it is given.
    """
    first = "tail.0.0.weight"
    prefixes = [name.removesuffix(first) for name in names if name.endswith(first)]
    if head is not None:
        prefixes = [each for each in prefixes if each == f"{head}."]
    if len(prefixes) != 1:
        return {}
    prefix = prefixes[0]
    return {
        name.removeprefix(prefix): name for name in names if name.startswith((f"{prefix}head.", f"{prefix}tail."))
    }


def _scaling_of(names: Collection[str], read: Read) -> dict[str, tuple[Array, Array]]:
    """Mean and std of "x" and "y", where they have the names that are written here."""
    pairs = {key: (f"scaling.{key}.mean", f"scaling.{key}.std") for key in ("x", "y")}
    return {key: (read(mean), read(std)) for key, (mean, std) in pairs.items() if mean in names and std in names}


def _groups(names: Collection[str]) -> dict[str, dict[str, str]]:
    """Full names of tensors by module and by their last part."""
    groups: dict[str, dict[str, str]] = {}
    for name in names:
        module, _, short = name.rpartition(".")
        groups.setdefault(module, {})[short] = name
    return groups


def _matrix(read: Read, name: str) -> Array:
    array = read(name)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name}: expected a matrix, not empty, got shape {array.shape}")
    return array


def _choose(
    groups: Mapping[str, Mapping[str, str]], read: Read, recurrent: Recurrent, wanted: Wanted, adaptive: bool
) -> tuple[str | None, str | None]:
    """The modules that are the head and the embedding: those that were named, or the only ones whose shapes fit.

    No head: with an ``adaptive`` softmax, which has been found already.
    """
    for argument, given in (("head", wanted.head), ("embedding", wanted.embedding)):
        if given is not None and "weight" not in groups.get(given, {}):
            fit = listed(sorted(name for name, group in groups.items() if "weight" in group))
            raise ValueError(f"{argument}: expected a module with a weight, one of {fit}, got {given!r:.80}")
    plain = [name for name, group in groups.items() if set(group) in ({"weight"}, {"weight", "bias"})]
    shapes = {name: read(groups[name]["weight"]).shape for name in plain}
    widths = {name: shape[1] for name, shape in shapes.items() if len(shape) == 2}
    F, D = recurrent.output_size, recurrent.input_size
    flatten = (wanted.options or {}).get("pooling") == "flatten"
    heads = [name for name, width in widths.items() if (width % F == 0 if flatten else width == F)]
    tables = [name for name, width in widths.items() if width == D and "bias" not in groups[name]]
    head = wanted.head
    if head is None and not adaptive:
        head = _only("head", heads, [wanted.embedding], groups)
    if head is None and not adaptive:
        raise ValueError(f"head: expected a matrix (V, {F}), found none among {listed(list(groups))}")
    embedding = wanted.embedding
    if embedding is None:
        embedding = _only("embedding", tables, [head], groups)
    return head, embedding


def _only(
    argument: str, fitting: list[str], excluded: list[str | None], groups: Mapping[str, Mapping[str, str]]
) -> str | None:
    """The only module that fits; one with a bias is a head before one without. None: there is none."""
    names = [name for name in fitting if name not in excluded]
    if argument == "head" and len(names) > 1:
        names = [name for name in names if "bias" in groups[name]] or names
    if len(names) > 1:
        raise ValueError(f"{argument}: expected the name of one module, because several fit: {listed(sorted(names))}")
    return names[0] if names else None


# ---- to PyTorch ------------------------------------------------------------------------------------------------------


def whole_tensors(parts: ModelParts) -> dict[str, Array]:
    """The tensors of a model by the names above; of an RNN without a prefix. Fresh, except tied weights."""
    if parts.kind == NETWORK:
        return recurrent_tensors(parts)
    tensors: dict[str, Array] = {}
    if parts.embedding is not None:
        tensors["embedding.weight"] = np.array(parts.embedding)
    tensors |= {"rnn." + name: values for name, values in recurrent_tensors(parts).items()}
    assert parts.head is not None  # every model but an RNN has one
    weight, bias = parts.head
    if parts.cutoffs:
        tensors |= {"head.head.weight": np.array(weight.T, order="C"), "head.head.bias": np.array(bias)}
        for i, matrices in enumerate(parts.tails):
            tensors |= {f"head.tail.{i}.{n}.weight": np.array(w.T, order="C") for n, w in enumerate(matrices)}
        return tensors
    tied = "W_hy" not in parts.params
    tensors["head.weight"] = tensors["embedding.weight"] if tied else np.array(weight.T, order="C")
    tensors["head.bias"] = np.array(bias)
    for name, (mean, std) in parts.scaling.items():
        if name == "x" and parts.embedding is not None:
            continue  # inputs are ids
        tensors |= {f"scaling.{name}.mean": np.array(mean), f"scaling.{name}.std": np.array(std)}
    return tensors
