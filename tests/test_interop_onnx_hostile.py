# SPDX-License-Identifier: MIT
"""ONNX files that somebody has damaged, or made to do harm: refused, in time and memory in proportion to their size."""

import contextlib
import json
import os
import random
import tracemalloc
import warnings

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
from onnx import TensorProto, external_data_helper, helper, numpy_helper
from onnx_tools import graph_of, weights, without_header
from unrolled_tools import Unrolled

import crnn
from crnn.interop import onnx as interop
from crnn.interop.onnx import files
from crnn.interop.onnx.nodes import OPERATORS
from crnn.io.model_file import ModelFileError

pytestmark = [pytest.mark.interop, pytest.mark.thread_unsafe]

D, H, V = 3, 4, 2


def inputs(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("f4")


def bases():
    """Graphs that use all operators, those of crnn and of others."""
    text = f"""g (int64[b, t] x, float[1, b, {H}] h) => (float[b, {V}] out, float[1, b, {H}] last) {{
        shape = Shape (x)
        size = Gather (shape, zero)
        z = Constant <value = int64[1] {{0}}> ()
        rows = Unsqueeze (size, z)
        sizes = Concat <axis = 0> (two, rows, units)
        fill = ConstantOfShape (sizes)
        up = Add (x, zero)
        vectors = Gather (table, up)
        xt = Transpose <perm = [1, 0, 2]> (vectors)
        y = GRU <hidden_size = {H}, linear_before_reset = 1, direction = "bidirectional"> (xt, W0, R0, B0, , fill)
        yt = Transpose <perm = [0, 2, 1, 3]> (y)
        yr = Reshape (yt, merged)
        q, q_h = GRU <hidden_size = {H}, linear_before_reset = 1> (yr, W1, R1, B1, , h)
        f = Split <axis = 0, num_outputs = 1> (q_h)
        s = Squeeze (f, z)
        d = Dropout (s)
        logits = Gemm <transB = 1> (d, kernel, bias)
        out = Softmax <axis = -1> (logits)
        last = Identity (q_h)
    }}"""
    arrays = {"zero": np.array(0), "two": np.array([2]), "units": np.array([H]), "merged": np.array([0, 0, -1])}
    arrays |= {"table": inputs(5, D), "kernel": inputs(V, H), "bias": inputs(V)}
    arrays |= weights("GRU", D, H, 2) | weights("GRU", 2 * H, H, number=1)
    yield graph_of(text, **arrays)
    yield Unrolled(crnn.RNN(D, H, cell="gru", bidirectional=True), 3).model()
    yield Unrolled(crnn.RNN(D, H, cell="lstm"), 2, states=True).model()
    for cell in ("tanh", "lstm", "min_gru"):
        yield interop.to_model(crnn.RNN(D, H, cell=cell, num_layers=2, trainable_initial_state=True))
    flat = crnn.SequenceClassifier(D, V, H, pooling="flatten", steps=3)
    for model in (crnn.SequenceRegressor(D, V, H, bidirectional=True), flat, crnn.SequenceTagger(5, 3, H)):
        yield interop.to_model(model)
        yield without_header(interop.to_model(model, lengths=False, state=False))


def fields(message):
    """All messages in a message, with itself."""
    yield message
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            for each in value if hasattr(value, "add") else [value]:
                yield from fields(each)


def mutate(rng, proto, other):
    """Change some fields of a proto, anywhere in it."""
    for _ in range(rng.choice([1, 1, 2, 5])):
        message = rng.choice(list(fields(proto)))
        set_fields = message.ListFields()
        if not set_fields:
            continue
        descriptor, value = rng.choice(set_fields)
        name, kind = descriptor.name, rng.randrange(6)
        repeated = hasattr(value, "append")
        if kind == 0:
            message.ClearField(name)
        elif repeated and len(value):
            i = rng.randrange(len(value))
            if kind == 1:
                del value[i]
            elif kind == 2 and hasattr(value, "add"):
                value.add().CopyFrom(value[i])
            elif kind == 3 and hasattr(value, "add"):
                value[i].CopyFrom(rng.choice(value))
            elif hasattr(value, "add"):
                continue
            else:
                value[i] = changed(rng, value[i])
        elif not repeated and descriptor.message_type is None:
            with contextlib.suppress(ValueError):  # no such value of an enumeration
                setattr(message, name, changed(rng, value))
    content = bytearray(proto.SerializeToString())
    if rng.random() < 0.3:
        i, n = rng.randrange(len(content)), rng.choice([1, 1, 4, 100])
        content[i : i + n] = rng.choice([b"", rng.randbytes(n), content[:n], other.SerializeToString()[i : i + n]])
    return bytes(content)


def changed(rng, value):
    if isinstance(value, bytes | str):
        empty = value[:0]
        text = rng.choice([empty, value[: len(value) // 2], value + value, value[::-1]])
        names = ["", "x", "y", "W0", "one", "\0", "ö" * 300, *OPERATORS]
        return rng.choice([text, rng.choice(names) if isinstance(value, str) else rng.randbytes(len(value))])
    if isinstance(value, float):
        return rng.choice([0.0, -1.0, float("nan"), float("inf"), 1e30])
    return rng.choice([0, 1, 2, 3, 7, 1 << 20, (1 << 31) - 1, -1 if value < 0 else 5, value + 1])


def outcome(path):
    try:
        model = interop.load(path)
    except ModelFileError as error:
        return "refused" if str(error).startswith(str(path)) else str(error)
    assert np.isfinite(model.flat_params).all()
    return type(model).__name__


def test_mutated_files_are_refused_or_models(tmp_path):
    protos, path, outcomes = list(bases()), tmp_path / "m.onnx", []
    kinds = {"RNN", "SequenceClassifier", "SequenceRegressor", "SequenceTagger"}
    for proto in protos:
        path.write_bytes(proto.SerializeToString())
        assert outcome(path) in kinds
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(600):
            rng = random.Random(number)
            proto = onnx.ModelProto.FromString(rng.choice(protos).SerializeToString())
            path.write_bytes(mutate(rng, proto, rng.choice(protos)))
            outcomes.append(outcome(path))
    assert outcomes.count("refused") > 100
    assert set(outcomes) == {"refused"} | kinds, "nothing but refusals: the mutations break the syntax only"


def peak_of(call):
    """The largest size of what Python and NumPy allocate in a call that must be refused."""
    tracemalloc.start()
    try:
        with pytest.raises((ValueError, ModelFileError)):
            call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def base():
    return next(bases())


def node(kind, given, made, **attributes):
    return helper.make_node(kind, given, made, **attributes)


def test_constants_cannot_be_multiplied(tmp_path):
    """Each of these graphs would need more than a gigabyte, and is smaller than 200 kB."""
    doubled = [node("Concat", [f"c{i}", f"c{i}"], [f"c{i + 1}"], axis=0) for i in range(40)]
    many = [node("Concat", ["c0"] * 20_000, ["c1"], axis=0)]
    gathered = [node("Gather", ["c0", "which"], ["c1"]), node("Gather", ["c1", "which"], ["c2"])]
    gathered.append(node("Gather", ["c2", "which"], ["c3"]))
    huge = [node("Mul", [f"n{i}", f"n{i}"], [f"n{i + 1}"]) for i in range(60)]
    unknown = [node("Shape", ["x"], ["n"]), node("Gather", ["n", "zero"], ["n0"]), *huge]
    turned = [node("Transpose", ["wide"], ["t"], perm=[1, 0])]
    turned += [node("Reshape", ["t", "flat"], [f"r{i}"]) for i in range(10_000)]
    scaled = [node("Mul", ["v" if i == 0 else f"s{i}", "c0"], [f"s{i + 1}"]) for i in range(10_000)]
    states = [node("Concat", [f"q{i}" if i else "q_h", "q_h"], [f"q{i + 1}"], axis=0) for i in range(10_000)]
    layers = [node("GRU", ["xt", "W0", "R0"], [f"l{i}"], direction="bidirectional") for i in range(200)]
    for nodes in (doubled, many, gathered, huge, unknown, layers, turned, scaled, states):
        proto = base()
        proto.graph.node.extend(nodes)
        proto.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 16_000), "f4"), "c0"))
        proto.graph.initializer.append(numpy_helper.from_array(np.zeros(2_000, "i4"), "which"))
        proto.graph.initializer.append(numpy_helper.from_array(np.zeros((2, 8_000), "f4"), "wide"))
        proto.graph.initializer.append(numpy_helper.from_array(np.array([-1]), "flat"))
        proto.graph.input.append(helper.make_tensor_value_info("v", TensorProto.FLOAT, ["b", 16_000]))
        if nodes is huge:
            proto.graph.initializer.append(numpy_helper.from_array(np.array([1 << 40]), "n0"))
        assert peak_of(lambda proto=proto: interop.from_model(proto)) < 200 << 20


def test_declared_sizes_are_not_allocated():
    for dims, raw in (([1 << 40], b""), ([0, 1 << 40], b""), ([2, 16, 3], b"\0" * 5)):
        tensor = TensorProto(name="W0", data_type=TensorProto.FLOAT, dims=dims, raw_data=raw)
        proto = base()
        old = next(each for each in proto.graph.initializer if each.name == "W0")
        old.CopyFrom(tensor)
        assert peak_of(lambda proto=proto: interop.from_model(proto)) < 10 << 20
    proto = base()
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1 << 62
    interop.from_model(proto)  # nothing depends on it
    starts = {"start": np.array([0]), "end": np.array([1 << 61]), "axis": np.array([0])}
    proto.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in starts.items())
    proto.graph.node.append(node("Slice", ["y", "start", "end", "axis"], ["part"]))
    assert peak_of(lambda: interop.from_model(proto)) < 10 << 20


def test_empty_messages_do_not_take_memory_out_of_proportion(tmp_path):
    """Two bytes in the file, a hundred in memory."""
    path = tmp_path / "m.onnx"
    many = b"\x0a\x00" * 4_000_000  # nodes
    size = b"".join(bytes([128 | ((len(many) >> 7 * i) & 127)]) for i in range(4)) + bytes([len(many) >> 28])
    path.write_bytes(b"\x3a" + size + many)
    with pytest.raises(ModelFileError, match="more than 100000 messages"):
        interop.load(path)


def test_messages_in_each_other_are_limited(tmp_path):
    graph = helper.make_graph([], "g", [], [])
    for _ in range(30):
        graph = helper.make_graph([helper.make_node("If", ["c"], ["y"], then_branch=graph)], "g", [], [])
    path = tmp_path / "m.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(ModelFileError, match=r"in each other|expected an ONNX file"):
        interop.load(path)


def test_texts_that_are_not_utf8_are_refused(tmp_path):
    proto, path = base(), tmp_path / "m.onnx"
    content = proto.SerializeToString()
    path.write_bytes(content.replace(b"kernel", b"ke\xffnel"))
    with pytest.raises(ModelFileError, match="utf-8"):
        interop.load(path)
    with pytest.raises(ValueError, match="utf-8"):
        interop.from_model(onnx.ModelProto.FromString(path.read_bytes()))


def test_counting_agrees_with_what_protobuf_finds():
    proto = base()
    content = proto.SerializeToString()
    files.check_messages(content, onnx.ModelProto.DESCRIPTOR)
    for n in range(1, len(content), 97):
        try:
            onnx.ModelProto.FromString(content[:n])
        except Exception:
            with pytest.raises(ValueError, match="got"):
                files.check_messages(content[:n], onnx.ModelProto.DESCRIPTOR)


# ---- crnn's own files, with a digest that fits -----------------------------------------------------------------------


def forged(proto, change):
    """A copy whose header or initializers somebody has changed, together with the digest."""
    copy = onnx.ModelProto.FromString(proto.SerializeToString())
    header = json.loads(copy.metadata_props[0].value)
    change(header, copy.graph)
    tensors = files.Tensors(copy)
    arrays = {name: tensors.array(name) for name in tensors.named if not name.startswith(files.HELPERS)}
    header["sha256"] = files.digest(copy, arrays, header)
    copy.metadata_props[0].value = json.dumps(header)
    return copy


def initializer(graph, name):
    return next(each for each in graph.initializer if each.name == name)


def removed(graph, name):
    graph.initializer.remove(initializer(graph, name))


def test_a_forged_header_is_checked_like_that_of_a_model_file():
    model = crnn.SequenceRegressor(D, V, H, cell="lstm", trainable_initial_state=True, bidirectional=True)
    proto = interop.to_model(model)
    assert type(interop.from_model(forged(proto, lambda header, graph: None))) is type(model)
    huge, odd = 1 << 40, [0, -1, None, "x", [], {}, 1.5, True]
    for name in model.config():
        for value in [huge, 3_000, *odd]:
            changed = forged(proto, lambda header, graph, n=name, v=value: header["config"].update({n: v}))
            if value == model.config()[name] and type(value) is type(model.config()[name]):
                continue
            tracemalloc.start()
            try:
                assert np.isfinite(interop.from_model(changed).flat_params).all()
            except ValueError:
                pass
            finally:
                assert tracemalloc.get_traced_memory()[1] < 10 << 20, (name, value)
                tracemalloc.stop()
    for change in (
        lambda header, graph: header.pop("config"),
        lambda header, graph: header.update(kind="RNN"),
        lambda header, graph: header.update(kind="LanguageModel"),
        lambda header, graph: header.update(kind=["RNN"]),
        lambda header, graph: header.update(training={"a": 1}),
        lambda header, graph: header["config"].update(surprise=1),
        lambda header, graph: removed(graph, "layer0.B"),
        lambda header, graph: removed(graph, "W_hy"),
        lambda header, graph: removed(graph, "h_in"),
        lambda header, graph: initializer(graph, "layer0.R").CopyFrom(initializer(graph, "layer0.W")),
        lambda header, graph: setattr(initializer(graph, "layer0.W"), "name", "layer7.W"),
        lambda header, graph: setattr(initializer(graph, "W_hy"), "name", "W_hidden"),
        lambda header, graph: setattr(initializer(graph, "h_in"), "name", "h_in_3"),
    ):
        with pytest.raises(ValueError):  # noqa: PT011, each says something else
            interop.from_model(forged(proto, change))


# ---- values in other files -------------------------------------------------------------------------------------------


def external(folder, **changes):
    """The path of a model whose weights lie in another file, after changes of where they lie."""
    proto, path = base(), folder / "m.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="m.data", size_threshold=0)
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        if tensor.name in ("W0", "R0"):
            for entry in tensor.external_data:
                entry.value = changes.get(entry.key, entry.value)
    path.write_bytes(proto.SerializeToString())
    return path


def test_values_in_another_file_of_the_folder_are_read(tmp_path):
    assert interop.load(external(tmp_path)).flat_params.tobytes() == interop.from_model(base()).flat_params.tobytes()
    with pytest.raises(ValueError, match=r"reference to the file 'm\.data'; use load"):
        interop.from_model(onnx.load(tmp_path / "m.onnx", load_external_data=False))


def test_crnns_own_files_may_keep_their_values_elsewhere(tmp_path):
    model = crnn.SequenceClassifier(D, V, H)
    proto = interop.to_model(model)
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=100)
    again = interop.load(tmp_path / "m.onnx")
    assert again.flat_params.tobytes() == model.flat_params.tobytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"location": "/etc/passwd"}, "of the same folder"),
        ({"location": "../secret"}, "of the same folder"),
        ({"location": ""}, "of the same folder"),
        ({"location": ".."}, "of the same folder"),
        ({"location": "m\0data"}, "of the same folder|expected an ONNX file"),
        ({"location": "missing"}, "No such file"),
        ({"location": "link"}, "expected values in a regular file"),
        ({"location": "fifo"}, "expected values in a regular file"),
        ({"location": "folder"}, "expected values in a regular file"),
        ({"offset": "-1"}, "expected at most"),
        ({"offset": "99999999"}, "expected at most"),
        ({"offset": "nine"}, "W0|invalid literal"),
        ({"length": "99999999999"}, "expected at most"),
        ({"length": "-5"}, "expected at most"),
        ({"length": "7"}, "W0"),
        ({"offset": "0"}, r"W_xh|each byte"),  # numbers of other tensors
    ],
)
def test_values_in_another_file_cannot_be_anywhere_else(tmp_path, changes, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "secret").write_bytes(b"\0" * 9999)
    os.symlink(tmp_path / "secret", tmp_path / "link")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "fifo")
    elif changes.get("location") == "fifo":
        pytest.skip("no FIFOs here")
    path = external(tmp_path, **changes)
    with pytest.raises(ModelFileError, match=message):
        interop.load(path)


def test_one_file_cannot_be_read_again_and_again(tmp_path):
    path = external(tmp_path)
    proto = onnx.load(path, load_external_data=False)
    with open(tmp_path / "m.data", "ab") as file:
        file.write(b"\0" * 1_000_000)
    for i in range(900):
        tensor = proto.graph.initializer.add(name=f"more {i}", data_type=TensorProto.FLOAT, dims=[200_000])
        tensor.raw_data = b""
        external_data_helper.set_external_data(tensor, "m.data", offset=4 * i, length=800_000)
        proto.graph.node.append(node("Identity", [f"more {i}"], [f"id {i}"]))
    path.write_bytes(proto.SerializeToString())
    assert peak_of(lambda: interop.load(path)) < 20 << 20
    with pytest.raises(ModelFileError, match="each byte to be used once"):
        interop.load(path)
