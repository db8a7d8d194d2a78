# SPDX-License-Identifier: MIT
"""Output: the file of the trained model, replaced only by validated weights or by those of a finished run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping

from crnn.checks import Array
from crnn.io.atomic_write import PathLike
from crnn.io.model_file import Header, ModelFileError, read, write
from crnn.training.checkpoint import Checkpoint, best_model
from crnn.training.protocols import Trainable
from crnn.training.run import Run
from crnn.training.stored import KIND

__all__ = ["Output"]


class Output:
    """Where the model of a run is written, however the run ends.

    A file that exists is replaced only by weights that a validation of this run has judged, or by those of a finished
    run. It must be a model of crnn, and either the run's own, or one that ``restart`` allows to replace.

    Parameters
    ----------
    path : path
    whole : callable, optional
        Returns the model to write, if the run trains only a part of it, whose tensors it has under the same names.
    kind : str, optional
        The kind of that model.
    """

    path: str  # absolute: a callback may change the working folder
    name: str  # as given, for messages
    written: bool  # whether the model of this run is in the file

    def __init__(
        self, path: PathLike, whole: Callable[[], Trainable] | None = None, kind: str | None = None
    ) -> None:
        self.name, self._whole, self._kind = os.fsdecode(path), whole, kind
        self.path = os.path.abspath(self.name)
        self.written = False

    def exists(self) -> bool:
        """Whether there is a file already."""
        return os.path.exists(self.path)

    def check_kind(self) -> None:
        """Raise ModelFileError unless the file, if there is one, holds a model."""
        if self.exists():
            self._model_to_replace()

    def _model_to_replace(self) -> tuple[Mapping[str, Array], Header]:
        """Tensors and header of the existing file."""
        try:
            tensors, header = read(self.path, self.name)
        except ModelFileError:
            found = "another file"
        else:
            if header.get("kind") != KIND:
                return tensors, header
            found = "a checkpoint"
        raise ModelFileError(f"output: expected a new file, or a model to replace, got {found}: {self.name}")

    def check(self, run: Run, checkpoint: Checkpoint, *, restart: bool) -> None:
        """Raise ValueError or FileExistsError unless the run may replace the file, if there is one.

        Call it when the run has been made or resumed.
        """
        if not self.exists():
            return
        tensors, header = self._model_to_replace()
        with open(self.path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        own_tensors, own_header = best_model(run)
        same = (
            (tensors.keys() == own_tensors.keys() if self._whole is None else tensors.keys() >= own_tensors.keys())
            and all(tensors[name].tobytes() == own_tensors[name].tobytes() for name in own_tensors)
            and header.get("kind") == (self._kind or own_header["kind"])
        )
        if not (restart or same or digest == checkpoint.output):
            raise FileExistsError(
                f"output: expected the model of this run, or a new file, got {self.name}, which is another model"
            )
        checkpoint.output = digest

    def save(self, run: Run, *, finished: bool, resumable: bool) -> str:
        """Write the model, whose weights are those to keep, if it may be written. Returns what was done, as one line.

        ``resumable`` says whether the checkpoint holds this state, or could not be written: a model that the checkpoint
        does not know keeps the run from being resumed to this file.
        """
        exists = self.exists()
        if not (run.judged or finished or (resumable and run.update and not exists)):
            state = "is as it was" if exists else "was not written"
            return f"{self.name} {state}: this run has no weights yet that a validation has judged"
        write(self.path, *(run.model if self._whole is None else self._whole()).contents())
        self.written = True
        return f"wrote {self.name}" + ("" if run.judged or finished else ", whose weights no validation has judged")
