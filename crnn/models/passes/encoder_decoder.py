# SPDX-License-Identifier: MIT
"""EncoderDecoder: the predictor of a model whose decoder starts from the last state of its encoder.

    x_1 .. x_T --encoder--> state --decoder, fed with boundary, y_1 .. y_M--> head --> y_1 .. y_M, boundary
"""

from __future__ import annotations

import numpy as np

from crnn._core.rows import Lengths
from crnn.checks import Array
from crnn.models.outputs.head import Head, HeadTape
from crnn.models.passes.predictor import Predictor, Workspace
from crnn.models.passes.window_options import WindowOptions
from crnn.nn.dropout import Masks
from crnn.nn.network import RNN
from crnn.nn.state import State
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
        self, x: Array, targets: Array, workspace: Workspace, options: WindowOptions
    ) -> tuple[list[Tape], HeadTape]:
        """As `Predictor.window`: x, ``state`` and ``lengths`` are the encoder's, the targets (M, B) are token ids.

        The decoder reads the boundary token and then the targets, whatever it predicts (teacher forcing).
        """
        seed, shards = options.dropout_seed, options.shards
        masks = tokens = None
        if seed is not None:  # not the same masks as the decoder
            masks = Masks([*(seed if isinstance(seed, list) else [seed]), 1])
        elif shards is not None:
            of_encoder = shards.of_encoder(1)
            masks, tokens = of_encoder.masks, of_encoder.tokens(self.encoder.stack.config)
        encoder_tape = self.encoder.run(
            x,
            options.state,
            options.lengths,
            options.threads,
            workspace.encoder,
            masks,
            keep=options.keep,
            precision=options.precision,
            tokens=tokens,
        )
        workspace.encoder = encoder_tape
        start = self.decoder_start(encoder_tape.after).value
        (tape,), head_tape = super().window(
            self.net.stack.check_input(self._decoder_inputs(targets, options.target_lengths)),
            targets,
            workspace,
            options._replace(
                state=start,
                lengths=options.target_lengths,
                shards=None if shards is None else shards.of_decoder(),
            ),
        )
        if options.scale is not None:
            assert tape.dbefore is not None
            dafter = self.encoder_gradient(tape.dbefore)
            if options.states_only:
                for cell in encoder_tape.recurrences:
                    cell.keep_dh = True
            if options.states_only or shards is not None:
                self.encoder.run_backward(encoder_tape, None, dafter)
            else:
                self.encoder.backward(encoder_tape, None, dafter.value, threads=options.threads)
        return [encoder_tape, tape], head_tape

    def _decoder_inputs(self, targets: Array, lengths: Lengths | None) -> Array:
        """The boundary token, then the targets but the last one of each sequence."""
        if lengths is None:
            return np.concatenate([np.full((1, targets.shape[1]), self.boundary, np.int32), targets[:-1]])
        inputs = np.full_like(targets, self.boundary)
        inputs[0, lengths.B :] = targets[0, lengths.rows_before()]
        return inputs
