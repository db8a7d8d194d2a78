# SPDX-License-Identifier: MIT
"""ONNX graphs whose layers are unrolled into steps: read where every step is one of a cell, otherwise refused."""

import random

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
from onnx import helper, numpy_helper
from onnx_tools import error, graph_of, run, session
from unrolled_tools import Unrolled

import crnn
from crnn.interop import onnx as interop
from crnn.interop.layouts import LAYOUTS
from crnn.interop.onnx.unrolled.equations import EQUATIONS

pytestmark = pytest.mark.interop

WORST = 1e-6  # of float32, in units of the largest number if that is above 1
T, B, D, H, V = 4, 3, 2, 5, 3


def inputs(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("f4")


def network(cell, seed=0, **options):
    net = crnn.RNN(D, **({"hidden_size": H} | options), cell=cell)
    net.flat_params[...] = np.random.default_rng(seed).normal(size=net.flat_params.size) * 0.4
    return net


def outputs(model, x):
    """What a model computes for x (T, B, D), in the order of the graph's axes."""
    if isinstance(model, crnn.RNN):
        return model(x)[0]
    sequences = np.ascontiguousarray(x.swapaxes(0, 1))
    return model.predict_proba(sequences) if hasattr(model, "predict_proba") else model.predict(sequences)


def computed(proto, x, check=True):
    return next(iter(run(session(proto, check), x).values()))


# ---- what is read ----------------------------------------------------------------------------------------------------


def test_there_are_equations_for_each_cell_that_onnx_has():
    assert set(EQUATIONS) == set(LAYOUTS["onnx"].gates)


@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True, "hidden_size": [4, 3]}])
@pytest.mark.parametrize("cell", EQUATIONS)
def test_the_steps_of_a_network_are_that_network(cell, options):
    net = network(cell, **options)
    proto = Unrolled(net, T).model()
    again = interop.from_model(proto)
    assert again.flat_params.tobytes() == net.flat_params.tobytes()
    assert (again.cell, again.num_layers, again.bidirectional) == (cell, net.num_layers, net.bidirectional)
    assert error(again(inputs(T, B, D))[0], computed(proto, inputs(T, B, D))) < WORST
    assert again(inputs(T + 9, B, D))[0].shape[0] == T + 9  # the model is not bound to the number of steps


@pytest.mark.parametrize("cell", ["gru", "original_gru"])
def test_a_gru_in_another_form_is_the_same_gru(cell):
    net = network(cell)
    again = interop.from_model(Unrolled(net, T, update="difference").model())
    assert again.flat_params.tobytes() == net.flat_params.tobytes()


@pytest.mark.parametrize("cell", ["gru", "original_gru"])
def test_a_gru_whose_update_gate_weighs_the_candidate_is_one_with_the_negative_gate(cell):
    net = network(cell)
    proto = Unrolled(net, T, update="inverted").model()
    again, x = interop.from_model(proto), inputs(T, B, D)
    assert error(again(x)[0], computed(proto, x)) < WORST
    r, z, n = np.split(again.params["layer0.W_hh"], 3, 1)
    assert (np.concatenate([r, -z, n], 1) == net.params["layer0.W_hh"]).all()


@pytest.mark.parametrize("biases", [0.0, 1.5])
def test_biases_that_are_all_the_same(biases):
    net = network("gru")
    for name, values in net.params.items():
        if "b_" in name:
            values[...] = biases
    assert interop.from_model(Unrolled(net, T).model()).flat_params.tobytes() == net.flat_params.tobytes()


@pytest.mark.parametrize("answer", [None, "Softmax", "Sigmoid"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_linear_layer_on_the_last_outputs(answer, bidirectional):
    net = network("lstm", bidirectional=bidirectional)
    head = inputs(H * (1 + bidirectional), V), inputs(V, seed=1)
    proto = Unrolled(net, T).model(head=head, answer=answer)
    model = interop.from_model(proto)
    assert isinstance(model, crnn.SequenceRegressor if answer is None else crnn.SequenceClassifier)
    assert model.pooling == "last"
    assert error(outputs(model, inputs(T, B, D)), computed(proto, inputs(T, B, D))) < WORST


STEPS = f"""g (float[batch, {T}, {D}] x) => (float[batch, {V}] out) {{{{
    shape = Shape <start = 0, end = 1> (x)
    sizes = Concat <axis = 0> (shape, units)
    h = Expand (zero, sizes)
    {{steps}}
    out = Gemm ({{last}}, kernel, vector)
}}}}"""


def tanh_steps(*changes, order=range(T), **arrays):
    """A graph of tanh steps as text, with changes to it, and other arrays."""
    steps, last = "", "h"
    for t in order:
        steps += f"""
            x{t} = Gather <axis = 1> (x, i{t})
            a{t} = MatMul (x{t}, W)
            b{t} = MatMul ({last}, U)
            c{t} = Add (a{t}, b{t})
            d{t} = Add (c{t}, bias)
            h{t} = Tanh (d{t})"""
        last = f"h{t}"
    text = STEPS.format(steps=steps, last=last)
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    both = {"W": inputs(D, H), "U": inputs(H, H, seed=1), "bias": inputs(H, seed=2), "kernel": inputs(H, V, seed=3)}
    both |= {"vector": inputs(V, seed=4), "units": np.array([H]), "zero": np.zeros((), "f4")}
    arrays = both | {f"i{t}": np.array(t) for t in range(T)} | arrays
    return graph_of(text, **{name: values for name, values in arrays.items() if values is not None})


def test_steps_written_by_hand():
    proto = tanh_steps()
    model = interop.from_model(proto)
    assert (model.net.cell, model.pooling) == ("tanh", "last")
    assert error(model.predict(inputs(B, T, D)), computed(proto, inputs(B, T, D))) < WORST


def test_steps_from_the_last_one_to_the_first_are_a_reverse_layer():
    proto = tanh_steps(order=range(T)[::-1])
    model = interop.from_model(proto)
    assert model.net.bidirectional  # whose forward direction is zeros
    assert error(model.predict(inputs(B, T, D)), computed(proto, inputs(B, T, D))) < WORST


def test_scaling_around_the_steps():
    changes = [
        ("shape =", "low = Sub (x, mean) scaled = Div (low, std) shape ="),
        ("out = Gemm (h3, kernel, vector)", "y = Gemm (h3, kernel, vector) z = Mul (y, ten) out = Add (z, vector)"),
        *[(f"(x, i{t})", f"(scaled, i{t})") for t in range(T)],
    ]
    constants = {"mean": inputs(D), "std": np.array([2, 0.5], "f4"), "ten": np.array(10, "f4")}
    proto = tanh_steps(*changes, **constants)
    model = interop.from_model(proto)
    assert model.scale
    assert error(model.predict(inputs(B, T, D)), computed(proto, inputs(B, T, D))) < WORST


def test_a_linear_layer_on_each_step():
    rows = "\n".join(f"o{t} = Gemm (h{t}, kernel, vector) p{t} = Unsqueeze (o{t}, one)" for t in range(T))
    proto = tanh_steps(
        ("out = Gemm (h3, kernel, vector)", f"{rows}\nout = Concat <axis = 1> (p0, p1, p2, p3)"),
        (f"float[batch, {V}] out", f"float[batch, {T}, {V}] out"),
        one=np.array([1]),
    )
    model = interop.from_model(proto)
    assert model.pooling is None
    assert error(model.predict(inputs(B, T, D)), computed(proto, inputs(B, T, D))) < WORST


@pytest.mark.parametrize("answer", ["Softmax", "Sigmoid"])
def test_probabilities_of_each_step(answer):
    rows = "\n".join(
        f"o{t} = Gemm (h{t}, kernel, vector) s{t} = {answer} (o{t}) p{t} = Unsqueeze (s{t}, one)" for t in range(T)
    )
    proto = tanh_steps(
        ("out = Gemm (h3, kernel, vector)", f"{rows}\nout = Concat <axis = 1> (p0, p1, p2, p3)"),
        (f"float[batch, {V}] out", f"float[batch, {T}, {V}] out"),
        one=np.array([1]),
    )
    model = interop.from_model(proto)
    assert isinstance(model, crnn.SequenceTagger)
    assert error(model.predict_proba(inputs(B, T, D)), computed(proto, inputs(B, T, D))) < WORST


@pytest.mark.parametrize("fixed", [False, True])
def test_one_matrix_for_x_and_the_previous_outputs(fixed):
    """As in h = tanh(W [x, h] + b), also with a fixed number of sequences."""
    changes = []
    for t, before in enumerate(("h", "h0", "h1", "h2")):
        changes.append((f"a{t} = MatMul (x{t}, W)", f"a{t} = Concat <axis = 1> (x{t}, {before})"))
        changes.append((f"b{t} = MatMul ({before}, U)", f"b{t} = MatMul (a{t}, both)"))
        changes.append((f"c{t} = Add (a{t}, b{t})", f"c{t} = Identity (b{t})"))
    more = {"both": inputs(D + H, H), "W": None, "U": None}
    if fixed:
        changes.append((f"float[batch, {T}, {D}] x", f"float[{B}, {T}, {D}] x"))
        changes.append(("h = Expand (zero, sizes)", "h = Identity (zero)"))
        changes.append(("shape = Shape <start = 0, end = 1> (x)", ""))
        changes.append(("sizes = Concat <axis = 0> (shape, units)", ""))
        more |= {"zero": np.zeros((B, H), "f4"), "units": None}
    proto = tanh_steps(*changes, **more)
    model = interop.from_model(proto)
    assert (model.params["layer0.W_hh"] == inputs(D + H, H)[D:]).all()
    assert error(model.predict(inputs(B, T, D)), computed(proto, inputs(B, T, D))) < WORST


@pytest.mark.parametrize(("dtype", "wanted"), [("f2", "float32"), ("f8", "float64")])
def test_other_precisions(dtype, wanted):
    names = {"W": (D, H), "U": (H, H), "bias": (H,), "kernel": (H, V), "vector": (V,)}
    arrays = {name: inputs(*shape).astype(dtype) for name, shape in names.items()}
    model = interop.from_model(tanh_steps(**arrays, zero=np.zeros((), dtype)))
    assert model.dtype == wanted
    assert (model.params["layer0.W_hh"] == arrays["U"]).all()


@pytest.mark.parametrize("cell", EQUATIONS)
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}])
def test_an_input_is_the_initial_state(cell, options):
    net = network(cell, **options)
    unrolled = Unrolled(net, T, states=True)
    proto = unrolled.model()
    again = interop.from_model(proto)
    assert again.flat_params.tobytes() == net.flat_params.tobytes()
    n = net.num_layers * (1 + net.bidirectional)
    states = {name: inputs(n, B, H, seed=i) for i, name in enumerate(unrolled.states)}
    found = again(inputs(T, B, D), tuple(states.values()) if len(states) > 1 else states["h"])[0]
    assert error(found, run(session(proto), inputs(T, B, D), **states)["out"]) < WORST


def test_an_initial_state_of_another_layer_is_refused():
    proto = Unrolled(network("tanh", num_layers=2), T, states=True).model()
    gathers = [node for node in proto.graph.node if node.input[0] == "h"]
    for changes in ((1, 0), (0, 0)):
        for node, row in zip(gathers, changes, strict=True):
            next(each for each in proto.graph.initializer if each.name == node.input[1]).CopyFrom(
                numpy_helper.from_array(np.array(row), node.input[1])
            )
        with pytest.raises(ValueError, match=r"initial_h of layer [01]: expected"):
            interop.from_model(proto)


# ---- what is refused -------------------------------------------------------------------------------------------------

REFUSED = {
    "another matrix in one step": ([("MatMul (h1, U)", "MatMul (h1, U2)")], {"U2": inputs(H, H, seed=9)}, "no cell"),
    "another bias in the first step": ([("(c0, bias)", "(c0, bias2)")], {"bias2": inputs(H, seed=9)}, "no cell"),
    "a step without x": ([("c2 = Add (a2, b2)", "e2 = Add (a2, b2) c2 = Identity (b2)")], {}, "no cell"),
    "another function": ([("h2 = Tanh", "h2 = Sigmoid")], {}, "no cell"),
    "the outputs before the last ones": ([("MatMul (h1, U)", "MatMul (h0, U)")], {}, "no cell"),
    "a step of x twice": ([("MatMul (x2, W)", "MatMul (x1, W)")], {}, "no cell"),
    "x in another order": ([("(x, i1)", "(x, k)"), ("(x, i2)", "(x, i1)"), ("(x, k)", "(x, i2)")], {}, "no cell"),
    "fewer steps than x has": ([("(h3, kernel", "(h2, kernel")], {}, "no cell"),
    "a state that is not zeros": ([], {"zero": np.array(0.1, "f4")}, "an initial state|initial state of zeros"),
    "a step that is scaled": (
        [("h1 = Tanh (d1)", "q = Tanh (d1) h1 = Mul (q, two)")],
        {"two": np.array(2, "f4")},
        "no cell",
    ),
    "an answer that is scaled": (
        [("out = Gemm (h3, kernel, vector)", "q = Gemm (h3, kernel, vector) p = Sigmoid (q) out = Mul (p, two)")],
        {"two": np.array(2, "f4")},
        "no cell|expected",
    ),
    "a sum of outputs": (
        [("(h3, kernel", "(h9, kernel"), ("h3 = Tanh (d3)", "h3 = Tanh (d3) h9 = Add (h2, h3)")],
        {},
        "no cell",
    ),
    "a second linear layer": (
        [("out = Gemm (h3, kernel, vector)", "q = Gemm (h3, kernel, vector) out = MatMul (q, more)")],
        {"more": inputs(V, V)},
        "no cell",
    ),
    "a part of the units": (
        [("b1 = MatMul (h0, U)", "q = Slice (h0, one, three, one) b1 = MatMul (q, U2)")],
        {"one": np.array([1]), "three": np.array([3]), "U2": inputs(2, H)},
        "no cell",
    ),
    "a mask": (
        [("h2 = Tanh (d2)", "q = Tanh (d2) m = Greater (x, zero) h2 = Where (m, q, h1)")],
        {},
        r"\(Greater\): expected a constant",
    ),
    "a hard sigmoid": ([("h2 = Tanh", "h2 = HardSigmoid")], {}, r"\(HardSigmoid\): expected nothing but steps"),
    "a node that leads nowhere": ([("h3 = Tanh (d3)", "h3 = Tanh (d3) h9 = Add (h2, h3)")], {}, "an output's"),
    "an initializer that leads nowhere": ([], {"more": inputs(2)}, "initializer 'more'"),
    "a number that is not finite": ([], {"U": np.full((H, H), np.nan, "f4")}, "finite"),
    "mixed precisions": ([], {"U": inputs(H, H).astype("f8")}, "one dtype"),
    "an output in the middle": (
        [("vector)", "vector) m = Identity (h1)"), ("] out)", "] out, float[batch, 5] m)")],
        {},
        "first or the last step|no cell",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_the_steps_of_a_layer_is_refused(name):
    changes, arrays, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        interop.from_model(tanh_steps(*changes, **arrays))


def test_a_single_step_does_not_show_what_a_layer_does():
    net = network("tanh")
    with pytest.raises(ValueError, match="expected"):
        interop.from_model(Unrolled(net, 1).model())


def test_some_steps_of_sequences_of_any_length_are_refused():
    proto = tanh_steps((f"float[batch, {T}, {D}] x", f"float[batch, time, {D}] x"))
    with pytest.raises(ValueError, match=r"\(Gather\): expected a fixed number of steps"):
        interop.from_model(proto)


@pytest.mark.parametrize("kind", ["Loop", "Scan", "If"])
def test_loops_are_refused_by_name(kind):
    proto = tanh_steps()
    proto.graph.node[5].op_type = kind
    with pytest.raises(ValueError, match=rf"\({kind}\): expected nodes of recurrent layers.*crnn.interop.keras"):
        interop.from_model(proto)


def test_the_error_says_what_else_reads_the_model():
    for producer, name, message in [
        ("pytorch", "x", "PyTorch's exporter .* dynamo=False"),
        ("pytorch", "keras_tensor_3", "Keras's exporter .* crnn.interop.keras"),
        ("other", "x", "other exporters write nodes LSTM, GRU and RNN"),
    ]:
        proto = tanh_steps(("h2 = Tanh", "h2 = Sigmoid"))
        proto.producer_name = producer
        text = onnx.printer.to_text(proto).replace(" x)", f" {name})").replace("(x", f"({name}")
        proto = onnx.parser.parse_model(text)
        with pytest.raises(ValueError, match=message):
            interop.from_model(proto)


# ---- changes at random -----------------------------------------------------------------------------------------------


def changed_at_random(proto, rng):
    """A copy in which an input of a node, an operator or a number is another one."""
    copy = onnx.ModelProto.FromString(proto.SerializeToString())
    node, kind = rng.choice(copy.graph.node), rng.randrange(4)
    names = [name for each in copy.graph.node for name in each.output]
    names += ["x", *[each.name for each in copy.graph.initializer]]
    alike = [each for each in copy.graph.node if each.op_type == node.op_type and each.input]
    if kind == 0 and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(names)
    elif kind == 1 and node.input:
        i = rng.randrange(len(node.input))
        node.input[i] = rng.choice(alike).input[i]
    elif kind == 2:
        node.op_type = rng.choice(["Add", "Mul", "Sub", "Tanh", "Sigmoid", "Relu", "Identity"])
    else:
        tensor = rng.choice(copy.graph.initializer)
        values = numpy_helper.to_array(tensor).copy()
        values.reshape(-1)[rng.randrange(values.size)] += 1
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return copy


@pytest.mark.parametrize("cell", EQUATIONS)
def test_a_graph_that_was_changed_is_refused_or_computes_what_the_model_computes(cell):
    rng, x = random.Random(cell), inputs(T, B, D)
    read = refused = 0
    for seed in range(3):
        net = network(cell, seed, num_layers=1 + seed % 2, bidirectional=seed == 2)
        head = (inputs(H * (1 + net.bidirectional), V), inputs(V)) if seed else None
        proto = Unrolled(net, T, update=rng.choice(["gates", "difference", "inverted"])).model(head=head)
        for _ in range(35):
            graph = changed_at_random(proto, rng)
            try:
                model = interop.from_model(graph)
            except ValueError:
                refused += 1
                continue
            read += 1
            wanted = computed(graph, x, check=False)
            assert error(outputs(model, x).reshape(wanted.shape), wanted) < WORST
    assert read > 3
    assert refused > 30


def test_a_graph_that_multiplies_its_vectors_is_refused_in_time():
    """Each line doubles the number of products in a sum."""
    lines = "\n".join(f"v{i + 1} = Mul (v{i}, w{i}) w{i + 1} = Add (v{i + 1}, v{i})" for i in range(60))
    steps = f"x0 = Gather <axis = 1> (x, i0) v = MatMul (x0, W) v0 = Tanh (v) w0 = Add (v0, v0)\n{lines}"
    arrays = {"W": inputs(D, H), "i0": np.array(0), "units": np.array([H]), "zero": np.zeros((), "f4")}
    proto = graph_of(STEPS.format(steps=steps, last="v60"), **arrays, kernel=inputs(H, V), vector=inputs(V))
    with pytest.raises(ValueError, match="expected"):
        interop.from_model(proto)


def test_a_number_of_steps_that_nothing_has_is_refused_at_once():
    proto = tanh_steps()
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1 << 40
    with pytest.raises(ValueError, match="no cell of crnn computes"):
        interop.from_model(proto)


def test_functions_of_functions_without_end_are_refused():
    lines = "\n".join(f"v{i + 1} = Tanh (v{i})" for i in range(3000))
    steps = f"x0 = Gather <axis = 1> (x, i0) v0 = MatMul (x0, W)\n{lines}\nq = Slice (v3000, i, j, j)"
    arrays = {"W": inputs(D, H), "i0": np.array(0), "i": np.array([0]), "j": np.array([1]), "units": np.array([H])}
    proto = graph_of(STEPS.format(steps=steps, last="q"), **arrays, zero=np.zeros((), "f4"), kernel=inputs(1, V))
    proto.graph.initializer.append(numpy_helper.from_array(inputs(V), "vector"))
    with pytest.raises(ValueError, match="whole gates"):
        interop.from_model(proto)


def test_layers_of_layers_without_end_are_refused():
    net = network("tanh", num_layers=80, hidden_size=D)
    with pytest.raises(ValueError, match="expected at most 50 layers"):
        interop.from_model(Unrolled(net, 2).model())


def test_a_head_node_of_a_name_that_another_has_is_refused():
    proto = tanh_steps()
    proto.graph.node.append(helper.make_node("Identity", ["h3"], ["h2"]))
    with pytest.raises(ValueError, match="expected an output that no other node has"):
        interop.from_model(proto)
