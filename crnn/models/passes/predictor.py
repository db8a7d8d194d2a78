# SPDX-License-Identifier: MIT
"""Predictor: a network and a head, run over one window: forward pass, losses and gradients. Independent of text."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from crnn._core import gemm
from crnn._core.rows import Lengths
from crnn.checks import Array
from crnn.models.outputs.adaptive import AdaptiveHead, AdaptiveRows
from crnn.models.outputs.blocks import Blocks, Gradient, rows_of_block
from crnn.models.outputs.head import Head, HeadTape
from crnn.models.outputs.penalty import ActivationPenalty
from crnn.models.passes.repetition import Repetition
from crnn.models.passes.window_options import Seed, WindowOptions
from crnn.nn.dropout import Masks, check_seeds
from crnn.nn.network import KEPT_BYTES, RNN
from crnn.nn.program import Phase
from crnn.nn.slices import Slice
from crnn.nn.state import StateLike, state_from
from crnn.nn.tape import Tape
from crnn.nn.windows import Window, run_windows, saves_memory
from crnn.stream.parts import StreamParts

WEIGHTS_TO_PACK = 1 << 20  # for each thread that packs: fewer are in the cache of the thread that updated them


@dataclass(eq=False)
class Workspace:
    """The tapes of one window, reused by the next window of the same shape. Empty at first."""

    tape: Tape | None = None
    head: HeadTape | None = None
    layout: object = None  # of the head's tape
    encoder: Tape | None = None  # see `EncoderDecoder`
    repetition: Repetition | None = None  # the last update, see `Predictor.repeat`

    def release_block(self) -> None:
        """Free the memory for the outputs of a block, if the window has several, until the next window."""
        if self.tape is not None and self.head is not None and self.head.blocked:
            self.head = self.repetition = None
            self.tape.programs.clear()  # which refer to it

    @staticmethod
    def given(workspace: object) -> Workspace:
        """The workspace that an argument is; a new one for None. Raises TypeError."""
        if workspace is None:
            return Workspace()
        if not isinstance(workspace, Workspace):
            raise TypeError(f"workspace: expected one of the model's workspace(), got {type(workspace).__name__}")
        return workspace


class Predictor:
    """A network and the head that reads its outputs.

    Models have one, and so do not inherit from each other what `crnn.fit`, evaluation and diagnostics need.
    """

    net: RNN  # whose outputs the head reads
    head: Any  # a Head, or an AdaptiveHead
    penalty: ActivationPenalty | None  # of the network's outputs in passes that train
    _kept: list[Workspace]  # at most one: that of the last small batches in inference

    def __init__(self, net: RNN, head: Head | AdaptiveHead, penalty: ActivationPenalty | None = None) -> None:
        self.net, self.head, self.penalty, self._kept = net, head, penalty, []

    @property
    def networks(self) -> list[RNN]:
        """All networks, first the one that reads x."""
        return [self.net]

    def state_from(self, arrays: Sequence[Array], batch: int) -> StateLike:
        """The state of ``batch`` rows that `crnn.nn.state.state_arrays` listed, fresh.

        Raises ValueError or TypeError for arrays that are not a state of this network.
        """
        state = self.net.stack.new_state(batch)
        state.assign("state", state_from(arrays, state))
        return state.value

    def stream_parts(self, kind: str, *, ids_only: bool = False) -> StreamParts:
        """The weights of one step of network and head, for streams of a model of the class ``kind``."""
        parts: StreamParts = self.head.in_streams(self.net._stream_parts())
        return replace(parts, kind=kind, ids_only=ids_only)

    # ---- one window -----------------------------------------------------------------------------------------------

    def start(
        self, x: Array, workspace: Workspace, options: WindowOptions, *, outputs: bool = True
    ) -> tuple[Tape, HeadTape]:
        """Tapes for a window, with masks drawn. They are taken from the workspace if they fit.

        ``outputs``: whether the caller needs the outputs of all rows; otherwise they may be computed in blocks.
        """
        stack, head = self.net.stack, self.head
        if workspace.tape is not None and workspace.tape.stack is not stack:
            raise ValueError("workspace: expected one that this model alone has used, got one that another has used")
        shards, seed = options.shards, options.dropout_seed
        masks = shards.masks if shards is not None else None if seed is None else Masks(seed)
        tape = stack.new_tape(
            x,
            options.state,
            workspace.tape,
            lengths=options.lengths,
            threads=options.threads,
            keep=options.keep,
            max_rows=len(head.w),
            precision=options.precision,
            tokens=None if shards is None else shards.tokens(stack.config),
        )
        block_rows = None if outputs else self._block_rows(tape)
        layout = block_rows, options.predictions
        if workspace.head is None or tape is not workspace.tape or workspace.layout != layout:
            workspace.head = None  # its memory may be needed
            workspace.head, workspace.layout = head.new_tape(tape, *layout), layout
        workspace.tape = tape
        tape.penalised = self.penalty is not None and masks is not None
        stack.draw_masks(tape, masks)
        head.draw_mask(workspace.head, tape, masks, stack.config)
        return tape, workspace.head

    def _block_rows(self, tape: Tape) -> int | None:
        """Rows of a block, if the outputs of a window are to be computed in several."""
        if tape.lengths is not None and not tape.lengths.packed:
            return None
        rows = math.prod(self.head.rows(tape))
        found = rows_of_block(rows, self.head.columns, self.head.b_y.itemsize)
        return None if found == rows else found

    def take_workspace(self) -> Workspace:
        """A workspace for inference: that of the last call, or a new one. No other thread has it."""
        try:
            return self._kept.pop()
        except IndexError:
            return Workspace()

    def keeps(self, workspace: Workspace) -> bool:
        """Whether a workspace is small enough for `keep_workspace`."""
        tape, head_tape = workspace.tape, workspace.head
        if tape is None or tape.keep or tape.lengths is not None or self._kept:
            return False
        outputs = 0 if head_tape is None or head_tape.outputs is None else head_tape.outputs.nbytes
        return tape.held_bytes + tape.y.nbytes + outputs <= KEPT_BYTES

    def keep_workspace(self, workspace: Workspace) -> None:
        """Keep a workspace for the next call if it is small. Nothing in it may belong to a caller."""
        if self.keeps(workspace):
            assert workspace.tape is not None
            workspace.tape.release()
            self._kept.append(workspace)

    def forward(self, tape: Tape, head_tape: HeadTape, targets: Array | None) -> None:
        """Run network and head; compute the losses if there are targets."""
        if targets is not None and tape.repeatable and head_tape.repeatable:
            targets = head_tape.own_targets(targets)
        version = self.net.stack.parameters.version
        packed = version is not None and tape.version is version is head_tape.version
        key = ("outputs", head_tape, id(targets), tape.parts, packed)
        phases = partial(self._forward_phases, tape, head_tape, targets, packed)
        self.net.stack.run_phases(tape, key, phases, head_tape.repeatable)
        tape.version = head_tape.version = version

    def _forward_phases(self, tape: Tape, head_tape: HeadTape, targets: Array | None, packed: bool) -> list[Phase]:
        """The phases of `forward`, see `crnn.nn.program`."""
        stack, head = self.net.stack, self.head

        def pack(_: int) -> None:
            stack.pack_forward(tape)
            head.pack_forward(head_tape)

        def rows(number: int) -> None:
            part = tape.part(number)
            stack.forward(tape, part)
            if head_tape.blocked:
                head.begin_rows(head_tape, tape.y, part)
                return
            head.forward_rows(head_tape, tape.y, part)
            if targets is not None:
                head.loss_rows(head_tape, targets, part)
            head_tape.predict(part)

        phases: list[Phase] = [(tape.parts, rows)] if packed else [(1, pack), (tape.parts, rows)]
        if head_tape.blocked:
            phases += self._blocks(tape, head_tape, targets, tape.parts).phases()
        return phases

    def outputs(
        self, x: Array, lengths: Lengths | None, threads: int, workspace: Workspace | None = None
    ) -> Array:
        """The head's outputs for a batch in inference: (T, B, V), packed with ``lengths``, or pooled (1, B, V).

        Fresh, or with a workspace valid until its next use.
        Large batches are computed in windows of time, unless the network is bidirectional.
        """
        head: Head = self.head  # models of sequences have no other
        stack = self.net.stack
        if head.pooling == "flatten" or not saves_memory(stack, x, lengths):
            options = WindowOptions(lengths=lengths, threads=threads, keep=False)
            tape, head_tape = self.start(x, workspace or Workspace(), options)
            self.forward(tape, head_tape, None)
            return head_tape.outputs
        if head.pooling == "last":
            return head.apply(stack.last_output(run_windows(stack, x, None, lengths, threads)))[None]
        T, rows = x.shape[:2]
        if head.pooling is None:
            weights = head.packed()
            outputs = gemm.aligned_empty((T, rows, len(head.b_y)), head.dtype)

            def put(window: Window, tape: Tape, part: Slice) -> None:
                of_window = window.of(outputs)
                gemm.linear_forward(of_window, tape.y, weights, head.b_y, part.b0, part.b1, part.lengths)

            run_windows(stack, x, None, lengths, threads, put)
            return outputs
        y = gemm.aligned_empty((T, rows, self.net.output_size), head.dtype)

        def keep(window: Window, tape: Tape, part: Slice) -> None:
            window.of(y)[:, part.rows] = tape.y[:, part.rows]

        run_windows(stack, x, None, lengths, threads, keep)
        return head.pooled(y, lengths)

    def forward_backward(self, tape: Tape, head_tape: HeadTape, targets: Array, options: WindowOptions) -> None:
        """Run network and head, compute the losses, and ACCUMULATE the gradient of ``scale`` * (their sum)."""
        assert options.scale is not None
        for cell in tape.recurrences:
            cell.keep_dh = cell.keep_dh or options.states_only
            cell.overwrite_gates = not cell.keep_dh
        repeatable = head_tape.repeatable and options.of_parameters and options.weights is None
        if repeatable and tape.repeatable:
            targets = head_tape.own_targets(targets)
        key = self._gradients_key(tape, head_tape, targets, options.scale, options.threads)
        phases = partial(self._gradient_phases, tape, head_tape, targets, options)
        self.net.stack.run_phases(tape, key, phases, repeatable)

    @staticmethod
    def _gradients_key(tape: Tape, head_tape: HeadTape, targets: Array | None, scale: float, threads: int) -> Hashable:
        """The key of `forward_backward`, see `run_phases`."""
        return "gradients", head_tape, id(targets), scale, tape.parts, threads, tape.from_initial_state

    def _gradient_phases(
        self, tape: Tape, head_tape: HeadTape, targets: Array, options: WindowOptions
    ) -> list[Phase]:
        """The phases of `forward_backward`, see `crnn.nn.program`."""
        stack, head = self.net.stack, self.head
        scale, threads, weights = options.scale, options.threads, options.weights
        assert scale is not None

        packings: list[Callable[[], None]] = [  # in an order that shares them out evenly
            partial(head.pack_forward, head_tape),
            partial(head.pack_backward, head_tape),
            partial(stack.pack_backward, tape),
            partial(stack.pack_forward, tape),
        ]
        size = sum(values.size for values in stack.params.values()) + head.w.size
        packers = min(threads, len(packings), max(1, size // WEIGHTS_TO_PACK))

        def pack(part: int) -> None:
            for packing in packings[part::packers]:
                packing()

        def rows(number: int) -> None:
            part = tape.part(number)
            stack.forward(tape, part)
            head.forward_rows(head_tape, tape.y, part)
            head_tape.predict(part)
            head.backward_rows(head_tape, tape.dy, targets, scale, part, weights)
            self._penalise(tape, head_tape, scale, part)
            stack.backward(tape, None, part)

        def columns(part: int) -> None:
            stack.weight_gradients(tape, part, threads)
            if not head_tape.blocked:
                head.weight_gradients(head_tape, tape.y, tape.scratch(part), part, threads, tape.lengths)

        def finish(_: int) -> None:
            if blocks is not None:
                blocks.finish()
            stack.finish_gradients(tape)

        blocks: Blocks | AdaptiveRows | None = None
        phases: list[Phase] = [(packers, pack)]
        if head_tape.blocked:
            gradient = Gradient(scale, of_parameters=options.of_parameters)
            blocks = self._blocks(tape, head_tape, targets, threads, gradient, weights)
            phases += self._blocked_rows(tape, head_tape, blocks, scale)
        else:
            phases.append((tape.parts, rows))
        if options.of_parameters:
            phases += [(threads, columns), (1, finish)]
        return phases

    def _blocks(
        self,
        tape: Tape,
        head_tape: Any,
        targets: Array | None,
        threads: int,
        gradient: Gradient | None = None,
        weights: Array | None = None,
    ) -> Blocks | AdaptiveRows:
        """What is computed between the passes of the network, of a head's tape that is blocked."""
        head = self.head
        if isinstance(head, AdaptiveHead):
            assert weights is None  # models of sequences have them, and none has such a head
            return AdaptiveRows(head, head_tape, tape, targets, threads, gradient)
        assert targets is not None
        return Blocks(head, head_tape, tape, targets, threads, gradient, weights)

    def _penalise(self, tape: Tape, head_tape: HeadTape, scale: float, part: Slice) -> None:
        """Add the gradient of the penalty, if there is one, to that at the network's outputs."""
        if tape.penalised:
            assert self.penalty is not None
            self.penalty.add_gradient(tape.dy, tape.y, head_tape.mask, scale, part)

    def _blocked_rows(
        self, tape: Tape, head_tape: HeadTape, blocks: Blocks | AdaptiveRows, scale: float
    ) -> list[Phase]:
        """The phases of a pass that computes the head's outputs and gradients in blocks of rows."""
        stack, head = self.net.stack, self.head

        def forward(number: int) -> None:
            part = tape.part(number)
            stack.forward(tape, part)
            head.begin_rows(head_tape, tape.y, part)

        def backward(number: int) -> None:
            part = tape.part(number)
            head.end_rows(head_tape, tape.dy, part)
            self._penalise(tape, head_tape, scale, part)
            stack.backward(tape, None, part)

        return [(tape.parts, forward), *blocks.phases(), (tape.parts, backward)]

    def repeat(
        self,
        workspace: Workspace,
        ids: Any,
        targets: Any,
        state: StateLike | None,
        options: tuple[Any, ...],
        dropout_seed: Seed,
    ) -> tuple[float, int, StateLike] | None:
        """Repeat the update that `remember` has been told of, with other ids, targets and numbers of the state.

        Arguments need not have been checked. Returns what ``loss_and_gradients`` returns; None if it is another update,
        or one with wrong arguments: then nothing is done.
        """
        repetition = workspace.repetition
        if repetition is None or repetition.stack is not self.net.stack:
            return None
        if dropout_seed is not None:
            check_seeds(dropout_seed)
        result = repetition.run(ids, targets, state, options)
        return None if result is None else (*result, repetition.tape.after.value)

    def remember(
        self, workspace: Workspace, scale: float, threads: int, options: tuple[Any, ...], count: int | None
    ) -> None:
        """Remember the update on ids that was done in a workspace, for `repeat`.

        ``options``: those that determine the update, besides the number of targets if it is given.
        """
        tape, head_tape, config = workspace.tape, workspace.head, self.net.stack.config
        workspace.repetition = None
        if tape is None or head_tape is None or not tape.repeatable or not head_tape.repeatable:
            return
        targets = head_tape.targets
        if targets is None or tape.from_initial_state or config.drops:
            return
        key = self._gradients_key(tape, head_tape, targets, scale, threads)
        if self.net.stack.program(tape, key) is not None:
            losses = head_tape.losses.reshape(-1)
            workspace.repetition = Repetition(self.net.stack, tape, head_tape, targets, losses, key, options, count)

    def window(
        self, x: Array, targets: Array, workspace: Workspace, options: WindowOptions
    ) -> tuple[list[Tape], HeadTape]:
        """Run a window, compute its losses, and with a ``scale`` ACCUMULATE the gradient of scale * (their sum).

        Parameters
        ----------
        x : array (T, B, D), or ids (T, B)
            As `Stack.check_input` returns it; borrowed by the tape. With ``lengths`` packed, as all arrays (T, B, ...).
        targets : array (T, B) or (T, B, N)
            As `Loss.check` returns it.
        workspace : Workspace
        options : WindowOptions

        Returns
        -------
        tapes : list of Tape
            One for each of `networks`. Belong to the workspace.
        head_tape : HeadTape
            Belongs to the workspace.
        """
        if options.only is not None:
            targets = self.head.loss.keep_only(targets, options.only)
        outputs = options.scale is None and not options.predictions
        tape, head_tape = self.start(x, workspace, options, outputs=outputs)
        if options.scale is None:
            self.forward(tape, head_tape, targets)
        else:
            self.forward_backward(tape, head_tape, targets, options)
        return [tape], head_tape
