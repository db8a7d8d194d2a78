# SPDX-License-Identifier: MIT
"""A tape knows its network: another network's is refused, also with equal shapes, and so is one that holds no whole
forward pass. That tapes are reused where they fit: test_network.py."""

import copy
import pickle

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from model_tools import language_model, network, stir

import crnn
from crnn.nn.cells import CELLS

OTHERS = {
    "another seed": lambda net: twin(net, lambda other: stir(other.flat_params, seed=9)),
    "equal weights": lambda net: twin(net, lambda other: None),
    "a copy": copy.deepcopy,
    "a pickled copy": lambda net: pickle.loads(pickle.dumps(net)),
    "another precision": lambda net: net.astype("float64"),
    "another precision and back": lambda net: net.astype("float64").astype("float32"),
}


def twin(net, change):
    other = crnn.RNN(**net.config(), seed=5)
    other.flat_params[...] = net.flat_params
    change(other)
    return other


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("which", OTHERS)
def test_a_tape_of_another_network_is_refused_and_nothing_changes(rng, which, cell, ids):
    net = network(D=5, H=7, cell=cell, L=2, E=4 if ids else None)
    other = OTHERS[which](net)
    x = np.ones((3, 2), int) if ids else rng.normal(size=(3, 2, 5)).astype(np.float32)
    y, _, tape = net.forward(x)
    kept, dy = y.copy(), np.ones_like(y)
    theirs = x if ids else x.astype(other.dtype)
    with pytest.raises(ValueError, match="tape: expected one that this network has made, got that of another network"):
        other.forward(theirs, tape=tape)
    with pytest.raises(ValueError, match="tape: expected one that this network has made"):
        other.backward(tape, dy.astype(other.dtype))
    assert not other.flat_grads.any()
    assert_same_bits(y, kept)
    net.backward(tape, dy)
    assert net.flat_grads.any()


@pytest.mark.parametrize("tape", [3, "tape", object(), [], np.ones(3), crnn.RNN(2, 2)])
def test_what_is_no_tape_is_refused(tape):
    net = network()
    with pytest.raises(TypeError, match="tape: expected a tape from forward, got "):
        net.forward(np.ones((1, 1, 5), np.float32), tape=tape)
    with pytest.raises(TypeError, match="tape: expected a tape from forward, got "):
        net.backward(tape, np.ones((1, 1, 7), np.float32))


def test_a_tape_whose_last_forward_pass_failed_is_refused_until_one_succeeds(rng, monkeypatch):
    net = network(H=7, cell="gru")
    x, dy = rng.normal(size=(3, 2, 5)).astype(np.float32), rng.normal(size=(3, 2, 7)).astype(np.float32)
    _, _, tape = net.forward(x)
    net.backward(tape, dy)
    expected = net.flat_grads.copy()

    def fails(tape, key, phases):
        raise KeyboardInterrupt

    monkeypatch.setattr(net.stack, "run_phases", fails)
    with pytest.raises(KeyboardInterrupt):
        net.forward(2 * x, tape=tape)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="tape: expected one of a finished forward pass"):
        net.backward(tape, dy)
    assert net.forward(x, tape=tape)[2] is tape
    net.flat_grads.fill(0)
    net.backward(tape, dy)
    assert_same_bits(net.flat_grads, expected)


def test_a_tape_that_was_refused_its_new_input_keeps_the_old_one(rng):
    """What is wrong with an argument is found before anything in the tape is changed."""
    net = network(H=7)
    x, dy = rng.normal(size=(3, 2, 5)).astype(np.float32), rng.normal(size=(3, 2, 7)).astype(np.float32)
    _, _, tape = net.forward(x)
    net.backward(tape, dy)
    expected = net.flat_grads.copy()
    states = np.ones((5, 5), np.float32)
    wrong = ({"x": 2 * x[0]}, {"lengths": [1, 9]}, {"lengths": [1]}, {"threads": 0}, {"state": states})
    for arguments in wrong:
        with pytest.raises(ValueError, match="expected"):
            net.forward(**({"x": 2 * x} | arguments), tape=tape)
    net.flat_grads.fill(0)
    net.backward(tape, dy)
    assert_same_bits(net.flat_grads, expected)


def test_a_tape_without_what_a_backward_pass_needs_is_refused(rng):
    net = network()
    tape = net.run_forward(rng.normal(size=(3, 2, 5)).astype(np.float32), None, None, 1, None, None, keep=False)
    with pytest.raises(ValueError, match="tape: expected one from forward, got one that keeps nothing"):
        net.backward(tape, np.ones((3, 2, 7), np.float32))


def test_the_workspace_of_another_model_is_refused():
    one, other = language_model(), language_model()
    ids, workspace = np.ones((3, 2), int), one.workspace()
    expected = one.losses(ids, ids)[0]
    one.loss_and_gradients(ids, ids, workspace=workspace)
    for call in (other.losses, other.loss_and_gradients):
        with pytest.raises(ValueError, match="workspace: expected one that this model alone has used"):
            call(ids, ids, workspace=workspace)
    assert_same_bits(one.losses(ids, ids, workspace=workspace)[0], expected)


@pytest.mark.parametrize("workspace", [0, 1, {}, "w"])
def test_what_is_no_workspace_is_refused(workspace):
    model, ids = language_model(), np.ones((3, 2), int)
    for call in (model.losses, model.loss_and_gradients):
        with pytest.raises(TypeError, match="workspace: expected one of the model's workspace"):
            call(ids, ids, workspace=workspace)
