# SPDX-License-Identifier: MIT
"""benchmarks.defaults: files are read as they are, what is not there is skipped, and nothing but the data is given."""

import inspect
import re

import numpy as np
import pytest

defaults = pytest.importorskip("benchmarks.defaults", reason="benchmarks are in a clone, not in a wheel")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CRNN_DATA", str(tmp_path))
    monkeypatch.setattr(defaults, "FOLDERS", {})
    return tmp_path


def test_a_ts_file_has_variables_between_colons_and_the_label_last(folder):
    path = folder / "x.ts"
    path.write_text("# made here\n@classLabel true a b\n@data\n1,2,3:4,5,6:a\n7,8:9,10:b\n")
    series, labels = defaults.read_ts(path)
    assert labels == ["a", "b"]
    np.testing.assert_array_equal(series[0], [[1, 4], [2, 5], [3, 6]])
    np.testing.assert_array_equal(series[1], [[7, 9], [8, 10]])


def test_missing_values_of_a_column_are_interpolated(folder):
    (folder / "c.csv").write_text("year,value\n1,2.0\n2,\n3,4.0\n4,NA\n5,8\n")
    np.testing.assert_array_equal(defaults.column(folder / "c.csv"), [2, 3, 4, 6, 8])


def test_a_set_is_trained_and_the_others_are_skipped(folder, capsys):
    (folder / "GunPoint").mkdir()
    rows = "".join(f"{k % 2},{k % 2},{k % 3}:{'ab'[k % 2]}\n" for k in range(12))
    for part in ("TRAIN", "TEST"):
        (folder / "GunPoint" / f"GunPoint_{part}.ts").write_text(f"@data\n{rows}")
    assert defaults.main(["GunPoint", "Trace", "names"]) == 0
    _, gunpoint, trace, names = capsys.readouterr().out.splitlines()
    assert re.match(r"GunPoint +12 x 3, 2 classes +accuracy 1\.000 +0\.500 +1000 +1000 ", gunpoint)
    assert re.match(r"Trace +no Trace.npz in CRNN_DATA or in an installed package$", trace)
    assert re.match(r"names +no names.txt in CRNN_DATA", names)


def test_an_unknown_set_is_refused(capsys):
    with pytest.raises(SystemExit):
        defaults.main(["nothing"])
    assert "set: expected one of chosen-by, not-looked-at, ItalyPowerDemand" in capsys.readouterr().err


def test_no_option_is_given_that_could_have_been_tuned():
    for task in (defaults.classes, defaults.values, defaults.forecast, defaults.text):
        for call in re.findall(r"(?:crnn\.\w+Model|crnn\.Sequence\w+|fit)\((.*)\)", inspect.getsource(task)):
            assert set(re.findall(r"(\w+)=", call)) <= {"seed", "progress", "pooling"}, call
    assert "pooling=None" in inspect.getsource(defaults.forecast)  # what makes it a forecast
