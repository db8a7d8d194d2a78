# SPDX-License-Identifier: MIT
"""train: one training step of a language model: forward, backward, clip by norm, Adam, state carried; tokens/s.

Characters: V 65, B 32, T 64, one layer. Words: V 10,000, B 20, T 20, two layers of LSTM 200, embedding of size 200.
Ours is the public calls that `crnn.fit` makes; `crnn.fit` itself runs beside them. Everybody starts from the same
weights, sees the same windows and carries the state. PyTorch stands here twice for characters: with an embedding in
front, as models are usually written, and with one-hot vectors, which is the very model that ours is.
"""

from __future__ import annotations

from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any

from benchmarks.checks import need_close
from benchmarks.job import BETA1, BETA2, CLIP, EPS, RATE, Job, Weights, Windows, windows_of
from benchmarks.measure import OURS, Contender, Figure, Missing, fastest, installed, race
from benchmarks.peak import PEAK, peak
from benchmarks.rows import Row, Setting
from benchmarks.train_peers import Step, jax_step, same_model, torch_step

if TYPE_CHECKING:
    import crnn

WORDS = Job("lstm", 200, layers=2, embedding=200, vocabulary=10_000, batch=20, steps=20)
CHECKED_UPDATES = 4
AGREEMENT = 5e-6  # of losses; they agree within 1e-6, and a bias that is learnt twice is seen
LIMIT = "limit of the products"
TORCH, TORCH_ONE_HOT, JAX = "torch, embedding", "torch, one-hot", "jax"


def measure(job: Job, setting: Setting) -> dict[str, Figure]:
    import crnn

    ids, start, threads = job.random_ids(), job.random_weights(), setting.threads
    windows = windows_of(ids, job)
    ours = our_step(our_model(job, start), windows, threads)
    losses = [ours() for _ in range(CHECKED_UPDATES)]

    def checked(name: str, step: Step, updates: int = CHECKED_UPDATES) -> Contender:
        need_close(name, [step() for _ in range(updates)], losses[:updates], AGREEMENT)
        return Contender(step, job.tokens)

    fitted = our_model(job, start)

    def fit() -> None:
        crnn.fit(
            fitted,
            ids,
            epochs=1,
            batch_size=job.batch,
            bptt=job.steps,
            optimizer=crnn.optim.Adam(lr=RATE),
            clip_norm=CLIP,
            threads=threads,
            progress=False,
        )

    contenders: dict[str, Contender | Missing] = {
        OURS: Contender(ours, job.tokens),
        "crnn.fit": Contender(fit, job.tokens * job.windows),
    }
    adams = ("fused",) if setting.quick else ("fused", "foreach")
    unrolls = (1,) if setting.quick else (1, 4)
    for name in (TORCH,) if job.embedding else (TORCH, TORCH_ONE_HOT):
        one_hot = name == TORCH_ONE_HOT
        updates = CHECKED_UPDATES if same_model(job, one_hot) else 1
        contenders[name] = installed("torch") or fastest(
            {
                f"{adam} Adam": checked(
                    name, torch_step(job, start, windows, threads, one_hot=one_hot, adam=adam), updates
                )
                for adam in adams
            }
        )
    contenders[JAX] = installed("jax") or fastest(
        {f"scan unrolled {n} x": checked(JAX, jax_step(job, start, windows, n)) for n in unrolls}
    )
    limit = peak(threads)
    if isinstance(limit, Contender):
        limit = Contender(limit.run, limit.work * 1e9 / job.products, f"its matrix products at the {PEAK}")
    return race(contenders | {LIMIT: limit}, setting.effort)


def our_model(job: Job, start: Weights) -> crnn.LanguageModel:
    import crnn

    vocab = crnn.Vocab(tuple(chr(0x4E00 + k) for k in range(job.vocabulary)))  # any so many characters
    model = crnn.LanguageModel(vocab, job.cell, job.hidden, job.layers, embedding_size=job.embedding)
    for name, value in start.items():
        model.params[name][...] = value
    return model


def our_step(model: crnn.LanguageModel, windows: Windows, threads: int) -> Step:
    import crnn
    from crnn.models.predictor import Workspace

    optimizer = crnn.optim.Adam(lr=RATE, beta1=BETA1, beta2=BETA2, eps=EPS)
    space, source = Workspace(), cycle(windows)
    state: Any = None

    def step() -> float:
        nonlocal state
        x, y = next(source)
        model.flat_grads.fill(0)
        total, count, state = model.loss_and_gradients(x, y, state, threads=threads, workspace=space)
        norm = crnn.optim.global_norm(model.flat_grads)
        optimizer.update(model.flat_params, model.flat_grads, factor=min(1.0, CLIP / max(norm, 1e-30)))
        return float(total / count)

    return step


CHARACTERS = {
    f"train-{H}" if cell == "tanh" else f"train-{cell}-{H}": Job(cell, H)
    for cell in ("tanh", "lstm", "gru")
    for H in (128, 256, 512)
}

ROWS = [
    Row(
        name,
        "tokens/s",
        partial(measure, job),
        all_cores=all_cores,
        goals={TORCH: 1.3} if job is WORDS else {TORCH: 2.0, TORCH_ONE_HOT: 2.0, JAX: 1.4},
        quick=job.hidden == 128 and not all_cores,
    )
    for name, job in (CHARACTERS | {"train-words": WORDS}).items()
    for all_cores in (False, True)
]
