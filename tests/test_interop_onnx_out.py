# SPDX-License-Identifier: MIT
"""Models exported to ONNX: ONNX Runtime computes what crnn computes, and the file gives back the same model."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

import crnn
from crnn.interop import onnx as interop
from crnn.interop.onnx import own, writing
from crnn.interop.parts import KINDS
from crnn.io.model_file import ModelFileError
from crnn.models.outputs.pooling import POOLINGS
from crnn.nn.cells import CELLS

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.interop

WORST = 1e-5  # of float32, in units of the largest number if that is above 1
T, B, D, H, V = 7, 4, 3, 5, 3
LENGTHS = np.array([7, 2, 4, 1], np.int32)


def randomised(model, seed=0, scale=0.6):
    """The model with weights, and perhaps statistics, that are all different from the initial ones."""
    rng = np.random.default_rng(seed)
    model.flat_params[...] = rng.normal(size=model.flat_params.size) * scale
    for scaling in getattr(model, "scalings", {}).values():
        scaling.set_statistics("std", rng.normal(size=scaling.mean.shape), rng.uniform(0.5, 2, scaling.std.shape))
    return model


def session(proto):
    onnx.checker.check_model(proto, full_check=True)
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return ort.InferenceSession(proto.SerializeToString(), options)


def run(session, **inputs):
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


def error(found, wanted):
    assert found.shape == wanted.shape
    return np.abs(found - wanted).max() / max(1, np.abs(wanted).max())


def same(a, b):
    assert type(a) is type(b)
    assert a.contents()[1] == b.contents()[1]
    ours, theirs = a.contents()[0], b.contents()[0]
    assert {name: value.tobytes() for name, value in ours.items()} == {n: v.tobytes() for n, v in theirs.items()}


def data(seed=0, dtype="float64"):
    return np.random.default_rng(seed).normal(size=(B, T, D)).astype(dtype)


def ragged(x):
    return [sequence[:n] for sequence, n in zip(x, LENGTHS, strict=True)]


# ---- networks --------------------------------------------------------------------------------------------------------


NETWORKS = {
    "plain": {},
    "stack": {"num_layers": 2},
    "different sizes": {"hidden_size": [H, 4]},
    "trained state": {"trainable_initial_state": True, "num_layers": 2},
    "bidirectional": {"bidirectional": True, "num_layers": 2},
    "dense": {"dense_layers": True, "hidden_size": [H, 4, 5]},
    "dense, bidirectional": {"dense_layers": True, "bidirectional": True, "num_layers": 2},
    "bidirectional, all": {"bidirectional": True, "trainable_initial_state": True, "hidden_size": [H, 4]},
}


def network(cell, options, **more):
    return randomised(crnn.RNN(D, cell=cell, **({"hidden_size": H} | options | more)))


@pytest.mark.parametrize("options", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("cell", CELLS)
def test_networks_compute_the_same_on_padded_batches(cell, options):
    net = network(cell, options)
    x = data(dtype="f4").swapaxes(0, 1)
    y, state = net(x, lengths=LENGTHS)
    proto = interop.to_model(net, lengths=True, state=True)
    at_start = {} if net.trainable_initial_state else zeros(net, B)
    found = run(session(proto), x=x, lengths=LENGTHS, **at_start)
    assert error(found.pop("y"), y) < WORST
    for name, value in states(net, state, "out").items():
        assert error(found.pop(name), value) < WORST
    assert not found
    same(net, interop.from_model(proto))
    without = run(session(interop.to_model(net, lengths=True, state=False)), x=x, lengths=LENGTHS)
    assert error(without["y"], y) < WORST
    assert list(without) == ["y"]


def states(net, state, end):
    """A state by the names that ONNX's inputs ("in") or outputs ("out") have."""
    parts = {"h": state} if not CELLS[net.cell].has_c else dict(zip("hc", state, strict=True))
    named = {}
    for name, value in parts.items():
        if isinstance(value, np.ndarray):
            named[f"{name}_{end}"] = value
            continue
        step = 2 if net.bidirectional else 1
        for i in range(0, len(value), step):
            named[f"{name}_{end}_{i // step}"] = np.stack(value[i : i + step])
    return named


def zeros(net, batch):
    _, state = net(np.zeros((1, batch, net.input_size), net.dtype))
    return {name: np.zeros_like(value) for name, value in states(net, state, "in").items()}


@pytest.mark.parametrize("cell", CELLS)
def test_a_sequence_of_1000_steps_with_its_state_carried_over(cell):
    """One step at a time, and in two parts."""
    net = crnn.RNN(D, 16, num_layers=2, cell=cell, trainable_initial_state=True)
    randomised(net, scale=0.2)  # with larger weights rounding errors grow: such networks are chaotic
    x = np.random.default_rng(1).normal(size=(1000, 1, D)).astype("f4")
    running, stream = session(interop.to_model(net)), net.stream()
    state, worst = {}, 0.0
    for step in x:
        found = run(running, x=step[None], **state)
        worst = max(worst, error(found.pop("y")[0, 0], stream.step(step[0])))
        state = {name.replace("out", "in"): value for name, value in found.items()}
    assert 0 < worst < WORST
    first = run(running, x=x[:400])
    state = {name.replace("out", "in"): value for name, value in first.items() if name != "y"}
    whole = np.concatenate([first["y"], run(running, x=x[400:], **state)["y"]])
    assert error(whole, net(x)[0]) < WORST


def test_every_cell_and_pooling_and_kind_and_option_is_decided():
    assert set(writing.WRITERS) == set(CELLS)
    assert set(writing.POOLED) == set(POOLINGS)
    assert set(writing.ANSWERS) == set(KINDS) - {"RNN"}
    options = {name for kind in KINDS.values() for name in kind.config_types}
    assert options - {"precision"} <= writing.EXPRESSED | writing.ONLY_TRAINING  # `parts_of` refuses what is quantised
    assert not writing.EXPRESSED & writing.ONLY_TRAINING


@pytest.mark.parametrize("opset", [13, 15, 18, 22, writing.OPSETS[-1]])
@pytest.mark.parametrize("cell", ["lstm", "min_gru"])
def test_every_version_of_the_operators_works(cell, opset):
    model = randomised(crnn.SequenceClassifier(D, V, H, cell=cell, pooling="max", bidirectional=True))
    proto = interop.to_model(model, opset=opset)
    assert [(each.domain, each.version) for each in proto.opset_import] == [("", opset)]
    found = run(session(proto), x=data(), lengths=LENGTHS)
    assert error(found["probabilities"], model.predict_proba(ragged(data()))) < WORST
    same(model, interop.from_model(proto))


# ---- models of whole sequences ---------------------------------------------------------------------------------------


def classifier(**options):
    return crnn.SequenceClassifier(D, **({"classes": ["up", "down", "é"], "hidden_size": H} | options))


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("cell", CELLS)
def test_classifiers_give_the_same_probabilities_and_labels(cell, pooling, bidirectional, dense):
    options = {"hidden_size": [H, 4], "dense_layers": True} if dense else {}
    steps = T if pooling == "flatten" else None
    model = randomised(classifier(cell=cell, pooling=pooling, bidirectional=bidirectional, steps=steps, **options))
    proto = interop.to_model(model)
    x, lengths = (data(), {}) if steps else (ragged(data()), {"lengths": LENGTHS})
    found = run(session(proto), x=data(), **lengths)
    assert error(found["probabilities"], model.predict_proba(x)) < WORST
    assert found["labels"].tolist() == model.predict(x).tolist()
    same(model, interop.from_model(proto))


@pytest.mark.parametrize("pooling", [name for name in POOLINGS if name != "flatten"])
def test_pooled_models_are_continued_step_by_step(pooling):
    model = randomised(classifier(cell="lstm", pooling=pooling, num_layers=2))
    running = session(interop.to_model(model, state=True, lengths=False))
    stream = model.stream()
    state = {name: np.zeros((2, 1, H), "f4") for name in ("h_in", "c_in")}
    state |= {"max": {"max_in": np.full((1, H), -np.inf, "f4")}}.get(pooling, {})
    state |= {"mean": {"sum_in": np.zeros((1, H), "f4"), "steps_in": np.zeros((1, 1), "f4")}}.get(pooling, {})
    for step in data()[0]:
        found = run(running, x=step[None, None], **state)
        assert error(found["logits"][0], stream.step(step)) < WORST
        state = {name.replace("out", "in"): value for name, value in found.items() if name.endswith("out")}


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({"classes": None, "num_classes": V}, "int64"),
        ({"classes": [7, -2, 1 << 40]}, "int64"),
        ({"classes": [True, False]}, "bool"),
        ({"classes": ["a", "b", "c"], "multilabel": True}, "bool"),
        ({"classes": None, "num_classes": 1}, "int64"),
    ],
)
def test_labels_are_the_names_of_the_classes(options, dtype):
    model = randomised(classifier(**options))
    proto = interop.to_model(model)
    found = run(session(proto), x=data(), lengths=LENGTHS)
    wanted = model.predict(ragged(data()))
    assert found["labels"].dtype == dtype
    assert found["labels"].tolist() == wanted.tolist()
    assert error(found["probabilities"], model.predict_proba(ragged(data()))) < WORST
    same(model, interop.from_model(proto))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("multilabel", [False, True])
def test_taggers_give_the_same_probabilities_and_labels(bidirectional, multilabel):
    model = crnn.SequenceTagger(D, V, H, cell="gru", bidirectional=bidirectional, multilabel=multilabel)
    proto = interop.to_model(randomised(model), lengths=True, state=False)
    found = run(session(proto), x=data(), lengths=LENGTHS)
    wanted = zip(model.predict_proba(ragged(data())), model.predict(ragged(data())), LENGTHS, strict=True)
    for i, (probabilities, labels, n) in enumerate(wanted):
        assert error(found["probabilities"][i, :n], probabilities) < WORST
        assert found["labels"][i, :n].tolist() == labels.tolist()
    same(model, interop.from_model(proto))


@pytest.mark.parametrize("loss", ["mse", "quantile"])
@pytest.mark.parametrize("pooling", [None, *(name for name in POOLINGS if name != "flatten")])
def test_regressors_give_the_same_values_in_the_units_of_the_targets(pooling, loss):
    model = randomised(crnn.SequenceRegressor(D, 2, H, loss=loss, pooling=pooling, cell="lstm", delta=2.0))
    proto = interop.to_model(model, lengths=False, state=False)
    values = run(session(proto), x=data())["values"]
    wanted = model.predict(data())
    assert values.shape == wanted.shape
    assert values.dtype == np.float64
    assert error(values, wanted) < 2 * WORST  # the std is at most 2
    same(model, interop.from_model(proto))


def test_a_sensor_with_a_large_offset_keeps_its_digits():
    """101325 +- 0.01 in float32 has no digits left: 1 / 128 is its resolution there."""
    x = 101325 + 0.01 * data()
    model = crnn.SequenceRegressor(D, 1, H, pooling=None, cell="gru", seed=1)
    model.scalings["x"].learn("X", list(x))
    model.scalings["y"].learn("y", list(x[..., :1]))
    running = session(interop.to_model(model, state=False))
    assert running.get_inputs()[0].type == "tensor(double)"
    assert np.abs(run(running, x=x)["values"] - model.predict(x)).max() < 0.01 * WORST
    assert np.std(model.predict(x)) > 1e-4


def test_a_model_that_does_not_standardise_takes_its_own_dtype():
    model = crnn.SequenceRegressor(D, 1, H, scale=False)
    running = session(interop.to_model(model))
    assert [each.type for each in (running.get_inputs()[0], running.get_outputs()[0])] == ["tensor(float)"] * 2


# ---- ids -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"embedding_size": 4}, {"embedding_size": H, "tie_weights": True}, {"num_layers": 2}]
)
def test_language_models_give_the_same_logits(options):
    model = randomised(crnn.LanguageModel(crnn.Vocab.from_text("abcdefg"), "lstm", H, **options))
    ids = np.random.default_rng(0).integers(0, 7, (T, B))
    proto = interop.to_model(model)
    shape = (options.get("num_layers", 1), B, H)
    found = run(session(proto), ids=ids, h_in=np.zeros(shape, "f4"), c_in=np.zeros(shape, "f4"))
    logits, (h, c) = model.forward(ids)
    for name, value in {"logits": logits, "h_out": h, "c_out": c}.items():
        assert error(found[name], value) < WORST
    same(model, interop.from_model(proto))


def test_models_of_texts_take_ids_and_keep_their_vocabulary():
    texts, labels = ["on", "off", "oon", "offf"] * 3, ["yes", "no", "yes", "no"] * 3
    model = crnn.SequenceClassifier(vocab="char", hidden_size=4, pooling="mean").fit(texts, labels, epochs=1)
    proto = interop.to_model(model)
    lengths = np.array([len(text) for text in texts], np.int32)
    ids = np.zeros((len(texts), 4), np.int64)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = model.vocab.encode(text)
    found = run(session(proto), ids=ids, lengths=lengths)
    assert error(found["probabilities"], model.predict_proba(texts)) < WORST
    assert found["labels"].tolist() == model.predict(texts).tolist()
    same(model, interop.from_model(proto))
    assert interop.from_model(proto).predict(texts).tolist() == model.predict(texts).tolist()


def test_vocabularies_of_every_unit_are_in_the_file():
    for unit, text in (("word", "one two\nthree"), ("byte", "é\0"), ("char", "\udc80é")):
        model = crnn.LanguageModel(crnn.Vocab.from_text(text, unit=unit), hidden_size=2)
        same(model, interop.from_model(onnx.ModelProto.FromString(interop.to_model(model).SerializeToString())))


@pytest.mark.parametrize("embedding_size", [None, 2])
def test_models_of_ids_take_ids(embedding_size):
    model = crnn.SequenceClassifier(9, V, H, embedding_size=embedding_size)
    ids = np.random.default_rng(0).integers(0, 9, (B, T))
    proto = interop.to_model(model, ids=True, lengths=False)
    assert error(run(session(proto), ids=ids)["probabilities"], model.predict_proba(ids)) < WORST
    same(model, interop.from_model(proto))


# ---- float64, which ONNX Runtime does not have for recurrent layers ------------------------------------------------


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell != "relu"])  # which the evaluator does not have
def test_float64_agrees_to_its_own_precision(cell):
    reference = pytest.importorskip("onnx.reference")
    model = randomised(crnn.SequenceTagger(D, V, H, cell=cell, dtype="float64"))
    proto = interop.to_model(model, state=False)
    logits, *_ = reference.ReferenceEvaluator(proto).run(["probabilities"], {"x": data()})
    assert error(logits, model.predict_proba(data())) < 1e-13
    same(model, interop.from_model(proto))


# ---- files -----------------------------------------------------------------------------------------------------------


def test_a_file_gives_back_the_model_with_its_options_and_records(tmp_path):
    path = tmp_path / "m.onnx"
    rng = np.random.default_rng(0)
    model = crnn.SequenceClassifier(hidden_size=4, cell="gru", dropout=0.25, num_layers=2, class_weight=[1.0, 2.0])
    model.fit(rng.normal(size=(20, 5, 2)), rng.integers(0, 2, 20), epochs=1)
    interop.save(model, path)
    again = interop.load(path)
    same(model, again)
    assert again.training_runs == model.training_runs != ()
    x = rng.normal(size=(3, 5, 2))
    assert again.predict_proba(x).tobytes() == model.predict_proba(x).tobytes()


def test_negative_zeros_keep_their_sign():
    for cell in CELLS:
        net = crnn.RNN(D, H, cell=cell)
        net.flat_params.fill(-0.0)
        assert np.signbit(interop.from_model(interop.to_model(net)).flat_params).all(), cell


def test_what_tools_add_to_a_file_does_not_matter_and_what_they_change_is_refused():
    model = randomised(classifier())
    proto = onnx.shape_inference.infer_shapes(interop.to_model(model))
    proto.graph.doc_string = "a note"
    same(model, interop.from_model(proto))
    for change in (
        lambda p: next(t for t in p.graph.initializer if t.name == "layer0.W").dims.reverse(),
        lambda p: next(t for t in p.graph.initializer if t.data_type == onnx.TensorProto.STRING).string_data.reverse(),
        lambda p: next(n for n in p.graph.node if n.op_type == "GRU").attribute.pop(),
        lambda p: p.graph.node.add(op_type="Relu", input=["x"], output=["z"]),
        lambda p: p.graph.output.pop(),
        lambda p: p.graph.initializer.add(name="W_more", data_type=1, float_data=[1.0], dims=[1]),
    ):
        changed = onnx.ModelProto.FromString(proto.SerializeToString())
        change(changed)
        with pytest.raises(ValueError, match="got changed ones"):
            interop.from_model(changed)


def test_an_existing_file_survives_a_model_that_cannot_be_written(tmp_path):
    path = tmp_path / "m.onnx"
    interop.save(crnn.RNN(2, 3), path)
    before = path.read_bytes()
    net = crnn.RNN(2, 3)
    net.flat_params[0] = np.nan
    with pytest.raises(ValueError, match=r"layer0\.W_xh: expected finite"):
        interop.save(net, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.onnx"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opset": 12}, r"^opset: expected an integer from 13 to \d+, got 12$"),
        ({"opset": 99}, "^opset: "),
        ({"opset": True}, "^opset: "),
        ({"opset": "17"}, "^opset: "),
        ({"ids": 1}, "^ids: "),
        ({"lengths": "yes"}, "^lengths: "),
        ({"state": 0.5}, "^state: "),
    ],
)
def test_a_wrong_option_is_named(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        interop.to_model(crnn.RNN(2, 3), **options)


def test_what_a_graph_cannot_express_is_refused_by_name():
    scaled = randomised(classifier())
    refused = [
        (scaled, {"ids": True}, "^ids: expected False for a model that standardises"),
        (crnn.RNN(4, 3, embedding_size=2), {"ids": False}, "^ids: expected True"),
        (classifier(pooling="flatten", steps=3), {"state": True}, "^state: expected False"),
        (classifier(bidirectional=True), {"state": True}, "^state: expected False"),
        (crnn.SequenceClassifier(), {}, "^model: expected one with weights"),
        (classifier(classes=["\ud800", "b"]), {}, "^classes: expected names that UTF-8"),
        (classifier(classes=[1 << 70, 2]), {}, "^classes: expected integers that int64"),
    ]
    for model, options, message in refused:
        with pytest.raises(ValueError, match=message):
            interop.to_model(model, **options)
    for model in (crnn.SequenceToSequence(3, 3, hidden_size=2), np.zeros(3), None):
        with pytest.raises(TypeError, match=r"^model: expected one of RNN, "):
            interop.to_model(model)


def test_an_option_that_nobody_has_decided_about_is_refused(monkeypatch):
    monkeypatch.setattr(writing, "ONLY_TRAINING", writing.ONLY_TRAINING - {"dropout"})
    with pytest.raises(ValueError, match=r"^dropout: expected a model without this"):
        interop.to_model(crnn.RNN(2, 3))


def test_headers_that_are_not_crnns_are_refused():
    proto = interop.to_model(crnn.RNN(2, 3))
    for text in ("", "[]", "{}", '{"kind": "Vocab"}', "[" * 200, json.dumps({"kind": "RNN"})):
        onnx.helper.set_model_props(proto, {"crnn": text})
        with pytest.raises(ValueError, match=r"header|Expecting|digest"):
            interop.from_model(proto)


def test_a_file_with_another_digest_or_of_another_kind_names_the_file(tmp_path):
    path = tmp_path / "m.onnx"
    for content in (b"", b"\x08", b"PK\x03\x04", b"\x3a\xff\xff\xff\xff\x0f", bytes(range(64))):
        path.write_bytes(content)
        with pytest.raises(ModelFileError, match=r"m\.onnx: (expected|opset_import)"):
            interop.load(path)
    with pytest.raises(IsADirectoryError):
        interop.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        interop.load(tmp_path / "none.onnx")


PAGE = Path(__file__).parents[1] / "docs" / "onnx.md"


@pytest.mark.thread_unsafe
@pytest.mark.skipif(not PAGE.exists(), reason="the page is not part of this tree")
def test_the_code_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python onnx\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    namespace = {}
    for block in blocks:
        exec(block, namespace)
    assert blocks


def test_importing_the_module_does_not_import_onnx(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)  # as if it were not installed
    for call in (lambda: interop.to_model(crnn.RNN(2, 3)), lambda: interop.from_model(object())):
        with pytest.raises(ImportError, match=r"crnn\[onnx\]"):
            call()
    assert own.METADATA == "crnn"
