# SPDX-License-Identifier: MIT
"""Write a model's weights as main.c reads them: python write_weights.py model.safetensors net.bin

Without a model file, the weights of a small network are written, so that there is something to try.
"""

import sys

import numpy as np

import crnn

CELL_NAME = 16  # bytes of the cell's name in the file


def write_weights(model, path):
    """``model``: a unidirectional `RNN`, or a model with one and a head. Standardisation is not written."""
    net = getattr(model, "net", model)
    if net.bidirectional or net.embedding_size or net.dtype != "float32" or isinstance(net.hidden_size, list):
        raise SystemExit("expected a unidirectional float32 network with layers of equal size and without an embedding")
    outputs = 0 if model is net else len(model.params["b_y"])
    with open(path, "wb") as file:
        file.write(net.cell.encode().ljust(CELL_NAME, b"\0"))
        np.array([net.input_size, net.hidden_size, net.num_layers, outputs], "<i4").tofile(file)
        for name, values in model.params.items():  # in the order in which main.c reads them
            if not name.endswith((".h0", ".c0")):
                values.astype("<f4").tofile(file)


if __name__ == "__main__":
    *source, target = sys.argv[1:]
    write_weights(crnn.load(source[0]) if source else crnn.RNN(4, 8, 2, "lstm", seed=1), target)
