# SPDX-License-Identifier: MIT
"""What reads the network of a learner: its outputs, their losses and the gradient at the network's outputs."""

from __future__ import annotations

from typing import Any, Protocol

from crnn._core import arrays as kernels
from crnn._core import gemm
from crnn.array_input import check_finite
from crnn.checks import Array
from crnn.nn.slices import Slice
from crnn.nn.tape import Tape

__all__ = ["NetworkReadout", "Readout"]


class Readout(Protocol):
    """What reads the outputs y (T, B, H) of a network, for a learner.

    ``own`` is what `new_tape` returned: the arrays of a tape of T steps of B streams that belong to the readout.
    ``targets`` (T, B, ...) are an array that `new_targets` returned. Methods that take a slice or a part may run in
    different threads.
    """

    rows: int  # of its largest weight matrix, 0 without one

    def new_tape(self, tape: Tape) -> Any:
        """The readout's arrays for a tape of the network."""
        ...

    def new_targets(self, steps: int, batch: int) -> Array:
        """Targets (steps, batch, ...), all missing."""
        ...

    def set_missing(self, targets: Array) -> None:
        """Set all targets to missing."""
        ...

    def check_targets(self, name: str, targets: Array) -> None:
        """Raise ValueError, which calls them ``name``, for targets (T, B, ...) of a file that cannot be."""
        ...

    def weight(self, targets: Array) -> float:
        """What the sum of the losses of targets is divided by; 0 if all are missing."""
        ...

    def pack(self, own: Any) -> None:
        """Pack the weights."""
        ...

    def share_packed(self, own: Any, other: Any) -> None:
        """Use the packed weights of another tape, whose `pack` has been called."""
        ...

    def forward(self, own: Any, y: Array, t0: int, t1: int, part: Slice) -> None:
        """The outputs of the steps t0 .. t1-1."""
        ...

    def outputs(self, own: Any, tape: Tape) -> Array:
        """Where the outputs (T, B, V) are. `backward` may overwrite them."""
        ...

    def losses(self, own: Any) -> Array | None:
        """Where the losses (T, B) are; None if there are only gradients."""
        ...

    def forward_losses(self, own: Any, targets: Array, t0: int, t1: int, part: Slice) -> None:
        """The losses of the steps t0 .. t1-1, whose outputs have been computed."""
        ...

    def backward(self, own: Any, tape: Tape, targets: Array, scale: float, part: Slice) -> None:
        """OVERWRITE ``tape.dy`` with the gradient of scale * (the sum of the losses)."""
        ...

    def weight_gradients(self, own: Any, tape: Tape, scratch: Array, part: int, parts: int) -> None:
        """ACCUMULATE the gradients of its weights, for the columns that belong to ``part`` of ``parts``."""
        ...


class NetworkReadout:
    """The readout of a network alone: its outputs are y, and its targets are the gradients at y, 0 if missing."""

    rows = 0

    size: int
    dtype: str

    def __init__(self, size: int, dtype: str) -> None:
        self.size, self.dtype = size, dtype

    def new_tape(self, tape: Tape) -> None:
        return None

    def new_targets(self, steps: int, batch: int) -> Array:
        return gemm.aligned_zeros((steps, batch, self.size), self.dtype)

    def set_missing(self, targets: Array) -> None:
        targets.fill(0)

    def check_targets(self, name: str, targets: Array) -> None:
        check_finite(name, targets)

    def weight(self, targets: Array) -> float:
        return 1.0

    def pack(self, own: None) -> None:
        pass

    def share_packed(self, own: None, other: None) -> None:
        pass

    def forward(self, own: None, y: Array, t0: int, t1: int, part: Slice) -> None:
        pass

    def outputs(self, own: None, tape: Tape) -> Array:
        return tape.y

    def losses(self, own: None) -> None:
        return None

    def forward_losses(self, own: None, targets: Array, t0: int, t1: int, part: Slice) -> None:
        pass

    def backward(self, own: None, tape: Tape, targets: Array, scale: float, part: Slice) -> None:
        kernels.copy_rows(tape.dy, targets, part.b0, part.b1)

    def weight_gradients(self, own: None, tape: Tape, scratch: Array, part: int, parts: int) -> None:
        pass
