# SPDX-License-Identifier: MIT
"""The table of gate orders, and models taken apart and put together again."""

from importlib.util import find_spec

import numpy as np
import pytest

import crnn
from crnn.cli.formats import FORMATS
from crnn.interop.keras.writing import layers_of
from crnn.interop.layouts import LAYOUTS, from_crnn, to_crnn
from crnn.interop.parts import KINDS, RARE_DROPOUTS, model_from, parts_of
from crnn.interop.torch import to_module, to_state_dict
from crnn.nn.cells import CELLS

STORED = [(name, cell) for name, layout in LAYOUTS.items() for cell in layout.gates if CELLS[cell].info.recurrent_gates]


def _params(cell, D=3, H=2, seed=0):
    rng = np.random.default_rng(seed)
    net = crnn.RNN(D, H, cell=cell)
    return {name.removeprefix("layer0."): rng.normal(size=p.shape).astype("f4") for name, p in net.params.items()}


@pytest.mark.parametrize(("name", "cell"), STORED)
def test_every_layout_gives_back_the_bits_that_it_was_given(name, cell):
    params = _params(cell)
    again = to_crnn(name, cell, *from_crnn(name, cell, params))
    assert {key: value.tobytes() for key, value in again.items()} == {k: params[k].tobytes() for k in again}
    assert set(again) == set(params)


@pytest.mark.parametrize(("name", "cell"), STORED)
def test_every_gate_of_a_layout_is_where_its_letter_says(name, cell):
    params, H = _params(cell), 2
    W_xh, _, b_h, _ = from_crnn(name, cell, params)
    W_xh = W_xh.T if LAYOUTS[name].rows else W_xh
    for block, gate in enumerate(LAYOUTS[name].gates[cell]):
        own = slice(block * H, block * H + H)
        ours = CELLS[cell].info.gate_names.index(gate)
        ours = slice(ours * H, ours * H + H)
        assert (W_xh[:, own] == params["W_xh"][:, ours]).all()
        assert (b_h[own] == params["b_h"][ours]).all()


def test_two_biases_are_added_except_in_the_last_gate_of_a_gru():
    params = _params("gru")
    W_xh, W_hh, b, recurrent = from_crnn("torch", "gru", params)
    found = to_crnn("torch", "gru", W_xh, W_hh, b, np.ones(6, "f4"))
    assert (found["b_h"][:4] == params["b_h"][:4] + 1).all()
    assert (found["b_h"][4:] == params["b_h"][4:]).all()
    assert (found["b_hn"] == 1).all()
    assert (recurrent[:4] == 0).all()


def test_a_sum_of_biases_that_is_not_finite_is_refused_by_name():
    params = _params("lstm")
    W_xh, W_hh, b, _ = from_crnn("torch", "lstm", params)
    big = np.full_like(b, 3e38)
    with pytest.raises(ValueError, match=r"^b_h: expected finite"):
        to_crnn("torch", "lstm", W_xh, W_hh, big, big)


MODELS = {
    "RNN": crnn.RNN(3, [4, 5], cell="gru", bidirectional=True),
    "LanguageModel": crnn.LanguageModel(
        crnn.Vocab.from_text("abc"), hidden_size=4, num_layers=2, embedding_size=4, tie_weights=True
    ),
    "SequenceClassifier": crnn.SequenceClassifier(3, classes=["a", "b"], hidden_size=4, cell="original_gru"),
    "SequenceTagger": crnn.SequenceTagger(5, 3, hidden_size=4, embedding_size=2, multilabel=True, dtype="float64"),
    "SequenceRegressor": crnn.SequenceRegressor(3, 2, hidden_size=4, pooling=None, loss="quantile"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_taken_apart_and_put_together_is_the_same_file(kind):
    model = MODELS[kind]
    if kind == "SequenceRegressor":
        model.scalings["y"].mean = np.array([3.0, -1.0])
    parts = parts_of(model)
    chosen = {name: value for name, value in parts.config.items() if name not in ("hidden_size", "num_layers")}
    again = model_from(
        kind,
        chosen.pop("cell"),
        parts.layers,
        embedding=parts.embedding,
        head=parts.head,
        vocab=parts.vocab,
        scaling=parts.scaling,
        **chosen,
    )
    assert again.to_bytes() == model.to_bytes()


def test_what_a_format_cannot_express_is_refused_by_the_option_s_name():
    parts = parts_of(MODELS["RNN"])
    parts.refuse("ONNX", bidirectional=True, cell=("gru", "lstm"))
    with pytest.raises(ValueError, match=r"^bidirectional: expected False, which ONNX can express, got True"):
        parts.refuse("ONNX", bidirectional=False)


def test_parts_of_something_else_are_refused():
    with pytest.raises(TypeError, match=r"^model: expected one of RNN, .*, got dict"):
        parts_of({})
    with pytest.raises(ValueError, match=r"^model: expected one with weights, got one that waits for fit"):
        parts_of(crnn.SequenceClassifier())
    broken = crnn.RNN(2, 2)
    broken.params["layer0.W_xh"][0, 0] = np.nan
    with pytest.raises(ValueError, match=r"^layer0.W_xh"):
        parts_of(broken)


def test_parts_that_do_not_fit_are_refused_by_name():
    parts = parts_of(MODELS["SequenceClassifier"])
    with pytest.raises(ValueError, match=r"W_hy"):
        model_from("SequenceClassifier", "original_gru", parts.layers, head=(np.zeros((3, 2), "f4"), np.zeros(2, "f4")),
                   num_classes=2)
    with pytest.raises(ValueError, match=r"scaling"):
        model_from("RNN", "original_gru", parts.layers, scaling={"x": (np.zeros(3), np.ones(3))})


@pytest.mark.parametrize("name", [*RARE_DROPOUTS, "output_dropout"])
def test_dropout_that_a_module_would_not_apply_in_training_is_refused(name):
    """Formats for modules that train; those of weights alone write them."""
    model = crnn.SequenceRegressor(4, 1, hidden_size=3, embedding_size=2, dropout=0.1, **{name: 0.2}, seed=0)
    with pytest.raises(ValueError, match=f"^{name}: expected .*, which Keras can express, got 0.2"):
        layers_of(model)
    if find_spec("torch"):
        with pytest.raises(ValueError, match=f"^{name}: expected .*, which a module of PyTorch can express, got 0.2"):
            to_module(model)
    assert "head.weight" in to_state_dict(model)


@pytest.mark.parametrize("format", [each for each in FORMATS if each.name != "onnx"], ids=lambda format: format.name)
def test_dense_layers_are_refused_by_every_format_whose_layers_read_the_one_below(tmp_path, format):
    options = {"cell": "lstm", "pooling": None, "scale": False}
    model = crnn.SequenceRegressor(1, 1, [4, 4], dense_layers=True, **options)
    with pytest.raises(ValueError, match=r"^dense_layers: expected False, because this format"):
        format.function("save")(model, tmp_path / f"model{format.suffixes[0]}")
    assert not any(tmp_path.iterdir())
