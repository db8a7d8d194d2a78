# SPDX-License-Identifier: MIT
"""Files of learners: they continue to the bit, from any step; damaged and hostile files are refused."""

import copy
import pickle
from functools import partial

import numpy as np
import pytest
from file_tools import edit, take_apart
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from learner_tools import interrupted_at
from model_tools import stir, text

import crnn

D, H = 2, 5
CORPUS = crnn.TextCorpus.from_text(text(1500))
IDS = CORPUS.vocab.encode(text(1500))


def same(a, b):
    return np.array_equal(a, b, equal_nan=True) and np.asarray(a).dtype == np.asarray(b).dtype


def language(**options):
    model = crnn.LanguageModel(CORPUS.vocab, **{"hidden_size": 6, "seed": 1} | options)
    stir(model.flat_params)
    return model


class Texts:
    """A learner of text in one stream; `advance` does one thing, and returns what can be seen."""

    def __init__(self, **options):
        self.learner = language(trainable_initial_state=True).learner(**options)

    def advance(self, step):
        learner = self.learner
        if step % 13 == 7:
            learner.reset()
        if step % 29 == 20:
            learner.freeze()
        if step % 29 == 25:
            learner.unfreeze()
        ids = IDS[3 * step : 3 * step + 1 + step % 5]
        if learner._known[0] and step % 3:
            return learner.surprisal(ids)
        if step % 4 == 0:
            logits = learner.predict(int(ids[0]))
            return [*logits, learner.learn(int(ids[-1]))] if step % 8 else logits
        return learner.feed(ids).next_probabilities()


class Values:
    """A learner of values in three streams, some targets missing."""

    def __init__(self, **options):
        model = crnn.SequenceRegressor(D, 1, hidden_size=H, num_layers=2, cell="lstm", seed=0)
        self.learner = model.learner(streams=3, **options)

    def advance(self, step):
        rng = np.random.default_rng(step)
        if step % 9 == 8:
            self.learner.reset([step % 3])
        found = self.learner.predict(rng.normal(size=(3, D)))
        if step % 5 == 2:
            return found
        y = rng.normal(size=3)
        y[rng.random(3) < 0.3] = np.nan
        return [*found.ravel(), *self.learner.learn(y)]


class Gradients:
    """A network alone, in float64, by gradients."""

    def __init__(self, **options):
        self.learner = crnn.RNN(D, H, cell="gru", seed=0, dtype="float64").learner(streams=2, **options)

    def advance(self, step):
        rng = np.random.default_rng(step)
        y = self.learner.step(rng.normal(size=(2, D)))
        if step % 4 != 3:
            self.learner.learn(rng.normal(size=(2, H)))
        return y


class Classes:
    """A tagger with names of classes."""

    def __init__(self, **options):
        self.learner = crnn.SequenceTagger(D, classes=["a", "b"], hidden_size=H, seed=0).learner(**options)

    def advance(self, step):
        logits = self.learner.predict(np.random.default_rng(step).normal(size=D))
        return [*logits, self.learner.learn(["a", "b", None][step % 3])]


OPTIONS = [
    {"bptt": 7, "lr": 0.01},
    {"bptt": 6, "every": 4, "optimizer": "sgd(momentum=0.9)", "lr": 0.01, "decay": 0.01},
    {"bptt": 3, "every": 1, "optimizer": crnn.optim.RMSprop(lr=0.01), "max_change": 0.02, "clip_value": 0.1},
]


@pytest.mark.parametrize("kind", [Texts, Values, Gradients, Classes])
@pytest.mark.parametrize("options", OPTIONS, ids=["kept", "reread", "every"])
def test_a_learner_from_a_file_continues_to_the_bit_from_every_step(tmp_path, kind, options):
    path, whole = tmp_path / "l.safetensors", kind(**options)
    n, expected, saved = 30, [], []
    for step in range(n):
        whole.learner.save(path)
        saved.append(path.read_bytes())
        expected.append(whole.advance(step))
    other = kind(**options)
    for step, content in enumerate(saved):
        path.write_bytes(content)
        other.learner = crnn.Learner.load(path)
        assert type(other.learner) is type(whole.learner)
        other.learner.save(path)
        assert path.read_bytes() == content
        for later in range(step, min(step + 8, n)):
            assert same(np.asarray(other.advance(later)), np.asarray(expected[later])), (step, later)
    for later in range(step + 1, n):
        other.advance(later)
    assert same(other.learner.model.flat_params, whole.learner.model.flat_params)
    assert (other.learner.steps, other.learner.updates) == (whole.learner.steps, whole.learner.updates)


@pytest.mark.parametrize("rule", crnn.optim.RULES)
def test_files_hold_every_optimizer(tmp_path, rule):
    learner, path = language().learner(bptt=5, optimizer=rule, lr=0.01).feed(text(20)), tmp_path / "l.safetensors"
    learner.save(path)
    assert same(crnn.Learner.load(path).surprisal(text(20)), learner.surprisal(text(20)))


def test_a_copy_and_a_pickle_continue_as_the_learner_does():
    learner = language().learner(bptt=5).feed(text(33))
    others = [copy.deepcopy(learner), copy.copy(learner), pickle.loads(pickle.dumps(learner))]
    nats = learner.surprisal(text(40, seed=3))
    for other in others:
        assert same(other.surprisal(text(40, seed=3)), nats)


def test_crnn_load_reads_the_model_of_now_from_a_file_of_a_learner(tmp_path):
    learner, path = language().learner(bptt=5).feed(text(60)), tmp_path / "l.safetensors"
    learner.save(path)
    model = crnn.load(path)
    assert isinstance(model, crnn.LanguageModel)
    assert same(model.flat_params, learner.model.flat_params)
    model.save(path)
    with pytest.raises(crnn.ModelFileError, match="expected a learner, got 'LanguageModel'"):
        crnn.Learner.load(path)


def test_other_threads_give_the_same_bits(tmp_path):
    learner, path = language().learner(bptt=5, streams=3), tmp_path / "l.safetensors"
    ids = IDS[:300].reshape(3, -1).T
    learner.feed(ids[:33]).save(path)
    other = crnn.Learner.load(path, threads=2)
    assert other.threads == 2
    assert same(other.surprisal(ids[33:]), learner.surprisal(ids[33:]))
    with pytest.raises(ValueError, match="threads: expected"):
        crnn.Learner.load(path, threads=0)


def test_what_a_file_cannot_hold_is_refused_and_leaves_the_old_file(tmp_path):
    class Own(crnn.optim.SGD):
        pass

    path = tmp_path / "l.safetensors"
    good = language().learner(bptt=5).feed("the ")
    good.save(path)
    content = path.read_bytes()
    with pytest.raises(TypeError, match="optimizer: expected one of crnn's"):
        language().learner(optimizer=Own()).save(path)
    blown = crnn.RNN(D, H, cell="relu", seed=0)
    blown.params["layer0.W_hh"][:] = 50 * np.eye(H)
    blown.params["layer0.b_h"][:] = 1
    learner = blown.learner(bptt=4)
    for _ in range(60):
        learner.step(np.ones(D))
    with pytest.raises(ValueError, match="expected finite values"):
        learner.save(path)
    with pytest.raises(OSError, match="nowhere"):
        good.save(tmp_path / "nowhere" / "l.safetensors")
    assert path.read_bytes() == content
    good._module.__class__ = type("Mine", (crnn.LanguageModel,), {})
    with pytest.raises(TypeError, match="Mine"):
        good.save(path)
    assert path.read_bytes() == content


def damage(name, change):
    """A change of an entry of the header, or of a tensor, given by its path."""

    def damaged(tensors, header):
        first, *rest = name.split("/")
        if first == "tensor":
            where, key = tensors, rest[0]
        else:
            where, key = header, first
            for part in rest:
                where, key = where[key], part
        value = change(where.get(key))
        if value is None:
            del where[key]
        else:
            where[key] = value

    return damaged


def out_of_range(array):
    changed = array.copy()
    changed.flat[0] = 99
    return changed


DAMAGES = {
    "kind": ("kind", lambda _: "checkpoint"),
    "no options": ("options", lambda _: None),
    "option unknown": ("options/bppt", lambda _: 3),
    "bptt huge": ("options/bptt", lambda _: 1 << 40),
    "bptt text": ("options/bptt", lambda _: "5"),
    "every too large": ("options/every", lambda _: 50),
    "streams": ("options/streams", lambda _: 2),
    "clip": ("options/clip_norm", lambda _: -1.0),
    "rule": ("optimizer/rule", lambda _: "Optimizer"),
    "rule list": ("optimizer/rule", lambda _: []),
    "arguments": ("optimizer/arguments", lambda _: {"lr": 0.1}),
    "argument text": ("optimizer/arguments/lr", lambda _: "a"),
    "argument nan": ("optimizer/arguments/eps", lambda _: float("nan")),
    "numbers": ("optimizer/numbers", lambda _: {"updates": 10**400}),
    "updates": ("optimizer/numbers/updates", lambda _: 0),
    "counts": ("counts/steps", lambda _: -1),
    "counts bool": ("counts/steps", lambda _: True),
    "window": ("counts/window", lambda _: 6),
    "fresh": ("counts/fresh", lambda value: value + 1),
    "flags": ("flags/frozen", lambda _: 1),
    "own": ("own", lambda _: {"ending": 3}),
    "own more": ("own", lambda _: {"ending": 0, "more": 1}),
    "model": ("model", lambda _: {"kind": "learner"}),
    "model kind": ("model/kind", lambda _: "RNN"),
    "inputs": ("tensor/window.inputs", out_of_range),
    "inputs half": ("tensor/window.inputs", lambda array: array + 0.5),
    "inputs shape": ("tensor/window.inputs", lambda array: array[:-1]),
    "targets": ("tensor/window.targets", out_of_range),
    "targets dtype": ("tensor/window.targets", lambda array: array.astype(np.float32)),
    "no resets": ("tensor/window.resets", lambda _: None),
    "resets": ("tensor/window.resets", out_of_range),
    "state": ("tensor/window.before.0", lambda array: array[:, :-1]),
    "to_reset": ("tensor/to_reset", out_of_range),
    "last": ("tensor/own.last", out_of_range),
    "known": ("tensor/own.known", out_of_range),
    "logits": ("tensor/own.logits", lambda array: array[:, 1:]),
    "moments": ("tensor/optimizer.m", lambda _: None),
    "negative moments": ("tensor/optimizer.v", lambda array: array - 1),
    "anchor": ("tensor/anchor", lambda array: array[1:]),
    "more": ("tensor/window.more", lambda _: np.zeros(3)),
    "weights": ("tensor/model.W_hy", lambda array: array[1:]),
    "not finite": ("tensor/window.before.0", lambda array: array * np.nan),
}


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("learner") / "l.safetensors"
    language().learner(bptt=5, max_change=0.5).feed(text(44)).save(path)
    return path.read_bytes()


@pytest.mark.parametrize("name", DAMAGES)
def test_a_file_that_contradicts_itself_is_refused(tmp_path, content, name):
    path = tmp_path / "l.safetensors"
    path.write_bytes(content)
    edit(path, damage(*DAMAGES[name]))
    with pytest.raises(crnn.ModelFileError, match=r"l\.safetensors: "):
        crnn.Learner.load(path)


def test_a_damaged_or_truncated_file_is_refused(tmp_path, content):
    path = tmp_path / "l.safetensors"
    flipped = bytearray(content)
    flipped[-20] ^= 1
    for broken in (content[:-1], content[: len(content) // 2], b"", flipped):
        path.write_bytes(broken)
        with pytest.raises(crnn.ModelFileError):
            crnn.Learner.load(path)


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 9), st.just(1 << 70), st.floats(allow_nan=False), st.text(max_size=3),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_header_holds_is_refused_or_makes_a_learner_that_learns(tmp_path, content, data):
    path = tmp_path / "l.safetensors"
    path.write_bytes(content)
    _, header = take_apart(path)
    group = data.draw(st.sampled_from(["options", "optimizer", "counts", "flags", "own"]))
    name = data.draw(st.sampled_from(sorted(header[group])))
    value = data.draw(VALUES)
    edit(path, lambda _, header: header[group].update({name: value}))
    try:
        learner = crnn.Learner.load(path)
    except crnn.ModelFileError:
        return
    assert np.isfinite(learner.surprisal("the other ")).all()
    learner.save(path)


@pytest.mark.parametrize("every", [4, 2])
def test_a_copy_after_a_reset_and_a_step_that_was_taken_back_continues_to_the_bit(every, rng):
    net = crnn.RNN(D, H, cell="lstm", seed=0)
    learner = net.learner(bptt=4, every=every)
    for _ in range(5):
        learner.step(rng.normal(size=D))
        learner.learn(rng.normal(size=H))
    learner.reset()
    learner.step(rng.normal(size=D))
    learner._take_back()
    restored, x = copy.copy(learner), rng.normal(size=D)
    assert same(restored.step(x), learner.step(x))


@pytest.mark.parametrize("optimizer", ["adam", "sgd(momentum=0.9)", "adagrad"])
@pytest.mark.parametrize("every", [4, 2])
def test_an_interrupt_at_any_line_leaves_a_learner_that_learns_and_can_be_copied(optimizer, every):
    """Also in the first windows, whose arrays are being made."""
    model, interrupts = language(cell="gru", embedding_size=40), 0
    for line in range(every, 1000, 13):
        learner = model.learner(bptt=4, every=every, optimizer=optimizer, lr=0.1)
        learner.feed(IDS[:4])
        interrupts += interrupted_at(line, partial(learner.feed, IDS[4:8]))
        twin = copy.copy(learner)
        assert same(learner.surprisal(IDS[8:20]), twin.surprisal(IDS[8:20])), line
        assert same(learner.model.flat_params, twin.model.flat_params), line
        assert np.isfinite(learner.model.flat_params).all()
        assert learner.updates > 1
    assert interrupts > 30
