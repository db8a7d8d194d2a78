# SPDX-License-Identifier: MIT
"""To and from modules of PyTorch: recurrent ones and language models, against torch itself."""

import re
from pathlib import Path

import pytest
from kernel_tools import assert_same_bits
from model_tools import stir
from torch_tools import LENGTHS, B, D, H, T, agree, cells, directions, layers, network, nonlinearity, parts, state_like

import crnn
from crnn.interop.torch import from_module, from_state_dict, load_file, save_file, to_module, to_state_dict

PAGE = Path(__file__).parents[1] / "docs" / "pytorch.md"  # not there when a wheel is tested


def torch_module(torch, cell, L=2, dtype="float32", size=D, **options):
    if cell in ("tanh", "relu"):
        options["nonlinearity"] = cell
    kind = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM}.get(cell, torch.nn.RNN)
    torch.manual_seed(4)
    return kind(size, H, L, dtype=getattr(torch, dtype), **options)


def run_torch(torch, module, x, state, lengths=None):
    """Outputs and the parts of the state, as arrays, zero where a row has ended."""
    with torch.no_grad():
        x = torch.from_numpy(x)
        if lengths is not None:
            x = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
        first = tuple(torch.from_numpy(part) for part in parts(state))
        y, state = module(x, first if len(first) == 2 else first[0])
        if lengths is not None:
            y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, total_length=T)
    return y.numpy(), [part.numpy() for part in parts(state)]


def runs_agree(torch, rng, net, module, lengths):
    x = rng.normal(size=(T, B, D)).astype(net.dtype)
    state = state_like(rng, net.cell, net.num_layers * (1 + net.bidirectional), net.dtype)
    expected, state_expected = run_torch(torch, module, x, state, lengths)
    y, state = net(x, state, **{"lengths": lengths} if lengths else {})
    agree(y, expected)
    assert len(parts(state)) == len(state_expected)
    for got, part in zip(parts(state), state_expected, strict=True):
        agree(got, part)


@cells
@layers
@directions
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_module_carries_over(torch, rng, dtype, cell, L, bidirectional, lengths, bias):
    module = torch_module(torch, cell, L, dtype.name, bidirectional=bidirectional, bias=bias)
    net = from_module(module)
    assert (net.cell, net.num_layers, net.bidirectional, net.dtype) == (cell, L, bidirectional, dtype.name)
    runs_agree(torch, rng, net, module, lengths)
    same = from_state_dict(module.state_dict(), nonlinearity=nonlinearity(cell))
    assert_same_bits(same.flat_params, net.flat_params)


@cells
@layers
@directions
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
def test_a_network_carries_over(torch, rng, dtype, cell, L, bidirectional, lengths):
    net = network(cell, L, bidirectional=bidirectional, dtype=dtype.name)
    module = to_module(net)
    runs_agree(torch, rng, net, module, lengths)
    assert_same_bits(from_module(module).flat_params, net.flat_params)
    kind = torch_module(torch, cell, L, dtype.name, bidirectional=bidirectional)
    assert repr(module) == repr(kind)
    kind.load_state_dict({name: torch.from_numpy(array) for name, array in to_state_dict(net).items()})
    runs_agree(torch, rng, net, kind, lengths)


def test_a_module_made_here_can_be_trained_and_moved(torch, rng):
    net = network("lstm")
    before = net.flat_params.copy()
    module = to_module(net)
    assert module.training
    x = torch.from_numpy(rng.normal(size=(T, B, D)).astype("float32"))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    first = module(x)[0].square().sum()
    first.backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in module.parameters())
    optimizer.step()
    assert module(x)[0].square().sum() < first
    assert module.double()(x.double())[0].dtype == torch.float64
    assert_same_bits(net.flat_params, before)  # shares no memory


def test_to_module_draws_nothing_from_torchs_generator(torch):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    to_module(network("gru"))
    to_module(language_model("lstm", embedding_size=D))
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_carries_over_both_ways(torch):
    assert from_module(torch_module(torch, "gru", dropout=0.3)).dropout == 0.3
    assert to_module(network("gru", dropout=0.3)).dropout == 0.3
    assert to_module(network("gru", 1, dropout=0.3)).dropout == 0  # nothing lies between the layers
    with pytest.raises(ValueError, match="variational_dropout: expected False, as PyTorch's dropout is, got True"):
        to_module(network("gru", dropout=0.3, variational_dropout=True))
    assert to_module(network("gru", variational_dropout=True)).dropout == 0  # of no effect


def test_batch_first_concerns_only_how_arrays_lie(torch, rng):
    net = from_module(torch_module(torch, "lstm", batch_first=True))
    runs_agree(torch, rng, net, torch_module(torch, "lstm"), None)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_a_module_in_half_precision_becomes_float32(torch, name):
    module = torch_module(torch, "gru").to(getattr(torch, name))
    net = from_module(module)
    assert net.dtype == "float32"
    assert_same_bits(net.params["layer1.W_hh"].T.copy(), module.weight_hh_l1.detach().float().numpy())


@pytest.mark.parametrize("name", ["float64", "float32", "float16", "bfloat16"])
def test_files_go_both_ways(torch, tmp_path, name):
    safetensors = pytest.importorskip("safetensors.torch")
    module = torch_module(torch, "lstm", bidirectional=True).to(getattr(torch, name))
    safetensors.save_file(module.state_dict(prefix="encoder.lstm."), tmp_path / "m")
    net = load_file(tmp_path / "m", "encoder.lstm.")
    assert_same_bits(net.flat_params, from_module(module).flat_params)
    save_file(net, tmp_path / "back")
    again = torch_module(torch, "lstm", bidirectional=True, dtype=net.dtype)
    again.load_state_dict(safetensors.load_file(tmp_path / "back"))
    assert_same_bits(from_module(again).flat_params, net.flat_params)


def test_modules_without_a_counterpart_are_refused(torch):
    with pytest.raises(TypeError, match=r"module: expected a torch\.nn\.Module, got str"):
        from_module("lstm")
    with pytest.raises(ValueError, match="got 'weight_hr_l0' of a projection"):
        from_module(torch.nn.LSTM(D, H, proj_size=3))
    normed = torch.nn.utils.parametrizations.spectral_norm(torch.nn.GRU(D, H), "weight_hh_l0")
    with pytest.raises(ValueError, match=r"no other, got 'parametrizations\.weight_hh_l0\.original'"):
        from_module(normed)
    with pytest.raises(TypeError, match=r"model: expected one of RNN, LanguageModel, .*, got str"):
        to_module("net")
    with pytest.raises(ValueError, match="model: expected an RNN without an embedding, got embedding_size=3"):
        to_module(crnn.RNN(D, H, 1, "gru", embedding_size=3))
    with pytest.raises(ValueError, match=r"trainable_initial_state: expected False, as in PyTorch, got the parameters"):
        to_module(language_model("gru", trainable_initial_state=True))


# ---- language models -------------------------------------------------------------------------------------------------

VOCAB = crnn.Vocab.from_text("hello, new world!\n")
V = len(VOCAB)


def language_model(cell="lstm", L=2, **options):
    model = crnn.LanguageModel(VOCAB, cell, H, L, **{"seed": 3} | options)
    stir(model.flat_params)
    return model


def models_agree(torch, rng, model, run):
    ids = rng.integers(V, size=(T, B))
    state = state_like(rng, model.net.cell, model.net.num_layers, model.dtype)
    with torch.no_grad():
        first = tuple(torch.from_numpy(part) for part in parts(state))
        expected, state_expected = run(torch.from_numpy(ids), first if len(first) == 2 else first[0])
    logits, state = model.forward(ids, state)
    agree(logits, expected)
    for got, part in zip(parts(state), parts(state_expected), strict=True):
        agree(got, part)


INPUTS = {"one-hot": {}, "embedding": {"embedding_size": D}, "tie_weights": {"embedding_size": H, "tie_weights": True}}


@cells
@pytest.mark.parametrize("L", [1, 2])
@pytest.mark.parametrize("given", INPUTS)
def test_a_language_model_comes_back_from_a_module(torch, rng, dtype, cell, L, given):
    model = language_model(cell, L, dropout=0.25, dtype=dtype.name, **INPUTS[given])
    module = to_module(model)
    assert module.training
    assert module.dropout.p == 0.25
    assert (module.head.weight is getattr(module.embedding, "weight", None)) == (given == "tie_weights")
    module.eval()
    models_agree(torch, rng, model, module)
    assert module(torch.zeros((T, B), dtype=torch.int64))[0].shape == (T, B, V)  # from a zero state
    embedding = None if given == "one-hot" else module.embedding
    again = from_module(module.rnn, head=module.head, embedding=embedding, vocab=VOCAB)
    assert_same_bits(again.flat_params, model.flat_params)
    assert again.config() == model.config() | {"dropout": again.config()["dropout"]}
    assert again.vocab == model.vocab


def test_a_language_models_module_can_be_trained(torch, rng):
    model = language_model("gru", embedding_size=H, tie_weights=True)
    before = model.flat_params.copy()
    module = to_module(model)
    assert len(list(module.parameters())) == 2 * 4 + 2  # two layers, and the matrix that head and embedding share
    ids = torch.from_numpy(rng.integers(V, size=(T + 1, B)))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)

    def loss():
        return torch.nn.functional.cross_entropy(module(ids[:-1])[0].reshape(-1, V), ids[1:].reshape(-1))

    first = loss()
    first.backward()
    optimizer.step()
    assert loss() < first
    assert_same_bits(model.flat_params, before)


def test_a_language_models_module_drops_before_its_head_while_training(torch):
    module = to_module(language_model("gru", 1, dropout=0.5))
    ids = torch.zeros((T, B), dtype=torch.int64)
    assert not torch.equal(module(ids)[0], module(ids)[0])
    module.eval()
    assert torch.equal(module(ids)[0], module(ids)[0])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("embedded", [True, False])
def test_a_language_model_is_made_of_modules(torch, rng, bias, embedded):
    rnn = torch_module(torch, "gru", size=D if embedded else V, dropout=0.2).eval()
    embedding = torch.nn.Embedding(V, D, padding_idx=0) if embedded else None
    head = torch.nn.Linear(H, V, bias=bias)
    model = from_module(rnn, head=head, embedding=embedding, vocab=VOCAB)
    assert model.net.dropout == 0.2

    def run(ids, state):
        x = embedding(ids) if embedded else torch.nn.functional.one_hot(ids, V).float()
        y, state = rnn(x, state)
        return head(y), state

    models_agree(torch, rng, model, run)


def test_parts_that_do_not_fit_each_other_are_refused(torch):
    nn = torch.nn
    rnn, head, embedding = nn.GRU(D, H), nn.Linear(H, V), nn.Embedding(V, D)
    whole = {"head": head, "embedding": embedding, "vocab": VOCAB}
    for changed, error, message in (
        ({"head": None}, TypeError, r"head: expected an nn\.Linear, got NoneType"),
        ({"vocab": None}, TypeError, "vocab: expected a Vocab, got NoneType"),
        ({"embedding": head}, TypeError, r"embedding: expected an nn\.Embedding, got Linear"),
        ({"embedding": None}, ValueError, f"module: expected input_size={V}, one-hot tokens .*, got {D}"),
        ({"embedding": nn.Embedding(9, D)}, ValueError, rf"embedding\.weight: .*\({V}, {D}\), got .*\(9, {D}\)"),
        ({"embedding": nn.Embedding(V, D, max_norm=1.0)}, ValueError, r"embedding: expected no max_norm, got 1\.0"),
        ({"head": nn.Linear(H, 9)}, ValueError, rf"head\.weight: .*\({V}, {H}\), got .*\(9, {H}\)"),
        ({"head": nn.Linear(H, V).double()}, ValueError, r"head\.weight: expected float32 .*, got float64"),
    ):
        with pytest.raises(error, match=message):
            from_module(rnn, **whole | changed)
    with pytest.raises(ValueError, match="expected one direction for a language model, got bidirectional=True"):
        from_module(nn.GRU(D, H, bidirectional=True), **whole)


@pytest.mark.thread_unsafe
@pytest.mark.skipif(not PAGE.exists(), reason="the page is not part of this tree")
def test_the_pages_code_runs(torch, tmp_path, monkeypatch):
    """All of it; the blocks that need no torch also run with the other pages'."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python(?: torch)?\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) > 1
    namespace = {}
    for block in blocks:
        exec(compile(block, PAGE, "exec"), namespace)
