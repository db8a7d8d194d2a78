# SPDX-License-Identifier: MIT
"""``mpiexec -n 4 crnn train`` and mpi4py's communicator, with real processes; what is said where mpi4py is missing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from model_tools import text
from rank_tools import fitted, weights_hash

import crnn
from crnn import cli
from crnn.cli import ranks

PATH = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
MPIEXEC = shutil.which("mpiexec", path=PATH)
ROOT = str(Path(crnn.__file__).parents[1])


@pytest.fixture
def mpi(tmp_path):
    """Starts a Python command on so many ranks in a new folder with the file t.txt."""
    pytest.importorskip("mpi4py")
    if MPIEXEC is None:
        pytest.skip("needs mpiexec")
    (tmp_path / "t.txt").write_text(text(3000))
    environment = os.environ | {"PATH": PATH, "PYTHONPATH": os.pathsep.join([ROOT, os.path.dirname(__file__)])}

    def start(size, *words):
        command = [MPIEXEC, "-n", str(size), sys.executable, *map(str, words)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes)

    return start


TRAIN = ("-m", "crnn", "train", "t.txt", "--hidden", 12, "--epochs", 2, "--batch", 8, "--bptt", 16, "--dropout", 0.1)


def finished(process, status=0):
    out, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    return out, err


@pytest.mark.interop
def test_mpiexec_crnn_train_writes_the_file_of_one_process_and_prints_once(mpi, tmp_path):
    out, err = finished(mpi(4, *TRAIN, "-o", "m4", "--json", "--log", "l.jsonl"))
    assert json.loads(out)["ended"] == "finished"
    assert err.count("epoch 2 of 2") == 1
    assert "mpiexec -n 4 crnn train t.txt" in err
    words = [str(tmp_path / "t.txt") if word == "t.txt" else str(word) for word in TRAIN[2:]]
    assert cli.main([*words, "-o", str(tmp_path / "m1"), "--shards", "8", "-q"]) == 0
    assert (tmp_path / "m1").read_bytes() == (tmp_path / "m4").read_bytes()
    _, err = finished(mpi(2, *TRAIN, "-o", "m1", "--resume", "--epochs", 3))
    assert "resuming at epoch 3" in err
    _, err = finished(mpi(2, *TRAIN, "-o", "m4"), status=1)
    assert err.count("--checkpoint: expected a new file, got m4.checkpoint") == 1


@pytest.mark.interop
def test_buffers_of_mpi4py_give_the_bits_of_one_process(mpi, tmp_path):
    (tmp_path / "p.py").write_text(
        "from mpi4py import MPI\nfrom rank_tools import fitted, weights_hash\ncomm = MPI.COMM_WORLD\n"
        "for kind in 'language', 'values':\n    found = comm.gather(weights_hash(fitted(kind, shards=4, comm=comm)))\n"
        "    if comm.rank == 0: print(*found)\n"
    )
    out, _ = finished(mpi(3, "-m", "mpi4py", "p.py"))
    for kind, line in zip(("language", "values"), out.splitlines(), strict=True):
        assert line.split() == [weights_hash(fitted(kind, shards=4))] * 3


@pytest.mark.interop
@pytest.mark.parametrize("name", [pytest.param("SIGTERM", marks=pytest.mark.slow), "SIGKILL"])
def test_a_rank_that_is_stopped_or_killed_leaves_a_checkpoint_to_resume(mpi, tmp_path, name):
    code = "import os, sys\nopen(f'pid{os.environ[\"PMI_RANK\"]}', 'w').write(str(os.getpid()))\n" \
        "from crnn.cli import main\nsys.exit(main())\n"
    (tmp_path / "crnn_train.py").write_text(code)
    options = (*TRAIN[2:], "-o", "m", "--epochs", 5000, "--patience", 0, "-q")
    process = mpi(2, "crnn_train.py", *options)
    deadline = time.monotonic() + 60
    while not (tmp_path / "m.checkpoint").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(int((tmp_path / "pid1").read_text()), getattr(signal, name))
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0, err
    done = crnn.io.model_file.read(tmp_path / "m.checkpoint")[1]["progress"]["update"]
    if name == "SIGTERM":
        assert "interrupted: keeping the best weights so far" in err
        assert err.count("to continue: mpiexec -n 2 crnn train") == 1
    whole = ("-m", "crnn", *options[:-5], "--epochs", done // 20 + 2)
    resumed = finished(mpi(3, *whole, "--resume"))[1]
    assert f"update {done}" in resumed


def test_several_processes_without_mpi4py_are_refused_before_they_overwrite_each_other(tmp_path, monkeypatch, capsys):
    (tmp_path / "t.txt").write_text(text(600))
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    for variable in ranks.SIZES:
        monkeypatch.setenv(variable, "4")
        assert cli.main(["train", str(tmp_path / "t.txt"), "-o", str(tmp_path / "m")]) == 1
        monkeypatch.delenv(variable)
        err = capsys.readouterr().err
        assert "expected mpi4py, by which the 4 processes of this command work together: pip install" in err
    assert [path.name for path in tmp_path.iterdir()] == ["t.txt"]


@pytest.mark.parametrize("size", ["1", "", "none"])
def test_a_command_that_is_alone_needs_no_mpi4py(monkeypatch, size):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.setenv(ranks.SIZES[0], size)
    assert ranks.ranks_of_environment() is None
