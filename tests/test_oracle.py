# SPDX-License-Identifier: MIT
"""The oracle itself: its gradients against central differences and PyTorch's, its losses against closed forms."""

import numpy as np
import oracle
import pytest
from oracle_cells import GATES, NORMALISED, WITH_C, WITHOUT_W_HH

T, B, D, H, V = 5, 3, 5, 7, 11
LENGTHS = [2, 5, 3]  # one row has every step, and it is not the first

CELLS = list(GATES)
cells = pytest.mark.parametrize("cell", CELLS)
two_ways = pytest.mark.parametrize("directions", [1, 2])
some_lengths = pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["equal", "unequal"])


def random_params(rng, kind, sizes, D, directions=1, *, learned=False, head=True, embedding=None) -> oracle.Params:
    """A stack of layers of these sizes over an input of size D."""
    cell = kind
    params = {}
    if embedding:
        params["embedding"] = rng.normal(size=(D, embedding))
        D = embedding
    for layer, H in enumerate(sizes):
        for prefix in [f"layer{layer}.", f"layer{layer}.reverse."][:directions]:
            params[f"{prefix}W_xh"] = rng.normal(size=(D, GATES[cell] * H)) / np.sqrt(D)
            if cell not in WITHOUT_W_HH:
                params[f"{prefix}W_hh"] = rng.normal(size=(H, GATES[cell] * H)) / np.sqrt(H)
            params[f"{prefix}b_h"] = rng.normal(size=GATES[cell] * H)
            if kind == "gru":
                params[f"{prefix}b_hn"] = rng.normal(size=H)
            if learned:
                params[f"{prefix}h0"] = rng.normal(size=H)
            if cell in NORMALISED:
                params |= {f"{prefix}gain_{gate}": rng.normal(size=H) for gate in "ifgo"}
                params |= {f"{prefix}bias_{gate}": 0.1 * rng.normal(size=H) for gate in "ifgo"}
            if learned and cell in WITH_C:
                params[f"{prefix}c0"] = rng.normal(size=H)
        D = H * directions
    if head:
        params |= {"W_hy": rng.normal(size=(D, V)) / np.sqrt(D), "b_y": rng.normal(size=V)}
    return params


def random_states(rng, kind, sizes, B, directions=1) -> oracle.States:
    entries = [
        tuple(rng.normal(size=(B, H)) for _ in range(2 if kind in WITH_C else 1))
        for H in sizes
        for _ in range(directions)
    ]
    return oracle.packed_states(entries)


def arrays_of(states: oracle.States) -> list[np.ndarray]:
    """The arrays that a state consists of, themselves."""
    return [states] if isinstance(states, np.ndarray) else [array for part in states for array in arrays_of(part)]


def row_of(states: oracle.States, cell: str, b: int) -> oracle.States:
    entries = oracle.unpacked_states(states, cell)
    return oracle.packed_states([tuple(part[b : b + 1] for part in entry) for entry in entries])


def assert_slopes(rng, loss, values: dict[str, np.ndarray], grads: dict[str, np.ndarray]) -> None:
    """``grads`` are the slopes of ``loss()`` by ``values``, which are moved in place. Of large arrays: 24 elements."""
    assert values.keys() == grads.keys()
    for name, value in values.items():
        assert grads[name].shape == value.shape
        places = rng.permutation(value.size)[:24]
        slopes = np.empty(len(places))
        for n, i in enumerate(places):
            at = np.unravel_index(i, value.shape)
            here = value[at]
            ends = []
            for value[at] in (here - 1e-5, here + 1e-5):
                ends.append(loss())
            value[at] = here
            slopes[n] = (ends[1] - ends[0]) / 2e-5
        scale = np.abs(slopes).max()
        assert scale > 0, name
        largest = 1e-5 if "layer0.gain_i" in values else 1e-7  # what normalises few units is steep
        assert np.abs(grads[name].reshape(-1)[places] - slopes).max() <= max(largest * scale, 1e-9), name


def assert_gradients_are_slopes(rng, kind, params, x, state, lengths=None, targets=None, **masks) -> None:
    """The loss: cross-entropy at the outputs, and pull . last state, which makes a dstate."""
    cell = kind
    if targets is None:
        targets = rng.integers(V, size=x.shape[:2])
    if lengths is not None:
        targets = np.where(np.arange(len(x))[:, None] < lengths, targets, -1)

    def run() -> oracle.Tape:
        return oracle.rnn_forward(params, x, state, cell, lengths=lengths, **masks)

    pull = [rng.normal(size=array.shape) for array in arrays_of(run().state)]

    def loss() -> float:
        tape = run()
        of_state = sum((p * array).sum() for p, array in zip(pull, arrays_of(tape.state), strict=True))
        return float(oracle.cross_entropy(tape.y, targets, ignore=-1)[0].sum() + of_state)

    tape = run()
    dstate = iter(pull)  # in the form of the state
    same_form = lambda s: next(dstate) if isinstance(s, np.ndarray) else type(s)(map(same_form, s))  # noqa: E731
    dy = oracle.cross_entropy(tape.y, targets, ignore=-1)[1]
    grads, dx, dfirst = oracle.rnn_backward(params, tape, dy, same_form(tape.state))
    values = dict(params)
    if x.dtype.kind == "f":
        values["x"], grads["x"] = x, dx
    if state is not None:
        values |= {f"state {i}": array for i, array in enumerate(arrays_of(state))}
        grads |= {f"state {i}": array for i, array in enumerate(arrays_of(dfirst))}
    assert_slopes(rng, loss, values, grads)


# ---- slopes --------------------------------------------------------------------------------------------------------


@some_lengths
@two_ways
@pytest.mark.parametrize("L", [1, 2, 3])
@cells
def test_gradients_are_the_slopes_of_the_loss(rng, cell, L, directions, lengths):
    sizes = [5, 3, 4][:L]
    params = random_params(rng, cell, sizes, D, directions)
    state = random_states(rng, cell, sizes, B, directions)
    assert_gradients_are_slopes(rng, cell, params, rng.normal(size=(T, B, D)), state, lengths)


@some_lengths
@two_ways
@cells
def test_gradients_with_dropout_masks_are_the_slopes_too(rng, cell, directions, lengths):
    sizes = [5, 3, 2]
    params = random_params(rng, cell, sizes, D, directions)
    state = random_states(rng, cell, sizes, B, directions)
    mask = lambda *shape: rng.choice([0, 1.25], p=[0.2, 0.8], size=shape)  # noqa: E731
    dropout = [mask(T, B, 5 * directions), mask(B, 3 * directions), mask(T, B, 2 * directions)]
    recurrent = [mask(B, size) for size in sizes for _ in range(directions)]
    assert_gradients_are_slopes(
        rng, cell, params, rng.normal(size=(T, B, D)), state, lengths, dropout=dropout, recurrent_dropout=recurrent
    )


@two_ways
@cells
def test_gradients_of_learned_states_are_the_slopes_too(rng, cell, directions):
    params = random_params(rng, cell, [4, 3], D, directions, learned=True)
    assert_gradients_are_slopes(rng, cell, params, rng.normal(size=(T, B, D)), None, LENGTHS)


@cells
def test_gradients_of_an_embedding_are_the_slopes_too(rng, cell):
    params, ids = random_params(rng, cell, [4], 3, embedding=2), rng.integers(3, size=(T, B))
    ids[0] = [0, 1, 2]
    ids[np.arange(T)[:, None] >= LENGTHS] = 99  # nobody's
    assert_gradients_are_slopes(rng, cell, params, ids, random_states(rng, cell, [4], B), LENGTHS)


# ---- PyTorch -------------------------------------------------------------------------------------------------------


def in_torch(torch, params, cell, sizes, D, directions):
    """PyTorch's layers with these weights, one module a layer as sizes differ. Its second bias has b_hn in it."""
    modules = []
    for layer, H in enumerate(sizes):
        kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}.get(cell, torch.nn.RNN)
        extra = {"nonlinearity": cell} if kind is torch.nn.RNN else {}
        module = kind(D, H, bidirectional=directions == 2, dtype=torch.float64, **extra)
        with torch.no_grad():
            for prefix, suffix in ((f"layer{layer}.", "l0"), (f"layer{layer}.reverse.", "l0_reverse"))[:directions]:
                getattr(module, f"weight_ih_{suffix}").copy_(torch.from_numpy(params[f"{prefix}W_xh"].T))
                getattr(module, f"weight_hh_{suffix}").copy_(torch.from_numpy(params[f"{prefix}W_hh"].T))
                getattr(module, f"bias_ih_{suffix}").copy_(torch.from_numpy(params[f"{prefix}b_h"]))
                second = getattr(module, f"bias_hh_{suffix}").zero_()
                if cell == "gru":
                    second[2 * H :] = torch.from_numpy(params[f"{prefix}b_hn"])
        modules.append(module)
        D = H * directions
    return modules


@some_lengths
@two_ways
@pytest.mark.parametrize("sizes", [[7], [7, 3], [3, 7, 2], [7, 7]], ids=str)
@pytest.mark.parametrize("cell", ["tanh", "relu", "lstm", "gru"])
def test_pytorch_agrees(torch, rng, cell, sizes, directions, lengths):
    params = random_params(rng, cell, sizes, D, directions, head=False)
    x, state = rng.normal(size=(T, B, D)), random_states(rng, cell, sizes, B, directions)
    dy = rng.normal(size=(T, B, sizes[-1] * directions))
    dstate = random_states(rng, cell, sizes, B, directions)
    tape = oracle.rnn_forward(params, x, state, cell, lengths=lengths)
    grads, dx, dfirst = oracle.rnn_backward(params, tape, dy, dstate)

    modules = in_torch(torch, params, cell, sizes, D, directions)
    leaf = lambda a: torch.from_numpy(a.copy()).requires_grad_()  # noqa: E731
    x_t = leaf(x)
    first = [tuple(map(leaf, entry)) for entry in oracle.unpacked_states(state, cell)]
    y_t, last = x_t, []
    for layer, module in enumerate(modules):
        here = first[layer * directions : (layer + 1) * directions]
        parts = tuple(map(torch.stack, zip(*here, strict=True)))
        if lengths is None:
            y_t, after = module(y_t, parts if cell == "lstm" else parts[0])
        else:
            packed = torch.nn.utils.rnn.pack_padded_sequence(y_t, torch.tensor(lengths), enforce_sorted=False)
            packed, after = module(packed, parts if cell == "lstm" else parts[0])
            y_t, _ = torch.nn.utils.rnn.pad_packed_sequence(packed, total_length=T)
        last += zip(*(after if cell == "lstm" else (after,)), strict=True)
    pulls = [torch.from_numpy(part) for entry in oracle.unpacked_states(dstate, cell) for part in entry]
    torch.autograd.backward([y_t, *(part for entry in last for part in entry)], [torch.from_numpy(dy), *pulls])

    close = lambda got, tensor: np.testing.assert_allclose(got, tensor.detach(), rtol=1e-11, atol=1e-11)  # noqa: E731
    close(tape.y, y_t)
    for got, expected in zip(oracle.unpacked_states(tape.state, cell), last, strict=True):
        for part, tensor in zip(got, expected, strict=True):
            close(part, tensor)
    close(dx, x_t.grad)
    for got, expected in zip(oracle.unpacked_states(dfirst, cell), first, strict=True):
        for part, tensor in zip(got, expected, strict=True):
            close(part, tensor.grad)
    for layer, module in enumerate(modules):
        for prefix, suffix in ((f"layer{layer}.", "l0"), (f"layer{layer}.reverse.", "l0_reverse"))[:directions]:
            close(grads[f"{prefix}W_xh"].T, getattr(module, f"weight_ih_{suffix}").grad)
            close(grads[f"{prefix}W_hh"].T, getattr(module, f"weight_hh_{suffix}").grad)
            close(grads[f"{prefix}b_h"], getattr(module, f"bias_ih_{suffix}").grad)
            if cell == "gru":
                close(grads[f"{prefix}b_hn"], getattr(module, f"bias_hh_{suffix}").grad[2 * sizes[layer] :])


# ---- by hand -------------------------------------------------------------------------------------------------------


def sigmoid(a: float) -> float:
    return 1 / (1 + np.exp(-a))


def test_one_step_of_an_lstm_by_hand():
    a = 0.5 + np.arange(4) / 8 + 0.25 * np.array([1.0, 2.0, 3.0, 4.0])  # gates i, f, g, o
    params = {"layer0.W_xh": np.full((1, 4), 0.5), "layer0.W_hh": np.array([[1.0, 2.0, 3.0, 4.0]])}
    params["layer0.b_h"] = np.arange(4) / 8
    tape = oracle.rnn_forward(params, np.ones((1, 1, 1)), (np.full((1, 1, 1), 0.25), np.full((1, 1, 1), -2.0)), "lstm")
    c = sigmoid(a[1]) * -2 + sigmoid(a[0]) * np.tanh(a[2])
    np.testing.assert_allclose([part.item() for part in tape.state], [sigmoid(a[3]) * np.tanh(c), c], rtol=1e-14)


@pytest.mark.parametrize("reset_after", [True, False])
def test_one_step_of_a_gru_by_hand_with_its_recurrent_mask(reset_after):
    params = {"layer0.W_xh": np.array([[0.5, -0.25, 1.0]]), "layer0.W_hh": np.array([[1.0, 2.0, 3.0]])}
    params["layer0.b_h"] = np.array([0.125, 0.25, 0.375])
    if reset_after:
        params["layer0.b_hn"] = np.array([0.75])
    before, p = 0.25, 0.25 * 1.5
    tape = oracle.rnn_forward(
        params, np.ones((1, 1, 1)), np.full((1, 1, 1), before), "gru", recurrent_dropout=[np.full((1, 1), 1.5)]
    )
    r, z = sigmoid(0.625 + p), sigmoid(0 + 2 * p)
    n = np.tanh(1.375 + (r * (3 * p + 0.75) if reset_after else 3 * (r * p)))
    np.testing.assert_allclose(tape.y.item(), (1 - z) * n + z * before, rtol=1e-14)  # z * h' is not dropped out


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_a_simple_layer_is_reversed_from_its_h_alone(rng, activation):
    params = random_params(rng, activation, [H], D, head=False)
    x, h0, dh = rng.normal(size=(T, B, D)), rng.normal(size=(1, B, H)), rng.normal(size=(T, B, H))
    tape = oracle.rnn_forward(params, x, h0, activation)
    xw = x @ params["layer0.W_xh"] + params["layer0.b_h"]
    np.testing.assert_array_equal(oracle.recurrence_forward(xw, h0[0], params["layer0.W_hh"], activation), tape.y)
    da, dh0 = oracle.recurrence_backward(dh, tape.y, params["layer0.W_hh"], activation)
    grads, _, dfirst = oracle.rnn_backward(params, tape, dh)
    np.testing.assert_allclose(dh0, dfirst[0], rtol=1e-12)
    np.testing.assert_allclose(da.sum(axis=(0, 1)), grads["layer0.b_h"], rtol=1e-12)


# ---- lengths, states, inputs ---------------------------------------------------------------------------------------


@two_ways
@cells
def test_every_row_is_what_it_would_be_alone_and_what_is_padded_does_not_matter(rng, cell, directions):
    sizes = [4, 3]
    params = random_params(rng, cell, sizes, D, directions, head=False)
    x, state = rng.normal(size=(T, B, D)), random_states(rng, cell, sizes, B, directions)
    dy, dstate = rng.normal(size=(T, B, 3 * directions)), random_states(rng, cell, sizes, B, directions)
    there = np.arange(T)[:, None] < LENGTHS
    x[~there] = dy[~there] = np.nan
    name = cell
    tape = oracle.rnn_forward(params, x, state, name, lengths=LENGTHS)
    grads, dx, dfirst = oracle.rnn_backward(params, tape, dy, dstate)
    assert not tape.y[~there].any()
    assert not dx[~there].any()
    sums = {key: np.zeros_like(value) for key, value in params.items()}
    for b, length in enumerate(LENGTHS):
        alone = oracle.rnn_forward(params, x[:length, b : b + 1], row_of(state, name, b), name)
        of_row, dx_row, dfirst_row = oracle.rnn_backward(params, alone, dy[:length, b : b + 1], row_of(dstate, name, b))
        pairs = [(tape.y[:length, b : b + 1], alone.y), (dx[:length, b : b + 1], dx_row)]
        pairs += zip(arrays_of(row_of(tape.state, name, b)), arrays_of(alone.state), strict=True)
        pairs += zip(arrays_of(row_of(dfirst, name, b)), arrays_of(dfirst_row), strict=True)
        for got, expected in pairs:
            np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-13)
        for key, grad in of_row.items():
            sums[key] += grad
    for key, grad in grads.items():
        np.testing.assert_allclose(grad, sums[key], rtol=1e-11, atol=1e-12)


@cells
def test_a_window_cut_in_two_gives_the_same(rng, cell):
    sizes, name = [4, 3], cell
    params, x = random_params(rng, cell, sizes, D), rng.normal(size=(T, B, D))
    whole = oracle.rnn_forward(params, x, None, name)
    first = oracle.rnn_forward(params, x[:2], None, name)
    second = oracle.rnn_forward(params, x[2:], first.state, name)
    np.testing.assert_allclose(np.concatenate([first.y, second.y]), whole.y, rtol=1e-13)
    dy = rng.normal(size=whole.y.shape)
    grads, dx, _ = oracle.rnn_backward(params, whole, dy)
    late, dx_late, between = oracle.rnn_backward(params, second, dy[2:])
    early, dx_early, _ = oracle.rnn_backward(params, first, dy[:2], between)
    np.testing.assert_allclose(np.concatenate([dx_early, dx_late]), dx, rtol=1e-11)
    for key, grad in grads.items():
        np.testing.assert_allclose(early[key] + late[key], grad, rtol=1e-10, atol=1e-13)


def test_a_given_state_stands_in_for_the_learned_one(rng):
    params, x = random_params(rng, "lstm", [4], D, 2, learned=True), rng.normal(size=(T, B, D))
    state = random_states(rng, "lstm", [4], B, 2)
    tape = oracle.rnn_forward(params, x, state, "lstm")
    plain = {name: value for name, value in params.items() if name[-2:] not in ("h0", "c0")}
    np.testing.assert_array_equal(tape.y, oracle.rnn_forward(plain, x, state, "lstm").y)
    grads, _, _ = oracle.rnn_backward(params, tape, np.ones_like(tape.y))
    for name in params.keys() - plain.keys():
        assert not grads[name].any()


def test_states_are_arrays_where_sizes_agree_and_lists_where_not(rng):
    x = rng.normal(size=(T, B, D))
    h, c = oracle.rnn_forward(random_params(rng, "lstm", [4, 4], D, 2), x, None, "lstm").state
    assert h.shape == c.shape == (4, B, 4)
    state = oracle.rnn_forward(random_params(rng, "gru", [4, 3], D, 2), x, None, "gru").state
    assert [entry.shape for entry in state] == [(B, 4), (B, 4), (B, 3), (B, 3)]


def test_ids_are_one_hot_rows(rng):
    params = random_params(rng, "tanh", [H], V)
    ids, h0 = rng.integers(V, size=(T, B)), rng.normal(size=(1, B, H))
    y = oracle.rnn_forward(params, ids, h0).y
    a = params["layer0.W_xh"][ids[0]] + params["layer0.b_h"] + h0[0] @ params["layer0.W_hh"]
    np.testing.assert_allclose(y[0], np.tanh(a) @ params["W_hy"] + params["b_y"], rtol=1e-13)


@two_ways
@cells
def test_a_mask_of_the_same_factors_for_every_row_does_what_they_would_do_to_the_weights(rng, cell, directions):
    sizes, name = [4, 3], cell
    params, x = random_params(rng, cell, sizes, D, directions), rng.normal(size=(T, B, D))
    dropout = [rng.uniform(size=size * directions) for size in sizes]
    recurrent = [rng.uniform(size=size) for size in sizes for _ in range(directions)]
    masked = oracle.rnn_forward(params, x, None, name, dropout=dropout, recurrent_dropout=recurrent)
    for prefix, factors in zip(oracle.stack(params), recurrent, strict=True):
        if f"{prefix}W_hh" in params:
            params[f"{prefix}W_hh"] = factors[:, None] * params[f"{prefix}W_hh"]
        if prefix.startswith("layer1"):
            params[f"{prefix}W_xh"] = dropout[0][:, None] * params[f"{prefix}W_xh"]
    params["W_hy"] = dropout[1][:, None] * params["W_hy"]
    np.testing.assert_allclose(masked.y, oracle.rnn_forward(params, x, None, name).y, rtol=1e-12)


# ---- losses --------------------------------------------------------------------------------------------------------


def test_cross_entropy_of_known_distributions():
    losses, dy = oracle.cross_entropy(np.log([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]), np.array([1, 2]))
    np.testing.assert_allclose(losses, [np.log(4), -np.log(0.7)], rtol=1e-14)
    np.testing.assert_allclose(dy, [[0.5, -0.75, 0.25], [0.1, 0.2, -0.3]], rtol=1e-13)


def test_char_rnn_starts_at_log_V_per_character_and_learns_a_cycle():
    ids = np.tile(np.arange(V), 20)
    losses = list(oracle.train_char_rnn(oracle.char_rnn_params(V, H=17), ids, updates=60, T=5))
    assert losses[0] == pytest.approx(5 * np.log(V), rel=1e-3)
    assert losses[-1] < 0.5 * losses[0]
