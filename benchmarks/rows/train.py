# SPDX-License-Identifier: MIT
"""train: one training step of a language model: forward, backward, clip by norm, Adam, state carried; tokens/s.

Characters: V 65, B 32, T 64, one layer; some with B 1 or 8. Words: V 10,000, B 20, T 20 or B 32, T 35, two layers of
LSTM 200, embedding of size 200. Ours is the calls that `crnn.fit` makes; `crnn.fit` itself is measured too. All
contenders start from the same weights, train on the same windows and carry the state. For characters PyTorch is
measured twice: with an embedding, as models are usually written, and with one-hot vectors, which is the same model as
ours.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from numpy.typing import NDArray

from benchmarks.base.checks import require_close
from benchmarks.base.measure import OURS, Contender, Figure, Missing, fastest, race, unavailable
from benchmarks.base.row import Row, Setting
from benchmarks.contenders.jax_peers import jax_step
from benchmarks.contenders.peak import PEAK, peak
from benchmarks.contenders.training import Step, crnn_model, crnn_step, same_model, torch_compiled_step, torch_step
from benchmarks.contenders.training_task import (
    CLIP,
    RATE,
    WORDS,
    WORDS_WIDE,
    TrainingTask,
    Weights,
    Windows,
    windows_of,
)

Array = NDArray[Any]

CELLS = ("tanh", "lstm", "gru")
CHECKED_UPDATES = 4
AGREEMENT = 5e-6  # of losses: they agree within 1e-6, and a bias trained twice differs by more
BF16_AGREEMENT = 2e-3
LIMIT = "limit of the products"
TORCH, TORCH_ONE_HOT, JAX = "torch, embedding", "torch, one-hot", "jax"
TORCH_COMPILED, TORCH_BF16, JAX_BY_HAND = "torch, compiled", "torch, bf16", "jax, backward by hand"


@dataclass(frozen=True)
class Peer:
    """A way to make a training step in another library: the fastest of several variants.

    ``updates``: how many losses must agree with ours within ``agreement``.
    """

    library: str
    variants: dict[str, Callable[[TrainingTask, Weights, Windows, int], Step]]
    updates: int = CHECKED_UPDATES
    agreement: float = AGREEMENT


def peers(task: TrainingTask, quick: bool) -> Iterator[tuple[str, Peer | Missing]]:
    """All peers of a task, by the names of the report."""
    adams, unrolls = (("fused",), (1,)) if quick else (("fused", "foreach"), (1, 4))

    def torch(one_hot: bool, bf16: bool = False) -> Peer:
        variants = {f"{adam} Adam": partial(torch_step, one_hot=one_hot, adam=adam, bf16=bf16) for adam in adams}
        updates = CHECKED_UPDATES if same_model(task, one_hot) else 1
        return Peer("torch", variants, updates, BF16_AGREEMENT if bf16 else AGREEMENT)

    yield TORCH, torch(one_hot=False)
    if not task.embedding:
        yield TORCH_ONE_HOT, torch(one_hot=True)
    yield TORCH_BF16, torch(one_hot=not task.embedding, bf16=True)
    if task.cell == "tanh":
        compiler = os.environ.get("CXX", "g++")
        absent = Missing("takes a minute to compile" if quick else f"not found: {compiler}")
        compiled = Peer("torch", {"compiled loop over the steps": torch_compiled_step})
        yield TORCH_COMPILED, absent if quick or shutil.which(compiler) is None else compiled
    yield JAX, Peer("jax", {f"scan unrolled {n} x": _jax(n) for n in unrolls})
    look_ups = {"scatter": False} if quick or task.embedding else {"scatter": False, "one-hot gradient of W_xh": True}
    yield JAX_BY_HAND, Peer("jax", {name: _jax(1, True, one_hot) for name, one_hot in look_ups.items()})


def _jax(
    unroll: int, hand_written: bool = False, one_hot: bool = False
) -> Callable[[TrainingTask, Weights, Windows, int], Step]:
    """JAX takes the number of threads from the process, not as an argument."""
    return lambda task, start, windows, _: jax_step(
        task, start, windows, unroll, hand_written=hand_written, one_hot=one_hot
    )


def measure(task: TrainingTask, setting: Setting) -> dict[str, Figure]:
    """Figures in tokens/s of a training step of all contenders, whose losses must agree."""
    ids, start, threads = task.random_ids(), task.random_weights(), setting.threads
    windows = windows_of(ids, task)
    ours = crnn_step(crnn_model(task, start), windows, threads)
    losses = [ours() for _ in range(CHECKED_UPDATES)]

    def checked(name: str, peer: Peer, step: Step) -> Contender:
        require_close(name, [step() for _ in range(peer.updates)], losses[: peer.updates], peer.agreement)
        return Contender(step, task.tokens)

    contenders: dict[str, Contender | Missing] = {OURS: Contender(ours, task.tokens)} | fits(task, start, ids, threads)
    for name, peer in peers(task, setting.quick):
        absent = peer if isinstance(peer, Missing) else unavailable(peer.library)
        if absent is not None or isinstance(peer, Missing):
            contenders[name] = absent or peer
            continue
        variants = {label: make(task, start, windows, threads) for label, make in peer.variants.items()}
        contenders[name] = fastest({label: checked(name, peer, step) for label, step in variants.items()})
    limit = peak(threads)
    if isinstance(limit, Contender):
        limit = Contender(limit.run, limit.work * 1e9 / task.products, f"its matrix products at the {PEAK}")
    return race(contenders | {LIMIT: limit}, setting.effort)


def fits(task: TrainingTask, start: Weights, ids: Array, threads: int) -> dict[str, Contender]:
    """`crnn.fit` around the same steps, in both precisions of updates."""
    import crnn

    def contender(**precision: str) -> Contender:
        model = crnn_model(task, start)

        def fit() -> None:
            crnn.fit(
                model,
                ids,
                epochs=1,
                batch_size=task.batch,
                bptt=task.steps,
                optimizer=crnn.optim.Adam(lr=RATE),
                schedule=None,
                clip_norm=CLIP,
                threads=threads,
                progress=False,
                **precision,
            )

        return Contender(fit, task.tokens * task.windows)

    return {"crnn.fit": contender(), "crnn.fit, bf16": contender(precision="bf16")}


CHARACTERS = (
    [(TrainingTask(cell, H), all_cores) for cell in CELLS for H in (128, 256, 512) for all_cores in (False, True)]
    + [(TrainingTask(cell, 1024), False) for cell in ("lstm", "gru")]
    + [(TrainingTask(cell, 128, batch=batch), False) for batch in (1, 8) for cell in ("lstm", "gru")]
)


def name_of(task: TrainingTask) -> str:
    """train-128, train-lstm-128, train-b1-lstm-128, train-words, ..."""
    if task in (WORDS, WORDS_WIDE):
        return "train-words" if task is WORDS else f"train-words-b{task.batch}-t{task.steps}"
    batch = [] if task.batch == TrainingTask.batch else [f"b{task.batch}"]
    cell = [] if task.cell == "tanh" else [task.cell]
    return "-".join(["train", *batch, *cell, str(task.hidden)])


OF_WORDS = {TORCH: 1.5}
OF_CHARACTERS = {TORCH: 2.0, TORCH_ONE_HOT: 2.0, JAX: 1.4, JAX_BY_HAND: 1.4}

ROWS = [
    Row(
        name_of(task),
        "tokens/s",
        partial(measure, task),
        all_cores=all_cores,
        goals=OF_WORDS if task.embedding else OF_CHARACTERS,
        quick=task.hidden == 128 and task.batch == TrainingTask.batch and not all_cores,
    )
    for task, all_cores in [*CHARACTERS, *((task, cores) for task in (WORDS, WORDS_WIDE) for cores in (False, True))]
]
