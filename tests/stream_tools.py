# SPDX-License-Identifier: MIT
"""What the tests of streams share: networks and models of every kind, and what they say to whole sequences."""

from collections.abc import Callable
from typing import Any

import numpy as np
from model_tools import network, stir
from numpy.typing import NDArray

import crnn
from crnn._core import cells

CELLS = list(cells.CELLS)
DENSE = {"dense_layers": True}
# input size, units of each layer: at, under and over a line of 16 and a tile of 128 columns; options
SHAPES = [
    *[(1, [1], {}), (5, [7], {}), (16, [16], {}), (17, [33, 15], {}), (3, [16, 48, 21], {}), (130, [129], {})],
    *[(5, [7, 16, 3], DENSE), (17, [33, 15], DENSE)],
]


def net_of(cell: str, D: int = 5, H: Any = 7, **options: Any) -> crnn.RNN:
    return network(D, H, None, cell, **options)


def sequence(rng: np.random.Generator, T: int, D: int) -> NDArray[np.float32]:
    return rng.normal(size=(T, D)).astype(np.float32)


def whole(net: crnn.RNN, xs: NDArray, state: Any = None) -> NDArray:
    """What the network's own forward pass says: (T, output)."""
    y, _ = net(xs[:, None], state)
    return y[:, 0].copy()


def language_model(cell: str, **options: Any) -> crnn.LanguageModel:
    vocab = crnn.Vocab.from_text("hello, new world!\n", "char")
    model = crnn.LanguageModel(vocab, cell, seed=3, **({"hidden_size": 21} | options))
    stir(model.flat_params)
    return model


def stepwise(stream: crnn.Stream, xs: Any) -> NDArray:
    return np.stack([stream.step(x) for x in xs])


def until_let_in(use: Callable[[], Any]) -> Any:
    """What ``use()`` returns once no other thread is using its stream."""
    while True:
        try:
            return use()
        except RuntimeError as error:
            if "another thread" not in str(error):
                raise
