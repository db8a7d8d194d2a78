# SPDX-License-Identifier: MIT
"""train: one training step of a language model: forward, backward, clip by norm, Adam, state carried; tokens/s.

Characters: V 65, B 32, T 64, one layer. Words: V 10,000, B 20, T 20, two layers of LSTM 200, embedding of size 200.
Ours is the calls that `crnn.fit` makes; `crnn.fit` itself is measured too. All contenders start from the same weights,
train on the same windows and carry the state. For characters PyTorch is measured twice: with an embedding, as models
are usually written, and with one-hot vectors, which is the same model as ours.
"""

from __future__ import annotations

from functools import partial

from benchmarks.base.checks import require_close
from benchmarks.base.measure import OURS, Contender, Figure, Missing, fastest, race, unavailable
from benchmarks.base.row import Row, Setting
from benchmarks.contenders.peak import PEAK, peak
from benchmarks.contenders.training import Step, crnn_model, crnn_step, jax_step, same_model, torch_step
from benchmarks.contenders.training_task import CLIP, RATE, TrainingTask, windows_of

WORDS = TrainingTask("lstm", 200, layers=2, embedding=200, vocabulary=10_000, batch=20, steps=20)
CHECKED_UPDATES = 4
AGREEMENT = 5e-6  # of losses: they agree within 1e-6, and a bias trained twice differs by more
LIMIT = "limit of the products"
TORCH, TORCH_ONE_HOT, JAX = "torch, embedding", "torch, one-hot", "jax"


def measure(task: TrainingTask, setting: Setting) -> dict[str, Figure]:
    """Figures in tokens/s of a training step of all contenders, whose losses must agree."""
    import crnn

    ids, start, threads = task.random_ids(), task.random_weights(), setting.threads
    windows = windows_of(ids, task)
    ours = crnn_step(crnn_model(task, start), windows, threads)
    losses = [ours() for _ in range(CHECKED_UPDATES)]

    def checked(name: str, step: Step, updates: int = CHECKED_UPDATES) -> Contender:
        require_close(name, [step() for _ in range(updates)], losses[:updates], AGREEMENT)
        return Contender(step, task.tokens)

    fitted = crnn_model(task, start)

    def fit() -> None:
        crnn.fit(
            fitted,
            ids,
            epochs=1,
            batch_size=task.batch,
            bptt=task.steps,
            optimizer=crnn.optim.Adam(lr=RATE),
            schedule=None,
            clip_norm=CLIP,
            threads=threads,
            progress=False,
        )

    contenders: dict[str, Contender | Missing] = {
        OURS: Contender(ours, task.tokens),
        "crnn.fit": Contender(fit, task.tokens * task.windows),
    }
    adams = ("fused",) if setting.quick else ("fused", "foreach")
    unrolls = (1,) if setting.quick else (1, 4)
    for name in (TORCH,) if task.embedding else (TORCH, TORCH_ONE_HOT):
        one_hot = name == TORCH_ONE_HOT
        updates = CHECKED_UPDATES if same_model(task, one_hot) else 1
        contenders[name] = unavailable("torch") or fastest(
            {
                f"{adam} Adam": checked(
                    name, torch_step(task, start, windows, threads, one_hot=one_hot, adam=adam), updates
                )
                for adam in adams
            }
        )
    contenders[JAX] = unavailable("jax") or fastest(
        {f"scan unrolled {n} x": checked(JAX, jax_step(task, start, windows, n)) for n in unrolls}
    )
    limit = peak(threads)
    if isinstance(limit, Contender):
        limit = Contender(limit.run, limit.work * 1e9 / task.products, f"its matrix products at the {PEAK}")
    return race(contenders | {LIMIT: limit}, setting.effort)


CHARACTERS = {
    f"train-{H}" if cell == "tanh" else f"train-{cell}-{H}": TrainingTask(cell, H)
    for cell in ("tanh", "lstm", "gru")
    for H in (128, 256, 512)
}

ROWS = [
    Row(
        name,
        "tokens/s",
        partial(measure, task),
        all_cores=all_cores,
        goals={TORCH: 1.3} if task is WORDS else {TORCH: 2.0, TORCH_ONE_HOT: 2.0, JAX: 1.4},
        quick=task.hidden == 128 and not all_cores,
    )
    for name, task in (CHARACTERS | {"train-words": WORDS}).items()
    for all_cores in (False, True)
]
