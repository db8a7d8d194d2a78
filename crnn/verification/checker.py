# SPDX-License-Identifier: MIT
"""verify: runs all parts and compares their hashes with those in hashes.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from crnn._core import dispatch
from crnn.checks import check_threads
from crnn.verification.digest import Digest, chained
from crnn.verification.hashes import HASHES
from crnn.verification.parts import Part, all_parts

__all__ = ["PartResult", "Verification", "verify"]


@dataclass(frozen=True)
class PartResult:
    """The result of one part of a verification.

    Attributes
    ----------
    name : str
        Such as "cell lstm" or "optimizer adam".
    hash : str
        SHA-256 of the part's results on this machine, 64 hexadecimal digits; empty after an error.
    expected : str or None
        The hash in the package; None if it has none, because the part was added since.
    error : str or None
        What prevented a hash, such as a result that is NaN.
    """

    name: str
    hash: str
    expected: str | None
    error: str | None = None

    @property
    def ok(self) -> bool:
        """The hash is the expected one."""
        return self.error is None and self.hash == self.expected


@dataclass(frozen=True)
class Verification:
    """The results of `crnn.verify`.

    Attributes
    ----------
    parts : tuple of PartResult
        In the order in which they ran.
    isa : str
        The instruction set that was verified.
    threads : int
    """

    parts: tuple[PartResult, ...]
    isa: str
    threads: int

    @property
    def ok(self) -> bool:
        """Every part has its expected hash."""
        return all(part.ok for part in self.parts)

    @property
    def hash(self) -> str:
        """One SHA-256 over the names and hashes of all parts, 64 hexadecimal digits."""
        return chained([(part.name, part.hash) for part in self.parts])

    @property
    def expected(self) -> str:
        """The hash of this release, which the README prints."""
        return chained(list(HASHES.items()))

    @property
    def first_difference(self) -> PartResult | None:
        """The first part that is not ok; None if all are."""
        return next((part for part in self.parts if not part.ok), None)


def verify(
    *, isa: str | None = None, threads: int = 2, on_part: Callable[[PartResult], object] | None = None
) -> Verification:
    """Check that results of this build on this machine are bit-identical to those of every other build of this release.

    Trains a small model of every cell and every kind for a few seconds in total, and uses the models: text and numbers,
    dropout, clipping, streams, files; besides initial weights, schedules and optimizers. Each part's weights, losses
    and outputs are hashed and compared with the hash in the package.

    Parameters
    ----------
    isa : str, optional
        Instruction set to use, one of `crnn.available_isas`. If not given, the one in use. It is that of the process:
        nothing else may run in other threads while another one is verified.
    threads : int
        Number of threads. The result does not depend on it.
    on_part : callable, optional
        Called with each `PartResult` as soon as it is known.

    Returns
    -------
    Verification
        With ``ok``, ``hash`` and ``parts``.

    Raises
    ------
    ValueError
        The instruction set is not available, or ``threads`` is not a positive integer.

    Examples
    --------
    >>> import crnn
    >>> result = crnn.verify()
    >>> result.ok, result.hash == result.expected
    (True, True)
    """
    threads = check_threads(threads)
    results: list[PartResult] = []
    with using_isa(isa):
        for result in compare(all_parts(), HASHES, threads):
            results.append(result)
            if on_part is not None:
                on_part(result)
        return Verification(tuple(results), dispatch.isa(), threads)


def compare(parts: Mapping[str, Part], expected: Mapping[str, str], threads: int) -> Iterator[PartResult]:
    """Run the parts and yield their results; then those of expected parts that do not exist."""
    for name, part in parts.items():
        value, error = hash_of(part, threads)
        yield PartResult(name, value, expected.get(name), error)
    for name in expected:
        if name not in parts:
            yield PartResult(name, "", expected[name], "no such part in this build")


def hash_of(part: Part, threads: int) -> tuple[str, str | None]:
    """The hash of a part's results, and None; or an empty string, and the error that the part raised."""
    digest = Digest()
    try:
        part(digest, threads)
    except MemoryError:  # says nothing about the results
        raise
    except Exception as error:
        return "", f"{type(error).__name__}: {error}"
    return digest.hexdigest(), None


@contextmanager
def using_isa(isa: str | None) -> Iterator[None]:
    """Use an instruction set inside the block; None leaves the one in use."""
    before = dispatch.isa()
    if isa is not None:
        dispatch.use_isa(isa)
    try:
        yield
    finally:
        dispatch.use_isa(before)
