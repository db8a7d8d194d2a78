# SPDX-License-Identifier: MIT
"""SteppedModel: a language model that learns window by window, and whose windows can be computed one step at a time.

A compressor knows a window's symbols before it predicts them, so it computes all steps in one pass. A decompressor
knows a symbol only after it has predicted it, so it computes each step by itself, on the same tape. Both have the same
bits: no sum of the kernels depends on how many steps or rows they are called for.
"""

from __future__ import annotations

import math

from crnn.checks import Array, Ids
from crnn.models.language_model import LanguageModel
from crnn.models.learners.readout import HeadReadout
from crnn.models.outputs.losses import CrossEntropy
from crnn.nn.learning.unrolled import Unrolled
from crnn.optim.optimizers import Optimizer, norm_of

__all__ = ["SteppedModel"]


class SteppedModel:
    """A language model, which it changes, and its optimizer.

    Methods are called in this order for every window: `begin`; `run` for all steps, or for one after the other;
    `learn`.

    Parameters
    ----------
    model : LanguageModel
        Without an adaptive softmax. No dropout masks are drawn.
    streams : int
        B.
    optimizer : Optimizer
    clip_norm : float
    threads : int
        Of which none affects results.
    """

    def __init__(
        self, model: LanguageModel, streams: int, optimizer: Optimizer, *, clip_norm: float, threads: int
    ) -> None:
        self.model, self.optimizer, self._clip_norm = model, optimizer, clip_norm
        self._streams, self._threads = streams, threads
        values, grads = model._parameters.values, model._parameters.grads
        loss = CrossEntropy(len(model.vocab))
        self._readout = HeadReadout(values, grads, loss, tie_weights=model.tie_weights)
        self._windows: dict[int, Unrolled] = {}  # by T
        self._last: Unrolled | None = None
        self._continues = False  # whether there was a window before the last one

    def begin(self, steps: int) -> tuple[Ids, Array]:
        """Begin a window of T steps that continues from the last one.

        Returns what the model reads, ids (T, B), to be written before the step that reads them, and where its logits
        (T, B, V) will be; both belong to this object.
        """
        window = self._windows.get(steps)
        if window is None:
            stack = self.model.net.stack
            window = Unrolled(stack, self._readout, steps, self._streams, ids=True, threads=self._threads)
            self._windows[steps] = window
        self._continues = self._last is not None
        if self._last is not None:
            self._last.state_after(self._last.steps, window.before)
        self._last = window
        window.pack(backward=True)
        return window.inputs, window.outputs

    def run(self, t0: int, t1: int) -> None:
        """Compute the logits of the steps t0 .. t1-1, after those before them."""
        assert self._last is not None
        self._last.forward(t0, t1)

    def learn(self, targets: Ids) -> None:
        """Change the weights by the gradient of the mean loss of targets (T, B), unless it is not finite.

        All steps have been run. Missing targets are `crnn.text.IGNORE_INDEX`. The logits are overwritten.
        """
        window, parameters = self._last, self.model._parameters
        assert window is not None
        window.targets[...] = targets
        window.backward(1.0 / self._readout.weight(window.targets))
        window.gradients(not self._continues)
        norm = norm_of(parameters.flat_grads, self._threads)
        if math.isfinite(norm):
            factor = min(1.0, self._clip_norm / norm) if norm > 0 else 1.0
            self.optimizer.update(parameters.flat, parameters.flat_grads, factor=factor, threads=self._threads)
            parameters.changed()
        parameters.flat_grads.fill(0)
