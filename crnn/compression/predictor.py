# SPDX-License-Identifier: MIT
"""Predictor: codes symbols with the probabilities of a network, and of what followed the same bytes, learnt as it goes.

A compressor and a decompressor compute the same, so both have the same probabilities. Everything that is chosen here is
a function of the content's size, its alphabet, and the model.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from crnn import _parallel as parallel
from crnn._core.coder import Decoder, Encoder
from crnn.checks import Ids
from crnn.compression.mixing import Mixer
from crnn.compression.network import GIVEN, NEW, WindowLearner
from crnn.models.language_model import LanguageModel
from crnn.text.vocab import Vocab

__all__ = ["VERSION", "Predictor", "vocabulary_of"]

VERSION = 1  # in headers: changes with the probabilities


class Predictor:
    """Codes one stream of symbols in windows of T steps, each by `encode` or `decode`.

    While a window is coded, the network learns the one before it, in another thread if there are two.

    Parameters
    ----------
    size : int
        Symbols of the content, at least 1.
    alphabet : bytes
        The values of the symbols, rising; at least two.
    model : LanguageModel, optional
        A language model of these symbols, which is changed: its weights are the start.
    threads : int
        At most two are used.
    """

    window: int  # T, of all windows but the last

    def __init__(self, size: int, alphabet: bytes, *, model: LanguageModel | None = None, threads: int = 1) -> None:
        self._mixer = Mixer(alphabet, size, model is not None)
        how = NEW if model is None else GIVEN
        self._network = WindowLearner(size, model or new_model(alphabet), how)
        self.window = self._network.steps
        self._threads = min(2, threads)

    def encode(self, encoder: Encoder, symbols: Ids) -> bool:
        """Write the symbols (T,) of a window, and learn them. Returns True."""
        return self._run(partial(self._mixer.encode, encoder), symbols)

    def decode(self, decoder: Decoder, symbols: Ids) -> bool:
        """Read the symbols (T,) OUT of a window, and learn them.

        Returns False where the bytes are none that `encode` has written.
        """
        return self._run(partial(self._mixer.decode, decoder), symbols)

    def _run(self, code: Callable[..., bool], symbols: Ids) -> bool:
        """Code a window and learn the one before, see `Mixer.encode`. Returns whether its symbols are known now."""
        network = self._network
        states = network.new_states(len(symbols))
        found = False

        def part(number: int) -> None:
            nonlocal found
            if number == 0:
                found = code(network.stream, network.before, symbols, states, network.how.steps)
            else:
                network.learn()

        if self._threads == 1:
            part(0)
            part(1)
        else:
            parallel.run(2, part)
        if found:
            network.read(symbols, states)
        return found


def new_model(alphabet: bytes) -> LanguageModel:
    """The network that content without a model begins with."""
    return LanguageModel(vocabulary_of(alphabet), cell="lstm", hidden_size=128, seed=1)


def vocabulary_of(alphabet: bytes) -> Vocab:
    """A vocabulary whose ids are the places in an alphabet of bytes."""
    return Vocab(tuple(alphabet.decode("latin-1")))
