# SPDX-License-Identifier: MIT
"""The list of cells: every entry in C has a class in Python, an oracle and its equations; and vice versa."""

import re
from pathlib import Path

import numpy as np
import oracle_cells
import pytest

import crnn
from crnn._core import cells
from crnn.nn.cells import CELLS, cell_parameters
from crnn.nn.recurrence import Recurrence

SOURCES = Path(__file__).parents[1] / "src_c" / "cells"

each_cell = pytest.mark.parametrize("name", cells.CELLS)


def test_c_python_and_the_oracle_know_the_same_cells():
    assert list(CELLS) == list(cells.CELLS)
    assert set(oracle_cells.STEPS) == set(oracle_cells.GATES) == set(cells.CELLS)


@each_cell
def test_an_entry_of_the_list_makes_sense(name):
    info = cells.CELLS[name]
    assert info.name == name
    assert re.fullmatch("[a-z][a-z0-9_]{0,14}", name)  # file names, flags and the C example's 16 bytes
    assert len(set(info.gate_names)) == len(info.gate_names) == info.gates == oracle_cells.GATES[name]
    assert 0 <= info.candidate < info.gates
    assert info.recurrent_gates in (0, info.gates)
    assert info.recurrent_gates - info.packed_gates in (0, 1)
    assert info.packed_gates > 0 or info.recurrent_gates == 0
    assert "dhn" not in info.arrays or info.packed_gates < info.recurrent_gates
    assert len(set(info.vectors)) == len(info.vectors)


@each_cell
def test_a_cell_has_a_class_that_states_its_equations(name):
    cls = CELLS[name]
    assert cls.cell == name
    assert cls.__mro__[1:] == Recurrence.__mro__  # one step of inheritance
    assert re.search(r"\bh = ", cls.__doc__ or "")
    assert re.search(r"\b(19|20)\d\d\b|PyTorch", cls.__doc__), "where it comes from"


@pytest.mark.skipif(not SOURCES.is_dir(), reason="needs src_c")
@each_cell
def test_a_cells_c_text_states_its_equations_and_its_entry(name):
    texts = [path.read_text() for path in SOURCES.glob("*.h")]
    (text,) = [text for text in texts if f'.name = "{name}"' in text]
    assert re.search(r"^ \*     .*\bh = ", text, re.MULTILINE)
    assert f"&{name}_cell" in (SOURCES / "cells.h").read_text()


@each_cell
def test_a_network_of_the_cell_has_the_parameters_that_the_list_says(name):
    D, H, info = 5, 7, cells.CELLS[name]
    shapes = cell_parameters(name, D, H)
    assert list(shapes) == ["W_xh", *["W_hh"] * (info.recurrent_gates > 0), "b_h", *info.vectors]
    assert shapes["W_xh"] == (D, info.gates * H)
    assert shapes["b_h"] == (info.gates * H,)
    assert shapes.get("W_hh", (H, info.recurrent_gates * H)) == (H, info.recurrent_gates * H)
    net = crnn.RNN(D, H, cell=name, seed=0)
    assert {key: a.shape for key, a in net.params.items()} == {f"layer0.{key}": s for key, s in shapes.items()}


@each_cell
def test_a_network_of_the_cell_trains_and_streams(rng, name):
    net = crnn.RNN(5, 7, 2, cell=name, trainable_initial_state=True, seed=0)
    for values in net.params.values():
        values += rng.uniform(-0.3, 0.3, values.shape).astype("f4")
    x = rng.normal(size=(6, 1, 5))
    assert crnn.gradient_check(net, np.concatenate([x, x[::-1]], axis=1)).largest < 1e-7
    y, _ = net(x.astype("f4"))
    stream = net.stream()
    np.testing.assert_array_equal([stream.step(x_t) for x_t in x[:, 0].astype("f4")], y[:, 0])


@pytest.mark.parametrize("name", sorted(oracle_cells.WITHOUT_W_HH))
def test_recurrent_dropout_needs_a_recurrent_product(name):
    message = f"recurrent_dropout: expected 0 for '{name}', which has no W_hh"
    with pytest.raises(ValueError, match=message):
        crnn.RNN(5, 7, cell=name, recurrent_dropout=0.1)
    with pytest.raises(ValueError, match=message):
        crnn.SequenceClassifier(5, 2, cell=name, recurrent_dropout=0.1)


@each_cell
def test_diagnostics_know_the_cells_candidate_and_its_saturation(rng, name):
    net, x = crnn.RNN(5, 7, cell=name, seed=0), rng.normal(size=(6, 2, 5)).astype("f4")
    flow = crnn.gradient_flow(net, x)
    assert ((flow.saturation >= 0) & (flow.saturation <= 1)).all()
    if cells.CELLS[name].recurrent_gates:
        np.testing.assert_allclose(flow.spectral_radius, 1, rtol=1e-5)  # the candidate's block is orthogonal
    else:
        assert np.isnan(flow.spectral_radius).all()


def test_gates_are_found_by_name():
    b_h = np.arange(12)
    assert CELLS["lstm"].gate(b_h, "f").tolist() == [3, 4, 5]
    assert CELLS["gru"].gate(b_h[None], "n").tolist() == [[8, 9, 10, 11]]
    with pytest.raises(ValueError, match="substring"):
        CELLS["gru"].gate(b_h, "f")
