# SPDX-License-Identifier: MIT
"""Shared by the subcommands: parsers, sampling flags, loading a language model, messages."""

from __future__ import annotations

import argparse
import codecs
import contextlib
import errno
import io
import os
import re
import sys
from collections.abc import Callable, Iterable
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TextIO, cast

import crnn
from crnn.cli.typed import ESCAPES, readable, readable_message, typed_bytes, typed_text
from crnn.text.generation import SamplingOptions
from crnn.text.reading import EOS, check_encoding

__all__ = [
    "INTERRUPTED",
    "STANDARD",
    "CommandParser",
    "add_output_flags",
    "add_sampling_flags",
    "check_output",
    "cores",
    "discard_unwritable",
    "encoder_for",
    "file_or_standard",
    "file_path",
    "flag_of",
    "load_language_model",
    "sampling_options",
    "say",
    "show",
    "standard_input",
    "standard_output",
    "typed",
    "write_stream",
]

INTERRUPTED = 130  # conventional exit status of a program ended by Ctrl-C


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the default of every option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False, "", []) else super()._get_help_string(action)


class CommandParser(argparse.ArgumentParser):
    """The parser of ``crnn``, or of a subcommand, whose module completes it.

    Attributes
    ----------
    words : list of str
        What was typed after the name of the subcommand, which its options may depend on.
    surplus : str
        What to say of a word that is no option and has no place, if there is something to say.
    """

    words: list[str]
    surplus: str = ""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **({"formatter_class": _HelpFormatter} | options))
        self.words = []

    def error(self, message: str) -> NoReturn:
        """End with the usage and the message; of a value that was taken for an option, also how it is given."""
        found = re.fullmatch(r"argument (\S+): expected (one|at least one) argument", message)
        flags = found[1].split("/") if found else []
        for flag, value in pairwise(self.words):
            if flag in flags and value.startswith("-"):
                message += f"; a value that begins with - is given as {flags[-1]}={value}, a file also as ./{value}"
        if message.startswith("the following arguments are required"):
            files = [word for word in self.words if word.startswith("-") and os.path.exists(word)]
            message += "".join(f"; a file whose name begins with - is given as ./{file}" for file in files)
        super().error(readable_message(message))


def flag_of(action: argparse.Action) -> str:
    """What the user types for an argument: the long option, or the name of a positional one."""
    options = [option for option in action.option_strings if not option.startswith("--no-")] or action.option_strings
    return max(options, key=len, default=str(action.metavar or action.dest))


def add_sampling_flags(parser: argparse.ArgumentParser, temperature: float = 1.0) -> None:
    """Add the flags of `crnn.sampling.Sampler`; ``temperature`` is the default temperature."""
    parser.add_argument("--temperature", type=float, default=temperature, help="0: always the most probable token")
    parser.add_argument("--top-k", type=int, help="sample from this many of the most probable tokens")
    parser.add_argument(
        "--top-p", type=float, help="sample from the fewest most probable tokens that have this probability together"
    )
    parser.add_argument("--seed", type=int, help="seed of the sampling; the same seed gives the same text")
    parser.add_argument(
        "--ban", action="append", default=[], metavar="TOKEN", help=f"never draw this token; may be repeated; {ESCAPES}"
    )
    parser.add_argument(
        "--allow-unknown", action="store_true", help="draw <unk> too, which stands for tokens outside the vocabulary"
    )


def sampling_options(arguments: argparse.Namespace, vocab: crnn.Vocab, encoding: str) -> SamplingOptions:
    """The values of the flags that `add_sampling_flags` added, for `LanguageModel.iter_generate`."""
    return {
        "temperature": arguments.temperature,
        "top_k": arguments.top_k,
        "top_p": arguments.top_p,
        "seed": arguments.seed,
        "ban": [_typed_token(token, vocab, encoding) for token in arguments.ban],
        "allow_unknown": arguments.allow_unknown,
    }


def typed(name: str, text: str, vocab: crnn.Vocab, encoding: str) -> str | bytes:
    """A text that was typed as an argument, as a model of this vocabulary takes it."""
    return typed_bytes(text) if vocab.unit == "byte" else typed_text(name, text, encoding)


def _typed_token(text: str, vocab: crnn.Vocab, encoding: str) -> str | bytes:
    """A token that was typed as an argument of ``--ban``. A newline is a word too."""
    token = typed("ban", text, vocab, encoding)
    return EOS if token == "\n" and vocab.unit == "word" else token


def cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_language_model(path: Path) -> crnn.LanguageModel:
    """The language model in a file. Raises ValueError if the file has another kind of model."""
    model: Any = crnn.load(path)
    if not isinstance(model, crnn.LanguageModel):
        raise ValueError(f"{path}: expected a LanguageModel, got a {type(model).__name__}")
    return model


STANDARD = Path("-")  # standard input or output; a file of that name has another path, see `file_or_standard`


def file_or_standard(typed: str, folder: Path | None = None) -> Path:
    """A path as it was typed, where only ``-`` itself is `STANDARD`: ``./-`` is the file of that name.

    All arguments of the command line that are paths are of this type, or of `file_path`. ``folder``: the path is
    relative to it.
    """
    path = Path(typed) if typed == str(STANDARD) or folder is None else folder / typed
    return path.absolute() if path == STANDARD and typed != str(STANDARD) else path


def file_path(typed: str) -> Path:
    """The same where standard input or output cannot be meant."""
    if typed == str(STANDARD):
        raise argparse.ArgumentTypeError("expected a file, got -; a file of that name is ./-")
    return file_or_standard(typed)


def standard_input() -> BinaryIO:
    """Standard input, in bytes. Raises OSError if it is closed."""
    if sys.stdin is None:
        raise OSError("standard input: expected a file or pipe, got a closed one")
    return sys.stdin.buffer


def standard_output() -> BinaryIO:
    """Standard output, in bytes. Raises OSError if it is closed."""
    if sys.stdout is None:
        raise OSError("standard output: expected a file or pipe, got a closed one")
    sys.stdout.flush()
    buffer: BinaryIO | io.RawIOBase | None = getattr(sys.stdout, "buffer", None)  # a notebook has none
    if isinstance(buffer, io.RawIOBase):  # python -u
        return cast(BinaryIO, _UnbufferedOutput(buffer))
    return cast(BinaryIO, _TextOutput()) if buffer is None else buffer


class _UnbufferedOutput:
    """Standard output that is not buffered. `write` writes everything, where the system may write only a part."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw

    def write(self, content: bytes) -> int:
        rest = memoryview(content)
        while rest:
            try:
                count = self._raw.write(rest)
            except OSError as error:  # no flush will fail again, so the name is needed here
                raise OSError(error.errno, error.strerror, "standard output") from None
            if count is None:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), "standard output")
            rest = rest[count:]
        return len(content)

    def flush(self) -> None:
        self._raw.flush()

    def isatty(self) -> bool:
        return self._raw.isatty()


class _TextOutput:
    """Standard output, in bytes, where it takes only text. They are decoded as UTF-8."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("backslashreplace").decode

    def write(self, content: bytes) -> None:
        sys.stdout.write(self._decode(content))

    def flush(self) -> None:
        sys.stdout.flush()


def show(text: str) -> None:
    """Print a result to standard output and flush it. Characters that its encoding lacks are written as escapes."""
    out = standard_output()
    out.write(f"{readable(text)}\n".encode(getattr(sys.stdout, "encoding", None) or "utf-8", "backslashreplace"))
    out.flush()


def add_output_flags(parser: CommandParser, help: str, *, required: bool = False) -> None:
    """Add ``--output`` and ``--overwrite``, which `check_output` reads."""
    parser.add_argument("-o", "--output", type=file_or_standard, required=required, help=help)
    parser.add_argument("--overwrite", action="store_true", help="replace OUTPUT if it exists")


def check_output(arguments: argparse.Namespace) -> None:
    """Raise FileExistsError if the output exists and is not to be replaced. Call it while the file is locked."""
    output: Path | None = arguments.output
    if output is not None and output.exists() and not arguments.overwrite:
        raise FileExistsError(f"output: expected a new file, got {output}, which exists; --overwrite replaces it")


def say(text: str) -> None:
    """Print a message to standard error, if there is one; standard output is for results."""
    if sys.stderr is not None:
        try:
            print(readable_message(text), file=sys.stderr, flush=True)
        except (OSError, ValueError):  # a closed pipe or a full disk must not end the command
            discard_unwritable(sys.stderr)


def discard_unwritable(stream: TextIO | None) -> bool:
    """Discard what cannot be written to a standard stream, and all that follows, if that is so; returns whether it is.

    Otherwise Python would try again at its end, and change the exit status.
    """
    if stream is None:
        return False
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return True
    return False


def encoder_for(encoding: str) -> Callable[[str], bytes]:
    """What encodes a text for standard output, piece by piece: for a terminal in its encoding, else in this one.

    Characters that the encoding does not have are written as escapes.
    """
    if sys.stdout is not None and sys.stdout.isatty():
        encoding = sys.stdout.encoding
    return codecs.getincrementalencoder(check_encoding(encoding))("backslashreplace").encode


def write_stream(encode: Callable[[str], bytes], prompt: str | bytes, chunks: Iterable[str | bytes]) -> None:
    """Write the prompt, the text as it is generated, and a newline to standard output."""
    out = standard_output()
    for piece in chain([prompt], chunks):
        out.write(piece if isinstance(piece, bytes) else encode(piece))
        out.flush()
    out.write(encode("\n"))
    out.flush()
