# SPDX-License-Identifier: MIT
"""ONNX graphs in which the layers of a network are unrolled into steps, written from the cells' equations."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper


class Unrolled:
    """A graph of T steps of a network, with x (T, B, D) and the outputs of all steps.

    Parameters
    ----------
    net : RNN
    T : int
    update : str
        How a GRU's h is written: "gates" (1 - z) * n + z * h', "difference" n + z * (h' - n),
        "inverted" h' + z * (n - h'), which is another network.
    states : bool
        Whether the initial states are inputs, h and for an LSTM c (layers * directions, B, H).
    """

    def __init__(self, net, T, update="gates", states=False):
        self.net, self.T, self.update = net, T, update
        self.states = (["h", "c"] if net.cell == "lstm" else ["h"]) if states else []
        self.nodes, self.tensors, self.count = [], {}, 0

    def op(self, kind, *inputs, n=1, **attributes):
        outputs = [f"v{self.count}.{i}" for i in range(n)]
        self.count += 1
        self.nodes.append(helper.make_node(kind, list(inputs), outputs, name=f"{kind}_{self.count}", **attributes))
        return outputs[0] if n == 1 else outputs

    def array(self, values, name=None):
        name = name or f"c{len(self.tensors)}"
        self.tensors[name] = np.array(values)
        return name

    def model(self, head=None, answer=None):
        """The graph; with a head (W, b) on the last outputs, and a function of it."""
        steps = [self.op("Gather", "x", self.array(t), axis=0) for t in range(self.T)]
        for layer in range(self.net.num_layers):
            found = [self.direction(steps, f"layer{layer}.", False)]
            if self.net.bidirectional:
                found.append(self.direction(steps, f"layer{layer}.reverse.", True))
            if head is not None and layer == self.net.num_layers - 1:
                break
            both = list(zip(*found, strict=True))
            steps = [row[0] if len(row) == 1 else self.op("Concat", *row, axis=1) for row in both]
        if head is not None:
            last = [rows[i] for rows, i in zip(found, (-1, 0), strict=False)]
            h = last[0] if len(last) == 1 else self.op("Concat", *last, axis=1)
            out = self.op("Gemm", h, self.array(head[0]), self.array(head[1]))
            out = out if answer is None else self.op(answer, out)
        else:
            out = self.op("Concat", *[self.op("Unsqueeze", h, self.array([0])) for h in steps], axis=0)
        self.nodes.append(helper.make_node("Identity", [out], ["out"], name="out"))
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [self.T, "batch", self.net.input_size])
        top = [name for name in self.net.params if name.startswith(f"layer{layer}.") and name.endswith("W_hh")]
        width = sum(len(self.net.params[name]) for name in top)
        shape = [self.T, "batch", width] if head is None else ["batch", len(head[1])]
        y = helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)
        tensors = [numpy_helper.from_array(values, name) for name, values in self.tensors.items()]
        rows = self.net.num_layers * (1 + self.net.bidirectional)
        sizes = [rows, "batch", self.net.hidden_size]
        states = [helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes) for name in self.states]
        graph = helper.make_graph(self.nodes, "unrolled", [x, *states], [y], tensors)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)

    def direction(self, steps, prefix, reverse):
        """h of each step, in the order of time."""
        params = {name: self.net.params[prefix + name] for name in ("W_xh", "W_hh", "b_h")}
        names = {name: self.array(values, prefix + name) for name, values in params.items()}
        H = params["W_hh"].shape[0]
        b_hn = self.net.params.get(prefix + "b_hn")
        self.b_hn = None if b_hn is None else self.array(b_hn, prefix + "b_hn")
        gates = {"lstm": 4, "gru": 3, "original_gru": 3}.get(self.net.cell, 1)
        self.sizes = self.array([H] * gates, prefix + "sizes") if gates > 1 else None
        if self.net.cell in ("gru", "original_gru"):  # the blocks are r, z, n
            self.U = [self.array(params["W_hh"][:, i * H : (i + 1) * H], f"{prefix}U{i}") for i in range(3)]
            del self.tensors[names["W_hh"]]
        if self.states:
            row = len([name for name in self.tensors if name.endswith("W_xh")]) - 1
            h, *more = (self.op("Gather", name, self.array(row), axis=0) for name in self.states)
            c = more[0] if more else h
        else:
            batch = self.op("Shape", steps[0], start=0, end=1)
            size = self.op("Concat", batch, self.array([H]), axis=0)
            h = c = self.op("ConstantOfShape", size, value=numpy_helper.from_array(np.zeros(1, "f4")))
        found = []
        for x in steps[::-1] if reverse else steps:
            xw = self.op("Add", self.op("MatMul", x, names["W_xh"]), names["b_h"])
            h, c = getattr(self, self.net.cell)(xw, h, c, names["W_hh"])
            found.append(h)
        return found[::-1] if reverse else found

    def tanh(self, xw, h, c, U):
        return self.op("Tanh", self.op("Add", xw, self.op("MatMul", h, U))), c

    def relu(self, xw, h, c, U):
        return self.op("Relu", self.op("Add", xw, self.op("MatMul", h, U))), c

    def lstm(self, xw, h, c, U):
        i, f, g, o = self.op("Split", self.op("Add", self.op("MatMul", h, U), xw), self.sizes, n=4, axis=1)
        i, f, g, o = self.op("Sigmoid", i), self.op("Sigmoid", f), self.op("Tanh", g), self.op("Sigmoid", o)
        c = self.op("Add", self.op("Mul", f, c), self.op("Mul", g, i))
        return self.op("Mul", o, self.op("Tanh", c)), c

    def gate(self, xw, h, U):
        return self.op("Sigmoid", self.op("Add", xw, self.op("MatMul", h, U)))

    def gru(self, xw, h, c, U):
        r, z, n = self.op("Split", xw, self.sizes, n=3, axis=1)
        r, z = self.gate(r, h, self.U[0]), self.gate(z, h, self.U[1])
        hn = self.op("Add", self.op("MatMul", h, self.U[2]), self.b_hn)
        n = self.op("Tanh", self.op("Add", n, self.op("Mul", r, hn)))
        return self.updated(z, n, h), c

    def original_gru(self, xw, h, c, U):
        r, z, n = self.op("Split", xw, self.sizes, n=3, axis=1)
        r, z = self.gate(r, h, self.U[0]), self.gate(z, h, self.U[1])
        n = self.op("Tanh", self.op("Add", n, self.op("MatMul", self.op("Mul", r, h), self.U[2])))
        return self.updated(z, n, h), c

    def updated(self, z, n, h):
        if self.update == "difference":
            return self.op("Add", n, self.op("Mul", z, self.op("Sub", h, n)))
        if self.update == "inverted":
            return self.op("Add", h, self.op("Mul", z, self.op("Sub", n, h)))
        one = self.array(np.array(1, "f4"), "one")
        return self.op("Add", self.op("Mul", self.op("Sub", one, z), n), self.op("Mul", z, h))
