# SPDX-License-Identifier: MIT
"""PanelProducts: a head's products with the rows of a block, of weights that are packed a panel of columns at a time.

A large vocabulary's weights, packed as a whole for both passes, take twice their own memory. A panel stays in cache
between its packing and its product, which saves about what packing it anew for each block costs. Bits are those of the
products with all columns.
"""

from __future__ import annotations

from collections.abc import Iterator

from crnn import _parallel as parallel
from crnn._core import gemm
from crnn.checks import Array

__all__ = ["PanelProducts"]

PANEL_BYTES = 512 << 10  # of the weights of a panel, which stay in the second-level cache with the rows' outputs
UNIT = 64  # columns: a multiple of those that products take at once, in every precision


class PanelProducts:
    """outputs = x @ W + bias, and dx = doutputs @ W^T, for the rows of a block.

    Parameters
    ----------
    w : array (H, V), or (V, H) if ``tied``
        W, or its transpose; borrowed.
    tied : bool
    precision : str, optional
        Of the products, if not that of the weights.
    """

    def __init__(self, w: Array, *, tied: bool, precision: str | None) -> None:
        self._w, self._tied, self._precision = w, tied, precision
        self._dtype = w.dtype.name
        self._H, self._V = w.shape[::-1] if tied else w.shape
        self._columns = max(UNIT, PANEL_BYTES // (self._H * w.itemsize) // UNIT * UNIT)
        self._packed: dict[tuple[int, int, int], gemm.Packed] = {}  # by thread, K and N: memory that panels share

    def forward(self, outputs: Array, x: Array, bias: Array, part: int, parts: int) -> None:
        """outputs (1, R, V) OVERWRITTEN, in the columns of one thread."""
        rows = x.shape[1]
        for n0, n1 in self._panels(*parallel.part_range(self._V, part, parts, UNIT)):
            weights = self._memory(part, self._H, n1 - n0)
            if self._tied:
                weights.pack_transposed(self._w[n0:n1], any_values=True)
            else:
                weights.pack(self._w, n0, any_values=True)
            gemm.linear_columns(outputs, n0, x, 0, weights, bias[n0:n1], 0, rows)

    def backward(self, dx: Array, doutputs: Array, part: int, parts: int) -> None:
        """dx (1, R, H) OVERWRITTEN, in the columns of one thread: units of the head's input."""
        rows = dx.shape[1]
        h0, h1 = parallel.part_range(self._H, part, parts, gemm.line_width(self._dtype))
        if h0 == h1:
            return
        for n0, n1 in self._panels(0, self._V):
            weights = self._memory(part, n1 - n0, h1 - h0)
            if self._tied:
                weights.pack(self._w[n0:n1], h0, any_values=True)
            else:
                weights.pack_transposed(self._w[h0:h1], n0, any_values=True)
            gemm.linear_columns(dx, h0, doutputs, n0, weights, None, 0, rows, adds=n0 > 0)

    def _panels(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        for start in range(first, last, self._columns):
            yield start, min(start + self._columns, last)

    def _memory(self, part: int, K: int, N: int) -> gemm.Packed:
        key = part, K, N
        if key not in self._packed:
            self._packed[key] = gemm.Packed(K, N, self._dtype, precision=self._precision)
        return self._packed[key]
