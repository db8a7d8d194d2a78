# SPDX-License-Identifier: MIT
"""ONNX graphs for the tests: made from text, run by ONNX Runtime."""

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper, parser

WORST = 1e-6  # of float32, in units of the largest number if that is above 1
T, B, D, H, V = 6, 4, 3, 5, 2


def inputs(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("f4")


def session(proto, check=True):
    """A session of ONNX Runtime on one thread, after ONNX's own checks."""
    if check:
        onnx.checker.check_model(proto, full_check=True)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return ort.InferenceSession(proto.SerializeToString(), options)


def run(session, *given, **inputs):
    """The outputs by name. Inputs are given in their order or by name."""
    inputs |= dict(zip([each.name for each in session.get_inputs()], given, strict=False))
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


def graph_of(text, opset=18, **arrays):
    """The model of a graph as text; arrays become initializers."""
    proto = parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]>\n{text}')
    for name, values in arrays.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.array(values, order="C"), name))
    return proto


def weights(kind, D, H, directions=1, seed=0, number=0):
    """W, R and B of an LSTM, GRU or RNN node, as W0, R0, B0."""
    rng, G = np.random.default_rng(seed + number), {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    shapes = {"W": (directions, G * H, D), "R": (directions, G * H, H), "B": (directions, 2 * G * H)}
    return {f"{name}{number}": rng.normal(size=shape).astype("f4") * 0.5 for name, shape in shapes.items()}


def with_initializers(proto, arrays):
    """A copy in which these inputs are initializers."""
    copy = onnx.ModelProto.FromString(proto.SerializeToString())
    kept = [each for each in copy.graph.input if each.name not in arrays]
    del copy.graph.input[:]
    copy.graph.input.extend(kept)
    copy.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in arrays.items())
    return copy


def without_header(proto):
    """A copy without the metadata by which crnn knows its own files."""
    copy = onnx.ModelProto.FromString(proto.SerializeToString())
    helper.set_model_props(copy, {})
    return copy


def error(found, wanted):
    """The largest difference, in units of the largest number if that is above 1."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape
    return np.abs(found - wanted).max() / max(1, np.abs(wanted).max())


# ---- a small graph to change ---------------------------------------------------------------------------------------

TEXT = f"""g (float[t, b, {D}] x) => (float[t, b, {V}] out) {{
    y, y_h, y_c = LSTM <hidden_size = {H}> (x, W0, R0, B0)
    s = Squeeze (y, one)
    product = MatMul (s, kernel)
    out = Add (product, bias)
}}"""
ARRAYS = {"one": np.array([1]), "kernel": inputs(H, V), "bias": inputs(V, seed=1)} | weights("LSTM", D, H)


def changed(*pairs, text=TEXT, **arrays):
    """The graph with other words and arrays."""
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    both = {name: value for name, value in (ARRAYS | arrays).items() if value is not None}
    return graph_of(text, **both)
