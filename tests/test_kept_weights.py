# SPDX-License-Identifier: MIT
"""Packed weights are kept while no code can have changed the parameters, and never a call longer."""

import ctypes
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from model_tools import text

import crnn
from crnn.nn.cells import CELLS

X = np.random.default_rng(0).normal(size=(6, 2, 5)).astype(np.float32)
N, LABELS = np.ascontiguousarray(X.swapaxes(0, 1)).repeat(6, axis=0), np.arange(12) % 3


def network(cell="lstm", **options):
    """A network whose parameters have not been read, after calls that keep its packed weights."""
    net = crnn.RNN(5, 7, 2, cell, seed=0, **options)
    for _ in range(3):
        net(X)
    return net


def loaded(model):
    """The model as another process would load it."""
    return type(model).from_contents(*reversed(model.contents()))


def is_up_to_date(net):
    (y, state), (expected, state_expected) = net(X), loaded(net)(X)
    return y.tobytes() == expected.tobytes() and np.array_equal(np.asarray(state), np.asarray(state_expected))


def write_into_params(net):
    net.params["layer1.W_xh"][...] *= 1.5


def write_into_flat_params(net):
    net.flat_params[...] *= 1.5


def write_into_a_view_later(net):
    row = net.params["layer0.W_xh"][2]
    net(X), net(X)
    row[...] = 3


def write_into_a_dictionary_of_them_later(net):
    params = net.params
    net(X), net(X)
    params["layer0.W_xh"][0] = 3


def write_to_an_address_later(net):
    address, size = net.params["layer0.W_xh"].ctypes.data, 4
    net(X), net(X)
    ctypes.memmove(address, np.float32(3).tobytes(), size)


def update_by_an_optimizer(net):
    optimizer = crnn.optim.Adam(0.1)
    net.flat_grads[...] = 1
    optimizer.update(net.flat_params, net.flat_grads)


WRITERS = [
    write_into_params,
    write_into_flat_params,
    write_into_a_view_later,
    write_into_a_dictionary_of_them_later,
    write_to_an_address_later,
    update_by_an_optimizer,
]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_call_sees_every_change_of_the_parameters(cell, write):
    net = network(cell)
    before = net(X)[0].tobytes()
    write(net)
    assert net(X)[0].tobytes() != before
    assert is_up_to_date(net)


def test_a_network_whose_parameters_were_not_read_packs_its_weights_once(monkeypatch):
    net, packed = crnn.RNN(5, 7, 2, "gru", seed=0), []
    pack = net.stack.pack_forward
    monkeypatch.setattr(net.stack, "pack_forward", lambda tape: (packed.append(tape), pack(tape)))
    for x in (X, X, X[:4], X, X[:, :1]):
        net(x)
    assert len(packed) == 1
    assert net.params  # from now on anything may change
    net(X), net(X)
    assert len(packed) == 3


def test_a_model_whose_parameters_were_not_read_packs_its_weights_once(monkeypatch):
    model = crnn.SequenceClassifier(hidden_size=7, seed=0, epochs=1).fit(N, LABELS)
    packed, pack = [], model.net.stack.pack_forward
    monkeypatch.setattr(model.net.stack, "pack_forward", lambda tape: (packed.append(tape), pack(tape)))
    for _ in range(4):
        model.predict(N[:1])
    assert len(packed) <= 1


def changed_through_its_network(model):
    assert model.predict_proba(N[:1]).shape
    model.net.params["layer0.W_hh"][...] += 1


def changed_at_the_head(model):
    model.params["b_y"][...] = [1, 2, 3]
    model.predict_proba(N[:1])
    model.params["W_hy"][...] += [1, 2, 3]


def trained_further(model):
    model.set_params(warm_start=True)
    model.fit(N, LABELS)


@pytest.mark.parametrize("change", [changed_through_its_network, changed_at_the_head, trained_further])
def test_predictions_see_every_change_of_the_parameters(change):
    model = crnn.SequenceClassifier(hidden_size=7, seed=0, epochs=1, scale=False).fit(N, LABELS)
    before, _, _ = [model.predict_proba(N[:1]) for _ in range(3)]
    change(model)
    after = model.predict_proba(N[:1])
    assert after.tobytes() != before.tobytes()
    assert after.tobytes() == loaded(model).predict_proba(N[:1]).tobytes()


def test_validation_during_training_sees_the_weights_of_its_epoch():
    corpus = crnn.TextCorpus.from_text(text(400), valid=0.2)
    model = crnn.LanguageModel(corpus.vocab, "gru", 8, seed=0)
    crnn.fit(model, corpus, epochs=3, batch_size=2, bptt=8)
    assert model.evaluate(corpus.valid).loss == loaded(model).evaluate(corpus.valid).loss
    assert model._parameters.version is not None  # training hands out no array
    scores = model.score(["abc", "abd"])
    assert np.array_equal(scores, loaded(model).score(["abc", "abd"]))


class Keeping(crnn.optim.SGD):
    """A user's optimizer, which keeps the parameters that it has updated."""

    def _step(self, params, *rest):
        super()._step(params, *rest)
        self.kept = params


def wrapped():
    """An optimizer of crnn whose ``update`` a user has wrapped."""
    optimizer = crnn.optim.SGD(0.1)
    update = optimizer.update

    def keeping(params, *arguments, **options):
        update(params, *arguments, **options)
        vars(optimizer)["kept"] = params

    optimizer.update = keeping
    return optimizer


def listed(monkeypatch):
    """A user's optimizer that is in the list of crnn's."""
    monkeypatch.setitem(crnn.optim.RULES, "keeping", Keeping)
    return Keeping(0.1)


@pytest.mark.parametrize("kind", ["subclass", "wrapped", "listed"])
def test_scores_see_what_an_optimizer_of_the_user_writes_after_training(kind, monkeypatch):
    corpus = crnn.TextCorpus.from_text(text(400))
    optimizer = {"subclass": lambda: Keeping(0.1), "wrapped": wrapped, "listed": lambda: listed(monkeypatch)}[kind]()
    model = crnn.LanguageModel(corpus.vocab, "gru", 8, seed=0)
    crnn.fit(model, corpus, epochs=1, batch_size=2, bptt=8, optimizer=optimizer)
    before, _, _ = [model.score(["abc"]) for _ in range(3)]
    optimizer.kept[...] *= 2
    assert model.score(["abc"]) == loaded(model).score(["abc"]) != before


@pytest.mark.parametrize("kind", [crnn.SequenceClassifier, crnn.SequenceRegressor, crnn.LanguageModel])
def test_the_number_of_parameters_is_read_without_taking_them(kind):
    first = crnn.Vocab.from_text("abc") if kind is crnn.LanguageModel else 5
    last = {"num_classes": 3} if kind is crnn.SequenceClassifier else {}
    last |= {"output_size": 3} if kind is crnn.SequenceRegressor else {}
    model = kind(first, hidden_size=7, **last)
    assert model.net.num_parameters < model.num_parameters
    assert f"{model.num_parameters:,} parameters" in repr(model)
    assert model._parameters.version is not None
    assert model.num_parameters == sum(values.size for values in model.params.values())


def test_what_reads_a_model_does_not_get_writable_parameters(tmp_path):
    model = crnn.LanguageModel(crnn.Vocab.from_text("abc"), "lstm", 6, seed=0)
    version = model._parameters.version
    model.save(tmp_path / "m.safetensors")
    crnn.export_c(model, tmp_path / "m.c")
    model.stream().step(0)
    model.quantize(), model.net.frozen(), model.astype("float64"), repr(model), model.generate("a", length=3)
    assert model._parameters.version is version is not None
    read = [*model.contents()[0].values(), model._head.w, model._head.b_y]
    for array in read:
        assert not array.flags.writeable


@pytest.mark.parametrize("steps", [3, 300])
@pytest.mark.parametrize("cell", CELLS)
def test_losses_and_logits_of_a_window_belong_to_the_caller(cell, steps):
    model = crnn.LanguageModel(crnn.Vocab.from_text(text(400)), cell, 6, seed=0)
    ids = np.random.default_rng(0).integers(0, len(model.vocab), (4, steps + 1, 2)).astype(np.int32)

    def computed(model, window):
        losses, after = model.losses(window[:-1], window[1:])
        logits, after_too = model.forward(window[:-1], after)
        return [losses, *np.atleast_1d(after), logits, *np.atleast_1d(after_too)]

    results = [computed(model, window) for window in ids]
    assert not any(np.shares_memory(a, b) for a in results[0] for b in results[1])
    for found, window in zip(results, ids, strict=True):
        assert [a.tobytes() for a in found] == [a.tobytes() for a in computed(loaded(model), window)]


def test_windows_in_several_threads_do_not_share_memory():
    model = crnn.LanguageModel(crnn.Vocab.from_text(text(400)), "gru", 6, seed=0)
    ids = np.random.default_rng(0).integers(0, len(model.vocab), (40, 9, 2)).astype(np.int32)

    def losses(window):
        return model.losses(window[:-1], window[1:])[0].tobytes()

    expected = [losses(window) for window in ids]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(losses, ids)) == expected


def test_no_change_is_lost_between_two_that_happen_at_the_same_time():
    """At every bytecode of a change another one happens, after which a call keeps packed weights."""
    net = network()
    parameters = net._parameters
    packed = [parameters.version]

    def interleave(frame, event, _):
        frame.f_trace_opcodes = True
        if event == "opcode":
            parameters.changed()
            packed.append(parameters.version)
        return interleave

    before = sys.gettrace()
    sys.settrace(interleave)
    try:
        parameters.changed()
    finally:
        sys.settrace(before)
    assert len(packed) > 3
    assert len(set(map(id, packed))) == len(packed), "packed weights that have changed since count as up to date"
