# SPDX-License-Identifier: MIT
"""ReportPage: the page about a run, written when training ends and now and then before."""

from __future__ import annotations

import contextlib
import os
import time

from crnn.io.atomic_write import PathLike
from crnn.report import page
from crnn.training.log import TrainingLog

__all__ = ["ReportPage", "check_page"]

SECONDS = 60.0  # at least, between two pages
LARGEST_SHARE = 0.005  # of the time that may be spent on pages before training ends


class ReportPage:
    """The page of the option ``report``. Without a path, the methods do nothing.

    Attributes
    ----------
    written : bool
        Whether there is a page of this run.
    """

    path: str | None
    log: TrainingLog
    written: bool

    def __init__(self, path: PathLike | None, log: TrainingLog) -> None:
        # Absolute: a callback may change the folder.
        self.path = None if path is None else os.path.abspath(os.fsdecode(path))
        self.log, self.written = log, False
        self._due = time.perf_counter() + SECONDS

    def epoch_ended(self) -> None:
        """Write the page if the last one is old. If that fails, training continues, and `write` tries again."""
        begun = time.perf_counter()
        if self.path is None or begun < self._due:
            return
        with contextlib.suppress(Exception):  # also what comes of entries that a callback has added
            self.write()
        ended = time.perf_counter()
        self._due = ended + max(SECONDS, (ended - begun) / LARGEST_SHARE)

    def write(self) -> None:
        """Write the page. Raises OSError, FileExistsError if there is another file in its place now."""
        if self.path is not None:
            self.log.report(self.path)
            self.written = True


def check_page(path: PathLike | None, *, replaces: bool) -> None:
    """Raise FileExistsError unless a page can be written: to a new file or, if ``replaces``, over another page."""
    if path is None:
        return
    page.check_replaceable("report", path)
    if not replaces and os.path.exists(path) and os.path.getsize(path):
        raise FileExistsError(
            f"report: expected a new file, got {os.fsdecode(path)}, which exists: a report is replaced only by a run "
            "that is resumed or restarted"
        )
