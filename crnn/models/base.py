# SPDX-License-Identifier: MIT
"""HeadedModel: a network and a head in one flat buffer; forward, loss and gradients of a window. Knows no text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import ArrayLike, NDArray

from crnn import _parallel as parallel
from crnn._core import loss as kernels
from crnn.models.head import Head, HeadTape
from crnn.models.losses import Loss
from crnn.nn.dropout import Masks
from crnn.nn.network import RNN, Shapes
from crnn.nn.params import Parameters, ParameterViews
from crnn.nn.state import StateLike, state_from
from crnn.nn.tape import Tape
from crnn.stream.streaming import Streamable

Array = NDArray[Any]


@dataclass(eq=False)
class Workspace:
    """Arrays of one window shape, kept from window to window while training."""

    tape: Tape | None = None
    head: HeadTape | None = None
    source: Tape | None = None  # of an encoder


class HeadedModel(Streamable, ParameterViews, ABC):
    """What models share. A subclass makes ``net`` and ``_head`` by `_build`, and says what x and targets are."""

    net: RNN  # whose outputs the head reads
    _head: Head
    dtype: str
    vocab_names: ClassVar[tuple[str, ...]] = ()  # arguments, and attributes, that are vocabularies or None

    def _build(
        self,
        network: Mapping[str, Any],
        shapes: Shapes,
        loss: Loss,
        *,
        tie_weights: bool = False,
        pooling: str | None = None,
        prefix: str = "",
    ) -> None:
        """A network and a head. ``network``: RNN's arguments; ``shapes``: of all the model's parameters; ``prefix``:
        what stands before the names of the network's."""
        self.dtype = network["dtype"]
        self._parameters = Parameters(shapes, self.dtype)
        self.net = self._network(network, prefix)
        directions = self.net.directions
        self._head = Head(
            self.params, self.grads, loss, tie_weights=tie_weights, pooling=pooling, directions=directions
        )

    def _network(self, network: Mapping[str, Any], prefix: str) -> RNN:
        """A network that lives in the model's buffer."""
        return RNN(**network, _parameters=self._parameters.part(prefix, RNN.parameter_shapes(**network)))

    @property
    def _networks(self) -> list[RNN]:
        """The one that reads x first."""
        return [self.net]

    @property
    def _vocabs(self) -> dict[str, Any]:
        """The vocabularies by name, without those that are None."""
        named = {name: getattr(self, name) for name in self.vocab_names}
        return {name: vocab for name, vocab in named.items() if vocab is not None}

    def state_from(self, arrays: Sequence[Array], batch: int) -> StateLike:
        """The state that `crnn.state.state_arrays` took apart. Raises ValueError if it is not one of this model's."""
        like = self.net._new_state(batch)
        like.fill("state", state_from(arrays, like))
        return like.value

    def workspace(self) -> Workspace:
        """Arrays for `loss_and_gradients` to keep from window to window."""
        return Workspace()

    @abstractmethod
    def astype(self, dtype: str) -> HeadedModel:
        """A copy of the model in another precision."""

    @abstractmethod
    def window(self, x: Any, targets: Any) -> tuple[Array, Array, Array | None]:
        """A batch of x and targets, checked and time-major, and the sequences' lengths where they differ."""

    def _target_lengths(self, targets: Array, lengths: ArrayLike | None) -> ArrayLike | None:
        """Of `window`'s targets: how many each sequence has, if they differ."""
        return lengths

    # ---- one window -----------------------------------------------------------------------------------------------

    def _pass(
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
        dropout_seed: int | list[int] | None = None,
        keep: bool = True,
    ) -> tuple[list[Tape], HeadTape]:
        """Forward and losses; with a ``scale`` also the gradient of scale * (their sum), which is added to `grads`.

        ``only``: bool (T, B), the targets that have a loss. Returns the tapes of `_networks`, and the head's.
        """
        if only is not None:
            targets = self._head.loss.none_but(targets, only)
        tape, head = self._start(
            x, state, space, lengths=lengths, threads=threads, dropout_seed=dropout_seed, keep=keep
        )
        if scale is None:
            self._run(tape, head, targets)
        else:
            self._run_with_gradients(tape, head, targets, scale, threads)
        return [tape], head

    def _start(
        self,
        x: Array,
        state: StateLike | None,
        space: Workspace,
        *,
        lengths: ArrayLike | None = None,
        threads: int = 1,
        dropout_seed: int | list[int] | None = None,
        keep: bool = False,
    ) -> tuple[Tape, HeadTape]:
        """Tapes for a window, from the workspace where they fit, with masks drawn and the weights packed."""
        net = self.net
        masks = None if dropout_seed is None else Masks(dropout_seed)
        widest = len(self._head.w)
        tape = net._new_tape(x, state, space.tape, lengths=lengths, threads=threads, keep=keep, widest=widest)
        if space.head is None or tape is not space.tape:
            space.head = self._head.new_tape(tape.steps, tape.batch, self.net.output_size)
        space.tape = tape
        net._draw_masks(tape, masks)
        self._head.draw_mask(space.head, masks, net.dropout, net.variational_dropout)
        net._pack_forward(tape)
        self._head.pack_forward(space.head)
        return tape, space.head

    def _run(self, tape: Tape, head: HeadTape, targets: Array | None) -> None:
        """Forward through network and head; losses where there are targets."""

        def rows(number: int) -> None:
            part = tape.part(number)
            self.net._forward_rows(tape, part)
            self._head.forward_rows(head, tape.y, part)
            if targets is not None:
                self._head.loss_rows(head, targets, part)

        parallel.run(tape.parts, rows)

    def _run_with_gradients(self, tape: Tape, head: HeadTape, targets: Array, scale: float, threads: int) -> float:
        """Forward, loss and back; adds to `grads`. Returns the sum of the losses."""
        net = self.net
        for cell in tape.recurrences:
            cell.once = not cell.keep_dh
        net._pack_backward(tape)
        self._head.pack_backward(head)

        def rows(number: int) -> None:
            part = tape.part(number)
            net._forward_rows(tape, part)
            self._head.forward_rows(head, tape.y, part)
            self._head.backward_rows(head, tape.dy, targets, scale, part)
            net._backward_rows(tape, None, part)

        def columns(part: int) -> None:
            net._weight_gradients(tape, part, threads)
            self._head.weight_gradients(head, tape.y, tape.scratch(part), part, threads, tape.lengths)

        parallel.run(tape.parts, rows)
        parallel.run(threads, columns)
        net._finish_gradients(tape)
        return kernels.sum(head.losses.reshape(-1))
