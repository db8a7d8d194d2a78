# SPDX-License-Identifier: MIT
"""Files of learners: everything that a learner needs to continue, bit-identical to one that was never saved.

A safetensors file as `crnn.io.model_file` writes it. Its tensors are those of the current model under ``model.`` and
their names; ``anchor``, the weights that the learner began with, if an option needs them; the optimizer's arrays under
``optimizer.``; the steps of the window under ``window.``; ``to_reset``, the streams that will be reset before the next
step; and under ``own.`` what the class of the learner adds. Integers are stored as float64, which holds them exactly.
Its header has

- ``kind``, "learner"; ``model``, the header of the model's file; ``options``, those of the learner;
- ``optimizer``: rule, arguments, and the numbers that change from update to update;
- ``counts``: steps, updates, skipped, and the steps in the window; ``flags``; ``own``.

Nothing in a file is used before it has been checked; `crnn.load` reads the model alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from crnn._options import options_of
from crnn.checks import Array
from crnn.io import registry
from crnn.io.model_file import Header, check_no_more, check_tensor
from crnn.nn.learning.config import LearnerConfig
from crnn.optim.optimizers import OWN_RULES, Optimizer, keeps_no_parameters

__all__ = ["KIND", "contents", "learner_from"]

KIND = "learner"
MODEL, OPTIMIZER, WINDOW, OWN = "model.", "optimizer.", "window.", "own."
COUNTS = ("steps", "updates", "skipped", "window", "fresh")
FLAGS = ("frozen", "leaving", "pending")
LARGEST_COUNT = 1 << 53


def as_file(array: Array) -> Array:
    """An array as a file holds it: integers as float64, bools as bytes."""
    if array.dtype.kind == "i":
        return array.astype(np.float64)
    return array.astype(np.uint8) if array.dtype == bool else array


def from_file(name: str, tensors: Mapping[str, Array], like: Array) -> Array:
    """The tensor ``name``, of which `as_file` made what the file holds, of the shape and dtype of ``like``; a copy.

    Raises ValueError for another shape or dtype, and for numbers that no such array can have made.
    """
    check_tensor(name, tensors, like.shape, as_file(like[:0]).dtype.name)
    stored = tensors[name]
    with np.errstate(invalid="ignore"):
        array = stored.astype(like.dtype)
    if not np.array_equal(as_file(array), stored):
        raise ValueError(f"{name}: expected numbers that {like.dtype} can hold")
    return array


def optimizer_header(optimizer: Optimizer) -> dict[str, Any]:
    """Rule, arguments and numbers of an optimizer. Raises TypeError for one that is not crnn's."""
    if not keeps_no_parameters(optimizer):
        raise TypeError(f"optimizer: expected one of crnn's, which files can hold, got {type(optimizer).__name__}")
    return {"rule": type(optimizer).__name__, "arguments": optimizer.settings(), "numbers": optimizer.state()}


def _optimizer_of(header: Any) -> Optimizer:
    """The optimizer of a header, without its numbers and arrays. Raises TypeError and ValueError."""
    rules = {rule.__name__: rule for rule in OWN_RULES}
    if not isinstance(header, dict) or set(header) != {"rule", "arguments", "numbers"}:
        raise ValueError(f"expected optimizer, with rule, arguments and numbers, got {header!r:.200}")
    rule, arguments, numbers = header["rule"], header["arguments"], header["numbers"]
    if not isinstance(rule, str) or rule not in rules:
        raise ValueError(f"optimizer: expected one of {', '.join(sorted(rules))}, got {rule!r:.100}")
    if not isinstance(arguments, dict) or set(arguments) != set(rules[rule]().settings()):
        raise ValueError(f"optimizer: expected the arguments of {rule}, got {arguments!r:.200}")
    if not isinstance(numbers, dict) or not all(type(number) in (int, float) for number in numbers.values()):
        raise ValueError(f"optimizer: expected numbers, got {numbers!r:.200}")
    made: Optimizer = rules[rule](**arguments)
    return made


def check_sizes(name: str, header: Header, names: tuple[str, ...], kind: type) -> dict[str, Any]:
    """An entry of a header: a value of this type for each name, integers from 0 on. Raises ValueError."""
    found: Any = header.get(name)
    right = isinstance(found, dict) and set(found) == set(names) and all(type(v) is kind for v in found.values())
    if not right or (kind is int and not all(0 <= value < LARGEST_COUNT for value in found.values())):
        raise ValueError(f"expected {name} with {', '.join(names)}, got {found!r:.200}")
    return dict(found)


def contents(learner: Any) -> tuple[dict[str, Array], dict[str, Any]]:
    """Tensors and header of the file of a learner. Raises TypeError for an optimizer that is not crnn's."""
    model_tensors, model = learner._module.contents()
    update, window = learner._update, learner._window
    own_tensors, own = learner._stored_own()
    tensors = {MODEL + name: array for name, array in model_tensors.items()}
    tensors |= {} if update.anchor is None else {"anchor": update.anchor}
    tensors |= {OPTIMIZER + name: array for name, array in update.optimizer.arrays.items()}
    tensors |= {WINDOW + name: as_file(array) for name, array in window.stored().items()}
    tensors |= {OWN + name: as_file(array) for name, array in own_tensors.items()}
    tensors["to_reset"] = as_file(learner._to_reset)
    options = {each.name: getattr(learner.config, each.name) for each in options_of(LearnerConfig)}
    del options["optimizer"], options["lr"]
    return tensors, {
        "kind": KIND,
        "model": model,
        "options": options,
        "optimizer": optimizer_header(update.optimizer),
        "counts": {
            "steps": learner.steps,
            "updates": learner.updates,
            "skipped": learner.skipped,
            "window": window.steps,
            "fresh": window.fresh,
        },
        "flags": {"frozen": learner._frozen, "leaving": learner._leaving, "pending": learner._pending},
        "own": own,
    }


def learner_from(header: Header, tensors: Mapping[str, Array], threads: int | None = None) -> Any:
    """The learner of a file, after everything in it has been checked. Raises TypeError and ValueError."""
    if header.get("kind") != KIND:
        raise ValueError(f"expected a learner, got {header.get('kind')!r:.100}")
    counts, flags = check_sizes("counts", header, COUNTS, int), check_sizes("flags", header, FLAGS, bool)
    optimizer, model = _optimizer_of(header.get("optimizer")), model_of(header, tensors)
    config = _config(header.get("options"), optimizer, threads)
    # Memory is allocated for as many steps of as many streams as the file has bytes here, or fewer.
    check_tensor(WINDOW + "resets", tensors, (config.bptt, config.streams), "uint8")
    learner = model._new_learner(config)
    rest = {name: array for name, array in tensors.items() if not name.startswith(MODEL)}
    restore(learner, header, rest, counts, flags)
    return learner


def _config(options: Any, optimizer: Optimizer, threads: int | None) -> LearnerConfig:
    """The options of a header. Raises TypeError and ValueError."""
    known = [each for each in options_of(LearnerConfig) if each.name not in ("optimizer", "lr")]
    names = {each.name for each in known}
    if not isinstance(options, dict) or set(options) != names or not all(
        each.has_json_type(options[each.name]) for each in known
    ):
        raise ValueError(f"expected options {sorted(names)}, got {options!r:.300}")
    return LearnerConfig(optimizer=optimizer, **(options if threads is None else options | {"threads": threads}))


def model_of(header: Header, tensors: Mapping[str, Array]) -> Any:
    """The model in the file of a learner, as `crnn.load` returns it. Raises ValueError."""
    model = header.get("model")
    if not isinstance(model, dict) or str(model.get("kind")) not in registry.kinds():
        raise ValueError(f"expected a learner with a model, got {model!r:.100}")
    own = {name.removeprefix(MODEL): array for name, array in tensors.items() if name.startswith(MODEL)}
    return registry.build(KIND, own, model)


def restore(
    learner: Any, header: Header, tensors: Mapping[str, Array], counts: Mapping[str, int], flags: Mapping[str, bool]
) -> None:
    """Put a new learner into the state of a file. Raises TypeError and ValueError; the learner is then useless."""
    update, window = learner._update, learner._window
    optimizer, flat = update.optimizer, learner._parameters.flat
    expected = {"to_reset"}
    if update.anchor is not None:
        check_tensor("anchor", tensors, flat.shape, flat.dtype.name)
        expected.add("anchor")
    arrays = {}
    for name in optimizer.array_names if header["optimizer"]["numbers"].get("updates") else ():
        check_tensor(OPTIMIZER + name, tensors, flat.shape, flat.dtype.name)
        arrays[name] = tensors[OPTIMIZER + name].copy()
        expected.add(OPTIMIZER + name)
    optimizer.check_state(header["optimizer"]["numbers"], arrays)
    window.check_steps(counts["window"], counts["fresh"])
    if flags["pending"] and not counts["window"]:
        raise ValueError("flags: expected pending with a step in the window only")
    stored = {}
    for name, like in window.stored(counts["window"]).items():
        stored[name] = from_file(WINDOW + name, tensors, like)
        expected.add(WINDOW + name)
    own = {}
    for name, like in learner._stored_own()[0].items():
        own[name] = from_file(OWN + name, tensors, like)
        expected.add(OWN + name)
    to_reset = from_file("to_reset", tensors, learner._to_reset)
    check_no_more(tensors, dict.fromkeys(expected))
    learner._restore_own(own, header.get("own"))
    window.restore(stored, counts["window"], counts["fresh"])
    learner._to_reset[:] = to_reset
    learner._resets = bool(to_reset.any())
    optimizer.set_state(header["optimizer"]["numbers"], arrays)
    learner._update = learner._new_update(optimizer, tensors.get("anchor"))
    learner._update._skipped = counts["skipped"]
    learner._steps, learner._updates = counts["steps"], counts["updates"]
    learner._frozen, learner._leaving, learner._pending = (flags[name] for name in FLAGS)


registry.register_container(KIND, model_of)
