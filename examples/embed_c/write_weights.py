# SPDX-License-Identifier: MIT
"""Write a model's weights as main.c reads them: python write_weights.py model.safetensors net.bin

Without a model file, the weights of a small network are written, so that there is something to try.
"""

import argparse

import numpy as np

import crnn

CELL_NAME = 16  # bytes of the cell's name in the file
POOLINGS = {None: 0, "last": 0, "max": 1, "mean": 2}  # CRNN_POOL_... in crnn_stream.h


def write_weights(model, path):
    """Write an `RNN`, or a model with one and a head. Raises ValueError for what main.c could not compute."""
    net = getattr(model, "net", model)
    for reason in unsupported(model, net):
        raise ValueError(f"{type(model).__name__}: expected {reason}")
    outputs = 0 if model is net else len(model.params["b_y"])
    pooling = POOLINGS[getattr(model, "pooling", None)]
    sizes = [net.input_size, net.hidden_size, net.num_layers, outputs, net.trainable_initial_state, pooling]
    with open(path, "wb") as file:
        file.write(net.cell.encode().ljust(CELL_NAME, b"\0"))
        np.array(sizes, "<i4").tofile(file)
        for values in model.params.values():  # in the order in which main.c reads them
            values.astype("<f4").tofile(file)


def unsupported(model, net):
    """What the file format has no place for, though a C program could compute it: see crnn_model_config."""
    if not isinstance(net, crnn.RNN) or isinstance(model, crnn.SequenceToSequence):
        yield "one network, at most with a head"
        return
    if net.bidirectional:
        yield "one direction: a stream cannot read backward"
    if net.dense_layers:
        yield "layers that read the one below, got dense_layers=True"
    if net.dtype != "float32":
        yield f"float32, got {net.dtype}"
    if net.embedding_size:
        yield "inputs that are numbers, got an embedding"
    if net.precision is not None:
        yield f"weights that are not rounded, got precision={net.precision!r}"
    for name in set(model.params) - {*net.params, "W_hy", "b_y"}:
        yield f"a head of W_hy and b_y, got {name} too"
    if isinstance(net.hidden_size, list):
        yield f"layers of equal size, got {net.hidden_size}"
    if getattr(model, "pooling", None) not in POOLINGS:
        yield f"an output at every step, got pooling={model.pooling!r}"
    for name, scaling in getattr(model, "scalings", {}).items():
        if np.any(scaling.mean != 0) or np.any(scaling.std != 1):
            yield f"a model that was made with scale=False, got one that standardises {name}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", help="a model file; if not given, a small network is made")
    parser.add_argument("output", help="where to write the weights")
    given = parser.parse_args()
    try:
        write_weights(crnn.load(given.model) if given.model else crnn.RNN(4, 8, 2, "lstm", seed=1), given.output)
    except (ValueError, OSError) as error:
        raise SystemExit(f"write_weights: {error}") from None
