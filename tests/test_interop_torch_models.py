# SPDX-License-Identifier: MIT
"""Whole models to and from PyTorch: classifiers, taggers, regressors, a user's own modules, single cells."""

import copy
import re

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from model_tools import stir

import crnn
from crnn import ModelFileError
from crnn.interop.torch import (
    from_module,
    from_state_dict,
    load_file,
    save_file,
    to_cell,
    to_module,
    to_state_dict,
)
from crnn.io import safetensors

N, T, D, H, V = 3, 6, 5, 7, 4
LENGTHS = np.array([4, 6, 1])
VOCAB = crnn.Vocab.from_text("abcd ")

MODELS = {
    "classifier": lambda **o: crnn.SequenceClassifier(D, V, H, **o),
    "tagger": lambda **o: crnn.SequenceTagger(D, V, H, **o),
    "regressor": lambda **o: crnn.SequenceRegressor(D, 2, H, **o),
}
OPTIONS = [
    ("classifier", {"pooling": "last", "bidirectional": True, "num_layers": 2, "cell": "lstm"}),
    ("classifier", {"pooling": "mean", "classes": ["a", "b", "c", "d"], "dropout": 0.3}),
    ("classifier", {"pooling": "max", "cell": "tanh", "multilabel": True, "dtype": "float64"}),
    ("classifier", {"pooling": "flatten", "steps": T, "cell": "relu"}),
    ("classifier", {"embedding_size": 3, "label_smoothing": 0.1, "class_weight": [1.0, 2.0, 3.0, 0.5]}),
    ("tagger", {"bidirectional": True, "cell": "gru"}),
    ("tagger", {"embedding_size": 3, "cell": "lstm", "classes": [3, 1, 4, 15]}),
    ("regressor", {"pooling": None, "loss": "quantile", "quantiles": [0.2, 0.5, 0.8]}),
    ("regressor", {"pooling": "last", "loss": "huber", "delta": 0.5, "bidirectional": True}),
]
ids = [f"{kind}-{'-'.join(str(value) for value in options.values())}" for kind, options in OPTIONS]
every_model = pytest.mark.parametrize(("kind", "options"), OPTIONS, ids=ids)


def model_of(kind, options, *, scaled=True):
    model = MODELS[kind](**options)
    stir(model.flat_params)
    if scaled:
        rng = np.random.default_rng(5)
        for name, scaling in model.scalings.items():
            if name == "x" and model.net.embedding_size is not None:
                continue  # inputs are ids
            scaling.mean, scaling.std = rng.normal(size=len(scaling.mean)), rng.uniform(0.5, 2, len(scaling.mean))
    return model


def inputs_of(model, rng):
    if model.net.embedding_size is not None:
        return rng.integers(D, size=(N, T))
    return rng.normal(size=(N, T, D)).astype(model.dtype)


def outputs_of(model, X):
    """Logits, or values in the units of the targets: one array per sequence."""
    data = model._data(model._sequences("X", X), [np.zeros((1, 1), np.int32)] * len(X))
    outputs = list(model._outputs(data, 2, 1))
    found = [model._targets.values(each) if isinstance(model, crnn.SequenceRegressor) else each for each in outputs]
    return [each[0] if model.pooling is not None else each for each in found]


def agree(got, expected, dtype):
    assert got.shape == expected.shape
    assert np.abs(expected).max() > 0
    tolerance = 3e-6 if dtype == "float32" else 1e-12
    assert np.abs(got - expected).max() <= tolerance * np.abs(expected).max()


# ---- without torch ---------------------------------------------------------------------------------------------------


@every_model
def test_a_model_comes_back_from_its_state_dict_bit_for_bit(tmp_path, kind, options):
    model = model_of(kind, options)
    given = {name: value for name, value in options.items() if name not in ("cell", "num_layers", "bidirectional")}
    given = {name: value for name, value in given.items() if name not in ("embedding_size", "dtype")}
    if kind == "classifier":
        given.setdefault("pooling", "max")
    nonlinearity = model.net.cell if model.net.cell in ("tanh", "relu") else None
    state = to_state_dict(model)
    again = from_state_dict(state, kind=kind, nonlinearity=nonlinearity, **given)
    assert again.to_bytes() == model.to_bytes()
    save_file(model, tmp_path / "m")
    again = load_file(tmp_path / "m", kind=kind, nonlinearity=nonlinearity, **given)
    assert again.to_bytes() == model.to_bytes()
    for array in state.values():
        array[...] = 0
    assert again.to_bytes() == model.to_bytes()


NAMES = {"prefix": "encoder.gru.", "head": "out.fc", "embedding": "emb"}


@pytest.mark.parametrize("tie_weights", [False, True])
def test_a_state_dict_has_the_names_of_another_module(tmp_path, tie_weights):
    model = crnn.LanguageModel(VOCAB, "gru", 4, embedding_size=4, tie_weights=tie_weights, seed=3)
    state = to_state_dict(model, **NAMES)
    assert {name.rpartition(".")[0] for name in state} == {"encoder.gru", "out.fc", "emb"}
    assert from_state_dict(state, vocab=VOCAB, **NAMES).to_bytes() == model.to_bytes()
    save_file(model, tmp_path / "m", **NAMES)
    again = load_file(tmp_path / "m", kind="language_model", vocab=VOCAB, head="out.fc", embedding="emb")
    assert again.to_bytes() == model.to_bytes()
    assert "a.weight_hh_l0" in to_state_dict(crnn.RNN(2, 3), "a.")


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ({"embedding": "emb"}, ValueError, "^embedding: expected none for a model without such a module, got 'emb'"),
        ({"head": 3}, TypeError, "^head: expected the name of a module, got int"),
        ({"prefix": b"a"}, TypeError, "^prefix: expected the name of a module, got bytes"),
    ],
)
def test_names_that_a_state_dict_cannot_have_are_refused(names, error, message):
    model = crnn.SequenceRegressor(2, 1, hidden_size=3, cell="gru")
    with pytest.raises(error, match=message):
        to_state_dict(model, **names)


def test_two_modules_of_a_state_dict_have_different_names():
    model = crnn.LanguageModel(VOCAB, "gru", 4, embedding_size=4, seed=3)
    with pytest.raises(ValueError, match=r"^prefix, head, embedding: expected different names, got 'a\.weight' twice"):
        to_state_dict(model, head="a", embedding="a")


@pytest.mark.parametrize("tie_weights", [False, True])
def test_a_language_model_comes_back_from_its_state_dict(tmp_path, tie_weights):
    model = crnn.LanguageModel(VOCAB, "gru", 4, 2, embedding_size=4, tie_weights=tie_weights, dropout=0.2, seed=3)
    state = to_state_dict(model)
    assert (state["head.weight"] is state["embedding.weight"]) == tie_weights
    assert from_state_dict(state, vocab=VOCAB, dropout=0.2).to_bytes() == model.to_bytes()
    save_file(model, tmp_path / "m")
    assert load_file(tmp_path / "m", kind="language_model", vocab=VOCAB, dropout=0.2).to_bytes() == model.to_bytes()
    one_hot = crnn.LanguageModel(VOCAB, "lstm", 4, seed=3)
    assert from_state_dict(to_state_dict(one_hot), vocab=VOCAB).to_bytes() == one_hot.to_bytes()


def user_tensors(rng, **more):
    """The tensors of somebody's own module."""
    tensors = {"enc.weight_ih_l0": (4 * H, D), "enc.weight_hh_l0": (4 * H, H)}
    tensors |= {"enc.bias_ih_l0": (4 * H,), "enc.bias_hh_l0": (4 * H,), "fc.weight": (V, H), "fc.bias": (V,)}
    return {name: rng.normal(size=shape).astype("f4") for name, shape in (tensors | more).items()}


def test_the_head_is_the_matrix_that_fits(rng):
    tensors = user_tensors(rng)
    model = from_state_dict(tensors, kind="classifier", classes=list("wxyz"))
    assert (model.pooling, model.classes, model.scale) == ("last", list("wxyz"), False)
    assert_same_bits(model.params["W_hy"], np.ascontiguousarray(tensors["fc.weight"].T))
    assert_same_bits(model.params["b_y"], tensors["fc.bias"])
    named = from_state_dict(tensors, "enc.", kind="classifier", head="fc", classes=list("wxyz"))
    assert named.to_bytes() == model.to_bytes()
    del tensors["fc.bias"]
    assert not from_state_dict(tensors, kind="tagger").params["b_y"].any()


def test_what_was_standardised_in_pytorch_takes_raw_numbers_here(rng):
    tensors, mean, std = user_tensors(rng), rng.normal(size=D), rng.uniform(1, 2, D)
    X = rng.normal(size=(N, T, D))
    raw = from_state_dict(tensors, kind="regressor", scaling={"x": (mean, std), "y": ([1, 2, 3, 4], [2, 2, 2, 2])})
    plain = from_state_dict(tensors, kind="regressor")
    expected = plain.predict((X - mean) / std) * 2 + [1, 2, 3, 4]
    assert np.allclose(raw.predict(X), expected, atol=1e-5)
    assert raw.scale
    assert raw.is_scaled


def test_training_goes_on_from_the_scaling_that_the_weights_have(rng):
    """A converted model is not standardised again: its weights are made for the numbers that it takes."""
    model = from_state_dict(user_tensors(rng), kind="classifier")
    X = rng.normal(100, 20, size=(8, T, D))
    model.fit(X, np.arange(8) % V, epochs=1, valid=None)
    assert not model.is_scaled


WRONG = {
    "fc.weight: a layer between": (
        {"kind": "classifier"},
        {"norm.weight": (H,), "norm.bias": (H,)},
        "and no others, got 'norm.bias', 'norm.weight'",
    ),
    "two heads": (
        {"kind": "tagger"},
        {"aux.weight": (2, H), "aux.bias": (2,)},
        "head: expected the name of one module, because several fit: 'aux', 'fc'",
    ),
    "two heads, one chosen": ({"kind": "tagger", "head": "fc"}, {"aux.weight": (2, H)}, "no others, got 'aux.weight'"),
    "another parameter": ({"kind": "tagger"}, {"h0": (1, H)}, "and no others, got 'h0'"),
    "no such head": ({"kind": "tagger", "head": "out"}, {}, "head: expected a module with a weight, one of 'fc', got"),
    "an embedding that does not fit": (
        {"kind": "tagger", "embedding": "emb"},
        {"emb.weight": (9, 2)},
        "embedding.weight: expected float32 of shape (9, 5), got float32 of shape (9, 2)",
    ),
    "a head of another width": (
        {"kind": "tagger", "head": "aux"},
        {"aux.weight": (2, 3)},
        "no others, got 'fc.bias', 'fc.weight'",
    ),
    "a number of quantiles": (
        {"kind": "regressor", "loss": "quantile"},
        {},
        "quantiles: expected a number that divides the 4 outputs of the head, got 3",
    ),
    "names of classes": ({"kind": "tagger", "classes": ["a"]}, {}, "classes"),
    "an unknown kind": ({"kind": "encoder"}, {}, "kind: expected one of language_model, classifier, tagger, regressor"),
    "a scaling of another size": (
        {"kind": "tagger", "scaling": {"x": ([0.0], [1.0])}},
        {},
        "scaling.x.mean: expected float64 of shape (5,), got float64 of shape (1,)",
    ),
    "a scaling that a tagger has not": (
        {"kind": "tagger", "scaling": {"y": ([0.0], [1.0])}},
        {},
        "scaling: expected that of a model that scales, got scaling.y.mean",
    ),
    "a std of 0": (
        {"kind": "tagger", "scaling": {"x": (np.zeros(D), np.zeros(D))}},
        {},
        "scaling.x.std: expected numbers above 0",
    ),
    "a vocabulary": ({"kind": "tagger", "vocab": VOCAB}, {}, "vocab: expected none for kind='tagger', got a Vocab"),
}


@pytest.mark.parametrize("case", WRONG)
def test_tensors_without_a_place_and_wrong_arguments_are_named(tmp_path, rng, case):
    arguments, more, message = WRONG[case]
    tensors = user_tensors(rng, **more)
    with pytest.raises(ValueError, match=re.escape(message)):
        from_state_dict(tensors, **arguments)
    (tmp_path / "m").write_bytes(safetensors.to_bytes(tensors, {}))
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load_file(tmp_path / "m", **arguments)
    if isinstance(caught.value, ModelFileError):
        assert str(tmp_path / "m") in str(caught.value)


def test_a_kind_may_be_said_by_its_class_and_containers_are_checked(rng):
    tensors = user_tensors(rng)
    expected = from_state_dict(tensors, kind="tagger").to_bytes()
    assert from_state_dict(tensors, kind="SequenceTagger").to_bytes() == expected
    assert from_state_dict(tensors, kind=crnn.SequenceTagger).to_bytes() == expected
    with pytest.raises(TypeError, match=r"^state_dict: expected a mapping of names to tensors, got list"):
        from_state_dict([tensors])
    with pytest.raises(TypeError, match=r"^scaling: expected a mapping such as {'x': \(mean, std\)}, got tuple"):
        from_state_dict(tensors, kind="tagger", scaling=(0.0, 1.0))
    for scaling in ({"x": "ab"}, {"x": (0.0,)}, {"z": (0.0, 1.0)}):
        with pytest.raises(ValueError, match=r"^scaling: expected x or y, each with a pair \(mean, std\), got"):
            from_state_dict(tensors, kind="tagger", scaling=scaling)
    with pytest.raises((TypeError, ValueError), match=r"^scaling\['x'\]"):
        from_state_dict(tensors, kind="tagger", scaling={"x": ("a", "b")})


def test_options_that_no_model_has_or_that_the_tensors_determine_are_refused(rng):
    tensors = user_tensors(rng)
    for option in ({"hidden_size": 3}, {"poling": "max"}, {"quantiles": [0.5]}):
        with pytest.raises(TypeError, match=f"^{next(iter(option))}: expected an option of a SequenceClassifier that"):
            from_state_dict(tensors, kind="classifier", **option)
    with pytest.raises(TypeError, match=r"^pooling: expected with a kind, which is not given"):
        from_state_dict(tensors, pooling="max")
    with pytest.raises(TypeError, match=r"^kind: expected one of .* with a head or an embedding, got None"):
        from_state_dict(tensors, head="fc")
    with pytest.raises(ValueError, match=r"^head: expected a matrix .* found none among no tensors"):
        from_state_dict({name: array for name, array in tensors.items() if "enc" in name}, kind="tagger")


def test_a_pickle_of_pytorch_is_refused_with_what_to_do(tmp_path):
    for content in (b"PK\x03\x04" + bytes(100), b"\x80\x02" + bytes(100)):
        (tmp_path / "m.pt").write_bytes(content)
        with pytest.raises(ModelFileError, match=r"a file of torch\.save, .* safetensors\.torch\.save_file"):
            load_file(tmp_path / "m.pt")
    with pytest.raises(FileNotFoundError):
        load_file(tmp_path / "none")


@pytest.mark.parametrize("cell", ["tanh", "relu", "gru", "lstm"])
def test_a_single_cell_is_a_network_of_one_layer(rng, cell):
    gates = {"gru": 3, "lstm": 4}.get(cell, 1)
    shapes = {"weight_ih": (gates * H, D), "weight_hh": (gates * H, H)}
    shapes |= {"bias_ih": (gates * H,), "bias_hh": (gates * H,)}
    tensors = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    nonlinearity = cell if cell == "relu" else None
    stack = from_state_dict({name + "_l0": array for name, array in tensors.items()}, nonlinearity=nonlinearity)
    for prefix in ("", "step.cell."):
        net = from_state_dict({prefix + name: array for name, array in tensors.items()}, nonlinearity=nonlinearity)
        assert net.to_bytes() == stack.to_bytes()
    with pytest.raises(ValueError, match="expected weight_ih, weight_hh, bias_ih, bias_hh of a cell and no other, got"):
        from_state_dict(tensors | {"weight_hr": tensors["weight_hh"]})


# ---- with torch ------------------------------------------------------------------------------------------------------


@every_model
def test_a_model_and_its_module_compute_the_same_and_it_comes_back(torch, rng, kind, options):
    model = model_of(kind, options)
    module = to_module(model)
    again = from_module(module)
    assert again.to_bytes() == model.to_bytes()
    assert {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()} == {
        name: array.shape for name, array in to_state_dict(model).items()
    }
    X = inputs_of(model, rng)
    module.eval()
    with torch.no_grad():
        whole = module(torch.from_numpy(X)).numpy()
        agree(whole, np.stack(outputs_of(model, X)), model.dtype)
        if model.steps is None:
            ragged = module(torch.from_numpy(X), torch.from_numpy(LENGTHS)).numpy()
            expected = outputs_of(model, [x[:length] for x, length in zip(X, LENGTHS, strict=True)])
            for got, values, length in zip(ragged, expected, LENGTHS, strict=True):
                agree(got if model.pooling is not None else got[:length], values, model.dtype)


def test_a_models_module_can_be_trained_and_drops_before_its_head(torch, rng):
    module = to_module(model_of("classifier", {"pooling": "max", "dropout": 0.4}))
    X, y = torch.from_numpy(inputs_of(from_module(module), rng)), torch.tensor([0, 1, 2])
    assert not torch.equal(module(X), module(X))
    module.eval()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    first = torch.nn.functional.cross_entropy(module(X), y)
    first.backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in module.parameters())
    optimizer.step()
    assert torch.nn.functional.cross_entropy(module(X), y) < first
    trained = from_module(module)
    agree(np.stack(outputs_of(trained, X.numpy())), module(X).detach().numpy(), "float32")
    assert module.double()(X.double()).dtype == torch.float64


def user_module(torch, body):
    """Somebody's own module with these modules, by name."""

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name, child in body.items():
                setattr(self, name, child)

    return Net()


@pytest.mark.parametrize("kind", MODELS)
def test_a_users_own_module_is_read_by_the_types_in_it(torch, rng, kind):
    nn = torch.nn
    torch.manual_seed(3)
    parts = {"gru": nn.GRU(D, H, batch_first=True, bidirectional=True), "drop": nn.Dropout(0.25)}
    parts |= {"out": nn.Linear(2 * H, V)}
    module = user_module(torch, parts)
    model = from_module(module, kind=kind, **({} if kind == "tagger" else {"pooling": "mean"}))
    assert model.net.dropout == 0.25
    X = inputs_of(model, rng)
    y, _ = module.gru(torch.from_numpy(X))
    expected = module.out(y if kind == "tagger" else y.mean(1)).detach().numpy()
    agree(np.stack(outputs_of(model, X)), expected, "float32")
    explicit = from_module(module.gru, head=module.out, kind=kind, dropout=0.25, **(
        {} if kind == "tagger" else {"pooling": "mean"}))  # fmt: skip
    assert explicit.to_bytes() == model.to_bytes()
    whole = from_module(user_module(torch, {"inner": nn.Sequential(module.gru, module.out)}), kind=kind, dropout=0.25,
                        **({} if kind == "tagger" else {"pooling": "mean"}))  # fmt: skip
    assert whole.to_bytes() == model.to_bytes()


def test_an_embedding_and_a_softmax_belong_to_a_classifier(torch, rng):
    nn = torch.nn
    module = user_module(torch, {"emb": nn.Embedding(9, D), "rnn": nn.LSTM(D, H), "fc": nn.Linear(H, V),
                                 "probabilities": nn.LogSoftmax(-1), "loss": nn.CrossEntropyLoss()})  # fmt: skip
    model = from_module(module, kind="classifier")
    X = rng.integers(9, size=(N, T))
    y, _ = module.rnn(module.emb(torch.from_numpy(X).T))
    expected = module.probabilities(module.fc(y[-1])).exp().detach().numpy()
    agree(model.predict_proba(X), expected, "float32")
    text = from_module(user_module(torch, {"emb": nn.Embedding(len(VOCAB), D), "rnn": nn.GRU(D, H),
                                           "fc": nn.Linear(H, len(VOCAB))}), vocab=VOCAB)  # fmt: skip
    assert isinstance(text, crnn.LanguageModel)
    assert from_module(to_module(text), vocab=VOCAB).to_bytes() == text.to_bytes()
    alone = from_module(user_module(torch, {"emb": nn.Embedding(9, D), "rnn": nn.GRU(D, H)}))
    assert (type(alone), alone.embedding_size) == (crnn.RNN, D)


def test_a_list_of_recurrent_modules_is_a_stack(torch, rng):
    nn = torch.nn
    parts = [nn.LSTM(D, 4, 2, batch_first=True, dropout=0.3), nn.LSTM(4, 6, batch_first=True)]
    head = nn.Linear(6, V)
    model = from_module(parts, head=head, kind="tagger")
    assert (model.net.hidden_sizes, model.net.dropout) == ((4, 4, 6), 0.3)
    for part in parts:
        part.eval()
    X = inputs_of(model, rng)
    expected = head(parts[1](parts[0](torch.from_numpy(X))[0])[0]).detach().numpy()
    agree(np.stack(outputs_of(model, X)), expected, "float32")
    cells = [nn.GRUCell(D, H), nn.GRUCell(H, 3)]
    assert from_module(tuple(cells)).hidden_size == [H, 3]
    for second, message in (
        (nn.LSTM(5, 6), "module[1]: expected input_size 4 after those before, got 5"),
        (nn.GRU(4, 6), "module[1]: expected cell lstm after those before, got gru"),
        (nn.LSTM(4, 6, bidirectional=True), "module[1]: expected number of directions 1 after those before, got 2"),
        (nn.LSTM(4, 6).double(), "module[1]: expected dtype float32 after those before, got float64"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            from_module([parts[0], second], head=head, kind="tagger")
    with pytest.raises(TypeError, match=r"module: expected a torch\.nn\.Module, got list"):
        from_module([])


@pytest.mark.parametrize("kind", ["classifier", "tagger"])
def test_one_logit_is_that_of_the_second_of_two_classes(torch, rng, kind):
    nn = torch.nn
    parts = {"rnn": nn.LSTM(D, H, batch_first=True), "fc": nn.Linear(H, 1), "p": nn.Sigmoid()}
    module = user_module(torch, parts)
    model = from_module(module, kind=kind, classes=["quiet", "event"])
    X = inputs_of(model, rng)
    y, _ = module.rnn(torch.from_numpy(X))
    expected = module.p(module.fc(y[:, -1] if kind == "classifier" else y))[..., 0].detach().numpy()
    agree(model.predict_proba(X)[..., 1], expected, "float32")
    assert (model.predict(X) == np.where(expected > 0.5, "event", "quiet")).all()
    labels = from_module(user_module(torch, parts), kind=kind, multilabel=True)
    assert labels.params["W_hy"].shape == (H, 1)
    with pytest.raises(ValueError, match=r"got 'p', an nn\.Softmax"):
        from_module(user_module(torch, parts | {"p": nn.Softmax(1)}), kind=kind)
    with pytest.raises(ValueError, match=r"got 'p', an nn\.Sigmoid"):
        from_module(user_module(torch, parts | {"fc": nn.Linear(H, 3)}), kind=kind)


def test_wrapped_modules_are_read_and_a_models_module_is_copied_and_pickled(torch, tmp_path):
    nn = torch.nn
    module = user_module(torch, {"rnn": nn.GRU(D, H), "fc": nn.Linear(H, V)})
    plain = from_module(module, kind="tagger").to_bytes()
    assert from_module(nn.DataParallel(module), kind="tagger").to_bytes() == plain
    assert from_module(torch.compile(module, backend="eager"), kind="tagger").to_bytes() == plain
    model = model_of("regressor", {"pooling": None})
    torch.save(to_module(model), tmp_path / "m")
    for again in (torch.load(tmp_path / "m", weights_only=False), copy.deepcopy(to_module(model))):
        assert from_module(again).to_bytes() == model.to_bytes()


def refusals(torch):
    nn = torch.nn
    good = {"rnn": nn.GRU(D, H), "fc": nn.Linear(H, V)}
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(H, V))
    parameter = user_module(torch, good)
    parameter.h0 = nn.Parameter(torch.zeros(H))
    buffered = user_module(torch, good)
    buffered.register_buffer("mean", torch.zeros(D), persistent=False)
    yield user_module(torch, good | {"norm": nn.LayerNorm(H)}), "got 'norm', an nn.LayerNorm, which the model would not"
    yield user_module(torch, good | {"act": nn.ReLU()}), "got 'act', an nn.ReLU"
    yield user_module(torch, good | {"conv": nn.Conv1d(1, 2, 3)}), "got 'conv', an nn.Conv1d"
    yield user_module(torch, good | {"aux": nn.Linear(H, 2)}), "one nn.Linear, got 'fc', 'aux'; give the modules"
    yield user_module(torch, good | {"b": nn.LSTM(D, H)}), "got 'rnn', 'b'; give the modules, as in from_module([m"
    yield user_module(torch, {"fc": nn.Linear(H, V)}), "expected one recurrent module, got no tensors"
    yield user_module(torch, good | {"e": nn.Embedding(3, D), "f": nn.Embedding(3, D)}), "nn.Embedding, got 'e', 'f'"
    yield parameter, "and no others, got 'h0'"
    yield buffered, "and no others, got 'mean'"
    yield user_module(torch, good | {"fc": normed}), "got 'fc.parametrizations.weight.0', an nn._WeightNorm"
    yield user_module(torch, good | {"rnn": nn.LSTM(D, H, proj_size=2)}), "of a projection (proj_size)"
    yield user_module(torch, good | {"rnn": nn.GRU(D, H, device="meta")}), "values, got a tensor without memory"
    yield user_module(torch, {"rnn": nn.GRU(D, H), "fc": nn.LazyLinear(V)}), "expected values, got a tensor without"
    yield user_module(torch, good | {"drop": nn.Dropout(0.1), "more": nn.Dropout(0.2)}), "got 0.1, 0.2; give dropout="
    yield user_module(torch, good | {"fc": nn.Linear(H + 1, V)}), "head.weight: expected float32 of shape (4, 7)"
    yield user_module(torch, good | {"fc": nn.Linear(H, V).double()}), "head.weight: expected float32"


def test_a_dropout_that_is_given_decides(torch):
    nn = torch.nn
    several = {"rnn": nn.GRU(D, H, 2, dropout=0.1), "drop": nn.Dropout(0.5), "fc": nn.Linear(H, V)}
    with pytest.raises(ValueError, match=r"got 0\.1, 0\.5; give dropout="):
        from_module(user_module(torch, several), kind="tagger")
    assert from_module(user_module(torch, several), kind="tagger", dropout=0.2).net.dropout == 0.2


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_modules_that_are_no_such_model_are_refused_by_name(torch):
    for module, message in refusals(torch):
        with pytest.raises(ValueError, match=re.escape(message)):
            from_module(module, kind="classifier")


def test_what_a_module_is_must_be_said(torch):
    nn = torch.nn
    module = user_module(torch, {"rnn": nn.GRU(D, H), "fc": nn.Linear(H, V)})
    with pytest.raises(TypeError, match="got GRU; from_module takes modules"):
        from_state_dict(module.rnn)
    with pytest.raises(TypeError, match="got OrderedDict; from_state_dict takes state dictionaries"):
        from_module(module.state_dict())
    twice = user_module(torch, {"rnn": module.rnn, "layers": nn.ModuleList([module.rnn]), "fc": module.fc})
    assert from_module(twice, kind="tagger").to_bytes() == from_module(module, kind="tagger").to_bytes()
    with pytest.raises(TypeError, match=r"^kind: expected one of .* because there is a head, got None"):
        from_module(module)
    with pytest.raises(TypeError, match=r"^module: expected an nn\.RNN, .* with head= or embedding=, got Net"):
        from_module(module, head=module.fc, kind="tagger")
    with pytest.raises(TypeError, match=r"^pooling: expected with a head and a kind"):
        from_module(module.rnn, pooling="max")
    with pytest.raises(TypeError, match=r"^head: expected an nn\.Linear, got NoneType"):
        from_module(module.rnn, kind="tagger")
    with pytest.raises(ValueError, match=r"an nn\.Softmax, which the model would not"):
        from_module(user_module(torch, {"rnn": module.rnn, "fc": module.fc, "p": nn.Softmax(1)}), kind="regressor")
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(H, V))
    with pytest.raises(ValueError, match=r"^head: .* got 'head\.parametrizations\.weight\.original0'"):
        from_module(module.rnn, head=normed, kind="tagger")


@pytest.mark.parametrize("cell", ["tanh", "relu", "gru", "lstm"])
def test_a_cell_goes_both_ways(torch, rng, cell):
    net = crnn.RNN(D, H, cell=cell, seed=3)
    stir(net.flat_params)
    module = to_cell(net)
    assert from_module(module).to_bytes() == net.to_bytes()
    x = rng.normal(size=(T, N, D)).astype("f4")
    state = None
    y, _ = net(x)
    with torch.no_grad():
        for t in range(T):
            state = module(torch.from_numpy(x[t]), state)
            agree(y[t], (state[0] if cell == "lstm" else state).numpy(), "float32")
    inside = user_module(torch, {"cell": module, "fc": torch.nn.Linear(H, V)})
    assert_same_bits(from_module(inside, kind="tagger").net.flat_params, net.flat_params)
    for wrong in ({"num_layers": 2}, {"bidirectional": True}, {"embedding_size": 3}):
        with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: expected .*, which a cell of PyTorch can express"):
            to_cell(crnn.RNN(D, H, cell=cell, **wrong))
    with pytest.raises(TypeError, match="model: expected one of RNN, got SequenceTagger"):
        to_cell(MODELS["tagger"]())


def test_what_a_sequence_model_has_and_pytorch_has_not_is_refused(torch):
    with pytest.raises(ValueError, match="cell: expected one that PyTorch has, got 'min_gru'"):
        to_module(MODELS["tagger"](cell="min_gru"))
    with pytest.raises(ValueError, match="variational_dropout: expected False"):
        to_module(MODELS["tagger"](dropout=0.1, variational_dropout=True))
    with pytest.raises(ValueError, match="model: expected one with weights, got one that waits for fit"):
        to_module(crnn.SequenceTagger())
