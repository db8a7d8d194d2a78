# SPDX-License-Identifier: MIT
"""Files are written whole or not at all: links, modes, names, special files, full disks, killed processes."""

import contextlib
import errno
import os
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from model_tools import language_model, run_python

import crnn
import crnn.io.atomic_write
from crnn.interop.torch import save_file
from crnn.io.atomic_write import check_writable, replacing
from crnn.training.checkpoint import Checkpoint
from crnn.training.run import Run

pytestmark = pytest.mark.thread_unsafe  # files at the same path, the umask

posix = pytest.mark.skipif(sys.platform == "win32", reason="modes, owners, links and FIFOs of POSIX")
linux = pytest.mark.skipif(sys.platform != "linux", reason="uses what only Linux has")

OLD, NEW = b"the old content, which is longer", b"the new content"


def write(path, content=NEW):
    with replacing(path) as file:
        file.write(content)


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "m"
    file.write_bytes(OLD)
    return file


# ---- links -----------------------------------------------------------------------------------------------------------


@posix
def test_a_symbolic_link_is_followed_and_stays(tmp_path, path):
    folder = tmp_path / "links"
    folder.mkdir()
    (folder / "one").symlink_to(path)
    (folder / "two").symlink_to("one")
    write(folder / "two")
    assert path.read_bytes() == NEW
    assert os.readlink(folder / "two") == "one"
    assert os.readlink(folder / "one") == str(path)
    assert sorted(os.listdir(folder)) == ["one", "two"]
    assert sorted(os.listdir(tmp_path)) == ["links", "m"]
    assert check_writable(folder / "two") == str(path)


@posix
def test_a_symbolic_link_to_nothing_makes_the_file_it_names(tmp_path):
    (tmp_path / "link").symlink_to("new")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "new").read_bytes() == NEW


@posix
def test_a_link_into_a_missing_folder_and_a_circle_of_links_are_refused(tmp_path):
    (tmp_path / "away").symlink_to("nowhere/m")
    (tmp_path / "round").symlink_to("round")
    for attempt in (write, check_writable):
        with pytest.raises(FileNotFoundError, match=r"expected a folder that exists, got .*nowhere: '.*away'"):
            attempt(tmp_path / "away")
        with pytest.raises(OSError, match=r"symbolic links: '.*round'"):
            attempt(tmp_path / "round")
    assert sorted(os.listdir(tmp_path)) == ["away", "round"]


@posix
def test_all_names_of_a_hard_linked_file_have_the_new_content(tmp_path, path):
    os.link(path, tmp_path / "other")
    os.chmod(path, 0o640)
    for content in (NEW, b"n" * 100_000, b"", OLD):
        write(path, content)
        assert path.read_bytes() == (tmp_path / "other").read_bytes() == content
    assert path.samefile(tmp_path / "other")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sorted(os.listdir(tmp_path)) == ["m", "other"]


@linux
def test_a_hard_linked_file_is_unchanged_if_the_disk_has_no_room(tmp_path, path, monkeypatch):
    os.link(path, tmp_path / "other")

    def full(descriptor, offset, length):
        os.ftruncate(descriptor, length)  # as a file system may leave it
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*m'"):
        write(path, NEW * 100)
    assert path.read_bytes() == OLD
    assert sorted(os.listdir(tmp_path)) == ["m", "other"]


@posix
@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
def test_a_hard_linked_file_written_in_part_leaves_the_whole_one_in_the_folder(tmp_path, path, monkeypatch, error):
    os.link(path, tmp_path / "other")

    def fail(source, target):
        target.write(source.read(3))
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfileobj", fail)
        with pytest.raises(type(error)) as caught:
            write(path)
    (whole,) = set(os.listdir(tmp_path)) - {"m", "other"}
    assert (tmp_path / whole).read_bytes() == NEW
    assert whole in "".join(caught.value.__notes__)
    if isinstance(error, OSError):
        assert whole in str(caught.value)
    write(tmp_path / "another")
    assert (tmp_path / whole).exists(), "swept"


@posix
@pytest.mark.parametrize("number", [errno.EBUSY, errno.EXDEV, errno.EPERM])
def test_a_file_that_cannot_be_renamed_over_is_written_in_place(path, monkeypatch, number):
    """As a file that is mounted by itself into a container."""

    def busy(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", busy)
    inode = path.stat().st_ino
    write(path)
    assert path.read_bytes() == NEW
    assert path.stat().st_ino == inode
    assert os.listdir(path.parent) == ["m"]
    with pytest.raises(OSError, match=r"'.*new'"):
        write(path.parent / "new")
    assert os.listdir(path.parent) == ["m"]


# ---- modes and owners ------------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o777, 0o200])
def test_an_old_file_keeps_its_mode(path, mode):
    os.chmod(path, mode)
    with replacing(path) as file:
        (unfinished,) = set(os.listdir(path.parent)) - {"m"}
        assert stat.S_IMODE(os.stat(path.parent / unfinished).st_mode) == mode, "others could read it meanwhile"
        file.write(NEW)
    assert stat.S_IMODE(path.stat().st_mode) == mode


@posix
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_mode_that_the_umask_leaves(tmp_path, umask):
    old = os.umask(umask)
    try:
        write(tmp_path / "m")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "m").stat().st_mode) == 0o666 & ~umask


@posix
@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root gives files away")
def test_an_old_file_keeps_its_owner(path):
    os.chown(path, 65534, 65533)
    os.chmod(path, 0o640)
    write(path)
    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (65534, 65533, 0o640)


@posix
def test_the_rights_of_a_group_are_not_given_to_another(path, monkeypatch):
    os.chmod(path, 0o664)
    status = list(path.stat())
    status[stat.ST_GID] += 1
    monkeypatch.setattr(os, "fchown", lambda *_: (_ for _ in ()).throw(PermissionError(1, "not permitted")))
    with open(path, "r+b") as file:
        crnn.io.atomic_write._copy_status(file.fileno(), str(path), os.stat_result(status))
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@linux
def test_extended_attributes_are_kept(path):
    try:
        os.setxattr(path, "user.origin", b"a test")
    except OSError:
        pytest.skip("no extended attributes on this file system")
    write(path)
    assert os.getxattr(path, "user.origin") == b"a test"


READ_ONLY = """
import os, sys
from crnn.io.atomic_write import check_writable, replacing
if os.getuid() == 0:
    os.setuid(65534)
for attempt in (check_writable, lambda path: replacing(path).__enter__()):
    try:
        attempt(sys.argv[1])
    except PermissionError as error:
        print("PermissionError", error.filename == sys.argv[1])
"""


@posix
@pytest.mark.parametrize(("folder_mode", "file_mode"), [(0o555, 0o666), (0o777, 0o444), (0o555, None)])
def test_what_may_not_be_written_is_refused_by_name(folder_mode, file_mode):
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users altogether
        path = Path(folder) / "m"
        if file_mode is not None:
            path.write_bytes(OLD)
            os.chmod(path, file_mode)
        before = os.listdir(folder)
        os.chmod(folder, folder_mode)
        try:
            result = run_python(READ_ONLY, path)
        finally:
            os.chmod(folder, 0o755)
        assert result.stdout == "PermissionError True\n" * 2, result.stderr
        assert os.listdir(folder) == before


# ---- special files ---------------------------------------------------------------------------------------------------


def refused(path, what):
    for attempt in (write, check_writable):
        with pytest.raises(OSError, match=f"expected a file, got {what}") as caught:
            attempt(path)
        assert str(caught.value.filename) == str(path)


@posix
def test_a_fifo_a_socket_and_a_folder_are_refused_and_stay(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("fifo")
    refused(tmp_path / "fifo", "a FIFO")
    refused(tmp_path / "link", "a FIFO")
    refused(tmp_path / "folder", "a folder")
    refused(Path("."), "a folder")
    with contextlib.chdir(tmp_path), socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        refused(Path("socket"), "a socket")
        assert stat.S_ISSOCK(os.stat("socket").st_mode)
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)
    assert sorted(os.listdir(tmp_path)) == ["fifo", "folder", "link", "socket"]


@posix
@pytest.mark.parametrize("device", ["/dev/null", "/dev/full"])
def test_a_device_is_refused_and_stays(device):
    if not os.path.exists(device):
        pytest.skip("no such device")
    refused(device, "a device")
    assert stat.S_ISCHR(os.stat(device).st_mode)


@linux
def test_a_file_without_a_name_is_refused(path):
    with open(path, "r+b") as file:
        path.unlink()
        with pytest.raises(OSError, match=r"/dev/fd"):
            write(f"/dev/fd/{file.fileno()}")
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize("name", ["", "folder/", "m/"])
def test_the_name_of_a_folder_is_refused(path, name):
    (path.parent / "folder").mkdir()
    with contextlib.chdir(path.parent):
        for attempt in (write, check_writable):
            with pytest.raises(IsADirectoryError, match=f"expected the name of a file: '{name}'"):
                attempt(name)
    assert path.read_bytes() == OLD


@pytest.mark.parametrize("bad", [None, 3, 3.5, ["m"], "a\0b", b"a\0b"])
def test_what_is_no_path_is_refused(bad):
    for attempt in (write, check_writable):
        with pytest.raises((TypeError, ValueError), match="path: expected a path"):
            attempt(bad)


# ---- names -----------------------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("name", ["n" * 250, "n" * 255, "é" * 127, ".crnn-0123456789abcdef.tm", " ", "\n", "a'\"b"])
def test_any_name_that_the_system_allows_can_be_written(tmp_path, name):
    assert check_writable(tmp_path / name) == str(tmp_path / name)
    write(tmp_path / name)
    write(tmp_path / name)
    assert os.listdir(tmp_path) == [name]


@posix
def test_a_name_that_is_too_long_is_refused_by_name(tmp_path):
    for attempt in (write, check_writable):
        with pytest.raises(OSError, match="File name too long") as caught:
            attempt(tmp_path / ("n" * 256))
        assert caught.value.filename == str(tmp_path / ("n" * 256))
    assert os.listdir(tmp_path) == []


@posix
def test_bytes_and_path_objects_are_names(tmp_path):
    class BytesPath:
        def __fspath__(self):
            return os.fsencode(tmp_path / "d")

    names = [tmp_path / "a", str(tmp_path / "b"), os.fsencode(tmp_path / "c"), BytesPath()]
    for name in names:
        write(name)
        assert os.path.exists(name)
    odd = os.fsencode(tmp_path) + b"/\xff\xfe"
    write(odd)
    assert sorted(os.listdir(os.fsencode(tmp_path))) == [b"a", b"b", b"c", b"d", b"\xff\xfe"]


@posix
@pytest.mark.parametrize("name", [b"m", b"\xff"])
def test_a_model_is_saved_and_loaded_under_a_name_of_bytes(tmp_path, name):
    path = os.fsencode(tmp_path) + b"/" + name
    net = crnn.RNN(2, 3, seed=1)
    net.save(path)
    assert crnn.load(path).flat_params.tobytes() == net.flat_params.tobytes()
    Path(os.fsdecode(path)).write_bytes(b"")
    with pytest.raises(crnn.ModelFileError) as caught:
        crnn.load(path)
    assert str(caught.value).startswith(os.fsdecode(path))


def test_a_relative_name_means_the_folder_of_the_time(tmp_path):
    (tmp_path / "other").mkdir()
    with contextlib.chdir(tmp_path), replacing("m") as file:
        file.write(NEW)
        os.chdir(tmp_path / "other")
    assert (tmp_path / "m").read_bytes() == NEW


# ---- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("in the block"), KeyboardInterrupt(), GeneratorExit()])
def test_after_an_exception_the_old_file_is_unchanged(path, error):
    def fail():
        with replacing(path) as file:
            file.write(NEW)
            raise error

    with pytest.raises(type(error)):
        fail()
    assert path.read_bytes() == OLD
    assert os.listdir(path.parent) == ["m"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_an_error_of_the_system_names_the_file(path, monkeypatch, step):
    def fail(*names):
        raise OSError(errno.EIO, "Input/output error", *([names[0], None, names[1]] if step == "replace" else []))

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match=r"^\[Errno 5\] Input/output error: '[^']*m'$"):
        write(path)
    assert path.read_bytes() == OLD
    assert os.listdir(path.parent) == ["m"]


def test_an_error_of_another_file_keeps_its_name(path):
    with pytest.raises(FileNotFoundError, match="nowhere"), replacing(path) as file:
        file.write(open("nowhere", "rb").read())  # noqa: SIM115
    assert path.read_bytes() == OLD


@linux
def test_a_full_disk_is_found_beforehand(tmp_path):
    """On a file system of one page, if this process may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(disk)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a file system")
    try:
        (disk / "m").write_bytes(OLD)
        assert check_writable(disk / "m") == str(disk / "m")
        with pytest.raises(OSError, match=r"No space left on device: '.*m'"):
            write(disk / "m", bytes(1 << 20))
        with contextlib.suppress(OSError):
            (disk / "filler").write_bytes(bytes(4096))
        for name in ("m", "new"):
            with pytest.raises(OSError, match=rf"No space left on device: '.*{name}'"):
                check_writable(disk / name)
        assert (disk / "m").read_bytes() == OLD
        assert sorted(os.listdir(disk)) == ["filler", "m"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# ---- temporary files of others ---------------------------------------------------------------------------------------

WRITING = """
import sys, time
from crnn.io.atomic_write import replacing
with replacing(sys.argv[1]) as file:
    file.write(b"half of it")
    file.flush()
    print("writing", flush=True)
    sys.stdin.read()
    file.write(b" and the rest")
"""


def start_writing(path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen(
        [sys.executable, "-c", WRITING, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
    assert child.stdout.readline().strip() == b"writing"
    return child


def test_what_a_killed_process_left_is_swept_by_the_next_one(path):
    child = start_writing(path)
    child.kill()
    child.communicate()
    assert len(os.listdir(path.parent)) == 2
    assert path.read_bytes() == OLD
    check_writable(path.parent / "another")
    assert os.listdir(path.parent) == ["m"]


def test_what_another_process_is_writing_is_left_alone(path):
    child = start_writing(path)
    write(path)
    check_writable(path)
    with replacing(path) as file:
        write(path.parent / "another")
        file.write(b"x")
    assert len(os.listdir(path.parent)) == 3
    child.communicate(b"")
    assert child.returncode == 0
    assert path.read_bytes() == b"half of it and the rest"
    assert sorted(os.listdir(path.parent)) == ["another", "m"]


@posix
def test_files_that_are_not_ours_are_not_swept(path):
    folder = path.parent
    names = ["m.tmp", ".crnn-1.tmp", ".crnn-0123456789abcdef.whole", "crnn-0123456789abcdef.tmp", "m.0a1b2c3d.tmp"]
    for name in names:
        (folder / name).write_bytes(b"")
    (folder / ".crnn-0000000000000000.tmp").mkdir()
    (folder / ".crnn-1111111111111111.tmp").symlink_to(path)
    os.mkfifo(folder / ".crnn-2222222222222222.tmp")
    (folder / ".crnn-3333333333333333.tmp").write_bytes(b"")
    before = set(os.listdir(folder))
    write(folder / "new")
    assert before - set(os.listdir(folder)) == {".crnn-3333333333333333.tmp"}
    assert path.read_bytes() == OLD


def test_many_processes_can_write_one_file(tmp_path):
    children = [start_writing(tmp_path / "m") for _ in range(3)]
    for child in children:
        child.communicate(b"")
        assert child.returncode == 0
    assert (tmp_path / "m").read_bytes() == b"half of it and the rest"
    assert os.listdir(tmp_path) == ["m"]


# ---- every writer ----------------------------------------------------------------------------------------------------


def write_ids(path):
    text = path.parent / f"{path.name}.txt"
    text.write_text("a text about nothing " * 20)
    corpus = crnn.TextCorpus.from_file(text, ids_path=path)
    assert isinstance(corpus.train, np.ndarray)
    text.unlink()


def write_checkpoint(path):
    cut = {"windows": 1, "batch_size": 1, "bptt": 1, "order": 0}
    checkpoint = Checkpoint(path, {}, {})
    checkpoint.write(Run(language_model(), crnn.optim.Adam(), crnn.TrainingLog(), cut, carries_state=False))
    if checkpoint.failure:  # which does not end training
        raise OSError(checkpoint.failure)


def log():
    return crnn.fit(language_model(), np.arange(100) % 12, epochs=1)


WRITERS = {
    "model": lambda path: language_model().save(path),
    "module of PyTorch": lambda path: save_file(crnn.RNN(2, 3), path),
    "ids": write_ids,
    "checkpoint": write_checkpoint,
    "log as CSV": lambda path: log().to_csv(path),
    "log as JSON": lambda path: log().to_jsonl(path),
}


@posix
@pytest.mark.parametrize("writer", WRITERS)
def test_every_writer_follows_these_rules(tmp_path, writer):
    (tmp_path / "real").write_bytes(OLD)
    os.chmod(tmp_path / "real", 0o600)
    (tmp_path / "link").symlink_to("real")
    WRITERS[writer](tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o600
    assert len((tmp_path / "real").read_bytes()) > len(OLD)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match=r"fifo .*\(expected a file, got a FIFO\)|expected a file, got a FIFO: '.*fifo'"):
        WRITERS[writer](tmp_path / "fifo")
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)


def test_threads_that_write_the_same_file_do_not_fail():
    code = """
import sys, tempfile, threading
from crnn.io.atomic_write import replacing
path, failures, end = tempfile.mkdtemp() + "/f", [], threading.Event()
sys.setswitchinterval(1e-5)

def write(content):
    try:
        for _ in range(300):
            with replacing(path) as file:
                file.write(content)
    except OSError as error:
        failures.append(error)

threads = [threading.Thread(target=write, args=(letter * 100,)) for letter in (b"a", b"b", b"c")]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(failures, len(set(open(path, "rb").read())))
"""
    assert run_python(code).stdout == "[] 1\n"
