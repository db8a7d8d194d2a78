# SPDX-License-Identifier: MIT
"""The passes of a model over batches of whole sequences: losses and gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from numpy.typing import ArrayLike

from crnn._core import loss as kernels
from crnn._float_mode import public_methods_in_ieee_mode
from crnn.checks import Array, check_reduction, check_threads
from crnn.models.fitting.arguments import check_applied
from crnn.models.inputs.data import Batch, SequenceBatches, SequenceData
from crnn.models.outputs.head import Head
from crnn.models.passes.predictor import Predictor, Workspace
from crnn.models.passes.shard_rows import ShardedWindow, is_one_pass
from crnn.models.passes.window_options import Seed, WindowOptions
from crnn.nn.network import RNN
from crnn.nn.shards import ShardLayout, Shards, ShardShape
from crnn.nn.state import StateLike


class BatchPasses:
    """What `crnn.fit` needs of a model of whole sequences. A mixin for `SequenceModel`, whose conventions it shares."""

    net: RNN
    seed: int
    pooling: str | None
    _head: Head
    _predictor: Predictor

    def check_valid(self, data: Any) -> None:
        """Raise TypeError unless ``data`` is of the kind that `data` returns. For `crnn.fit`."""
        if not isinstance(data, SequenceData):
            raise TypeError(f"valid: expected the model's own data, got {type(data).__name__}; call the model's fit")

    def windows(self, data: Any, batch_size: int, bptt: int) -> SequenceBatches:
        """The batches of ``data``, for `crnn.fit`. ``bptt`` is ignored. Raises TypeError as `check_valid` does, and
        ValueError if an argument has been set that only the model's own fit applies.
        """
        check_applied(self)
        if not isinstance(data, SequenceData):
            raise TypeError(f"data: expected the model's own data, got {type(data).__name__}; call the model's fit")
        return SequenceBatches(data, batch_size, self.seed)

    def workspace(self) -> Workspace:
        """A new workspace for `loss_and_gradients`."""
        return Workspace()

    def state_from(self, arrays: Sequence[Array], batch: int) -> StateLike:
        """The state that `crnn.nn.state.state_arrays` listed, for checkpoints; see `Predictor.state_from`."""
        return self._predictor.state_from(arrays, batch)

    def loss_and_gradients(
        self,
        x: Batch,
        targets: Array,
        state: None = None,
        *,
        reduction: str = "mean",
        threads: int = 1,
        workspace: Workspace | None = None,
        dropout_seed: Seed = None,
        precision: Literal["bf16"] | None = None,
    ) -> tuple[float, int, None]:
        """Forward pass, losses and backward pass of a batch; ACCUMULATES the gradients in `grads`.

        Parameters
        ----------
        x : Batch
        targets : array (T, B, ...) or packed, or (1, B, ...) with pooling
            As `SequenceData.batch` returns them.
        state : None
            Sequences start from the initial state.
        reduction : {"mean", "sum"}
            Whether the gradient is that of the mean loss per target, weighted if there are class weights, or of the
            sum of the losses. Sample weights are factors of the losses in both.
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
            Sum of the losses.
        count : int
            Number of targets.
        state : None
        """
        check_reduction("reduction", reduction)
        threads = check_threads(threads)
        wanted = self._check_targets(targets, x)
        loss = self._head.loss
        scale = x.gain / (loss.weight(wanted) or 1.0) if reduction == "mean" else 1.0
        options = WindowOptions(
            lengths=x.lengths,
            target_lengths=x.target_lengths,
            weights=None if x.weights is None else x.weights.astype(self.net.dtype),
            scale=scale,
            threads=threads,
            dropout_seed=dropout_seed,
            precision=precision,
        )
        inputs = self._predictor.networks[0].stack.check_input(x.x)
        _, head = self._predictor.window(inputs, wanted, Workspace.given(workspace), options)
        return kernels.sum(head.losses.reshape(-1)), loss.count(wanted), None

    def window_in_shards(
        self,
        x: Sequence[Batch],
        targets: Sequence[Array],
        state: None,
        *,
        seeds: list[list[int]],
        threads: int = 1,
        workspace: Workspace | None = None,
        precision: Literal["bf16"] | None = None,
    ) -> ShardedWindow | None:
        """A batch whose sequences are in several shards, after its passes; None if each shard needs its own.

        For `crnn.training.shards`. Arguments: lists as `loss_and_gradients` takes their elements.
        """
        replaced = type(self).loss_and_gradients is not BatchPasses.loss_and_gradients
        if replaced or "loss_and_gradients" in vars(self):
            return None
        inputs = ShardLayout.of(tuple(ShardShape.of(batch.x, batch.lengths) for batch in x))
        of_targets = ShardLayout.of(
            tuple(ShardShape.of(each, batch.target_lengths) for batch, each in zip(x, targets, strict=True))
        )
        shards = Shards(seeds, inputs, of_targets)
        if not is_one_pass(self._predictor, shards):
            return None
        whole = Batch(inputs.joined([batch.x for batch in x]), inputs.lengths, of_targets.lengths)
        weights = [batch.weights for batch in x if batch.weights is not None]
        options = WindowOptions(
            shards=shards,
            weights=of_targets.joined(weights).astype(self.net.dtype) if weights else None,
            threads=threads,
            precision=precision,
        )
        return ShardedWindow(
            self._predictor,
            self._predictor.networks[0].stack.check_input(whole.x),
            self._check_targets(of_targets.joined(targets), whole),
            Workspace.given(workspace),
            options,
        )

    def loss_weight(self, x: Batch, targets: Array) -> float:
        """What the sum of a batch's losses is divided by for their mean: see `loss_and_gradients`."""
        return self._head.loss.weight(self._check_targets(targets, x)) / x.gain

    def _check_targets(self, targets: ArrayLike, batch: Batch) -> Array:
        """The targets of a batch as the kernels take them."""
        steps, rows = batch.x.shape[:2] if self.pooling is None else (1, batch.size)
        return self._head.loss.check("y", targets, steps, rows, self.net.dtype)


public_methods_in_ieee_mode(BatchPasses)
