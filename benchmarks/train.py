# SPDX-License-Identifier: MIT
"""train: one training step of a character model, V 65, B 32, T 64: forward, backward, clip by norm, Adam; tokens/s.

Ours is the public calls that `crnn.fit` makes; `crnn.fit` itself runs beside them. Everybody starts from the same
weights, sees the same windows and carries the state. PyTorch stands here twice: with an embedding in front of
`nn.RNN`, as models are usually written, and with one-hot vectors, which is the very model that ours is.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.checks import need_close
from benchmarks.measure import OURS, Contender, Figure, Missing, fastest, installed, race
from benchmarks.peak import PEAK, peak
from benchmarks.rows import Row, Setting

if TYPE_CHECKING:
    import crnn

Array = NDArray[Any]
Windows = list[tuple[Array, Array]]
Weights = dict[str, Array]
Step = Callable[[], float]  # one update; the mean loss in nats before it

VOCABULARY, BATCH, STEPS = 65, 32, 64
TOKENS = BATCH * STEPS
RATE, BETA1, BETA2, EPS, CLIP = 2e-3, 0.9, 0.999, 1e-8, 5.0
FIT_UPDATES = 50
CHECKED_UPDATES = 4
LIMIT = "limit of one-hot model"


def measure(H: int, setting: Setting) -> dict[str, Figure]:
    import crnn

    ids, start, threads = random_ids(), random_weights(H), setting.threads
    windows = windows_of(ids)
    ours = our_step(our_model(start), windows, threads)
    losses = [ours() for _ in range(CHECKED_UPDATES)]

    def checked(name: str, step: Step, updates: int = CHECKED_UPDATES) -> Contender:
        need_close(name, [step() for _ in range(updates)], losses[:updates])
        return Contender(step, TOKENS)

    fitted = our_model(start)

    def fit() -> None:
        crnn.fit(
            fitted,
            ids,
            epochs=1,
            batch_size=BATCH,
            bptt=STEPS,
            optimizer=crnn.optim.Adam(lr=RATE),
            clip_norm=CLIP,
            threads=threads,
            progress=False,
        )

    contenders: dict[str, Contender | Missing] = {
        OURS: Contender(ours, TOKENS),
        "crnn.fit": Contender(fit, TOKENS * FIT_UPDATES),
    }
    adams = ("fused",) if setting.quick else ("fused", "foreach")
    unrolls = (1,) if setting.quick else (1, 4)
    for name, one_hot in (("torch, embedding", False), ("torch, one-hot", True)):
        # The embedding brings weights that ours has not: after one update the two are different models.
        updates = CHECKED_UPDATES if one_hot else 1
        contenders[name] = installed("torch") or fastest(
            {
                f"{adam} Adam": checked(name, torch_step(start, windows, threads, one_hot, adam), updates)
                for adam in adams
            }
        )
    contenders["jax"] = installed("jax") or fastest(
        {f"scan unrolled {n} x": checked("jax", jax_step(start, windows, n)) for n in unrolls}
    )
    limit = peak(threads)
    if isinstance(limit, Contender):
        # The matrix products of a token, forward and twice that backward: h @ W_hh and h @ W_hy.
        flops = 3 * 2.0 * (H * H + H * VOCABULARY) / 1e9
        limit = Contender(limit.run, limit.work / flops, f"its matrix products at the {PEAK}")
    return race(contenders | {LIMIT: limit}, setting.effort)


def random_ids() -> Array:
    """What is read does not change the speed."""
    return np.random.default_rng(0).integers(0, VOCABULARY, TOKENS * FIT_UPDATES + 1, np.int32)


def windows_of(ids: Array) -> Windows:
    """Pairs (x, y), each (T, B): every column goes on from window to window, as in `crnn.text.contiguous_batches`."""
    x, y = (part.reshape(BATCH, -1).T for part in (ids[:-1], ids[1:]))
    return [
        (np.ascontiguousarray(x[t : t + STEPS]), np.ascontiguousarray(y[t : t + STEPS]))
        for t in range(0, len(x), STEPS)
    ]


def random_weights(H: int) -> Weights:
    """The same for everybody, by our names."""
    rng = np.random.default_rng(1)
    V = VOCABULARY
    shapes = {"layer0.W_xh": (V, H), "layer0.W_hh": (H, H), "layer0.b_h": (H,), "W_hy": (H, V), "b_y": (V,)}
    return {name: (rng.uniform(-1, 1, shape) / H**0.5).astype(np.float32) for name, shape in shapes.items()}


def our_model(start: Weights) -> crnn.LanguageModel:
    import crnn

    H, V = start["W_hy"].shape
    model = crnn.LanguageModel(crnn.Vocab.from_text(string.printable[:V]), hidden_size=H)
    for name, value in start.items():
        model.params[name][...] = value
    return model


def our_step(model: crnn.LanguageModel, windows: Windows, threads: int) -> Step:
    import crnn
    from crnn.models import Workspace

    optimizer = crnn.optim.Adam(lr=RATE, beta1=BETA1, beta2=BETA2, eps=EPS)
    space, source = Workspace(), cycle(windows)
    state: Array | None = None

    def step() -> float:
        nonlocal state
        x, y = next(source)
        model.flat_grads.fill(0)
        total, count, state = model.loss_and_gradients(x, y, state, threads=threads, workspace=space)
        norm = crnn.optim.global_norm(model.flat_grads)
        optimizer.update(model.flat_params, model.flat_grads, factor=min(1.0, CLIP / max(norm, 1e-30)))
        return float(total / count)

    return step


def torch_step(start: Weights, windows: Windows, threads: int, one_hot: bool, adam: str = "fused") -> Step:
    import torch
    from torch.nn.functional import cross_entropy
    from torch.nn.functional import one_hot as to_one_hot

    torch.set_num_threads(threads)
    V, H = start["layer0.W_xh"].shape
    weights = {name: torch.from_numpy(value.T.copy()) for name, value in start.items()}
    rnn: Any = torch.nn.RNN(V if one_hot else H, H)
    head = torch.nn.Linear(H, V)
    embedding = torch.nn.Embedding(V, H)
    with torch.no_grad():
        embedding.weight.copy_(weights["layer0.W_xh"].T)
        rnn.weight_ih_l0.copy_(weights["layer0.W_xh"] if one_hot else torch.eye(H))
        rnn.weight_hh_l0.copy_(weights["layer0.W_hh"])
        rnn.bias_ih_l0.copy_(weights["layer0.b_h"])
        rnn.bias_hh_l0.zero_()
        head.weight.copy_(weights["W_hy"])
        head.bias.copy_(weights["b_y"])
    rnn.bias_hh_l0.requires_grad_(not one_hot)  # one bias, as ours
    parameters = [*rnn.parameters(), *head.parameters(), *([] if one_hot else embedding.parameters())]
    parameters = [p for p in parameters if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, RATE, (BETA1, BETA2), EPS, **{adam: True})
    source = cycle([(torch.from_numpy(x.astype(np.int64)), torch.from_numpy(y.astype(np.int64))) for x, y in windows])
    state = torch.zeros(1, BATCH, H)

    def step() -> float:
        nonlocal state
        x, y = next(source)
        optimizer.zero_grad(set_to_none=True)
        h, state = rnn(to_one_hot(x, V).float() if one_hot else embedding(x), state)
        state = state.detach()
        loss: Any = cross_entropy(head(h).view(-1, V), y.view(-1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        return float(loss)

    return step


def jax_step(start: Weights, windows: Windows, unroll: int = 1) -> Step:
    """One jitted function for the whole step; its buffers are donated."""
    import jax
    import jax.numpy as jnp

    def loss(params: Any, x: Any, y: Any, state: Any) -> Any:
        def cell(h: Any, xw: Any) -> Any:
            h = jnp.tanh(xw + h @ params["layer0.W_hh"])
            return h, h

        table = params["layer0.W_xh"] + params["layer0.b_h"]
        state, h = jax.lax.scan(cell, state, table[x], unroll=unroll)
        logits = h @ params["W_hy"] + params["b_y"]
        picked = jnp.take_along_axis(logits, y[..., None], axis=-1)[..., 0]
        return (jax.nn.logsumexp(logits, axis=-1) - picked).mean(), state

    def update(params: Any, m: Any, v: Any, count: Any, state: Any, x: Any, y: Any) -> Any:
        (value, state), grads = jax.value_and_grad(loss, has_aux=True)(params, x, y, state)
        norm = jnp.sqrt(sum(jnp.sum(g * g) for g in jax.tree.leaves(grads)))
        grads = jax.tree.map(lambda g: g * jnp.minimum(1.0, CLIP / norm), grads)
        count = count + 1
        m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, grads)
        v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, grads)
        rate, root = RATE / (1 - BETA1**count), 1 / jnp.sqrt(1 - BETA2**count)
        params = jax.tree.map(lambda w, m, v: w - rate * m / (jnp.sqrt(v) * root + EPS), params, m, v)
        return params, m, v, count, state, value

    jitted = jax.jit(update, donate_argnums=(0, 1, 2, 3, 4))
    params = {name: jnp.array(value) for name, value in start.items()}
    H = start["W_hy"].shape[0]
    carried = (
        params,
        jax.tree.map(jnp.zeros_like, params),
        jax.tree.map(jnp.zeros_like, params),
        jnp.float32(0),
        jnp.zeros((BATCH, H)),
    )
    source: Iterator[Any] = cycle([(jnp.array(x), jnp.array(y)) for x, y in windows])

    def step() -> float:
        nonlocal carried
        *after, value = jitted(*carried, *next(source))
        carried = tuple(after)
        return float(value)  # waits for the update

    return step


ROWS = [
    Row(
        f"train-{H}",
        "tokens/s",
        partial(measure, H),
        all_cores=all_cores,
        goals={"torch, embedding": 2.0, "torch, one-hot": 2.0, "jax": 1.4},
        quick=H == 128 and not all_cores,
    )
    for H in (128, 256, 512)
    for all_cores in (False, True)
]
