# SPDX-License-Identifier: MIT
"""Write the files that are mutated: python -m tests.fuzz.make_corpus

They are small, and committed: a file of every kind of model as crnn wrote it, which later versions must still load. So
files that are there already stay as they are.
"""

import numpy as np

import crnn
from crnn.nn.cells import CELLS

from .targets import CORPUS

VOCAB = crnn.Vocab.from_text("the cat sat", "word")
FREQUENT = crnn.Vocab.from_text("the cat sat the cat the", "word", order="frequency")


def models() -> dict[str, crnn.RNN]:
    """One of every kind, and of every option that changes which tensors there are or what the header holds."""
    small = {"hidden_size": 3, "seed": 1}
    every = {
        f"rnn-{cell}": crnn.RNN(2, 3, 2, cell, trainable_initial_state=True, seed=1)
        for cell in CELLS
    }
    return every | {
        "rnn-float64": crnn.RNN(2, [3, 4], cell="lstm", bidirectional=True, dtype="float64", seed=1),
        "rnn-dense": crnn.RNN(2, [3, 2, 2], cell="gru", dense_layers=True, seed=1),
        "rnn-embedding": crnn.RNN(4, 3, embedding_size=2, seed=1),
        "language-char": crnn.LanguageModel(crnn.Vocab.from_text("a\nb\u2028é\U0001f600"), cell="gru", **small),
        "language-byte": crnn.LanguageModel(crnn.Vocab.from_text(b"ab", "byte"), "tanh", hidden_size=1, seed=1),
        "language-word": crnn.LanguageModel(VOCAB, "tanh", embedding_size=3, tie_weights=True, dropout=0.5, **small),
        "language-methods": crnn.LanguageModel(
            VOCAB, "tanh", embedding_size=3, init="uniform(0.1)", label_smoothing=0.1, activation_penalty=2.0,
            weight_dropout=0.5, output_dropout=0.25, **small,
        ),
        "language-adaptive": crnn.LanguageModel(FREQUENT, "relu", adaptive_softmax=[2, 3], hidden_size=16, seed=1),
        "classifier": crnn.SequenceClassifier(
            2, classes=["up", "down"], class_weight=[1.0, 2.5], pooling="last", **small
        ),
        "classifier-flatten": crnn.SequenceClassifier(2, classes=[-3, 2**70], pooling="flatten", steps=2, **small),
        "tagger": crnn.SequenceTagger(2, 3, multilabel=True, bidirectional=True, **small),
        "regressor": crnn.SequenceRegressor(2, 2, loss="huber", delta=0.5, pooling=None, **small),
        "regressor-quantile": crnn.SequenceRegressor(2, 2, loss="quantile", quantiles=[0.1, 0.9], **small),
        "forecaster": forecaster(),
        "translator": crnn.SequenceToSequence(2, 3, **small),
        "translator-texts": crnn.SequenceToSequence(source_vocab=VOCAB, target_vocab=VOCAB, **small),
    }


def quantised(models: dict[str, crnn.RNN]) -> dict[str, crnn.RNN]:
    """Some of them with weights in fewer bits: each precision, all together, and both axes of outputs."""
    mixed = {"layer0.W_hh": "int4", "layer0.reverse.W_hh": "int8", "W_hy": "bf16"}
    return {
        "rnn-lstm-bf16": models["rnn-lstm"].quantize("bf16"),
        "rnn-gru-int8": models["rnn-gru"].quantize("int8"),
        "rnn-embedding-int4": models["rnn-embedding"].quantize("int4"),
        "language-word-int8": models["language-word"].quantize("int8"),
        "language-char-int4": models["language-char"].quantize("int4"),
        "language-adaptive-int4": models["language-adaptive"].quantize("int4"),
        "tagger-mixed": models["tagger"].quantize(mixed),
        "translator-int4": models["translator"].quantize("int4"),
    }


def forecaster() -> crnn.Forecaster:
    """One of two series with a gap and other columns."""
    steps = np.arange(20.0)
    series = [steps + (steps % 3), 5 - steps / 2]
    series[0][15] = np.nan
    past, future = [np.sin(steps)] * 2, [np.cos(steps)] * 2
    model = crnn.Forecaster(2, season=3, window=2, gaps="mask", logarithm=False, hidden_size=2, lr=0.01, seed=1)
    return model.fit(series, past, future, epochs=1, progress=False)


def main() -> None:
    CORPUS.mkdir(exist_ok=True)
    originals = models()
    for number, model in enumerate(originals.values()):
        for scaling in getattr(model, "scalings", {}).values():
            scaling.mean += np.arange(1, len(scaling.mean) + 1)
            scaling.std *= 2.0
        model.flat_params[...] += np.float32(number + 1) / 256  # no bias is zero
    for name, model in (originals | quantised(originals)).items():
        path = CORPUS / f"{name}.safetensors"
        if not path.exists():
            model.save(path)


if __name__ == "__main__":
    main()
