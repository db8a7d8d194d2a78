# SPDX-License-Identifier: MIT
"""The ``crnn`` command. Every verb is a few calls that Python users also have."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO

if TYPE_CHECKING:
    from crnn.models.language_model import LanguageModel

INTERRUPTED = 130  # what a shell expects of a program ended by Ctrl-C


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``crnn`` with these arguments; the exit status."""
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return run(arguments)
    except BrokenPipeError:  # the reader has seen enough, as in `crnn sample m | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except (ValueError, OSError, ArithmeticError, MemoryError) as error:
        print(f"crnn {arguments.verb}: {error}", file=sys.stderr)
        return 1


def cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _parser() -> argparse.ArgumentParser:
    from crnn._version import __version__
    from crnn.nn.cells import CELLS
    from crnn.nn.init import RULES as INITIAL
    from crnn.optim import RULES, SCHEDULES

    # Without this class a default would be said only where its help text repeats it.
    show = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser("crnn", description="Recurrent networks for text, trained on the CPU.")
    parser.add_argument("--version", action="version", version=f"crnn {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    train = verbs.add_parser("train", help="train a language model on a text file", formatter_class=show)
    train.set_defaults(run=_train)
    train.add_argument("text", type=Path, help="file to learn from")
    train.add_argument("-o", "--output", type=Path, required=True, help="where to write the model (.safetensors)")
    data = train.add_argument_group("text")
    data.add_argument("--unit", choices=["char", "byte", "word"], default="char", help="what is predicted")
    data.add_argument("--encoding", default="utf-8", help="of the file")
    data.add_argument("--valid", type=float, default=0.05, help="share of the text for validation")
    data.add_argument("--test", type=float, default=0.05, help="share of the text for the test at the end")
    data.add_argument("--min-count", type=int, default=1, help="rarer tokens become <unk>")
    data.add_argument("--max-vocab", type=int, help="keep only so many of the most frequent tokens")
    data.add_argument("--unknown", action="store_true", help="a token for characters that are not in the text")
    data.add_argument("--ids", type=Path, help="keep the text's ids in this file: for texts larger than memory")
    net = train.add_argument_group("network")
    net.add_argument("--cell", choices=list(CELLS), default="tanh", help="kind of recurrent cell")
    net.add_argument("--hidden", type=int, default=256, help="units of a layer")
    net.add_argument("--layers", type=int, default=1, help="layers")
    net.add_argument("--embedding", type=int, help="size of the tokens' embedding; --hidden if not given; 0: one-hot")
    net.add_argument("--tie-weights", action="store_true", help="the output weights are the embedding's")
    net.add_argument("--dropout", type=float, default=0.0, help="between layers and before the output")
    net.add_argument("--recurrent-dropout", type=float, default=0.0, help="of the state, one mask a window")
    net.add_argument("--variational-dropout", action="store_true", help="one mask for all steps of a window")
    net.add_argument("--forget-bias", type=float, default=1.0, help="where an LSTM's forget bias starts")
    net.add_argument("--trainable-initial-state", action="store_true", help="the state at the start is a parameter")
    net.add_argument("--recurrent-init", default="orthogonal", help=f"one of {', '.join(INITIAL)}; 0.5*identity works")
    net.add_argument("--input-init", help="likewise; glorot if not given, unit for one-hot tokens")
    net.add_argument("--dtype", choices=["float32", "float64"], default="float32", help="precision")
    loop = train.add_argument_group("training")
    loop.add_argument("--epochs", type=int, default=10, help="passes over the text")
    loop.add_argument("--batch", type=int, default=32, help="streams read side by side")
    loop.add_argument("--bptt", type=int, default=64, help="steps that gradients flow back")
    loop.add_argument("--carry", type=int, help="steps after which the state is zeroed; through the epoch if not given")
    loop.add_argument("--optimizer", choices=list(RULES), default="adam", help="update rule")
    loop.add_argument("--lr", type=float, default=2e-3, help="learning rate")
    loop.add_argument("--schedule", choices=list(SCHEDULES), default="cosine", help="how the rate changes")
    loop.add_argument("--warmup", type=int, default=0, help="updates over which the rate rises")
    loop.add_argument("--clip-norm", type=float, default=0.25, help="largest 2-norm of a gradient; 0: any")
    loop.add_argument("--clip-value", type=float, default=0.0, help="largest element of a gradient; 0: any")
    loop.add_argument("--patience", type=int, help="stop after so many epochs without a better validation loss")
    loop.add_argument("--threads", type=int, default=cores(), help="the result does not depend on it")
    loop.add_argument("--seed", type=int, default=0, help="of the initial weights and of dropout")
    loop.add_argument("--log", type=Path, help="write losses here as .csv or .jsonl")
    loop.add_argument("--checkpoint", type=Path, help="written after every epoch; OUTPUT.checkpoint if not given")
    loop.add_argument("--resume", action="store_true", help="go on from the checkpoint, if there is one")
    loop.add_argument("-q", "--quiet", action="store_true", help="no progress bar")

    sample = verbs.add_parser("sample", help="let a model write", formatter_class=show)
    sample.set_defaults(run=_sample)
    sample.add_argument("model", type=Path)
    sample.add_argument("--prompt", default="", help="text to go on from")
    sample.add_argument("--length", type=int, default=500, help="tokens to write")
    _sampling_options(sample)
    sample.add_argument("--stop", help="end before this text")

    evaluate = verbs.add_parser("eval", help="how well a model predicts a text", formatter_class=show)
    evaluate.set_defaults(run=_eval)
    evaluate.add_argument("model", type=Path)
    evaluate.add_argument("text", type=Path)
    evaluate.add_argument("--encoding", default="utf-8", help="of the file")
    evaluate.add_argument("--batch", type=int, default=1, help="cut the text into so many streams: faster, less exact")
    evaluate.add_argument("--threads", type=int, default=cores())

    score = verbs.add_parser(
        "score",
        help="bits per token of each line, as lines come",
        formatter_class=show,
        description="Reads lines and writes each one's bits per character (per word or byte for such models), a tab "
        "and the line, at once: tail -f log | crnn score m. The newline counts as part of the line. inf: the line has "
        "a character the model has never seen.",
    )
    score.set_defaults(run=_score)
    score.add_argument("model", type=Path)
    score.add_argument("--carry", action="store_true", help="go on from the line before instead of starting anew")

    info = verbs.add_parser("info", help="what a model file holds", formatter_class=show)
    info.set_defaults(run=_info)
    info.add_argument("model", type=Path)

    demo = verbs.add_parser(
        "demo",
        help="learn the prose of Python's documentation in under a minute",
        formatter_class=show,
        description="Trains on the documentation topics that come with every Python, then writes. Needs no file.",
    )
    demo.set_defaults(run=_demo)
    demo.add_argument("--hidden", type=int, default=256, help="units")
    demo.add_argument("--epochs", type=int, default=24, help="passes over the text")
    demo.add_argument("--length", type=int, default=400, help="characters to write at the end")
    demo.add_argument("--threads", type=int, default=cores())
    demo.add_argument("-o", "--output", type=Path, help="keep the model here")
    _sampling_options(demo, temperature=0.7)
    return parser


def _sampling_options(parser: argparse.ArgumentParser, temperature: float = 1.0) -> None:
    parser.add_argument("--temperature", type=float, default=temperature, help="0: always the likeliest token")
    parser.add_argument("--top-k", type=int, help="draw from the so many likeliest tokens")
    parser.add_argument("--top-p", type=float, help="draw from the likeliest tokens that make up this probability")
    parser.add_argument("--seed", type=int, help="the same seed writes the same text")


def _train(arguments: argparse.Namespace) -> int:
    import crnn

    output: Path = arguments.output
    for name in ("output", "checkpoint", "log", "ids"):  # now, not after an hour of training
        path: Path | None = getattr(arguments, name)
        if path is not None and not path.parent.is_dir():
            raise FileNotFoundError(f"--{name}: expected a folder that exists, got {path.parent}")
    corpus = crnn.TextCorpus.from_file(
        arguments.text,
        unit=arguments.unit,
        valid=arguments.valid,
        test=arguments.test,
        encoding=arguments.encoding,
        min_count=arguments.min_count,
        max_size=arguments.max_vocab,
        unknown=True if arguments.unknown else None,
        ids_path=arguments.ids,
    )
    model = crnn.LanguageModel(
        corpus.vocab,
        cell=arguments.cell,
        hidden_size=arguments.hidden,
        num_layers=arguments.layers,
        embedding_size=(arguments.hidden if arguments.embedding is None else arguments.embedding) or None,
        tie_weights=arguments.tie_weights,
        dropout=arguments.dropout,
        variational_dropout=arguments.variational_dropout,
        recurrent_dropout=arguments.recurrent_dropout,
        forget_bias=arguments.forget_bias,
        trainable_initial_state=arguments.trainable_initial_state,
        dtype=arguments.dtype,
        recurrent_init=arguments.recurrent_init,
        input_init=arguments.input_init,
        seed=arguments.seed,
    )
    _say(f"{len(corpus.train):,} {arguments.unit}s to learn from, {len(corpus.vocab)} different; {model}")
    checkpoint = arguments.checkpoint or output.with_name(output.name + ".checkpoint")
    status = 0
    log = crnn.TrainingLog()
    try:
        crnn.fit(
            model,
            corpus,
            epochs=arguments.epochs,
            batch_size=arguments.batch,
            bptt=arguments.bptt,
            carry=arguments.carry,
            optimizer=crnn.optim.RULES[arguments.optimizer](lr=arguments.lr),
            schedule=crnn.optim.SCHEDULES[arguments.schedule](warmup=arguments.warmup),
            clip_norm=arguments.clip_norm or None,
            clip_value=arguments.clip_value or None,
            patience=arguments.patience,
            threads=arguments.threads,
            seed=arguments.seed,
            progress=False if arguments.quiet else None,
            checkpoint=checkpoint,
            resume=arguments.resume,
            log=log,
        )
    except KeyboardInterrupt:
        _say("interrupted: keeping the best weights so far")
        status = INTERRUPTED
    model.save(output)
    _say(f"{log.summary()}\nwrote {output}")
    if arguments.log:
        (log.to_csv if arguments.log.suffix == ".csv" else log.to_jsonl)(arguments.log)
    if status == 0:
        checkpoint.unlink(missing_ok=True)
        if len(corpus.test) > 1:
            result = model.evaluate(corpus.test, batch_size=arguments.batch, threads=arguments.threads)
            _say(f"test {result.nats:.4f} nats, {result.bits:.4f} bits, perplexity {result.perplexity:.2f}")
    return status


def _sample(arguments: argparse.Namespace) -> int:
    model = _load(arguments.model)
    pieces = model.iter_generate(
        arguments.prompt,
        arguments.length,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        stop=arguments.stop,
        seed=arguments.seed,
    )
    sys.stdout.write(arguments.prompt)
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    return 0


def _eval(arguments: argparse.Namespace) -> int:
    import crnn

    model = _load(arguments.model)
    corpus = crnn.TextCorpus.from_file(
        arguments.text, vocab=model.vocab, valid=0.0, test=0.0, encoding=arguments.encoding
    )
    result = model.evaluate(corpus.train, batch_size=arguments.batch, threads=arguments.threads)
    print(
        f"nats {result.nats:.4f}  bits {result.bits:.4f}  perplexity {result.perplexity:.3f}  "
        f"accuracy {result.accuracy:.4f}  {model.vocab.unit}s {result.count}"
    )
    return 0


def _score(arguments: argparse.Namespace) -> int:
    score_lines(_load(arguments.model), sys.stdin.buffer, sys.stdout, carry=arguments.carry)
    return 0


def score_lines(model: LanguageModel, lines: BinaryIO, out: TextIO, *, carry: bool = False) -> None:
    """Write each line's bits per token, a tab and the line, as soon as the line is there.

    A line is scored with the newline that ends it, after a newline; with ``carry`` the state is the one that the line
    before left. Where the vocabulary has no newline a line's first token is not counted, and a line too short for that
    scores nan.
    """
    import math

    from crnn._core.loss import sum as total
    from crnn.text.vocab import VocabError

    if model.dtype != "float32":
        model = model.astype("float32")  # for four decimals
    vocab = model.vocab
    as_bytes = vocab.unit == "byte"
    newline: str | bytes = b"\n" if as_bytes else "\n"
    start = model.stream()
    try:
        start.feed(newline)
    except VocabError:
        newline = newline[:0]
    stream = start.copy()
    for raw in iter(lines.readline, b""):
        raw = raw.rstrip(b"\r\n")
        text = raw.decode("utf-8", errors="replace")
        if not carry:
            stream = start.copy()
        try:
            ids = vocab.encode(raw + b"\n" if as_bytes else text + "\n" if newline else text)
        except VocabError:
            bits = math.inf  # a token of probability zero; the state stays as it was
        else:
            if not newline:
                stream.feed(ids[:1])
                ids = ids[1:]
            nats = stream.surprisal(ids)
            bits = total(nats) / len(nats) / math.log(2) if len(nats) else math.nan
        out.write(f"{bits:.4f}\t{text}\n")
        out.flush()


def _load(path: Path) -> LanguageModel:
    """A language model: what `sample`, `eval` and `score` need."""
    import crnn

    model = crnn.load(path)
    if not isinstance(model, crnn.LanguageModel):
        raise ValueError(f"{path}: expected a LanguageModel, got a {type(model).__name__}")
    return model


def _info(arguments: argparse.Namespace) -> int:
    import crnn

    model = crnn.load(arguments.model)
    size = arguments.model.stat().st_size
    print(f"{arguments.model}: {size:,} bytes\n{model}")
    for name, value in model.config().items():
        print(f"  {name:<16} {value}")
    if isinstance(model, crnn.LanguageModel):
        print(f"  {'vocabulary':<16} {model.vocab!r}")
    for name, array in model.params.items():
        print(f"  {name:<16} {array.dtype} {array.shape}")
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    import crnn
    from crnn._demo import documentation_prose

    text = documentation_prose()
    corpus = crnn.TextCorpus.from_text(text, valid=0.05, test=0.0)
    model = crnn.LanguageModel(corpus.vocab, hidden_size=arguments.hidden, seed=1)
    _say(
        f"{len(text):,} characters of Python's own documentation, {len(corpus.vocab)} different; "
        f"{model.flat_params.size:,} parameters, {arguments.threads} threads, {crnn.isa()}"
    )
    crnn.fit(
        model,
        corpus,
        epochs=arguments.epochs,
        batch_size=16,
        optimizer=crnn.optim.Adam(lr=2e-3),
        schedule=crnn.optim.cosine(),
        clip_norm=0.25,
        threads=arguments.threads,
        on_epoch=lambda log: _say(log.summary()) if not sys.stderr.isatty() else None,
    )
    _say("")
    prompt = "The "
    sys.stdout.write(prompt)
    for piece in model.iter_generate(
        prompt,
        arguments.length,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        seed=1 if arguments.seed is None else arguments.seed,
    ):
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    if arguments.output:
        model.save(arguments.output)
        _say(f"wrote {arguments.output}")
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr)
