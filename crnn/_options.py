# SPDX-License-Identifier: MIT
"""Options declared once: fields of a frozen dataclass with their check, help text and command-line flag.

    @dataclass(frozen=True, kw_only=True)
    class NetworkConfig:
        dropout: float = option(0.0, check=check_probability, help="Probability of ...", flag="--dropout")

        def __post_init__(self) -> None:
            check_options(self)

Such a class determines the signature and the docstring of a function that takes ``**options``, the flags of the command
line, and the types that are valid in the JSON header of a file.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import textwrap
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, Union, cast, get_args, get_origin, get_type_hints

if TYPE_CHECKING:  # only the command line needs it; `import crnn` does not load it
    import argparse

__all__ = [
    "ELSEWHERE",
    "NOWHERE",
    "REQUIRED",
    "Check",
    "Option",
    "add_flags",
    "build_config",
    "check_options",
    "did_you_mean",
    "from_flags",
    "name_here",
    "option",
    "options_of",
    "signature_with",
    "takes_options",
    "unexpected",
]

Check = Callable[[str, Any], Any]  # (name, value) -> the normalised value; raises ValueError or TypeError
C = TypeVar("C")
F = TypeVar("F", bound=Callable[..., Any])

REQUIRED: Any = dataclasses.MISSING  # default of an option without a default

_JSON_TYPES: dict[Any, tuple[type, ...]] = {
    int: (int,),
    float: (float, int),  # JSON does not distinguish 1.0 from 1
    bool: (bool,),
    str: (str,),
    type(None): (type(None),),
}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Option:
    """One option, as declared by `option`.

    Attributes
    ----------
    name : str
    type : type
        The resolved annotation. If it admits None, None is not checked further.
    annotation : str
        The annotation as written in the source.
    default
        `REQUIRED` if there is none.
    check : callable or None
    help : str
        Sentences for the docstring and for ``--help``.
    flag : str or None
        Command-line flag; None if the command line does not have this option.
    json_types : tuple of type
        Exact types that a JSON value of this option may have; empty if it is never written to a file.
    omit_default : bool
        Files hold the option only if it differs from its default: files of other models stay as they were before there
        was this option.
    """

    name: str
    type: Any
    annotation: str
    default: Any
    check: Check | None
    help: str
    flag: str | None
    json_types: tuple[type, ...]
    omit_default: bool

    @property
    def optional(self) -> bool:
        """Whether None is a valid value of this option."""
        return type(None) in _alternatives(self.type)

    def checked(self, value: Any) -> Any:
        """The normalised value. Raises what `check` raises."""
        if self.check is None or (value is None and self.optional):
            return value
        return self.check(self.name, value)

    def has_json_type(self, value: Any) -> bool:
        """Whether a value from a JSON header has one of the exact types of this option (bool is not int)."""
        return type(value) in self.json_types


Source: TypeAlias = type | tuple[Option, ...]


def option(
    default: Any = REQUIRED,
    *,
    check: Check | None = None,
    help: str,
    flag: str | None = None,
    json_types: Iterable[type] | None = None,
    omit_default: bool = False,
) -> Any:
    """A dataclass field for an `Option`. ``json_types`` are derived from the annotation if not given."""
    shown = {"check": check, "help": " ".join(help.split()), "flag": flag}
    in_files = {"json_types": json_types, "omit_default": omit_default}
    return dataclasses.field(default=default, metadata=shown | in_files)


def options_of(config_class: type) -> tuple[Option, ...]:
    """The options that a dataclass declares, in order, without fields that `option` did not make."""
    return _options_of(config_class)


@functools.cache
def _options_of(config_class: type) -> tuple[Option, ...]:
    hints = get_type_hints(config_class)
    found = []
    for field in dataclasses.fields(config_class):
        if "help" in field.metadata:
            settings = dict(field.metadata)
            given = settings.pop("json_types")
            json_types = _json_types(hints[field.name]) if given is None else tuple(given)
            annotation = field.type if isinstance(field.type, str) else inspect.formatannotation(field.type)
            found.append(
                Option(
                    name=field.name,
                    type=hints[field.name],
                    annotation=annotation,
                    default=field.default,
                    json_types=json_types,
                    **settings,
                )
            )
    return tuple(found)


def _listed(source: Source) -> tuple[Option, ...]:
    """The options of a configuration class, or those given."""
    return source if isinstance(source, tuple) else options_of(source)


def check_options(config: Any) -> None:
    """Check every option of a configuration and store the normalised values. Call it in ``__post_init__``."""
    for each in options_of(type(config)):
        object.__setattr__(config, each.name, each.checked(getattr(config, each.name)))


def build_config(config_class: Callable[..., C], options: Mapping[str, Any]) -> C:
    """A configuration from the ``**options`` of a function. An unknown name raises TypeError with the known names."""
    known = [each.name for each in options_of(cast(type, config_class))]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise TypeError(unexpected(unknown[0], known))
    return config_class(**options)


# ---- unknown names ---------------------------------------------------------------------------------------------------

# What other libraries call an option: its name here, and how it is given.
ELSEWHERE = {
    "learning_rate": "lr, such as lr=1e-3, or optimizer=crnn.optim.Adam(lr=1e-3)",
    "callbacks": "on_update or on_epoch, functions of a crnn.Progress",
    "verbose": "progress=True or progress=False",
    "validation_split": "valid, such as valid=0.2 in the fit of a sequence model",
    "early_stopping": "patience, such as patience=5, with validation data",
    "momentum": "optimizer, such as optimizer=crnn.optim.SGD(lr=0.1, momentum=0.9)",
    **dict.fromkeys(("weight_decay", "l2"), "optimizer, such as optimizer=crnn.optim.AdamW(weight_decay=0.01)"),
    **dict.fromkeys(("validation_data", "validation_fraction"), "valid"),
    **dict.fromkeys(("units", "hidden_dim", "hidden_units", "n_hidden", "hidden_layer_sizes"), "hidden_size"),
    **dict.fromkeys(("embedding_dim", "emb_dim"), "embedding_size"),
    **dict.fromkeys(("input_dim", "n_features"), "input_size"),
    **dict.fromkeys(("max_epochs", "num_epochs", "n_epochs", "max_iter"), "epochs"),
    **dict.fromkeys(("rnn_type", "cell_type", "nonlinearity", "activation"), "cell"),
    **dict.fromkeys(("scheduler", "lr_scheduler"), "schedule"),
    **dict.fromkeys(("clipnorm", "grad_clip", "gradient_clip_val", "max_grad_norm"), "clip_norm"),
    **dict.fromkeys(("seq_len", "seq_length", "sequence_length"), "bptt"),
    **dict.fromkeys(("n_jobs", "num_threads", "num_workers"), "threads"),
    "learning_rate_init": "lr",
    "n_iter_no_change": "patience",
    "random_state": "seed",
    "solver": "optimizer",
    "n_layers": "num_layers",
    "n_classes": "num_classes",
}
# What other libraries have and crnn has not, and what there is instead.
NOWHERE = {
    "device": "everything is computed on the CPU",
    "batch_first": "an RNN reads arrays (T, B, D), a model of sequences reads (N, T, D)",
    "shuffle": "training shuffles whole sequences, and keeps the order of a text",
    "return_sequences": "SequenceTagger, and SequenceRegressor with pooling=None, predict at every step",
}


def name_here(name: str) -> str:
    """The option that other libraries call ``name``; ``name`` itself if it is not known."""
    return re.split(r"\W", ELSEWHERE.get(name, name), maxsplit=1)[0]


def unexpected(name: str, known: Sequence[str], owner: str | None = None) -> str:
    """What to say of an argument ``name`` that is not among those ``known``, of ``owner`` if that should be named."""
    if name not in known and name_here(name) in known:
        return f"{name}: expected {ELSEWHERE[name]}"
    if name in NOWHERE:
        return f"{name}: there is no such option; {NOWHERE[name]}"
    what = f"{name}: there is no such option" if owner is None else f"{owner}: unexpected argument {name!r}"
    return what + (did_you_mean(name, known) or f"; expected one of {', '.join(known)}")


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """The end of a message about an unknown name: the known one that was probably meant, if there is one."""
    import difflib  # not earlier: `import crnn` does not wait for it

    if name_here(name) in known:
        return f"; did you mean {name_here(name)}?"
    close = difflib.get_close_matches(name, known, 1, 0.7) or [each for each in known if name in each and len(name) > 2]
    return f"; did you mean {close[0]}?" if close else ""


# ---- signature and docstring ---------------------------------------------------------------------------------------


def signature_with(
    function: Callable[..., Any], *sources: Source, defaults: Mapping[str, Any] | None = None
) -> inspect.Signature:
    """The signature of a function, with a parameter for each option instead of ``**options``. Explicit ones stay.

    ``defaults`` are those that differ from the sources'.
    """
    values = defaults or {}
    signature = inspect.signature(function)
    explicit = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    named = {parameter.name for parameter in explicit}
    added = [
        inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=values.get(each.name, inspect.Parameter.empty if each.default is REQUIRED else each.default),
            annotation=each.annotation,
        )
        for source in sources
        for each in _listed(source)
        if each.name not in named
    ]
    return signature.replace(parameters=[*explicit, *added])


def takes_options(*sources: Source, defaults: Mapping[str, Any] | None = None) -> Callable[[F], F]:
    """Decorator of a function with ``**options``, which shows the options in the function's signature, and replaces the
    line ``{options}`` of its docstring by their numpydoc entries.

    ``sources`` are configuration classes, or tuples of some of their options; ``defaults`` those that differ from them.
    """

    def decorate(function: F) -> F:
        signature = signature_with(function, *sources, defaults=defaults)
        function.__signature__ = signature  # type: ignore[attr-defined]
        text = function.__doc__ or ""  # none under python -OO
        placeholder = re.search(r"^( *)\{options\}$", text, re.MULTILINE)
        if placeholder:
            indent = placeholder[1]  # none since Python 3.13, which dedents docstrings
            all_entries = [each for source in sources for each in _numpydoc_entries(source)]
            described = _described(text, indent)
            entries = [entry for name, entry in all_entries if name not in described]
            function.__doc__ = text.replace(placeholder[0], textwrap.indent("\n".join(entries), indent))
        return function

    return decorate


def _described(docstring: str, indent: str) -> set[str]:
    """The names of parameters, alone or several in a line, that a docstring describes itself."""
    lines = re.findall(rf"^{indent}(\w+(?:, \w+)*)(?: :.*)?$", docstring, re.MULTILINE)
    return {name for line in lines for name in line.split(", ")}


@functools.cache  # several classes have the same options
def _numpydoc_entries(source: Source) -> list[tuple[str, str]]:
    """Name and numpydoc entry of each option."""
    entries = []
    for each in _listed(source):
        type_text = each.annotation.removesuffix(" | None") + ", optional" * each.optional
        if get_origin(each.type) is Literal:
            type_text = "{" + ", ".join(f'"{choice}"' for choice in get_args(each.type)) + "}"
        if each.default not in (REQUIRED, None):
            type_text += f", default {each.default!r}"
        help = textwrap.fill(each.help, 116, initial_indent="    ", subsequent_indent="    ")
        entries.append((each.name, f"{each.name} : {type_text}\n{help}"))
    return entries


# ---- command-line flags ----------------------------------------------------------------------------------------------


def add_flags(
    parser: argparse._ActionsContainer,
    config_class: type,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    without: Iterable[str] = (),
) -> None:
    """Add a flag for every option that has one, without those that are named.

    ``overrides`` gives, by option name, arguments of ``add_argument`` that differ on the command line, such as the
    default, the help text or the choices.
    """
    overrides = overrides or {}
    for each in options_of(config_class):
        if each.flag is not None and each.name not in without:
            changes = overrides.get(each.name, {})
            arguments = _flag_arguments(each) | dict(changes)
            if "default" in changes:
                arguments.pop("required", None)
            if "choices" in arguments or "action" in arguments:
                arguments.pop("metavar", None)
            parser.add_argument(each.flag, dest=each.name, **arguments)


def from_flags(namespace: argparse.Namespace, config_class: type) -> dict[str, Any]:
    """The parsed values of the flags that `add_flags` added, by option name."""
    names = [each.name for each in options_of(config_class) if each.flag is not None]
    return {name: getattr(namespace, name) for name in names if hasattr(namespace, name)}


def _flag_arguments(each: Option) -> dict[str, Any]:
    """The arguments of ``add_argument`` for an option."""
    assert each.flag is not None
    text = each.help.removesuffix(".").replace("%", "%%")
    if not (text[:2].isalpha() and text[:2].isupper()):  # an abbreviation keeps its capitals
        text = text[:1].lower() + text[1:]
    arguments: dict[str, Any] = {"help": text}
    if each.default is REQUIRED:
        arguments["required"] = True
    else:
        arguments["default"] = each.default
    (kind, *others) = [kind for kind in _alternatives(each.type) if kind is not type(None)]
    if kind is bool:
        from argparse import BooleanOptionalAction

        arguments["action"] = BooleanOptionalAction if each.default is True else "store_true"
    elif get_origin(kind) is Literal:
        arguments["choices"] = list(get_args(kind))
    else:
        arguments["metavar"] = each.flag.lstrip("-").replace("-", "_").upper()
        if kind in (int, float) and not others:
            arguments["type"] = kind
    return arguments


# ---- types -----------------------------------------------------------------------------------------------------------


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself."""
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _json_types(annotation: Any) -> tuple[type, ...]:
    """The exact types of the JSON values that an annotation admits."""
    found: list[type] = []
    for kind in _alternatives(annotation):
        origin = get_origin(kind)
        if origin is Literal:
            found += map(type, get_args(kind))
        elif isinstance(origin, type) and issubclass(origin, Iterable) and not issubclass(origin, Mapping):
            found.append(list)
        else:
            found += _JSON_TYPES.get(kind, ())
    return tuple(dict.fromkeys(found))
