# SPDX-License-Identifier: MIT
"""The passes of a language model over one window of ids: logits, losses and gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from numpy.typing import ArrayLike

from crnn._core import loss
from crnn._float_mode import public_methods_in_ieee_mode
from crnn.array_input import as_ids
from crnn.checks import Array, Ids, check_reduction, check_threads
from crnn.models.inputs.data import Batch
from crnn.models.outputs.adaptive import AdaptiveHead
from crnn.models.outputs.head import Head
from crnn.models.passes.predictor import Predictor, Workspace
from crnn.models.passes.shard_rows import ShardedWindow, is_one_pass
from crnn.models.passes.window_options import WindowOptions
from crnn.nn.network import RNN
from crnn.nn.params import Parameters
from crnn.nn.precision import check_training_precision
from crnn.nn.shards import ShardLayout, Shards, ShardShape
from crnn.nn.state import StateLike


class TextPasses:
    """What one update needs of a model of token ids. A mixin for `LanguageModel`, whose conventions it shares."""

    tie_weights: bool
    net: RNN
    _parameters: Parameters
    _head: Head | AdaptiveHead
    _predictor: Predictor

    def forward(self, ids: ArrayLike, state: StateLike | None = None, *, threads: int = 1) -> tuple[Array, StateLike]:
        """Logits (T, B, V) of the next tokens and the state after the last step, both fresh.

        With an adaptive softmax they are log-probabilities, whose softmax is the probabilities too.

        Arguments and errors as in `RNN.forward`; ids must be integers, otherwise TypeError is raised.
        """
        threads = check_threads(threads)
        predictor, workspace = self._predictor, self._predictor.take_workspace()
        options = WindowOptions(state=state, threads=threads, keep=False)
        tape, head = predictor.start(self._check_ids("ids", ids), workspace, options)
        predictor.forward(tape, head, None)
        assert head.outputs is not None
        if not predictor.keeps(workspace):
            return head.outputs, tape.after.value
        outputs, after = head.outputs.copy(), tape.after.copied()
        predictor.keep_workspace(workspace)
        return outputs, after

    def losses(
        self,
        ids: ArrayLike,
        targets: ArrayLike,
        state: StateLike | None = None,
        *,
        threads: int = 1,
        workspace: Workspace | None = None,
    ) -> tuple[Array, StateLike]:
        """Losses in nats (T, B), 0 where targets are missing, and the state after the last step.

        With a ``workspace`` both belong to it, otherwise they are fresh. Raises TypeError and ValueError for wrong ids,
        targets or states.
        """
        threads = check_threads(threads)
        predictor = self._predictor
        memory = predictor.take_workspace() if workspace is None else Workspace.given(workspace)
        options = WindowOptions(state=state, threads=threads, keep=False)
        tape, head = predictor.start(self._check_ids("ids", ids), memory, options, outputs=False)
        predictor.forward(tape, head, self._check_targets(targets, tape.x.shape))
        if workspace is not None or not predictor.keeps(memory):
            return head.losses, tape.after.value
        losses, after = head.losses.copy(), tape.after.copied()
        predictor.keep_workspace(memory)
        return losses, after

    def loss_and_gradients(
        self,
        ids: ArrayLike,
        targets: ArrayLike,
        state: StateLike | None = None,
        *,
        reduction: str = "mean",
        threads: int = 1,
        workspace: Workspace | None = None,
        dropout_seed: int | list[int] | None = None,
        precision: Literal["bf16"] | None = None,
    ) -> tuple[float, int, StateLike]:
        """Forward pass, losses and backward pass of a window; ACCUMULATES the gradients in `grads`.

        Parameters
        ----------
        ids, targets : integer arrays (T, B)
        state : optional
            State before the first step. If not given: the trainable initial state if there is one, otherwise zeros. No
            gradient flows into a given state: backpropagation is truncated there.
        reduction : {"mean", "sum"}
            Whether the gradient is that of the mean loss per target or of the sum of the losses.
        threads : int
        workspace : Workspace, optional
            Memory to reuse.
        dropout_seed : int, optional
            Seed of the dropout masks. If not given, nothing is dropped.
        precision : {"bf16"}, optional
            Of the matrix products and of their gradients, as in `RNN.forward`.

        Returns
        -------
        total : float
            Sum of the losses in nats.
        count : int
            Number of targets.
        state
            State after the last step. Belongs to the workspace if one was given, otherwise fresh.

        Raises
        ------
        TypeError, ValueError
            Wrong ids, targets, state or reduction, or a model that is not trained in this precision.
        """
        check_reduction("reduction", reduction)
        threads = check_threads(threads)
        if precision is not None:  # options are compared before a tape checks them
            check_training_precision("precision", precision)
        space, options = Workspace.given(workspace), (reduction, threads, precision)
        repeated = self._predictor.repeat(space, ids, targets, state, options, dropout_seed)
        if repeated is not None:
            return repeated
        x = self._check_ids("ids", ids)
        wanted = self._check_targets(targets, x.shape)
        count = self._head.loss.count(wanted)
        scale = 1.0 / max(count, 1) if reduction == "mean" else 1.0
        how = WindowOptions(
            state=state, scale=scale, threads=threads, dropout_seed=dropout_seed, precision=precision
        )
        (tape,), head = self._predictor.window(x, wanted, space, how)
        self._predictor.remember(space, scale, threads, options, count if reduction == "mean" else None)
        return loss.sum(head.losses.reshape(-1)), count, tape.after.value

    def window_in_shards(
        self,
        ids: Sequence[Ids],
        targets: Sequence[Array],
        state: StateLike | None,
        *,
        seeds: list[list[int]],
        threads: int = 1,
        workspace: Workspace | None = None,
        precision: Literal["bf16"] | None = None,
    ) -> ShardedWindow | None:
        """A window whose rows are in several shards, after its passes; None if each shard needs its own.

        For `crnn.training.shards`. Arguments: lists as `loss_and_gradients` takes their elements.
        """
        if self._computes_other_gradients():
            return None
        layout = ShardLayout.of(tuple(ShardShape.of(each) for each in ids))
        shards = Shards(seeds, layout, layout)
        if not is_one_pass(self._predictor, shards):
            return None
        x = self._check_ids("ids", layout.joined(ids))
        wanted = self._check_targets(layout.joined(targets), x.shape)
        options = WindowOptions(state=state, shards=shards, threads=threads, precision=precision)
        return ShardedWindow(self._predictor, x, wanted, Workspace.given(workspace), options, carries=True)

    def workspace(self) -> Workspace:
        """A new workspace for `losses` and `loss_and_gradients`."""
        return Workspace()

    def window(self, ids: ArrayLike, targets: ArrayLike) -> tuple[Batch, Array]:
        """Checked ids and targets, int32 (T, B), as the kernels take them."""
        x = self._check_ids("ids", ids)
        return Batch(x), self._check_targets(targets, x.shape)

    def _check_ids(self, name: str, ids: ArrayLike) -> Ids:
        """Ids (T, B) as int32. Raises TypeError and ValueError, which call them ``name``."""
        array = as_ids(name, ids)
        if array.dtype.kind not in "iu":
            raise TypeError(f"{name}: expected an integer array (T, B), got {array.dtype}")
        return self.net.stack.check_input(array, name)

    def _check_targets(self, targets: ArrayLike, shape: tuple[int, ...]) -> Array:
        """Targets as int32 of this shape (T, B). Raises ValueError."""
        return self._head.loss.check("targets", targets, shape[0], shape[1], self.net.dtype)

    def _selected_by_ids(self) -> tuple[int, int, int] | None:
        """Where in the flat buffers the matrix is of which ids select rows, and its shape, if others have no gradient.

        Others are those that no id of a window with fewer ids than rows selects. For `crnn.training.sparse`.
        """
        if self.tie_weights or self._computes_other_gradients():
            return None
        shapes = self._parameters.shapes
        name = "layer0.W_xh" if self.net.embedding_size is None else "embedding"
        before = list(shapes)[: list(shapes).index(name)]
        rows, width = shapes[name]
        return Parameters.count({each: shapes[each] for each in before}), rows, width

    def _computes_other_gradients(self) -> bool:
        """Whether a subclass, or an assignment to this object, has replaced `loss_and_gradients`."""
        replaced = type(self).loss_and_gradients is not TextPasses.loss_and_gradients
        return replaced or "loss_and_gradients" in vars(self)

    def state_from(self, arrays: Sequence[Array], batch: int) -> StateLike:
        """The state that `crnn.nn.state.state_arrays` listed, for checkpoints; see `Predictor.state_from`."""
        return self._predictor.state_from(arrays, batch)


public_methods_in_ieee_mode(TextPasses)
