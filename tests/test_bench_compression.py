# SPDX-License-Identifier: MIT
"""``python -m benchmarks.compression`` on small files: a row for each compressor, of archives that open again."""

import sys
from pathlib import Path

import pytest

import crnn

if not (Path(__file__).parents[1] / "benchmarks").exists():
    pytest.skip("benchmarks are in a clone, not in a wheel", allow_module_level=True)
if sys.platform == "win32":
    pytest.skip("needs the peak of memory of another process", allow_module_level=True)

from benchmarks import compression

CONTENT = b"the cat sat on the mat, and the dog sat on the cat\n" * 60


def table(capsys):
    """The columns behind the first two, by the compressor."""
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    return {compressor.strip(): [cell.strip() for cell in rest] for _, compressor, *rest in rows[2:]}


def test_sizes_are_those_of_the_archives(tmp_path, capsys):
    (tmp_path / "a.log").write_bytes(CONTENT)
    assert compression.main([str(tmp_path / "a.log"), "--threads", "1"]) == 0
    found = table(capsys)
    assert {"xz -9e", "bzip2 -9", "crnn, 1 threads"} <= found.keys()
    size = len(crnn.compress(CONTENT))
    assert found["crnn, 1 threads"][:2] == [f"{size:,}", f"{8 * size / len(CONTENT):.3f}"]
    assert found["crnn, 1 threads"][-1].endswith(" MB")


def test_what_is_known_does_not_count():
    pack, unpack = compression.peers()["xz -9e"][0]
    whole = compression.measured(pack, unpack, CONTENT)[0]
    assert compression.measured(pack, unpack, CONTENT, CONTENT)[0] < whole


def test_a_peer_that_loses_bytes_is_an_error():
    with pytest.raises(RuntimeError, match="the same bytes"):
        compression.measured(lambda data: data, lambda archive: archive[1:], CONTENT)


def test_files_are_found_in_the_folder_and_below(tmp_path, monkeypatch):
    (tmp_path / "canterbury").mkdir()
    (tmp_path / "canterbury" / "alice29.txt").touch()
    monkeypatch.setenv("CRNN_DATA", str(tmp_path))
    assert compression.find("alice29.txt") == tmp_path / "canterbury" / "alice29.txt"
    assert compression.find("world192.txt") is None
    monkeypatch.setenv("CRNN_DATA", str(tmp_path / "none"))
    with pytest.raises(SystemExit):
        compression.main([])
