# SPDX-License-Identifier: MIT
"""The training step of a language model in crnn, PyTorch and JAX. Each call of a step trains on the next window."""

from __future__ import annotations

from collections.abc import Callable
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

    vocab = crnn.Vocab(tuple(chr(0x10000 + k) for k in range(task.vocabulary)))  # any distinct characters
    model = crnn.LanguageModel(vocab, task.cell, task.hidden, task.layers, embedding_size=task.embedding)
    for name, value in start.items():
        model.params[name][...] = value
    return model


def crnn_step(model: crnn.LanguageModel, windows: Windows, threads: int) -> Step:
    """A training step of crnn, which repeats the windows in a cycle."""
    import crnn
    from crnn._core.optim import clear
    from crnn.models.passes.predictor import Workspace

    optimizer = crnn.optim.Adam(lr=RATE, beta1=BETA1, beta2=BETA2, eps=EPS)
    space, source = Workspace(), cycle(windows)
    state: Any = None

    def step() -> float:
        nonlocal state
        x, y = next(source)
        clear(model.flat_grads, threads)
        total, count, state = model.loss_and_gradients(x, y, state, threads=threads, workspace=space)
        norm = crnn.optim.global_norm(model.flat_grads, threads=threads)
        factor = min(1.0, CLIP / max(norm, 1e-30))
        optimizer.update(model.flat_params, model.flat_grads, factor=factor, threads=threads)
        return float(total / count)

    return step


def torch_step(
    task: TrainingTask,
    start: Weights,
    windows: Windows,
    threads: int,
    *,
    one_hot: bool = False,
    adam: str = "fused",
    bf16: bool = False,
) -> Step:
    """With an embedding, as models are usually written: the task's, or one of size H. Or with one-hot vectors.

    ``bf16``: with autocast, which computes products in bf16; weights and their updates stay float32.
    """
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
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            h, state = rnn(to_one_hot(x, V).float() if one_hot else embedding(x), state)
            state = tuple(part.detach() for part in state) if task.cell == "lstm" else state.detach()
            loss: Any = cross_entropy(head(h).view(-1, V), y.view(-1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        return float(loss.detach())

    return step


def same_model(task: TrainingTask, one_hot: bool) -> bool:
    """Whether PyTorch's model has the same parameters as ours, so that both stay equal over many updates."""
    return one_hot or task.embedding is not None


def torch_compiled_step(task: TrainingTask, start: Weights, windows: Windows, threads: int) -> Step:
    """A tanh RNN as a loop over the steps that `torch.compile` compiles, ids selecting rows of W_xh; fused Adam."""
    import torch
    from torch.nn.functional import cross_entropy, embedding

    torch.set_num_threads(threads)
    weights = {name: torch.tensor(value, requires_grad=True) for name, value in start.items()}
    parameters = list(weights.values())

    def loss_of(x: Any, y: Any, h: Any, W_xh: Any, W_hh: Any, b_h: Any, W_hy: Any, b_y: Any) -> Any:
        outputs = []
        for xw in (embedding(x, W_xh) + b_h).unbind():
            h = torch.tanh(torch.addmm(xw, h, W_hh))
            outputs.append(h)
        logits = torch.stack(outputs) @ W_hy + b_y
        return cross_entropy(logits.view(-1, task.vocabulary), y.view(-1)), h.detach()

    compiled = torch.compile(loss_of, fullgraph=True)
    optimizer = torch.optim.Adam(parameters, RATE, (BETA1, BETA2), EPS, fused=True)
    source = cycle([(torch.from_numpy(x.astype(np.int64)), torch.from_numpy(y.astype(np.int64))) for x, y in windows])
    h = torch.zeros(task.batch, task.hidden)

    def step() -> float:
        nonlocal h
        x, y = next(source)
        optimizer.zero_grad(set_to_none=True)
        loss, h = compiled(x, y, h, *parameters)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        return float(loss.detach())

    return step
