# SPDX-License-Identifier: MIT
"""export_c: write a model as a C file and its header."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from crnn.c_export.answers import answers_of
from crnn.c_export.network import network_of
from crnn.c_export.self_test import self_test_of
from crnn.c_export.source import MARK, Source
from crnn.io.atomic_write import PathLike, check_writable, replacing
from crnn.io.model_file import check_finite
from crnn.nn.module import Module


def export_c(model: Any, path: PathLike, *, name: str | None = None, overwrite: bool = False) -> None:
    """Write a model as one C99 file without a library, and its header.

    A step of it is bit-identical to `Stream.step`, on every machine and with every compiler. The header says how it is
    used: ``NAME_init``, ``NAME_step``, and for models with classes or a vocabulary probabilities and labels. The file's
    comment says how much memory it needs.

    Parameters
    ----------
    model : RNN, LanguageModel, SequenceClassifier, SequenceTagger or SequenceRegressor
        float32, or the result of `quantize`; with an output at every step: neither bidirectional nor pooling "flatten".
    path : str or path
        The file to write, ``*.c``; the header has the same name with ``.h``. Both are written atomically. Files that
        `export_c` has written are replaced, others only with ``overwrite``.
    name : str, optional
        What all public names in C begin with; the file's name without its end if not given.
    overwrite : bool
        Replace any file.

    Raises
    ------
    TypeError
        The model is of another kind.
    ValueError
        It cannot run one step at a time, waits for `fit`, is float64, or holds NaN or infinity; the path does not end
        in ``.c``, or no #include can name it; or the name is not one in C.
    FileExistsError
        One of the files exists, and is not one that `export_c` has written.
    OSError
        A file cannot be written.

    Examples
    --------
    >>> import crnn, tempfile
    >>> from pathlib import Path
    >>> net = crnn.RNN(input_size=3, hidden_size=8, cell="gru", seed=0)
    >>> path = Path(tempfile.mkdtemp()) / "wave.c"
    >>> crnn.export_c(net, path)
    >>> print(*[line for line in path.with_suffix(".h").read_text().splitlines() if "_step(" in line])
    int wave_step(wave_state *state, const float x[WAVE_INPUTS], float y[WAVE_OUTPUTS]);
    """
    target, header = paths_of("path", path)
    name = check_name("path", target.stem, "name=") if name is None else check_name("name", name)
    source = source_of(model, name, header.name)
    for each in (target, header):
        check_writable(each)
        if not overwrite:
            _check_replaceable(each)
    with replacing(target) as c_file, replacing(header) as h_file:
        for file, lines in ((c_file, source.source_lines()), (h_file, source.header_lines())):
            for line in lines:
                file.write(line.encode() + b"\n")


def paths_of(argument: str, path: PathLike) -> tuple[Path, Path]:
    """The .c file and its header. Raises TypeError and ValueError, which call the path ``argument``."""
    target = Path(os.fsdecode(path))
    if target.suffix != ".c":
        raise ValueError(f"{argument}: expected a name that ends in .c, got {target}")
    if '"' in target.name or not target.name.isprintable():
        raise ValueError(f"{argument}: expected a name that #include can have, without quotes, got {target.name!r}")
    return target, target.with_suffix(".h")


def check_name(argument: str, name: str, remedy: str = "") -> str:
    """The name, if names in C can begin with it. Raises ValueError, which calls it ``argument``."""
    if not isinstance(name, str) or not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name):
        near = re.sub(r"\W", "_", name, flags=re.ASCII) if isinstance(name, str) else ""
        close = f", such as {near}" if re.match("[A-Za-z]", near) else ""
        hint = f"; {remedy} gives another{close}" if remedy else ""
        raise ValueError(f"{argument}: expected a name of letters, digits and _, as in C, got {name!r:.80}{hint}")
    return name


def source_of(model: Any, name: str, header: str) -> Source:
    """The C text of a model. Errors as in `export_c`."""
    if not isinstance(model, Module):
        raise TypeError(f"model: expected a network or a model of crnn, got {type(model).__name__}")
    if getattr(model, "deferred", False):
        raise ValueError("model: expected one with weights, got one that waits for fit")
    parts = model._stream_parts()
    dtype = parts.layers[0]["W_xh"].dtype
    if dtype != np.float32:
        raise ValueError(f"dtype: expected float32, got {dtype}; model.astype('float32') converts it")
    check_finite(model._parameters.values)
    net = network_of(parts)
    return Source(net, answers_of(model, name, net.output_size), self_test_of(net), name, header)


def _check_replaceable(path: Path) -> None:
    if not path.exists():
        return
    with open(path, "rb") as file:
        if not file.read(len(MARK)) == MARK.encode():
            raise FileExistsError(f"path: expected a new file, or one that export_c wrote, got {path}")
