# SPDX-License-Identifier: MIT
"""Learning: what a forecaster trains, and on what, for those that run the training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from crnn.checks import Array
from crnn.models.forecasting.windows import Layout
from crnn.models.regressor import SequenceRegressor

# Of a training whose length is not given; docs/forecasting.md says how they were chosen.
UPDATES = 200
LEAST_EPOCHS = 10


@dataclass(frozen=True)
class Learning:
    """A network that is to be trained, and windows of series.

    Attributes
    ----------
    regressor : SequenceRegressor
    layout : Layout
    X, y : lists of arrays
        Windows to learn from, and their targets, as the regressor's ``fit`` takes them.
    valid : (X, y) or None
        Windows to validate on.
    finish : callable
        Makes the forecaster what was learnt, with the weights that the regressor has then.
    """

    regressor: SequenceRegressor
    layout: Layout
    X: list[Array]
    y: list[Array]
    valid: tuple[list[Array], list[Array]] | None
    finish: Callable[[], None]

    def epochs(self, batch_size: int) -> int:
        """How many epochs make a training whose length is not given.

        Windows overlap: a network that sees each of them often overfits.
        """
        return max(LEAST_EPOCHS, -(-UPDATES // -(-len(self.X) // batch_size)))

    def describe(self) -> str:
        """What was found in the series, for people."""
        layout, judged = self.layout, 0 if self.valid is None else len(self.valid[0])
        difference = ", ".join(map(str, layout.lags)) or "none"
        season = "none" if layout.season == 1 else f"{layout.season} steps"
        return (
            f"season: {season}; differences: {difference}; {len(self.X):,} windows to learn from, "
            f"{judged:,} to validate on"
        )
