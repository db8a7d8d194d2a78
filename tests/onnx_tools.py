# SPDX-License-Identifier: MIT
"""ONNX graphs for the tests: made from text, run by ONNX Runtime."""

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper, parser


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
