# SPDX-License-Identifier: MIT
"""What models show of themselves while they are trained, against what their public methods say."""

import base64
import contextlib
import math
import tempfile

import numpy as np
import pytest
from task_tools import CELLS

import crnn
from crnn.models import observations
from crnn.models.observations import most_frequent, rounded, text_tokens
from crnn.training.entries import is_entry
from crnn.training.protocols import View

TEXT = "to be or not to be, that is the question.\nwhether it is nobler\n" * 12


def view(train, valid=None, *, batch_size=4, bptt=7, windows=math.inf):
    return View(train, valid, batch_size, bptt, 1, windows)


def observed(model, seen):
    """All entries that a model makes of a view, as dicts by kind."""
    entries = {}
    with np.errstate(all="ignore"):
        for observation in model.observed:
            for fields in observation.fields(model, seen):
                entry = {"kind": observation.kind, "epoch": 0, "update": 0, **fields}
                assert is_entry(entry)
                entries.setdefault(entry["kind"], []).append(entry)
    return entries


def near(found, expected):
    """Whether numbers are these, rounded to four digits."""
    return np.allclose(found, expected, rtol=6e-4, atol=1e-12)


# ---- texts -----------------------------------------------------------------------------------------------------------


def language_model(unit="char", cell="lstm", text=TEXT, **options):
    vocab = crnn.Vocab.from_text(text, unit)
    return crnn.LanguageModel(vocab, cell, [9, 6], seed=1, **options), vocab.encode(text)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("unit", ["char", "word"])
def test_surprisal_is_that_of_score_and_activity_that_of_a_stream(unit, cell):
    model, ids = language_model(unit, cell)
    ids = ids[:150]
    (entry,) = observed(model, view(ids))["text"]
    text = model.vocab.decode(ids)
    assert "".join(entry["tokens"]).rstrip(" ") == model.vocab.decode(ids[1:-1])
    start = model.vocab.decode(ids[:-1])
    assert sum(entry["surprisal"]) / len(entry["surprisal"]) == pytest.approx(model.score([start])[0], rel=1e-3)
    assert model.vocab.encode(text).tolist() == ids.tolist()
    losses, _ = model.losses(ids[:-1, None], ids[1:, None])
    assert near(entry["surprisal"], losses[:-1, 0])
    assert all(near(model.score([model.vocab.decode(ids[: n + 2])])[0] * (n + 1), sum(entry["surprisal"][: n + 1]))
               for n in (0, 63, 64, 100))  # fmt: skip
    activity = np.frombuffer(base64.b64decode(entry["activity"]), np.int8).reshape(len(entry["units"]), -1)
    h = activity / 127 * np.array(entry["scale"])[:, None]
    stream = model.stream()
    for position, id in enumerate(ids[:-1].tolist()):
        stream.step(id)
        if position:
            state = stream.state if model.net.stack.cell.has_c is False else stream.state[0]
            for name, values, scale in zip(entry["units"], h, entry["scale"], strict=True):
                layer, unit_number = (int(part.split()[1]) for part in name.split(", "))
                assert abs(values[position - 1] - state[layer].reshape(-1)[unit_number]) <= scale / 127


def test_units_are_those_that_vary_most():
    model, ids = language_model(cell="tanh")
    (entry,) = observed(model, view(ids))["text"]
    assert len(entry["units"]) == 15
    assert len(entry["tokens"]) == 600
    activity = np.frombuffer(base64.b64decode(entry["activity"]), np.int8).reshape(15, -1) / 127.0
    variances = (activity * np.array(entry["scale"])[:, None]).var(axis=1)
    assert (np.diff(variances) < 1e-3).all()
    assert variances[0] > 2 * variances[-1]


def test_the_text_is_that_of_validation_if_there_is_one():
    model, ids = language_model()
    (entry,) = observed(model, view(ids, ids[50:90]))["text"]
    assert "".join(entry["tokens"]) == TEXT[51:89]


def test_bytes_are_shown_as_characters_with_the_surprisal_of_all_their_bytes():
    text = "aé€😀b\n" * 10
    model, _ = language_model(text=text)
    model, ids = language_model("byte", text=text)
    (entry,) = observed(model, view(ids))["text"]
    assert "".join(entry["tokens"]) == text[1:-1]
    losses = model.losses(ids[:-1, None], ids[1:, None])[0][:, 0]
    sizes = [len(token.encode()) for token in entry["tokens"]]
    ends = np.cumsum(sizes)
    expected = [losses[end - size : end].sum() for end, size in zip(ends, sizes, strict=True)]
    assert near(entry["surprisal"], expected)


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfea", b"\xe2\x82", b"\x80\x80", b"a\xe2", b"\xf0\x9f\x98", b"\xc3\xa9" * 3, b"\xc3(\xa9", bytes(256)],
)
def test_bytes_that_are_no_text_are_shown_too(content):
    vocab = crnn.Vocab.from_text(b"a", "byte")
    tokens, ends = text_tokens(vocab, np.frombuffer(content, np.uint8))
    assert len(tokens) == len(ends)
    assert ends[-1] == len(content) - 1
    assert (np.diff(ends) > 0).all()


def test_words_are_shown_as_the_text_that_they_are():
    vocab = crnn.Vocab.from_text("the cat\nsat on\n\nit", "word")
    ids = vocab.encode("the cat\nsat on\n\nit dog")
    tokens, _ = text_tokens(vocab, ids)
    assert tokens == ["the ", "cat", "\n", "sat ", "on", "\n", "\n", "it ", "<unk>"]


@pytest.mark.parametrize("length", [2, 3, 4, 9, 65, 66, 67])
def test_short_texts_are_shown_as_far_as_there_are_tokens(length):
    model, ids = language_model()
    entries = observed(model, view(ids[:length], batch_size=1))
    assert len(entries.get("text", [])) == (length > 2)
    if length > 2:
        assert len(entries["text"][0]["tokens"]) == length - 2
    assert len(entries.get("gradient_flow", [])) == (length > 2)


def test_a_sample_is_that_of_generate():
    model, ids = language_model()
    (entry,) = observed(model, view(ids))["sample"]
    assert entry["text"] == model.generate("", 200, temperature=entry["temperature"], seed=0)


def test_less_is_shown_if_there_is_less_time():
    model, ids = language_model()
    entries = observed(model, view(ids, windows=1.0))
    assert len(entries["text"][0]["tokens"]) == 28
    assert "sample" not in entries


# ---- gradient flow ---------------------------------------------------------------------------------------------------


def check_flow(entry, flow):
    steps = entry["steps"]
    assert near(entry["norms"], flow.norms[:, steps])
    assert near(entry["saturation"], flow.saturation.mean(axis=1))
    found = [math.nan if radius is None else radius for radius in entry["spectral_radius"]]
    assert np.allclose(found, flow.spectral_radius, rtol=1e-3, equal_nan=True)


@pytest.mark.parametrize("cell", CELLS)
def test_gradient_flow_of_a_text_is_that_of_its_first_window(cell):
    model, ids = language_model(cell=cell, dtype="float64")
    (entry,) = observed(model, view(ids, ids[100:], batch_size=3))["gradient_flow"]
    assert entry["layers"] == ["layer 0", "layer 1"]
    assert entry["steps"] == list(range(7))
    x = np.array([ids[0:7], ids[7:14], ids[14:21]]).T
    y = np.array([ids[1:8], ids[8:15], ids[15:22]]).T
    check_flow(entry, crnn.gradient_flow(model, (x, y)))


def test_gradient_flow_has_at_most_64_columns():
    model, ids = language_model()
    (entry,) = observed(model, view(ids, bptt=200))["gradient_flow"]
    assert (len(entry["steps"]), entry["steps"][0], entry["steps"][-1]) == (64, 0, 199)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize("kind", ["classifier", "tagger", "regressor"])
def test_gradient_flow_of_sequences_is_that_of_a_batch_of_middle_length(rng, kind, equal, bidirectional):
    model, X, y = task(rng, kind, equal, bidirectional=bidirectional)
    entries = observed(model, view(model.data(X, y), model.data(X[1:4], y[1:4]), batch_size=3))
    (entry,) = entries["gradient_flow"]
    assert len(entry["layers"]) == 1 + bidirectional
    assert entry["layers"][-1] == ("layer 0, reverse" if bidirectional else "layer 0")
    chosen = [6, 5, 7] if equal else np.argsort([len(x) for x in X], kind="stable")[[6, 5, 7]]
    flow = crnn.gradient_flow(model, ([X[i] for i in chosen], [y[i] for i in chosen]))
    check_flow(entry, flow)


def test_gradient_flow_is_that_of_the_last_target_which_is_known(rng):
    """That of the last step of a series is always missing, for a model that learns to forecast."""
    model = crnn.SequenceRegressor(1, 1, hidden_size=5, pooling=None, seed=0, dtype="float64")
    x = rng.normal(size=(2, 9, 1))
    y = x[:, 1:]
    whole = crnn.gradient_flow(model, (x, None))
    known = crnn.gradient_flow(model, (x[:, :-1], y))
    assert known.norms.min() > 0
    np.testing.assert_allclose(whole.norms[:, :-1], known.norms)
    assert (whole.norms[:, -1] == 0).all()
    (entry,) = observed(model, view(model.data(x, None)))["gradient_flow"]
    assert entry["steps"] == list(range(8))  # nothing flows from the last step


def test_gradient_flow_of_packed_sequences_with_missing_targets(rng):
    tagger = crnn.SequenceTagger(2, 3, hidden_size=5, seed=0, dtype="float64")
    X = [rng.normal(size=(n, 2)) for n in (6, 4, 5)]
    y = [rng.integers(3, size=n) for n in (6, 4, 5)]
    y[0][4:] = -1
    y[2][:] = -1
    shorter = [X[0][:4], X[1]]
    flow = crnn.gradient_flow(tagger, (X, y))
    expected = crnn.gradient_flow(tagger, (shorter, [y[0][:4], y[1]]))
    np.testing.assert_allclose(flow.norms[:, :4], expected.norms)
    assert (flow.norms[:, 4:] == 0).all()


# ---- classes, values, forecasts --------------------------------------------------------------------------------------


def task(rng, kind, equal=False, n=12, **options):
    """A small model, sequences and targets; some targets are missing."""
    lengths = [6] * n if equal else [(7 * i) % 11 + 2 for i in range(n)]
    X = [rng.normal(3, 2, (length, 2)) for length in lengths]
    options |= {"hidden_size": 5, "seed": 2}
    if kind == "classifier":
        y = rng.choice(["a", "b", "c"], n).astype(object)
        y[0] = None
        return crnn.SequenceClassifier(2, classes=["a", "b", "c"], **options), X, y
    if kind == "tagger":
        y = [rng.integers(4, size=length) for length in lengths]
        y[1][0] = -1
        return crnn.SequenceTagger(2, 4, **options), X, y
    y = rng.normal(50, 9, (n, 3))
    y[2, 0] = np.nan
    return crnn.SequenceRegressor(2, 3, **options), X, y


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("equal", [False, True])
def test_confusion_of_a_classifier_counts_what_predict_says(rng, equal, dtype):
    model, X, y = task(rng, "classifier", equal, dtype=dtype)
    (entry,) = observed(model, view(model.data(X[:5], y[:5]), model.data(X, y)))["confusion"]
    assert entry["data"] == "valid"
    assert entry["labels"] == ["a", "b", "c"]
    expected = np.zeros((3, 3), int)
    for wanted, found in zip(y[1:], model.predict(X)[1:], strict=True):
        expected["abc".index(wanted), "abc".index(found)] += 1
    assert entry["counts"] == expected.tolist()


@pytest.mark.parametrize("equal", [False, True])
def test_confusion_of_a_tagger_counts_what_predict_says(rng, equal):
    model, X, y = task(rng, "tagger", equal)
    (entry,) = observed(model, view(model.data(X, y)))["confusion"]
    assert entry["data"] == "train"
    assert entry["labels"] == ["0", "1", "2", "3"]
    expected = np.zeros((4, 4), int)
    for wanted, found in zip(np.concatenate(y), np.concatenate(model.predict(X)), strict=True):
        if wanted >= 0:
            expected[wanted, found] += 1
    assert entry["counts"] == expected.tolist()


def test_confusion_of_ids(rng):
    model = crnn.SequenceClassifier(5, 2, hidden_size=4, embedding_size=3, seed=0)
    X, y = rng.integers(5, size=(9, 6)), rng.integers(2, size=9)
    (entry,) = observed(model, view(model.data(X, y)))["confusion"]
    assert np.trace(entry["counts"]) == (model.predict(X) == y).sum()
    assert np.sum(entry["counts"]) == 9


@pytest.mark.parametrize("every_step", [False, True])
def test_confusion_of_several_labels_counts_hits_misses_and_false_alarms(rng, every_step):
    kind = crnn.SequenceTagger if every_step else crnn.SequenceClassifier
    model = kind(2, 3, hidden_size=5, multilabel=True, seed=1)
    X = rng.normal(size=(8, 4, 2))
    y = rng.integers(2, size=(8, 4, 3) if every_step else (8, 3)).astype(float)
    y.reshape(-1)[[0, 5]] = np.nan
    (entry,) = observed(model, view(model.data(X, y)))["confusion"]
    assert entry["labels"] == ["0", "1", "2", "none"]
    found, counts = model.predict(X), np.array(entry["counts"])
    for label in range(3):
        true, positive = y[..., label] == 1, found[..., label]
        known = ~np.isnan(y[..., label])
        assert counts[label, label] == (true & positive).sum()
        assert counts[label, 3] == (true & ~positive).sum()
        assert counts[3, label] == (~true & positive & known).sum()
    assert counts.sum() == np.diag(counts).sum() + counts[3].sum() + counts[:, 3].sum()


def test_the_rarest_of_many_classes_are_others(rng):
    frequency = rng.permutation(50) + 1
    true = np.repeat(np.arange(50), frequency)
    predicted = rng.integers(50, size=len(true))
    labels, a, b = most_frequent([f"c{i}" for i in range(50)], true, predicted, keep_last=False)
    assert len(labels) == 30
    assert labels[-1] == "others"
    assert labels[:-1] == [f"c{i}" for i in range(50) if frequency[i] > 21]
    for i, j, wanted, found in zip(a, b, true, predicted, strict=True):
        assert labels[i] == (f"c{wanted}" if frequency[wanted] > 21 else "others")
        assert labels[j] == (f"c{found}" if frequency[found] > 21 else "others")
    labels, a, _ = most_frequent([*(f"c{i}" for i in range(49)), "none"], true, predicted, keep_last=True)
    assert labels[-2:] == ["others", "none"]
    assert (a[true == 49] == 29).all()


def test_many_sequences_are_thinned_out(rng):
    model = crnn.SequenceClassifier(2, 2, hidden_size=4, seed=0)
    data = model.data(rng.normal(size=(5000, 2, 2)), rng.integers(2, size=5000))
    assert np.sum(observed(model, view(data))["confusion"][0]["counts"]) == 2000
    assert np.sum(observed(model, view(data, windows=3.0))["confusion"][0]["counts"]) == 24


def test_outputs_of_many_labels_at_every_step_are_few(rng, monkeypatch):
    monkeypatch.setattr(observations, "OUTPUTS", 1000)
    model = crnn.SequenceTagger(2, 50, hidden_size=4, seed=0)
    data = model.data(rng.normal(size=(30, 5, 2)), rng.integers(50, size=(30, 5)))
    assert np.sum(observed(model, view(data))["confusion"][0]["counts"]) == 20  # steps of four sequences


def test_a_text_that_no_file_could_hold_is_shown():
    model, _ = language_model(text="ab\ud800" * 20)
    entries = observed(model, view(model.vocab.encode("ab\ud800" * 20)))
    assert "".join(entries["text"][0]["tokens"]) == ("ab?" * 20)[1:-1]
    entries["sample"][0]["text"].encode()


@pytest.mark.parametrize("loss", ["mse", "quantile"])
@pytest.mark.parametrize("pooling", ["last", None])
def test_values_are_those_of_predict_in_the_units_of_the_user(rng, pooling, loss):
    _, X, y = task(rng, "regressor")
    y = y if pooling else [rng.normal(50, 9, (len(x), 3)) for x in X]
    model = crnn.SequenceRegressor(2, 3, hidden_size=5, seed=2, pooling=pooling, loss=loss)
    model.fit(X, y, epochs=1)
    (entry,) = observed(model, view(model.data(X, y)))["values"]
    truth, found = (each if pooling else np.concatenate(each) for each in (y, model.predict(X)))
    truth, found = truth[:, 0], (found[:, 0, 1] if loss == "quantile" else found[:, 0])
    known = ~np.isnan(truth)
    assert near(entry["truth"], truth[known])
    assert near(entry["predicted"], found[known])


@pytest.mark.parametrize("loss", ["mse", "quantile"])
def test_a_forecast_is_that_of_forecast_with_the_end_withheld(rng, loss):
    t = np.arange(120)
    X = [np.stack([np.sin((t + k) / 5), np.cos((t + k) / 7)], axis=1) * 40 + 7 for k in (0, 30)]
    model = crnn.SequenceRegressor(2, 2, hidden_size=8, pooling=None, loss=loss, seed=0)
    model.fit(X, None, epochs=5)
    (entry,) = observed(model, view(model.data(X, None)))["forecast"]
    names = ["sequence 0, column 0", "sequence 0, column 1", "sequence 1, column 0", "sequence 1, column 1"]
    assert [series["name"] for series in entry["series"]] == names
    for number, x in enumerate(X):
        ahead = model.forecast(x[:90], 30)
        for column in range(2):
            series = entry["series"][2 * number + column]
            assert near(series["history"], x[:90, column])
            assert near(series["truth"], x[90:, column])
            assert np.allclose(series["predicted"], ahead[:, column], rtol=2e-3, atol=2e-3)
            if loss == "quantile":
                assert all(np.array(series["lower"]) <= np.array(series["upper"]))
            else:
                assert "lower" not in series
    if loss == "quantile":
        first = model.predict([X[0][:90]])[0][-1]
        assert near(entry["series"][0]["lower"][0], first[0].min())
        assert near(entry["series"][0]["upper"][0], first[0].max())


def test_a_long_series_is_shown_with_400_steps():
    x = np.sin(np.arange(3000) / 9)
    model = crnn.SequenceRegressor(1, 1, hidden_size=4, pooling=None, seed=0)
    (entry,) = observed(model, view(model.data([x], None)))["forecast"]
    (series,) = entry["series"]
    assert (series["name"], len(series["history"]), len(series["truth"])) == ("series", 300, 100)
    assert near(series["truth"], x[-100:])


def forecasts_of(x, **options):
    """The series in the log of a model that has learnt to forecast a lone series; and the model."""
    model = crnn.SequenceRegressor(pooling=None, hidden_size=4, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        log = model.fit(x, None, epochs=2, log_file=f"{folder}/log", **options).log
    (entry,) = log.of_kind("forecast")
    return entry, model


@pytest.mark.parametrize("columns", [1, 2])
def test_a_lone_series_is_shown_whole_and_its_held_out_end_is_forecast(columns):
    x = np.sin(np.arange(200)[:, None] / 9 + np.arange(columns)) * 5
    entry, model = forecasts_of(x, valid=0.2)
    assert entry["data"] == "valid"
    assert [series["name"] for series in entry["series"]] == (["series"] if columns == 1 else ["column 0", "column 1"])
    for column, series in enumerate(entry["series"]):
        assert near(series["history"], x[:160, column])
        assert near(series["truth"], x[160:, column])
        assert near(series["predicted"], model.forecast(x[:160], 40)[:, column])
    entry, _ = forecasts_of(np.tile(x, (20, 1)), valid=0.5)  # 4,000 steps
    assert [len(entry["series"][0][name]) for name in ("history", "truth")] == [300, 100]
    assert near(entry["series"][0]["truth"], np.tile(x, (20, 1))[2000:2100, 0])


def test_a_lone_series_without_validation_withholds_its_end():
    x = np.sin(np.arange(144) / 9)
    entry, model = forecasts_of(x, valid=None)
    (series,) = entry["series"]
    assert (entry["data"], len(series["history"]), len(series["truth"])) == ("train", 108, 36)
    assert near(series["truth"], x[108:])
    assert near(series["predicted"], model.forecast(x[:108], 36)[:, 0])


def test_series_that_are_no_continuation_of_the_lone_one_are_shown_alone():
    x = np.sin(np.arange(144) / 9)
    entry, _ = forecasts_of(x, valid=([x[:40], x[:30]], None))
    assert [series["name"] for series in entry["series"]] == ["sequence 0", "sequence 1"]
    assert [len(series["truth"]) for series in entry["series"]] == [10, 7]


def test_a_model_whose_targets_are_not_the_next_inputs_shows_values(rng):
    x = rng.normal(size=(4, 20, 1))
    model = crnn.SequenceRegressor(1, 1, hidden_size=4, pooling=None, seed=0)
    assert "forecast" in observed(model, view(model.data(x[:, :-1], x[:, 1:])))
    assert "values" in observed(model, view(model.data(x, x)))
    both = crnn.SequenceRegressor(1, 1, hidden_size=4, pooling=None, bidirectional=True, seed=0)
    assert "values" in observed(both, view(both.data(x[:, :-1], x[:, 1:])))


@pytest.mark.parametrize("T", [1, 2, 3])
def test_series_of_few_steps(rng, T):
    model = crnn.SequenceRegressor(1, 1, hidden_size=4, pooling=None, seed=0)
    x = rng.normal(size=(4, T, 1))
    entries = observed(model, view(model.data(x, x if T == 1 else None)))
    assert set(entries) <= {"gradient_flow", "values", "forecast"}
    assert ("forecast" in entries) == (T == 3)


# ---- sequences -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reverse", [False, True])
def test_pairs_are_what_a_model_of_sequences_predicts(reverse):
    digits = crnn.Vocab.from_text("0123456789")
    numbers = [str(n) for n in range(100, 130)]
    model = crnn.SequenceToSequence(
        hidden_size=16, source_vocab=digits, target_vocab=digits, reverse_source=reverse, seed=0
    )
    model.fit(numbers, [n[::-1] for n in numbers], epochs=3)
    entries = observed(model, view(model.data(numbers, [n[::-1] for n in numbers])))
    assert [entry["prompt"] for entry in entries["sample"]] == ["100", "107", "114", "122", "129"]
    for entry in entries["sample"]:
        assert entry["target"] == entry["prompt"][::-1]
        assert entry["text"] == model.predict([entry["prompt"]])[0]
    (flow,) = entries["gradient_flow"]
    assert flow["layers"] == ["encoder, layer 0"]


@pytest.mark.parametrize("real", [False, True])
def test_pairs_of_ids_and_of_real_sources(rng, real):
    model = crnn.SequenceToSequence(3, 4, hidden_size=6, real_source=real, bidirectional=True, seed=0)
    X = [rng.normal(size=(n, 3)) if real else rng.integers(3, size=n) for n in (4, 6, 5)]
    y = [rng.integers(4, size=n) for n in (2, 0, 3)]
    entries = observed(model, view(model.data(X, y)))
    assert [entry["target"] for entry in entries["sample"]] == [" ".join(map(str, each)) for each in y]
    expected = "4 steps of 3 numbers" if real else " ".join(map(str, X[0]))
    assert entries["sample"][0]["prompt"] == expected
    assert entries["gradient_flow"][0]["layers"] == ["encoder, layer 0", "encoder, layer 0, reverse"]


# ---- nothing is changed ----------------------------------------------------------------------------------------------


def language_run(**options):
    vocab = crnn.Vocab.from_text(TEXT)
    model = crnn.LanguageModel(vocab, "lstm", 12, 2, dropout=0.3, recurrent_dropout=0.2, seed=4)
    ids = vocab.encode(TEXT)
    log = crnn.fit(model, ids[:600], valid=ids[600:], epochs=6, batch_size=4, bptt=9, seed=7, **options)
    return model, log


def sequence_run(rng, **options):
    model, X, y = task(rng, "classifier", dropout=0.3, trainable_initial_state=True)
    log = model.fit(X, y, valid=0.3, epochs=6, batch_size=3, **options).log
    return model, log


def without_observations(monkeypatch):
    for kind in (crnn.LanguageModel, crnn.SequenceClassifier):
        monkeypatch.setattr(kind, "observed", ())


@pytest.mark.parametrize("threads", [1, 2])
def test_a_run_that_is_observed_gives_the_same_bits(tmp_path, monkeypatch, threads):
    runs = [language_run, lambda **options: sequence_run(np.random.default_rng(3), **options)]
    with_entries = [run(log_file=tmp_path / f"{i}", threads=threads) for i, run in enumerate(runs)]
    assert all(log.column("layers", "gradient_flow") for _, log in with_entries)
    without_observations(monkeypatch)
    for (model, log), run in zip(with_entries, runs, strict=True):
        other, plain = run(threads=threads)
        assert not plain.column("layers", "gradient_flow")
        assert model.flat_params.tobytes() == other.flat_params.tobytes()
        assert model.flat_grads.tobytes() == other.flat_grads.tobytes()
        for name, kind in (("train_loss", "train"), ("grad_norm", "train"), ("valid_loss", "epoch")):
            assert log.column(name, kind) == plain.column(name, kind)


def test_observing_leaves_gradients_and_weights_alone(rng):
    model, ids = language_model()
    model.flat_grads[...] = 5
    weights = model.flat_params.copy()
    observed(model, view(ids))
    assert (model.flat_grads == 5).all()
    assert model.flat_params.tobytes() == weights.tobytes()


def test_weights_that_are_infinite_make_entries_or_fail_but_no_warning():
    model, ids = language_model()
    model.flat_params[...] = 1e30
    with contextlib.suppress(ValueError):  # the observer makes a note of it
        observed(model, view(ids))


def test_numbers_are_rounded_to_four_digits():
    assert rounded([1.23456, -1e-9 / 3, 0, np.inf]) == [1.235, -3.333e-10, 0.0, math.inf]
