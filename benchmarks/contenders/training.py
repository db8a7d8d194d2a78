# SPDX-License-Identifier: MIT
"""The training step of a language model in crnn, PyTorch and JAX. Each call of a step trains on the next window."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.contenders.layers import torch_layers
from benchmarks.contenders.training_task import BETA1, BETA2, CLIP, EPS, RATE, TrainingTask, Weights, Windows

if TYPE_CHECKING:
    import crnn

Step = Callable[[], float]  # one update; the mean loss in nats before it


def crnn_model(task: TrainingTask, start: Weights) -> crnn.LanguageModel:
    """crnn's language model of a task, with the initial weights ``start``."""
    import crnn

    vocab = crnn.Vocab(tuple(chr(0x4E00 + k) for k in range(task.vocabulary)))  # any distinct characters
    model = crnn.LanguageModel(vocab, task.cell, task.hidden, task.layers, embedding_size=task.embedding)
    for name, value in start.items():
        model.params[name][...] = value
    return model


def crnn_step(model: crnn.LanguageModel, windows: Windows, threads: int) -> Step:
    """A training step of crnn, which repeats the windows in a cycle."""
    import crnn
    from crnn.models.outputs.predictor import Workspace

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


def torch_step(
    task: TrainingTask, start: Weights, windows: Windows, threads: int, *, one_hot: bool = False, adam: str = "fused"
) -> Step:
    """With an embedding, as models are usually written: the task's, or one of size H. Or with one-hot vectors."""
    import torch
    from torch.nn.functional import cross_entropy
    from torch.nn.functional import one_hot as to_one_hot

    torch.set_num_threads(threads)
    V, H = task.vocabulary, task.hidden
    weights = dict(start)
    with torch.no_grad():
        embedding = torch.nn.Embedding(V, task.embedding or H)
        if task.embedding:
            embedding.weight.copy_(torch.from_numpy(start["embedding"]))
        elif not one_hot:  # any embedding of full rank, and a W_xh such that their product is ours
            weights["layer0.W_xh"] = np.linalg.pinv(embedding.weight.numpy()) @ start["layer0.W_xh"]
        rnn = torch_layers(weights, task.cell, one_bias=same_model(task, one_hot))
        head = torch.nn.Linear(H, V)
        head.weight.copy_(torch.from_numpy(start["W_hy"].T))
        head.bias.copy_(torch.from_numpy(start["b_y"]))
    parameters = [*rnn.parameters(), *head.parameters(), *([] if one_hot else embedding.parameters())]
    parameters = [p for p in parameters if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, RATE, (BETA1, BETA2), EPS, **{adam: True})
    source = cycle([(torch.from_numpy(x.astype(np.int64)), torch.from_numpy(y.astype(np.int64))) for x, y in windows])
    state: Any = None

    def step() -> float:
        nonlocal state
        x, y = next(source)
        optimizer.zero_grad(set_to_none=True)
        h, state = rnn(to_one_hot(x, V).float() if one_hot else embedding(x), state)
        state = tuple(part.detach() for part in state) if task.cell == "lstm" else state.detach()
        loss: Any = cross_entropy(head(h).view(-1, V), y.view(-1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        return float(loss)

    return step


def same_model(task: TrainingTask, one_hot: bool) -> bool:
    """Whether PyTorch's model has the same parameters as ours, so that both stay equal over many updates."""
    return one_hot or task.embedding is not None


def jax_step(task: TrainingTask, start: Weights, windows: Windows, unroll: int = 1) -> Step:
    """One jitted function for the whole step; its buffers are donated."""
    import jax
    import jax.numpy as jnp

    def tanh(state: Any, xw: Any, params: Any, k: int) -> Any:
        (h,) = state
        return (jnp.tanh(xw + h @ params[f"layer{k}.W_hh"]),)

    def lstm(state: Any, xw: Any, params: Any, k: int) -> Any:
        h, c = state
        i, f, g, o = jnp.split(xw + h @ params[f"layer{k}.W_hh"], 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(c), c

    def gru(state: Any, xw: Any, params: Any, k: int) -> Any:
        (h,) = state
        (xr, xz, xn), (hr, hz, hn) = (jnp.split(w, 3, axis=-1) for w in (xw, h @ params[f"layer{k}.W_hh"]))
        r, z = jax.nn.sigmoid(xr + hr), jax.nn.sigmoid(xz + hz)
        n = jnp.tanh(xn + r * (hn + params[f"layer{k}.b_hn"]))
        return ((1 - z) * n + z * h,)

    cell = {"tanh": tanh, "lstm": lstm, "gru": gru}[task.cell]

    def loss(params: Any, x: Any, y: Any, states: Any) -> Any:
        after = []
        h: Any = params["embedding"][x] if task.embedding else None
        for k, state in enumerate(states):

            def one(state: Any, xw: Any, k: int = k) -> Any:
                state = cell(state, xw, params, k)
                return state, state[0]

            w, b = params[f"layer{k}.W_xh"], params[f"layer{k}.b_h"]
            state, h = jax.lax.scan(one, state, (w + b)[x] if h is None else h @ w + b, unroll=unroll)
            after.append(state)
        logits = h @ params["W_hy"] + params["b_y"]
        picked = jnp.take_along_axis(logits, y[..., None], axis=-1)[..., 0]
        return (jax.nn.logsumexp(logits, axis=-1) - picked).mean(), after

    def update(params: Any, m: Any, v: Any, count: Any, states: Any, x: Any, y: Any) -> Any:
        (value, states), grads = jax.value_and_grad(loss, has_aux=True)(params, x, y, states)
        norm = jnp.sqrt(sum(jnp.sum(g * g) for g in jax.tree.leaves(grads)))
        grads = jax.tree.map(lambda g: g * jnp.minimum(1.0, CLIP / norm), grads)
        count = count + 1
        m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, grads)
        v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, grads)
        rate, root = RATE / (1 - BETA1**count), 1 / jnp.sqrt(1 - BETA2**count)
        params = jax.tree.map(lambda w, m, v: w - rate * m / (jnp.sqrt(v) * root + EPS), params, m, v)
        return params, m, v, count, states, value

    jitted = jax.jit(update, donate_argnums=(0, 1, 2, 3, 4))
    params = {name: jnp.array(value) for name, value in start.items()}

    def zeros() -> Any:
        return jnp.zeros((task.batch, task.hidden))

    carried = (
        params,
        jax.tree.map(jnp.zeros_like, params),
        jax.tree.map(jnp.zeros_like, params),
        jnp.float32(0),
        [(zeros(), zeros()) if task.cell == "lstm" else (zeros(),) for _ in range(task.layers)],
    )
    source: Iterator[Any] = cycle([(jnp.array(x), jnp.array(y)) for x, y in windows])

    def step() -> float:
        nonlocal carried
        *after, value = jitted(*carried, *next(source))
        carried = tuple(after)
        return float(value)  # waits for the update

    return step
