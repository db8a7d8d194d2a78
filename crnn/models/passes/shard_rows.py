# SPDX-License-Identifier: MIT
"""A batch whose sequences are in several shards: one forward and backward pass for all, then each shard's gradients.

Rows are bit-identical at any position of a batch, packed or not, so the gradients are those of a pass for each shard
alone. Products with all rows are faster, because they read the weights once. The gradients of weights are sums over
the rows of a shard within the arrays of all.
"""

from __future__ import annotations

from crnn._core import loss
from crnn.checks import Array
from crnn.models.outputs.blocks import rows_of_block
from crnn.models.outputs.head import Head
from crnn.models.passes.predictor import Predictor, Workspace
from crnn.models.passes.window_options import WindowOptions
from crnn.nn.inputs import EmbeddedDense, EmbeddedRows, LayerInput
from crnn.nn.program import run_phases
from crnn.nn.shards import ShardLayout, Shards
from crnn.nn.stack import Stack
from crnn.nn.state import StateLike
from crnn.nn.tape import ShardTape, Tape

__all__ = ["ShardedWindow", "is_one_pass"]


def is_one_pass(predictor: Predictor, shards: Shards) -> bool:
    """Whether a batch is computed in one pass. Otherwise each shard needs its own.

    So it does with dropout of recurrent weights, which are others in each shard, and where the head's gradients are
    computed before the network's backward pass: see `crnn.models.outputs.blocks` and `.adaptive`.
    """
    head, rows = predictor.head, shards.targets.rows
    if type(head) is not Head or any(net.stack.config.weight_dropout for net in predictor.networks):
        return False
    return rows_of_block(rows, head.columns, head.b_y.itemsize) == rows


class ShardedWindow:
    """A batch in several shards, after its passes.

    Parameters
    ----------
    predictor : Predictor
    x, targets : arrays
        Of all shards, joined, as `Predictor.window` takes them.
    workspace : Workspace
    options : WindowOptions
        With ``shards``, which have the lengths.
    carries : bool
        Whether the next batch starts from the state after this one.

    Attributes
    ----------
    after : state or None
        Of all rows, after the last step, if it is carried. Belongs to the workspace.
    """

    after: StateLike | None

    def __init__(
        self,
        predictor: Predictor,
        x: Array,
        targets: Array,
        workspace: Workspace,
        options: WindowOptions,
        *,
        carries: bool = False,
    ) -> None:
        shards = options.shards
        assert shards is not None
        self._predictor, self._targets, self._shards, self._threads = predictor, targets, shards, options.threads
        options = options._replace(
            lengths=shards.inputs.lengths, target_lengths=shards.targets.lengths, scale=1.0
        )
        self._tapes, self._head_tape = predictor.window(x, targets, workspace, options)
        self.after = self._tapes[-1].after.value if carries else None

    def gradients(self, shard: int) -> tuple[float, int]:
        """ACCUMULATE the gradients of a shard. Returns the sum of its losses, and the number of its targets."""
        predictor, threads, head_tape = self._predictor, self._threads, self._head_tape
        layouts = (self._shards.inputs, self._shards.targets)[: len(self._tapes)]
        networks = [
            (net.stack, tape, _tape_of(net.stack, tape, layout, shard))
            for net, tape, layout in zip(predictor.networks, self._tapes, layouts, strict=True)
        ]

        def columns(part: int) -> None:
            for stack, tape, of_shard in networks:
                stack.weight_gradients(tape, part, threads, of_shard)
            _, tape, of_shard = networks[-1]
            predictor.head.weight_gradients(head_tape, tape.y, tape.scratch(part), part, threads, of_shard.lengths)

        def finish(_: int) -> None:
            for stack, tape, of_shard in networks:
                stack.finish_gradients(tape, of_shard)

        run_phases(None, (), (), lambda: [(threads, columns), (1, finish)])
        rows_of = self._shards.targets.of_shard
        return loss.sum(rows_of(shard, head_tape.losses)), predictor.head.loss.count(rows_of(shard, self._targets))


def _tape_of(stack: Stack, tape: Tape, layout: ShardLayout, shard: int) -> ShardTape:
    """The rows of a shard in a network's tape."""
    sources = [_source_of(stack, source, layout.shards[shard].tokens) for source in tape.sources]
    return ShardTape(sources, layout.ranges[shard], slice(*layout.bounds[shard]))


def _source_of(stack: Stack, source: LayerInput, tokens: int) -> LayerInput:
    """The input whose gradient is that of a shard of so many tokens: as `first_input` would choose it for the shard."""
    config = stack.config
    drops = config.input_dropout + config.embedding_dropout > 0
    if not isinstance(source, EmbeddedDense) or drops or config.input_size > tokens:
        return source
    prefix, width = source.w_name.removesuffix("W_xh"), source.weights.N
    rows = EmbeddedRows(prefix, source.ids, source.embedding, width, source.precision)
    rows.pack_backward(stack.params)
    return rows
