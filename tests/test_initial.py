# SPDX-License-Identifier: MIT
"""Initial weights: each rule's definition, the gain, the seed; and that two seeds or two layers are not the same."""

import math

import numpy as np
import pytest
from kernel_tools import assert_same_bits

import crnn
from crnn.nn.init import RULES, initial_matrix, orthogonal, uniform_draws

SHAPE = (300, 200)


def made(rule, shape=SHAPE, seed=1):
    return initial_matrix(rule, uniform_draws(seed), shape, "argument")


@pytest.mark.parametrize(
    ("rule", "bound"),
    [
        ("glorot", math.sqrt(6 / 500)),
        ("uniform", 1 / math.sqrt(200)),
        ("unit_variance", math.sqrt(3)),
        ("0.5*glorot", 0.5 * math.sqrt(6 / 500)),
    ],
)
def test_uniform_rules_fill_their_interval_evenly(rule, bound):
    values = made(rule)
    assert values.shape == SHAPE
    assert np.abs(values).max() <= bound
    counts, _ = np.histogram(values, 10, (-bound, bound))
    assert np.abs(counts - 6000).max() < 6 * math.sqrt(6000)
    # Neighbours in a row, and in a column, know nothing of each other.
    for a, b in ((values[:, 1:], values[:, :-1]), (values[1:], values[:-1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.02


def test_rows_that_are_nearly_dependent_are_drawn_again():
    draw, shapes = uniform_draws(2920), []

    def counted(shape):
        shapes.append(shape)
        return draw(shape)

    q = orthogonal(counted, (11, 11))
    np.testing.assert_allclose(q @ q.T, np.eye(11), atol=1e-14)
    assert len(shapes) == 2
    with pytest.raises(ArithmeticError, match="orthogonal: row 1 depends on those before it; try another seed"):
        orthogonal(np.ones, (3, 3))


@pytest.mark.parametrize("size", [1, 2, 7, 64, 129])
def test_orthogonal_is_orthogonal_and_not_trivial(size):
    q = made("orthogonal", (size, size))
    np.testing.assert_allclose(q @ q.T, np.eye(size), atol=1e-13)
    if size > 2:
        assert np.count_nonzero(np.abs(q) > 1e-6) > size * size / 2
        assert (q.diagonal() > 0).any()
        assert (q.diagonal() < 0).any()


def test_identity_and_zeros_with_a_gain():
    np.testing.assert_array_equal(made("identity", (3, 3)), np.eye(3))
    np.testing.assert_array_equal(made("0.5*identity", (3, 3)), 0.5 * np.eye(3))
    np.testing.assert_array_equal(made(" 2 * identity", (3, 3)), 2 * np.eye(3))
    np.testing.assert_array_equal(made("-1*identity", (3, 3)), -np.eye(3))
    assert not made("zeros").any()


def test_the_rules_are_these():
    assert set(RULES) == {"glorot", "uniform", "unit_variance", "orthogonal", "identity", "zeros"}


@pytest.mark.parametrize(
    "rule", ["Glorot", "", "*", "x*glorot", "0.5*", "0.5*nothing", "nan*glorot", "inf*zeros", 3, None]
)
def test_unknown_rules_are_named(rule):
    with pytest.raises(ValueError, match=r"^argument: expected one of .*glorot.*, got "):
        made(rule)
    if rule is not None:
        with pytest.raises(ValueError, match=r"^recurrent_init: "):
            crnn.RNN(2, 3, recurrent_init=rule)
        with pytest.raises(ValueError, match=r"^input_init: "):
            crnn.RNN(2, 3, input_init=rule)


@pytest.mark.parametrize("rule", ["glorot", "uniform", "orthogonal", "unit_variance"])
def test_the_seed_decides(rule):
    assert_same_bits(made(rule, (9, 9)), made(rule, (9, 9)))
    assert not np.array_equal(made(rule, (9, 9)), made(rule, (9, 9), seed=2))


def test_draws_are_the_same_everywhere():
    """What NumPy's documentation shows of default_rng(0).random(3), moved to [-1, 1)."""
    draws = (uniform_draws(0)((3,)) + 1) / 2
    np.testing.assert_allclose(draws, [0.6369616873214543, 0.2697867137638703, 0.04097352393619469], rtol=1e-15)


@pytest.mark.parametrize("embedding_size", [None, 7])
def test_no_two_matrices_of_a_model_are_alike(embedding_size):
    vocab = crnn.Vocab.from_text("abcdefg")
    model = crnn.LanguageModel(vocab, "tanh", hidden_size=7, num_layers=3, embedding_size=embedding_size, seed=0)
    matrices = [array for array in model.params.values() if array.ndim == 2]
    for place, matrix in enumerate(matrices):
        assert np.ptp(matrix) > 0
        for another in matrices[:place]:
            scale = np.linalg.norm(matrix) * np.linalg.norm(another)
            assert abs((matrix * another).sum()) / scale < 0.6


def test_biases_are_zero_and_each_matrix_follows_its_own_rule():
    net = crnn.RNN(5, 4, 2, recurrent_init="0.5*identity", input_init="zeros")
    for layer in range(2):
        np.testing.assert_array_equal(net.params[f"layer{layer}.W_hh"], 0.5 * np.eye(4))
        assert not net.params[f"layer{layer}.W_xh"].any()
        assert not net.params[f"layer{layer}.b_h"].any()
    model = crnn.LanguageModel(crnn.Vocab.from_text("abcdefg"), hidden_size=4, num_layers=2)
    assert not model.params["b_y"].any()
    assert 0 < np.abs(model.params["W_hy"]).max() <= math.sqrt(6 / 11)


def test_float32_weights_are_the_rounded_float64_ones():
    single, double = (crnn.RNN(5, 33, 2, dtype=dtype, seed=3).flat_params for dtype in ("float32", "float64"))
    assert_same_bits(single, double.astype(np.float32))


# ---- one rule for all parameters, and rules by name ------------------------------------------------------------------

VOCAB = crnn.Vocab.from_text("abcdefg")
KINDS = {
    "one-hot": lambda **options: crnn.LanguageModel(VOCAB, hidden_size=40, num_layers=2, **options),
    "embedding": lambda **options: crnn.LanguageModel(VOCAB, hidden_size=40, embedding_size=30, **options),
    "tied": lambda **options: crnn.LanguageModel(VOCAB, hidden_size=40, tie_weights=True, **options),
    "gru": lambda **options: crnn.RNN(9, 40, cell="gru", trainable_initial_state=True, bidirectional=True, **options),
    "classifier": lambda **options: crnn.SequenceClassifier(3, 4, hidden_size=40, **options),
    "seq2seq": lambda **options: crnn.SequenceToSequence(5, 6, hidden_size=20, **options),
}


@pytest.mark.parametrize("kind", KINDS)
def test_one_rule_draws_every_parameter_in_its_interval(kind):
    model = KINDS[kind](init="uniform(0.125)", forget_bias=0, seed=3)
    assert model.config()["init"] == "uniform(0.125)"
    for name, values in model.params.items():
        assert np.unique(values).size > values.size / 2, name
        assert np.abs(values).max() <= 0.125, name
    values = model.flat_params
    assert values.var() == pytest.approx(0.125**2 / 3, rel=0.15)
    assert_same_bits(values, KINDS[kind](init="uniform(0.125)", forget_bias=0, seed=3).flat_params)
    assert not np.array_equal(values, KINDS[kind](init="uniform(0.125)", forget_bias=0, seed=4).flat_params)


def test_one_rule_has_the_draws_of_the_seed_and_the_forget_bias_on_top():
    net = crnn.RNN(3, 4, cell="lstm", init="uniform(0.5)", forget_bias=2.0, dtype="float64", seed=7)
    draw = uniform_draws(7)
    for name, rows in (("W_xh", 3), ("W_hh", 4)):
        expected = np.concatenate([0.5 * draw((rows, 4)) for _ in range(4)], axis=1)
        assert_same_bits(net.params[f"layer0.{name}"], expected)
    bias = np.zeros(16)
    bias[4:8] = 2.0
    assert_same_bits(net.params["layer0.b_h"], bias + 0.5 * draw((16,)))


def test_rules_by_name_leave_the_others_as_they_are():
    options = {"hidden_size": 5, "embedding_size": 6, "seed": 2}
    model = crnn.LanguageModel(VOCAB, init="embedding=uniform(0.1), W_hy=zeros, b_y=uniform(0.25)", **options)
    plain = crnn.LanguageModel(VOCAB, **options)
    assert np.abs(model.params["embedding"]).max() <= 0.1
    assert not model.params["W_hy"].any()
    assert 0 < np.abs(model.params["b_y"]).max() <= 0.25
    assert_same_bits(model.params["layer0.b_h"], plain.params["layer0.b_h"])


def test_recurrent_and_input_rules_take_an_interval_too():
    net = crnn.RNN(30, 40, recurrent_init="uniform(0.01)", input_init="uniform(2)", seed=0)
    assert 0.009 < np.abs(net.params["layer0.W_hh"]).max() <= 0.01
    assert 1.9 < np.abs(net.params["layer0.W_xh"]).max() <= 2


def test_a_file_keeps_the_rule_and_one_without_it_is_read(tmp_path):
    model = crnn.LanguageModel(VOCAB, hidden_size=4, init="uniform(0.1)", seed=1)
    model.save(tmp_path / "m.safetensors")
    loaded = crnn.load(tmp_path / "m.safetensors")
    assert loaded.net.init == "uniform(0.1)"
    assert_same_bits(loaded.flat_params, model.flat_params)


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ("uniform", r"init: expected uniform\(a\), or rules by name"),
        ("orthogonal", r"init: expected uniform\(a\), or rules by name"),
        (0.1, r"init: expected uniform\(a\), .* got 0.1"),
        ("uniform(-0.1)", r"init: expected a number of at least 0 in uniform\(a\)"),
        ("uniform(inf)", r"init: expected a number of at least 0 in uniform\(a\)"),
        ("uniform(x)", r"init: expected a number of at least 0 in uniform\(a\)"),
        ("W_hx=uniform(0.1)", r"init: expected .* each of embedding, W_xh.* at most once, got 'W_hx="),
        ("b_y=zeros, b_y=zeros", r"init: expected .* at most once"),
        ("b_y=glorot", r"init: expected uniform\(a\) or zeros for b_y, got 'glorot'"),
        ("W_hh=othogonal", r"init: expected one of glorot, .* or uniform\(a\), got 'othogonal'"),
    ],
)
def test_a_wrong_init_is_named(init, message):
    with pytest.raises(ValueError, match=message):
        crnn.LanguageModel(VOCAB, init=init)


@pytest.mark.parametrize(
    ("make", "parameter"),
    [
        (lambda init: crnn.RNN(3, 4, init=init), "embedding"),
        (lambda init: crnn.RNN(3, 4, init=init), "W_hy"),
        (lambda init: crnn.RNN(3, 4, cell="min_gru", init=init), "W_hh"),
        (lambda init: crnn.SequenceClassifier(3, 2, init=init), "h0"),
        (lambda init: crnn.SequenceToSequence(3, 3, init=init), "embedding"),
        (lambda init: crnn.LanguageModel(crnn.Vocab("ab"), embedding_size=4, init=init), "W_py"),
        (lambda init: crnn.LanguageModel(crnn.Vocab("ab"), hidden_size=4, tie_weights=True, init=init), "W_hy"),
    ],
)
def test_a_rule_for_a_parameter_that_the_model_does_not_have_is_refused(make, parameter):
    with pytest.raises(ValueError, match=rf"^init: expected rules for parameters of .* got one for {parameter}$"):
        make(f"W_xh=zeros, {parameter}=zeros")
    make("W_xh=zeros")
    make("uniform(0.1)")


def test_an_ln_lstm_starts_with_gains_of_1_and_the_forget_bias_after_the_normalisation():
    net = crnn.RNN(3, 5, cell="ln_lstm", forget_bias=1.5, bidirectional=True, seed=0)
    for name, values in net.params.items():
        kind = name.rpartition(".")[2]
        if values.ndim == 1:
            expected = 1 if kind.startswith("gain") else 1.5 if kind == "bias_f" else 0
            np.testing.assert_array_equal(values, expected)
    moved = crnn.RNN(3, 5, cell="ln_lstm", init="bias_f=uniform(0.5)", seed=0)
    assert 0 < np.abs(moved.params["layer0.bias_f"] - 1).max() <= 0.5
