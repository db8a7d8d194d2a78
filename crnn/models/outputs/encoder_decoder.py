# SPDX-License-Identifier: MIT
"""EncoderDecoder: the predictor of a model whose decoder starts from the last state of its encoder.

    x_1 .. x_T --encoder--> state --decoder, fed with boundary, y_1 .. y_M--> head --> y_1 .. y_M, boundary
"""

from __future__ import annotations

import numpy as np

from crnn._core.rows import Lengths
from crnn.checks import Array
from crnn.models.outputs.head import Head, HeadTape
from crnn.models.outputs.predictor import Predictor, Seed, Workspace
from crnn.nn.dropout import Masks
from crnn.nn.network import RNN
from crnn.nn.shards import Shards
from crnn.nn.state import State, StateLike
from crnn.nn.tape import Tape


class EncoderDecoder(Predictor):
    """An encoder, a decoder and the head that reads the decoder's outputs. Sutskever, Vinyals, Le 2014.

    Parameters
    ----------
    encoder, decoder : RNN
        A layer of the decoder has as many units as all directions of the encoder's layer together.
    head : Head
    boundary : int
        The token that starts and ends a target sequence.
    """

    encoder: RNN
    boundary: int

    def __init__(self, encoder: RNN, decoder: RNN, head: Head, boundary: int) -> None:
        super().__init__(decoder, head)
        self.encoder, self.boundary = encoder, boundary

    @property
    def networks(self) -> list[RNN]:
        return [self.encoder, self.net]

    def decoder_start(self, encoded: State) -> State:
        """The decoder's first state, fresh: the encoder's last state ``encoded``, its directions concatenated."""
        start, directions = self.net.stack.new_state(encoded.batch), self.encoder.directions
        for (_, layers), (_, of_encoder) in zip(start.parts, encoded.parts, strict=True):
            for layer, array in enumerate(layers):
                np.concatenate(of_encoder[layer * directions : (layer + 1) * directions], axis=1, out=array)
        return start

    def encoder_gradient(self, dstart: State) -> State:
        """The gradient at the encoder's last state, fresh, from the gradient at the decoder's first state."""
        dencoded, directions = self.encoder.stack.new_state(dstart.batch), self.encoder.directions
        for (_, layers), (_, of_decoder) in zip(dencoded.parts, dstart.parts, strict=True):
            for index, array in enumerate(layers):
                layer, direction = divmod(index, directions)
                H = array.shape[1]
                array[...] = of_decoder[layer][:, direction * H : (direction + 1) * H]
        return dencoded

    def window(
        self,
        x: Array,
        targets: Array,
        workspace: Workspace,
        *,
        only: Array | None = None,
        state: StateLike | None = None,
        lengths: Lengths | None = None,
        target_lengths: Lengths | None = None,
        scale: float | None = None,
        threads: int = 1,
        dropout_seed: Seed = None,
        shards: Shards | None = None,
        keep: bool = True,
        states_only: bool = False,
        weights: Array | None = None,
        precision: str | None = None,
        predictions: bool = False,
    ) -> tuple[list[Tape], HeadTape]:
        """As `Predictor.window`: x, ``state`` and ``lengths`` are the encoder's, the targets (M, B) are token ids.

        The decoder reads the boundary token and then the targets, whatever it predicts (teacher forcing).
        """
        masks = tokens = None
        if dropout_seed is not None:  # not the same masks as the decoder
            masks = Masks([*(dropout_seed if isinstance(dropout_seed, list) else [dropout_seed]), 1])
        elif shards is not None:
            of_encoder = shards.of_encoder(1)
            masks, tokens = of_encoder.masks, of_encoder.tokens(self.encoder.stack.config)
        encoder_tape = self.encoder.run(
            x, state, lengths, threads, workspace.encoder, masks, keep=keep, precision=precision, tokens=tokens
        )
        workspace.encoder = encoder_tape
        (tape,), head_tape = super().window(
            self.net.stack.check_input(self._decoder_inputs(targets, target_lengths)),
            targets,
            workspace,
            only=only,
            state=self.decoder_start(encoder_tape.after).value,
            lengths=target_lengths,
            scale=scale,
            threads=threads,
            dropout_seed=dropout_seed,
            shards=None if shards is None else shards.of_decoder(),
            keep=keep,
            states_only=states_only,
            weights=weights,
            precision=precision,
            predictions=predictions,
        )
        if scale is not None:
            assert tape.dbefore is not None
            dafter = self.encoder_gradient(tape.dbefore)
            if states_only:
                for cell in encoder_tape.recurrences:
                    cell.keep_dh = True
            if states_only or shards is not None:
                self.encoder.run_backward(encoder_tape, None, dafter)
            else:
                self.encoder.backward(encoder_tape, None, dafter.value, threads=threads)
        return [encoder_tape, tape], head_tape

    def _decoder_inputs(self, targets: Array, lengths: Lengths | None) -> Array:
        """The boundary token, then the targets but the last one of each sequence."""
        if lengths is None:
            return np.concatenate([np.full((1, targets.shape[1]), self.boundary, np.int32), targets[:-1]])
        inputs = np.full_like(targets, self.boundary)
        inputs[0, lengths.B :] = targets[0, lengths.rows_before()]
        return inputs
