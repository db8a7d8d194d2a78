# SPDX-License-Identifier: MIT
from typing import Any

from numpy.typing import ArrayLike, NDArray

class Lengths:
    lengths: NDArray[Any]
    order: NDArray[Any]
    T: int
    B: int
    def __init__(self, lengths: ArrayLike, T: int, parts: int) -> None: ...
    def part(self, part: int) -> tuple[int, int]: ...
    def single(self) -> Lengths: ...
    def padding(self) -> NDArray[Any]: ...
