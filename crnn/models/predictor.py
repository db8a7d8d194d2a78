# SPDX-License-Identifier: MIT
"""Predictor: a network and a head on top of it, run over one window. Forward, losses and gradients. Knows no text."""

from __future__ import annotations

from dataclasses import dataclass, replace

from numpy.typing import ArrayLike

from crnn import _parallel as parallel
from crnn._core import loss as kernels
from crnn.checks import Array
from crnn.models.head import Head, HeadTape
from crnn.nn.dropout import Masks
from crnn.nn.network import RNN
from crnn.nn.state import StateLike
from crnn.nn.tape import Tape
from crnn.stream.parts import StreamParts

Seed = int | list[int] | None


@dataclass(eq=False)
class Workspace:
    """Arrays of one window shape, reused from window to window while training."""

    tape: Tape | None = None
    head: HeadTape | None = None
    encoder: Tape | None = None


class Predictor:
    """A network and the head that reads its outputs."""

    def __init__(self, net: RNN, head: Head) -> None:
        self.net, self.head = net, head

    def stream_parts(self, kind: str, *, ids_only: bool = False) -> StreamParts:
        """What one step of network and head computes, for a model of the class ``kind``."""
        head = self.head
        w = None if head.tie_weights else head.w
        return replace(self.net._stream_parts(), kind=kind, W_hy=w, b_y=head.b_y, ids_only=ids_only)

    def start(
        self,
        x: Array,
        state: StateLike | None,
        space: Workspace,
        *,
        lengths: ArrayLike | None = None,
        threads: int = 1,
        dropout_seed: Seed = None,
        keep: bool = False,
    ) -> tuple[Tape, HeadTape]:
        """Tapes for a window, from the workspace where they fit, with masks drawn and the weights packed."""
        stack, head = self.net.stack, self.head
        masks = None if dropout_seed is None else Masks(dropout_seed)
        rows = len(head.w)
        tape = stack.new_tape(x, state, space.tape, lengths=lengths, threads=threads, keep=keep, max_rows=rows)
        if space.head is None or tape is not space.tape:
            space.head = head.new_tape(tape.steps, tape.batch, self.net.output_size)
        space.tape = tape
        stack.draw_masks(tape, masks)
        head.draw_mask(space.head, masks, stack.config.dropout, stack.config.variational_dropout)
        stack.pack_forward(tape)
        head.pack_forward(space.head)
        return tape, space.head

    def forward(self, tape: Tape, head_tape: HeadTape, targets: Array | None) -> None:
        """Through network and head; losses where there are targets."""

        def rows(number: int) -> None:
            part = tape.part(number)
            self.net.stack.forward(tape, part)
            self.head.forward_rows(head_tape, tape.y, part)
            if targets is not None:
                self.head.loss_rows(head_tape, targets, part)

        parallel.run(tape.parts, rows)

    def forward_backward(self, tape: Tape, head_tape: HeadTape, targets: Array, scale: float, threads: int) -> float:
        """Forward, losses, and the gradient of scale * (their sum), added to the gradients. Returns that sum."""
        stack, head = self.net.stack, self.head
        for cell in tape.recurrences:
            cell.overwrite_gates = not cell.keep_dh
        stack.pack_backward(tape)
        head.pack_backward(head_tape)

        def rows(number: int) -> None:
            part = tape.part(number)
            stack.forward(tape, part)
            head.forward_rows(head_tape, tape.y, part)
            head.backward_rows(head_tape, tape.dy, targets, scale, part)
            stack.backward(tape, None, part)

        def columns(part: int) -> None:
            stack.weight_gradients(tape, part, threads)
            head.weight_gradients(head_tape, tape.y, tape.scratch(part), part, threads, tape.lengths)

        parallel.run(tape.parts, rows)
        parallel.run(threads, columns)
        stack.finish_gradients(tape)
        return kernels.sum(head_tape.losses.reshape(-1))

    def window(
        self,
        x: Array,
        targets: Array,
        space: Workspace,
        *,
        only: Array | None = None,
        state: StateLike | None = None,
        lengths: ArrayLike | None = None,
        scale: float | None = None,
        threads: int = 1,
        dropout_seed: Seed = None,
        keep: bool = True,
    ) -> tuple[Tape, HeadTape]:
        """Start, then forward with losses; with a ``scale`` also the gradient of scale * (their sum).

        ``only``: bool (T, B), the targets that have a loss.
        """
        if only is not None:
            targets = self.head.loss.keep_only(targets, only)
        tape, head_tape = self.start(
            x, state, space, lengths=lengths, threads=threads, dropout_seed=dropout_seed, keep=keep
        )
        if scale is None:
            self.forward(tape, head_tape, targets)
        else:
            self.forward_backward(tape, head_tape, targets, scale, threads)
        return tape, head_tape
