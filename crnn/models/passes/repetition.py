# SPDX-License-Identifier: MIT
"""Repetition: an update on ids that only differs from the last one in ids, targets and the state's numbers.

The kernel calls of small windows are recorded (`crnn.nn.program`). The rest of the way to them, which converts
arguments and chooses a tape, takes as long as the kernels of a small network. Here it is reduced to what changes.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from crnn._core import loss
from crnn._core.arrays import take_ids
from crnn.checks import Array
from crnn.models.outputs.head import HeadTape
from crnn.nn.stack import Stack
from crnn.nn.state import StateLike
from crnn.nn.tape import Tape
from crnn.text.windows import IGNORE_INDEX


@dataclass(eq=False, slots=True)
class Repetition:
    """What an update depends on. It is repeated if all of that is as it was; the general path does everything else,
    which includes the refusal of wrong arguments."""

    stack: Stack
    tape: Tape  # continues from the state after the last window
    head_tape: HeadTape
    targets: Array  # its copy of them
    losses: Array  # (T*B,), its own
    key: Hashable  # of the program, see `run_phases`
    options: tuple[Any, ...]  # others that were given
    count: int | None  # of targets, if the scale depends on it

    def run(
        self, ids: Any, targets: Any, state: StateLike | None, options: tuple[Any, ...]
    ) -> tuple[float, int] | None:
        """ACCUMULATE the gradients. Returns the sum of the losses and the number of targets.

        Returns None if this is not a repetition. The tape has another x then, and nothing else has been done.
        """
        tape, head_tape = self.tape, self.head_tape
        if not (options == self.options and tape.after.is_value(state)):
            return None
        program = self.stack.program(tape, self.key)
        if program is None or take_ids(tape.x, ids, self.stack.config.input_size) < 0:
            return None
        count = take_ids(self.targets, targets, head_tape.outputs.shape[2], IGNORE_INDEX)
        if count < 0 or (self.count is not None and count != self.count) or not tape.before.take(tape.after):
            return None
        program.run()
        return loss.sum(self.losses), count
