# SPDX-License-Identifier: MIT
"""What is done with each file: it is refused with ModelFileError, or it is the same model, or another whole one."""

import random
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

import crnn
from crnn.interop import aidax, guitarml, nam, rtneural
from crnn.interop import torch as interop
from crnn.models.files import from_bytes
from crnn.models.learners.text import TextLearner

from .mutate import KEPT, RENEWED

CORPUS = Path(__file__).parent / "corpus"
REFUSED, SAME, OTHER = "refused", "the same", "another whole one"
LONGEST_MESSAGE = 1500

Check = Callable[[bytes, str, str], str]  # (content, name of the original, what became of the digest) -> outcome


def model_files() -> tuple[dict[str, bytes], Check]:
    """Files of models, read by `crnn.load`."""
    corpus = {path.name: path.read_bytes() for path in sorted(CORPUS.glob("*.safetensors"))}
    originals = {name: from_bytes(content).to_bytes() for name, content in corpus.items()}

    def check(content: bytes, name: str, digest: str) -> str:
        try:
            model = from_bytes(content)
        except crnn.ModelFileError as error:
            return refused(error, "content: ")
        written = model.to_bytes()
        if written == originals[name]:
            return SAME
        assert digest != KEPT or written in originals.values(), "a damaged file was loaded, in spite of its digest"
        assert from_bytes(written).to_bytes() == written, "a loaded model changes when it is saved and loaded"
        assert np.isfinite(model.flat_params).all()
        return OTHER

    return corpus, check


def checkpoints(folder: Path) -> tuple[dict[str, bytes], Check]:
    """Checkpoints, from which `crnn.fit` resumes, and from which `crnn.load` takes the model."""
    path = folder / "checkpoint"
    corpus = {}
    for name, resume in RESUMES.items():
        path.unlink(missing_ok=True)
        resume(path, at_first=True)
        corpus[name] = path.read_bytes()
    ends = {}
    for name, content in corpus.items():
        path.write_bytes(content)
        ends[name] = RESUMES[name](path).flat_params.tobytes()
    models = {name: from_bytes(content).to_bytes() for name, content in corpus.items()}

    def check(content: bytes, name: str, digest: str) -> str:
        path.write_bytes(content)
        try:
            model = crnn.load(path)
            same = model.to_bytes() == models[name]
            assert same or digest != KEPT or model.to_bytes() in models.values(), "loaded in spite of its digest"
        except crnn.ModelFileError as error:
            refused(error, f"{path}: ")
        fresh = MODELS_OF_RESUMES[name]()
        before = fresh.to_bytes()
        try:
            end = RESUMES[name](path, fresh)
        except crnn.ModelFileError as error:
            assert fresh.to_bytes() == before, "the model was changed before the checkpoint was refused"
            return refused(error, "")
        except (FloatingPointError, RuntimeWarning, ValueError) as error:
            if digest == KEPT or (type(error) is ValueError and not str(error).startswith(("X", "y", "valid"))):
                raise
            return OTHER  # possible numbers, without a digest or with a right one, with which training cannot continue
        if end.flat_params.tobytes() == ends[name]:
            return SAME
        assert digest != KEPT, "resumed in spite of its digest"
        return OTHER

    return corpus, check


def learner_files(folder: Path) -> tuple[dict[str, bytes], Check]:
    """Files of learners, in the middle of a window."""
    path = folder / "learner"
    corpus = {}
    for name, (make, go_on) in LEARNERS.items():
        learner = make()
        go_on(learner)
        learner.save(path)
        corpus[name] = path.read_bytes()

    def check(content: bytes, name: str, digest: str) -> str:
        path.write_bytes(content)
        try:
            learner = crnn.Learner.load(path)
        except crnn.ModelFileError as error:
            return refused(error, f"{path}: ")
        learner.save(path)
        written = path.read_bytes()
        if written == corpus[name]:
            return SAME
        assert digest != KEPT or written in corpus.values(), "a damaged file was loaded, in spite of its digest"
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # possible numbers, with which learning may overflow
            for text in (learner.feed, learner.surprisal) if isinstance(learner, TextLearner) else ():
                text(np.zeros(7 if learner.streams == 1 else (7, learner.streams), np.int32))
        return OTHER

    return corpus, check


def pytorch_files(folder: Path) -> tuple[dict[str, bytes], Check]:
    """safetensors files of PyTorch's modules, which have no digest."""
    path = folder / "torch"
    corpus = {}
    for name, net in NETWORKS.items():
        # with a header of crnn's kind, which the reader ignores, so that the same mutations can be applied
        interop.save_file(net, path)
        corpus[name] = path.read_bytes().replace(b'"format":"pt"', b'"crnn":"{  }"')
        path.write_bytes(corpus[name])
        assert interop.load_file(path).flat_params.tobytes() == net.flat_params.tobytes()

    def check(content: bytes, name: str, digest: str) -> str:
        path.write_bytes(content)
        try:
            net = interop.load_file(path)
        except crnn.ModelFileError as error:
            return refused(error, f"{path}: ")
        assert np.isfinite(net.flat_params).all()
        assert from_bytes(net.to_bytes()).to_bytes() == net.to_bytes()
        return OTHER

    return corpus, check


def audio_files(folder: Path) -> tuple[dict[str, bytes], Check]:
    """JSON files of audio models, of four programs, which have no digest."""
    corpus = {}
    for name, (form, model) in AUDIO.items():
        form.save(model, folder / name)
        corpus[name] = (folder / name).read_bytes()

    def check(content: bytes, name: str, digest: str) -> str:
        path = folder / name
        path.write_bytes(content)
        try:
            found = AUDIO[name][0].load(path)
        except crnn.ModelFileError as error:
            return refused(error, f"{path}: ")
        model = getattr(found, "model", found)
        assert np.isfinite(model.flat_params).all()
        assert from_bytes(model.to_bytes()).to_bytes() == model.to_bytes()
        return OTHER

    return corpus, check


def archives() -> tuple[dict[str, bytes], Check]:
    """Archives of `crnn.compress`. What they hold has a digest, so nothing else comes of them."""
    model = crnn.LanguageModel(crnn.Vocab.from_text(b"a", "byte"), hidden_size=3, seed=1)
    starts = {name: {"model": model} if "model" in name else {"after": WORDS} for name in DATA if " " in name}
    corpus = {name: crnn.compress(content, **starts.get(name, {})) for name, content in DATA.items()}

    def check(content: bytes, name: str, digest: str) -> str:
        try:
            found = crnn.decompress(content, model=model, after=WORDS)
        except crnn.ArchiveError as error:
            return refused(error, "archive: ")
        if found == DATA[name]:
            return SAME
        assert found in DATA.values() or (digest == RENEWED and content.endswith(found)), "another content"
        return OTHER

    return corpus, check


def refused(error: Exception, start: str) -> str:
    """Check the message of a refusal."""
    message = str(error)
    assert message.startswith(start), f"the message does not name the file: {message[:200]}"
    assert len(message) <= LONGEST_MESSAGE, f"a message of {len(message)} characters: {message[:200]}"
    return REFUSED


# ---- what checkpoints are of -----------------------------------------------------------------------------------------


def text_model() -> crnn.LanguageModel:
    return crnn.LanguageModel(crnn.Vocab.from_text("a bc\n"), hidden_size=3, dropout=0.1, seed=1)


def regressor() -> crnn.SequenceRegressor:
    return crnn.SequenceRegressor(2, 1, hidden_size=3, seed=1)


def train_text(path, model=None, *, at_first=False):
    """Within an epoch, with a state and Adam."""
    model = model or text_model()
    ids = (np.arange(90) * 7 % 5 * np.arange(90) % 5).astype(np.int32)
    limit = {"max_updates": 7} if at_first else {}
    options = {"checkpoint": path, "resume": not at_first, "batch_size": 2, "bptt": 9}
    crnn.fit(model, ids, valid=ids[:30], epochs=2, **options, **limit)
    return model


def train_sequences(path, model=None, *, at_first=False):
    """With scaling and validation, between epochs."""
    model = model or regressor()
    rng = np.random.default_rng(3)
    X = [rng.normal(5, 2, (4, 2)).astype(np.float32) for _ in range(12)]
    y = np.array([[x.sum()] for x in X])
    optimizer = crnn.optim.SGD(lr=0.01, momentum=0.9)
    options = {"checkpoint": path, "resume": not at_first, "batch_size": 4, "optimizer": optimizer}
    model.fit(X, y, epochs=1 if at_first else 2, valid=(X[:3], y[:3]), **options)
    return model


RESUMES = {"text": train_text, "sequences": train_sequences}
MODELS_OF_RESUMES = {"text": text_model, "sequences": regressor}
LEARNERS = {
    "text": (
        lambda: text_model().learner(bptt=4, lr=0.01, max_change=0.5),
        lambda learner: learner.feed("a bc\n" * 3),
    ),
    "streams": (
        lambda: text_model().learner(bptt=3, every=2, streams=2, optimizer="sgd(momentum=0.5)"),
        lambda learner: learner.feed(np.arange(14).reshape(7, 2) % 5).reset([1]),
    ),
    "values": (
        lambda: regressor().learner(bptt=3, every=1, decay=0.1),
        lambda learner: [(learner.predict([1.0, step]), learner.learn(step)) for step in range(5)],
    ),
}
NETWORKS = {
    "lstm": crnn.RNN(2, 3, 2, "lstm", bidirectional=True, seed=1),
    "gru": crnn.RNN(2, 3, cell="gru", dtype="float64", seed=1),
    "tanh": crnn.RNN(2, 3, seed=1),
}

AUDIO = {
    "rtneural": (rtneural, crnn.SequenceRegressor(2, 1, 3, 2, cell="gru", pooling=None, scale=False)),
    "nam": (nam, crnn.SequenceRegressor(1, 1, 3, cell="lstm", pooling=None, scale=False, trainable_initial_state=True)),
    "guitarml": (guitarml, crnn.SequenceRegressor(2, 1, 3, cell="tanh", pooling=None, scale=False)),
    "aidax": (aidax, crnn.SequenceRegressor(1, 1, 3, cell="lstm", pooling=None, scale=False)),
}

WORDS = b"the cat sat on the mat and the dog ran under the table, " * 8
DATA = {
    "nothing": b"",
    "noise": bytes(np.arange(97) ** 3 % 251),
    "run": b"z" * 5000,
    "words": WORDS,
    "words for a model": WORDS[::-1],
    "words after others": WORDS[:200] + b"and a mat",
    "few": b"abbaabababbbaab" * 30,
    "all": bytes(range(256)) * 4,
}

TARGETS = {
    "models": lambda folder: model_files(),
    "checkpoints": checkpoints,
    "learners": learner_files,
    "torch": pytorch_files,
    "audio": audio_files,
    "archives": lambda folder: archives(),
}


def inputs(corpus: dict[str, bytes], seed: int, number: int) -> tuple[str, bytes, bytes, random.Random]:
    """Name and content of the file to mutate, another one, and the random numbers of input ``number``."""
    rng = random.Random(f"{seed}.{number}")
    name = rng.choice(list(corpus))
    return name, corpus[name], corpus[rng.choice(list(corpus))], rng
