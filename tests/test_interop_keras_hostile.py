# SPDX-License-Identifier: MIT
"""Damaged and hostile files of Keras are refused with the file's name, before they cost memory. Needs h5py."""

import io
import json
import os
import tracemalloc
import zipfile

import numpy as np
import pytest

import crnn
from crnn.interop import keras as interop

h5py = pytest.importorskip("h5py")
pytestmark = [pytest.mark.interop, pytest.mark.thread_unsafe]  # memory is traced for the whole process


def refused(path, message):
    """The error, which names the file; reading it must not need much memory."""
    tracemalloc.start()
    try:
        with pytest.raises(crnn.ModelFileError, match=message) as error:
            interop.load(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(error.value).startswith(f"{path}: ")
    assert peak < 100 << 20
    return str(error.value)


@pytest.fixture
def members(tmp_path):
    """The members of a good archive by name."""
    model = crnn.SequenceClassifier(3, 2, 4, cell="lstm", pooling="last", seed=1)
    interop.save(model, tmp_path / "good.keras")
    with zipfile.ZipFile(tmp_path / "good.keras") as archive:
        return {each.filename: archive.read(each) for each in archive.infolist()}


def written(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def with_weights(path, change):
    """A weights file made by ``change``, a function of an open HDF5 file."""
    with h5py.File(path, "w") as file:
        change(file)
    return path


# ---- archives --------------------------------------------------------------------------------------------------------


def test_an_archive_that_lacks_a_member_or_has_another_is_refused(tmp_path, members):
    for name in ("config.json", "model.weights.h5"):
        rest = {each: content for each, content in members.items() if each != name}
        refused(written(tmp_path / "m.keras", rest.items()), f"expected a member {name}")
    for name in ("assets/vocabulary.txt", "../x", "model.weights.npz"):
        more = {**members, name: b"x"}
        refused(written(tmp_path / "m.keras", more.items()), f"got also '{name}'")
    assert isinstance(interop.load(written(tmp_path / "m.keras", members.items())), crnn.SequenceClassifier)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused(tmp_path, members):
    path = written(tmp_path / "m.keras", [*members.items(), ("config.json", b"{}")])
    refused(path, "each member of the archive once")


@pytest.mark.parametrize("name", ["config.json", "model.weights.h5", "metadata.json"])
def test_a_zip_bomb_is_refused_by_its_declared_size(tmp_path, members, name):
    content = b" " * (40 << 20)
    path = written(tmp_path / "m.keras", {**members, name: content}.items(), zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 20
    del content
    refused(path, r"in proportion to the size of the archive, got 4[0-9]* bytes")


def test_json_that_takes_much_memory_or_is_nested_deeply_is_refused(tmp_path, members):
    for text in ("[" * 200 + "]" * 200, '{"a": 1, "a": 2}', '{"a": ' + "[]," * 10 + "}", "[]", "\xff", "{}"):
        changed = {**members, "config.json": text.encode("latin-1")}
        refused(written(tmp_path / "m.keras", changed.items()), r"config\.json|expected a Sequential")
    many = {**members, "config.json": "[" + "[]," * 2_000_000 + "[]]"}
    refused(written(tmp_path / "m.keras", many.items()), r"config\.json: a header that takes")


@pytest.mark.parametrize("part", ["kind", "options", "vocab"])
def test_what_crnn_wrote_besides_the_layers_is_checked_too(tmp_path, members, part):
    metadata = json.loads(members["metadata.json"])
    wrong = {"kind": "os.system", "options": {"hidden_size": 10**9}, "vocab": {"tokens": 5}}[part]
    metadata["crnn"][part] = wrong
    if part == "vocab":
        metadata["crnn"]["kind"] = "LanguageModel"
    path = written(tmp_path / "m.keras", {**members, "metadata.json": json.dumps(metadata)}.items())
    refused(path, {"kind": "kind: expected one of", "options": "'hidden_size'", "vocab": "."}[part])


def test_a_configuration_with_values_of_wrong_types_is_refused(tmp_path, members):
    document = json.loads(members["config.json"])
    count = 0
    for i, entry in enumerate(document["config"]["layers"]):
        for key in ("class_name", "config", *entry["config"]):
            for value in ([], {}, 3.5, "x", -1, 10**30, [[1]]):
                changed = json.loads(members["config.json"])
                target = changed["config"]["layers"][i]
                (target if key in ("class_name", "config") else target["config"])[key] = value
                path = written(tmp_path / "m.keras", {**members, "config.json": json.dumps(changed)}.items())
                try:
                    model = interop.load(path)
                except crnn.ModelFileError as error:
                    assert str(error).startswith(str(path))  # noqa: PT017
                    count += 1
                else:
                    assert isinstance(model, crnn.SequenceClassifier)
    assert count > 50


# ---- HDF5 ------------------------------------------------------------------------------------------------------------


def lstm(file):
    for i, shape in enumerate(((3, 16), (4, 16), (16,))):
        file[f"layers/lstm/cell/vars/{i}"] = np.ones(shape, "f4")


def test_links_to_other_places_and_other_files_are_refused(tmp_path):
    secret = with_weights(tmp_path / "other.h5", lstm)
    for link in (h5py.SoftLink("/layers/lstm/cell/vars/1"), h5py.ExternalLink(str(secret), "/layers/lstm/cell/vars/0")):

        def change(file, link=link):
            lstm(file)
            file["layers/lstm/cell/vars/3"] = link

        refused(with_weights(tmp_path / "m.weights.h5", change), "'layers/lstm/cell/vars/3': expected .*, got a link")


def test_arrays_that_are_stored_elsewhere_are_refused(tmp_path):
    (tmp_path / "raw").write_bytes(bytes(256))

    def external(file):
        file.create_dataset("layers/lstm/cell/vars/0", (4, 16), "f4", external=[(str(tmp_path / "raw"), 0, 256)])

    def virtual(file):
        layout = h5py.VirtualLayout((3, 16), "f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (3, 16))
        file.create_virtual_dataset("layers/lstm/cell/vars/0", layout)

    for change in (external, virtual):
        refused(with_weights(tmp_path / "m.weights.h5", change), "vars/0': expected an array stored in this file")


def test_an_array_that_is_larger_than_the_file_is_refused(tmp_path):
    def huge(file):
        options = {"chunks": (1, 1 << 12), "compression": "gzip"}
        file.create_dataset("layers/lstm/cell/vars/0", (1 << 20, 1 << 12), "f4", **options)

    def empty(file):
        file.create_dataset("layers/lstm/cell/vars/0", (1 << 20, 1 << 12), "f4")  # no storage until it is written

    def many(file):
        for i in range(40):
            file.create_dataset(f"layers/a{i}/vars/0", (1 << 16,), "f4")

    refused(with_weights(tmp_path / "m.weights.h5", huge), "expected an array in one piece, as Keras writes it")
    for change in (empty, many):
        refused(with_weights(tmp_path / "m.weights.h5", change), "expected an array that fits into the file")


def test_a_damaged_heap_of_texts_is_refused_before_hdf5_reads_it(tmp_path):
    def change(file):
        file.attrs["layer_names"] = ["a", "b"]
        file.attrs["keras_version"] = "3.0.0"

    content = with_weights(tmp_path / "m.h5", change).read_bytes()
    heap = content.index(b"GCOL\1")
    refused(tmp_path / "m.h5", "expected a group 'a'")
    for at, value in ((8, 2**63), (8, 3), (16 + 8, 2**40), (16 + 8, 2**64 - 16), (16, 0)):
        damaged = bytearray(content)
        damaged[heap + at : heap + at + 8] = value.to_bytes(8, "little")
        (tmp_path / "m.h5").write_bytes(damaged)
        refused(tmp_path / "m.h5", "expected an HDF5 file, got a damaged one")


def test_arrays_of_other_types_are_refused(tmp_path):
    for value in (np.array([b"abc"]), np.array([1j]), np.zeros(3, [("a", "f4")])):
        change = lambda file, value=value: file.create_dataset("layers/lstm/cell/vars/0", data=value)  # noqa: E731
        refused(with_weights(tmp_path / "m.weights.h5", change), "vars/0': expected numbers, got")
    text = h5py.string_dtype()
    change = lambda file: file.create_dataset("layers/lstm/cell/vars/0", data=["a"], dtype=text)  # noqa: E731
    refused(with_weights(tmp_path / "m.weights.h5", change), "vars/0': expected numbers, got object")
    refused(
        with_weights(tmp_path / "m.weights.h5", lambda file: file.create_dataset("x", data=h5py.Empty("f4"))),
        "'x': expected an array, got an empty one",
    )


def test_integers_and_weights_that_are_not_finite_are_refused(tmp_path):
    def change(file, value):
        lstm(file)
        del file["layers/lstm/cell/vars/1"]
        file["layers/lstm/cell/vars/1"] = value

    wrong = np.ones((4, 16), "i4"), "expected an array of floating point"
    nan = np.full((4, 16), np.nan, "f4"), "expected finite values, got NaN"
    for value, message in (wrong, nan):
        refused(with_weights(tmp_path / "m.weights.h5", lambda file, value=value: change(file, value)), message)


def test_groups_that_contain_themselves_or_very_many_are_refused(tmp_path):
    def circle(file):
        file.create_group("layers")
        file["layers/a"] = file["/"]
        file["layers/b"] = file["/"]

    refused(with_weights(tmp_path / "m.weights.h5", circle), "at most 5000 groups and arrays, 16 in each other")
    refused(
        with_weights(tmp_path / "m.weights.h5", lambda file: [file.create_group(f"g{i}") for i in range(5_100)]),
        "at most 5000 groups",
    )


def test_lists_of_names_in_the_older_format_are_checked(tmp_path):
    def old(file, layers=(b"lstm",), weights=(b"lstm/kernel:0",), extra=False):
        file.attrs["layer_names"] = np.array(layers)
        group = file.create_group("lstm")
        group.attrs["weight_names"] = np.array(weights)
        group["lstm/kernel:0"] = np.ones((3, 16), "f4")
        if extra:
            group["lstm/bias:0"] = np.ones(16, "f4")

    for options, message in (
        ({"layers": (b"lstm", b"gru")}, "layer_names: expected a group 'gru', found none"),
        ({"layers": (b"lstm", b"lstm")}, "layer_names: expected each name once"),
        ({"weights": (b"lstm/none:0",)}, "'lstm/lstm/none:0': expected an array, found none"),
        ({"weights": (b"../lstm/lstm/kernel:0",)}, "expected an array, found none"),
        ({"extra": True}, "'lstm/lstm/bias:0': expected an array that weight_names lists"),
        ({"layers": [b"a%d" % i for i in range(10_001)]}, "layer_names: expected at most 10000 texts"),
    ):
        change = lambda file, options=options: old(file, **options)  # noqa: E731
        refused(with_weights(tmp_path / "m.h5", change), message)


# ---- any file --------------------------------------------------------------------------------------------------------


def test_files_of_other_kinds_are_refused(tmp_path):
    for content in (b"", b"PK", b"PK\x03\x04" + bytes(100), b"\x89HDF\r\n\x1a\n", bytes(1000), b"{}"):
        (tmp_path / "m.keras").write_bytes(content)
        refused(tmp_path / "m.keras", ".")
    with pytest.raises(IsADirectoryError):
        interop.load(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_a_fifo_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "m.keras")
    refused(tmp_path / "m.keras", "expected a regular file")


@pytest.mark.parametrize("name", ["m.keras", "m.weights.h5"])
def test_a_damaged_file_is_a_model_or_an_error_that_names_it(tmp_path, name):
    model = crnn.SequenceClassifier(3, 2, 4, cell="gru", pooling="last", seed=1)
    interop.save(model, tmp_path / name)
    content, rng, refusals = (tmp_path / name).read_bytes(), np.random.default_rng(0), 0
    named = {"kind": "SequenceClassifier", "pooling": "last"} if name == "m.weights.h5" else {}
    for i in range(150):
        damaged = bytearray(content)
        if i % 3 == 0:
            damaged = damaged[: rng.integers(len(content))]
        else:
            for place in rng.integers(0, len(content), 8):
                damaged[place] = rng.integers(256)
        (tmp_path / name).write_bytes(damaged)
        try:
            loaded = interop.load(tmp_path / name, **named)
        except crnn.ModelFileError as error:
            assert str(error).startswith(str(tmp_path / name))  # noqa: PT017
            refusals += 1
        else:
            assert loaded.flat_params.shape == model.flat_params.shape
    assert refusals > 50


def test_a_file_that_is_read_from_is_not_kept_open(tmp_path):
    interop.save(crnn.RNN(2, 3), tmp_path / "m.weights.h5")
    interop.load(tmp_path / "m.weights.h5")
    with h5py.File(io.BytesIO((tmp_path / "m.weights.h5").read_bytes())) as file:
        assert "layers" in file
    os.replace(tmp_path / "m.weights.h5", tmp_path / "other")
    with h5py.File(tmp_path / "other", "a"):  # HDF5 would refuse to write to an open file
        pass
