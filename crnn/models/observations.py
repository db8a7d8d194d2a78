# SPDX-License-Identifier: MIT
"""What models show of themselves while they are trained, for the log. Each kind of model lists its observations.

    texts         gradient flow; a sample; at the end the surprisal of a text and the activity of hidden units
    classes       gradient flow; at the end the confusion matrix
    values        gradient flow; at the end forecasts, or predicted against true values
    sequences     gradient flow of the encoder; at the end a few predictions

Nothing is changed: passes have their own tapes, no dropout, and compute no gradients of weights. Everything is a
function of the model and of a `View`; entries have the fields of `crnn.training.entries.KINDS`.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from crnn.checks import Array
from crnn.models.gradient_flow import GradientFlow, flow_of_batch
from crnn.models.inputs.data import SequenceData
from crnn.models.passes.predictor import Workspace
from crnn.nn.recurrence import Recurrence
from crnn.text.reading import EOS
from crnn.text.vocab import Vocab
from crnn.text.windows import IGNORE_INDEX, contiguous_batches
from crnn.training.entries import Entry, encodable
from crnn.training.protocols import Observation, View

__all__ = ["CLASSES", "SEQUENCES", "TEXTS", "VALUES", "rounded"]

DIGITS = 4  # significant ones of the numbers in entries
LONGEST_NAME = 100  # characters of a token or label

FLOW_SEQUENCES = 4  # whose gradients are followed
FLOW_TOKENS = 512  # that they have together at most, if they can be cut
FLOW_STEPS = 256
COLUMNS = 64  # steps that an entry has
LARGEST_MATRIX = 64  # rows of a matrix whose spectral radius is not estimated

TEXT_TOKENS = 600
TEXT_WINDOW = 64  # tokens of a text that are read at a time
UNITS = 64  # hidden units whose activity an entry has
SAMPLE_TOKENS = 200
SAMPLE_TEMPERATURE = 0.8

SEQUENCES_SEEN = 2000
WORK = 3e9  # of a single observation: steps that are read, times parameters
STEPS_SEEN = 200_000
OUTPUTS = 1 << 24  # numbers
CLASSES_SHOWN = 30
POINTS = 500  # of values
SERIES = 6
SERIES_STEPS = 400  # history and forecast together
FORECAST_SHARE = 4  # the forecast has one of so many parts of these steps
HISTORY_READ = 2000  # steps before a forecast
PAIRS = 5


# ---- numbers and data ------------------------------------------------------------------------------------------------


def rounded(values: Any) -> list[float]:
    """Numbers (N,) with `DIGITS` significant digits."""
    return [float(f"{value:.{DIGITS}g}") for value in np.asarray(values, np.float64).reshape(-1).tolist()]


def shortened(text: str) -> str:
    """A token or label of limited length."""
    text = encodable(text)
    return text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1] + "…"


def spread(n: int, most: int) -> Array:
    """At most so many of the indices 0 .. n-1, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.intp))


def seen(view: View) -> tuple[str, Any]:
    """The data to show: those that the model does not learn from, if there are any; with their name."""
    return ("train", view.train) if view.valid is None else ("valid", view.valid)


def some(model: Any, data: SequenceData, view: View) -> SequenceData:
    """As many sequences of some data as may be read now, evenly spread."""
    most = int(min(SEQUENCES_SEEN, 2 * view.windows * view.batch_size))  # a backward pass costs twice a forward pass
    chosen = spread(len(data), max(most, 1))
    steps = np.cumsum(data.lengths[chosen])
    outputs = 1 if data.single else model._head.loss.outputs
    limit = min(STEPS_SEEN, OUTPUTS / outputs, WORK / model.num_parameters)
    fits = int(np.searchsorted(steps, limit, side="right"))
    return data.part(chosen if fits >= len(chosen) else chosen[spread(len(chosen), max(fits, 1))])


# ---- gradient flow ---------------------------------------------------------------------------------------------------


def flow_entry(flow: GradientFlow, recurrences: Iterable[str]) -> Entry:
    """The fields of an entry "gradient_flow". Steps after the last one that has a loss are left out."""
    reached = np.flatnonzero(flow.norms.any(axis=0))
    T = int(reached[-1]) + 1 if reached.size else flow.norms.shape[1]
    steps = spread(T, COLUMNS)
    radii = [None if math.isnan(radius) else radius for radius in rounded(flow.spectral_radius)]
    return {
        "layers": list(recurrences),
        "steps": steps.tolist(),
        "norms": [rounded(norms[steps]) for norms in flow.norms],
        "saturation": rounded([of_layer[:T].mean() for of_layer in flow.saturation]),
        "spectral_radius": radii,
    }


def layer_names(model: Any) -> list[str]:
    """Names of the layers and directions of the network that reads x."""
    networks = model._predictor.networks
    net, start = networks[0], "encoder, layer" if len(networks) > 1 else "layer"
    names = [f"{start} {number}" for number in range(net.num_layers)]
    return names if net.directions == 1 else [name + end for name in names for end in ("", ", reverse")]


def flow_of_text(model: Any, view: View) -> Iterator[Entry]:
    """Gradient flow in a window of the training text, of as many steps as training has."""
    ids = view.train
    steps = min(view.bptt, FLOW_STEPS, len(ids) - 1)
    streams = max(1, min(FLOW_SEQUENCES, FLOW_TOKENS // steps, view.batch_size, (len(ids) - 1) // steps))
    x, targets = next(iter(contiguous_batches(ids[: streams * steps + 1], streams, steps)))
    if len(x) > 1:
        flow = flow_of_batch(model._predictor, *model.window(x, targets), largest=LARGEST_MATRIX)
        yield flow_entry(flow, layer_names(model))


def flow_of_sequences(model: Any, view: View) -> Iterator[Entry]:
    """Gradient flow in a few training sequences of middle length."""
    data = view.train
    loss, chosen = model._head.loss, []
    order = np.argsort(data.lengths, kind="stable")
    middle = np.argsort(np.abs(np.arange(len(order)) - len(order) // 2), kind="stable")
    for index in order[middle][: 8 * FLOW_SEQUENCES].tolist():
        if loss.count(data.targets[index]):
            chosen.append(index)
        if len(chosen) == min(FLOW_SEQUENCES, view.batch_size):
            break
    if not chosen or data.lengths[chosen].max() < 2:
        return
    batch, targets = data.batch(np.array(chosen))
    wanted = model._check_targets(targets, batch)
    x = model._predictor.networks[0].stack.check_input(batch.x)
    flow = flow_of_batch(model._predictor, replace(batch, x=x), wanted, largest=LARGEST_MATRIX)
    yield flow_entry(flow, layer_names(model))


# ---- texts -----------------------------------------------------------------------------------------------------------


def sample(model: Any, view: View) -> Iterator[Entry]:
    """A text that the model writes, always with the same random numbers."""
    if view.windows * view.batch_size * view.bptt < 5 * SAMPLE_TOKENS:  # single steps are slower than a batch
        return
    text = model.generate("", SAMPLE_TOKENS, temperature=SAMPLE_TEMPERATURE, seed=0)
    yield {"prompt": "", "text": encodable(text), "temperature": SAMPLE_TEMPERATURE}


def text(model: Any, view: View) -> Iterator[Entry]:
    """The surprisal of every token of a text, and what the hidden units do after having read it."""
    _, ids = seen(view)
    tokens = int(min(TEXT_TOKENS, view.windows * view.batch_size * view.bptt))
    ids = ids[: tokens + 2]
    state, workspace = None, Workspace()
    surprisal, activity = [], []
    for x, targets in contiguous_batches(ids, 1, TEXT_WINDOW, drop_last=False):
        losses, state = model.losses(x, targets, state, workspace=workspace)
        assert workspace.tape is not None
        surprisal.append(losses[:, 0].copy())
        activity.append(np.concatenate([cell.h[:, 0] for cell in workspace.tape.recurrences], axis=1))
    # Of the last token only the surprisal is known, of the first one only the activity.
    nats, h = np.concatenate(surprisal)[:-1], np.concatenate(activity)[1:]
    if not len(nats):
        return
    names, ends = text_tokens(model.vocab, np.asarray(ids)[1:-1])
    starts = np.concatenate([[0], ends[:-1] + 1])
    yield {
        "tokens": names,
        "surprisal": rounded(np.add.reduceat(nats.astype(np.float64), starts)),
        "surprisal_unit": "nats",
        **unit_fields(h[ends], workspace.tape.recurrences if workspace.tape else []),
    }


def unit_fields(h: Array, recurrences: Sequence[Recurrence]) -> Entry:
    """The fields of the units that vary most of activities h (tokens, units)."""
    names = [f"layer {layer}, unit {unit}" for layer, cell in enumerate(recurrences) for unit in range(cell.H)]
    chosen = np.argsort(-h.astype(np.float64).var(axis=0), kind="stable")[:UNITS]
    shown = h[:, chosen].T.astype(np.float64)
    scale = np.array(rounded(np.abs(shown).max(axis=1)))
    levels = np.rint(shown / np.where(scale > 0, scale, 1)[:, None] * 127).clip(-127, 127)
    return {
        "units": [names[unit] for unit in chosen.tolist()],
        "activity": base64.b64encode(np.nan_to_num(levels).astype(np.int8).tobytes()).decode(),
        "scale": scale.tolist(),
    }


def text_tokens(vocab: Vocab, ids: Array) -> tuple[list[str], Array]:
    """Tokens as strings that together are the text, and for each the position of its last id.

    Bytes are joined to characters: a single one may be no text.
    """
    if vocab.unit == "byte":
        characters, ends, start = [], [], 0
        for position in range(len(ids)):
            character = bytes(ids[start : position + 1].tolist()).decode("utf-8", "replace")
            unfinished = character == "\ufffd" and position + 1 < len(ids) and ids[position + 1] & 0xC0 == 0x80
            if not (unfinished and position - start < 3):
                characters.append(character)
                ends.append(position)
                start = position + 1
        return characters, np.array(ends, np.intp)
    tokens = [str(vocab.tokens[id]) for id in ids.tolist()]
    if vocab.unit == "word":
        following = [*tokens[1:], EOS]
        pairs = zip(tokens, following, strict=True)
        tokens = ["\n" if word == EOS else word if after == EOS else f"{word} " for word, after in pairs]
    return [shortened(token) for token in tokens], np.arange(len(ids))


# ---- classes ---------------------------------------------------------------------------------------------------------


def confusion(model: Any, view: View) -> Iterator[Entry]:
    """How often each class was predicted for sequences, or steps, of each class."""
    name, data = seen(view)
    part = some(model, data, view)
    outputs = model._outputs(part, 256, view.threads)
    rows = np.concatenate(list(outputs))
    wanted = np.concatenate(part.targets)
    labels = [shortened(str(label)) for label in model.classes or range(model.num_classes)]
    if model.multilabel:
        true, predicted = label_pairs(wanted, rows > 0)
        labels.append("none")
    else:
        known = wanted != IGNORE_INDEX
        true, predicted = wanted[known].astype(np.intp), rows[known].argmax(axis=1)
    if not len(true):
        return
    labels, true, predicted = most_frequent(labels, true, predicted, keep_last=model.multilabel)
    counts = np.bincount(true * len(labels) + predicted, minlength=len(labels) ** 2)
    yield {"labels": labels, "counts": counts.reshape(len(labels), -1).tolist(), "data": name}


def label_pairs(wanted: Array, positive: Array) -> tuple[Array, Array]:
    """Pairs of true and predicted labels of multilabel targets (M, V), NaN = unlabelled, and predictions (M, V).

    A label that was missed was predicted as V, none; one that was wrongly found was V. True negatives do not count.
    """
    V = wanted.shape[1]
    is_true, known = wanted > 0.5, ~np.isnan(wanted)
    label = np.broadcast_to(np.arange(V), wanted.shape)
    counted = known & (is_true | positive)
    return np.where(is_true, label, V)[counted], np.where(positive, label, V)[counted]


def most_frequent(
    labels: list[str], true: Array, predicted: Array, *, keep_last: bool
) -> tuple[list[str], Array, Array]:
    """The labels that are shown, and pairs of their numbers: the rarest true ones, if there are many, are "others".

    ``keep_last``: the last label is shown in any case, after the others.
    """
    V, shown = len(labels), CLASSES_SHOWN
    if shown >= V:
        return labels, true, predicted
    frequency = np.bincount(true, minlength=V)
    last = [V - 1] if keep_last else []
    order = [number for number in np.argsort(-frequency, kind="stable").tolist() if number not in last]
    kept = sorted(order[: shown - 1 - len(last)])
    number_of = np.full(V, len(kept))
    number_of[kept] = np.arange(len(kept))
    number_of[last] = len(kept) + 1
    names = [labels[number] for number in kept] + ["others"] + [labels[number] for number in last]
    return names, number_of[true], number_of[predicted]


# ---- values ----------------------------------------------------------------------------------------------------------


def predictions(model: Any, view: View) -> Iterator[Entry]:
    """Forecasts of series, by a model that has learnt each next step; otherwise predicted and true values."""
    name, data = seen(view)
    if forecasts(model, data):
        yield {"series": list(forecast_series(model, data)), "data": name}
    else:
        yield from values(model, view)


def forecasts(model: Any, data: SequenceData) -> bool:
    """Whether the target of every step of some data is the input of the next step, and the model can forecast."""
    if model.pooling is not None or model.net.bidirectional or model.output_size != model.net.input_size:
        return False
    if data.x[0].ndim != 2 or int(data.lengths.max()) < 3:
        return False
    longest = np.argsort(-data.lengths, kind="stable")[:3]
    for x, y in ((data.x[i], data.targets[i]) for i in longest.tolist()):
        inputs, targets = model.scalings["x"].undo(x[1:]), model.scalings["y"].undo(y[:-1])
        if not np.allclose(inputs, targets, rtol=1e-4, atol=1e-4 * float(model.scalings["x"].std.max())):
            return False
    return True


def forecast_series(model: Any, data: SequenceData) -> Iterator[Entry]:
    """Histories, what followed them, and what the model forecasts, column by column."""
    columns = model.output_size
    for name, history, truth in histories(model, data):
        outputs = model._forecast_outputs([history[-HISTORY_READ:]], len(truth))[0]
        predicted = model._targets.point_values(outputs)
        bands = model._targets.values(outputs) if model.loss == "quantile" else None
        for column in range(min(columns, SERIES)):
            of_column = f"column {column}" if columns > 1 else ""
            entry = {
                "name": ", ".join(filter(None, [name, of_column])) or "series",
                "history": rounded(history[len(truth) - SERIES_STEPS :, column]),
                "truth": rounded(truth[:, column]),
                "predicted": rounded(predicted[:, column]),
            }
            if bands is not None:
                entry["lower"] = rounded(bands[:, column].min(axis=1))
                entry["upper"] = rounded(bands[:, column].max(axis=1))
            yield entry


def values(model: Any, view: View) -> Iterator[Entry]:
    """Predicted and true values of the first column of the targets."""
    name, data = seen(view)
    part = some(model, data, view)
    outputs = model._outputs(part, 256, view.threads)
    predicted = model._targets.point_values(np.concatenate(list(outputs)))[:, 0]
    truth = model.scalings["y"].undo(np.concatenate(part.targets))[:, 0]
    known = np.flatnonzero(~np.isnan(truth))
    if known.size:
        chosen = known[spread(known.size, POINTS)]
        shown = {"truth": rounded(truth[chosen]), "predicted": rounded(predicted[chosen])}
        yield {"kind": "values", **shown, "data": name}


def histories(model: Any, data: SequenceData) -> Iterator[tuple[str, Array, Array]]:
    """Names of a few series, their histories and what followed: held-out data, or the ends of the longest ones."""
    if data.series is not None:
        series, known = data.series.values, data.series.known
        if known == len(series):
            known -= withheld(len(series))
        yield "", series[:known], series[known : known + SERIES_STEPS // FORECAST_SHARE]
        return
    most = min(int(np.count_nonzero(data.lengths >= 3)), max(1, SERIES // model.output_size))
    for number in np.sort(np.argsort(-data.lengths, kind="stable")[:most]).tolist():
        series = model.scalings["x"].undo(data.x[number])
        known = len(series) - withheld(len(series))
        yield f"sequence {number}" if len(data) > 1 else "", series[:known], series[known:]


def withheld(steps: int) -> int:
    """Steps at the end of a series that are withheld and forecast."""
    return max(1, min(steps, SERIES_STEPS) // FORECAST_SHARE)


# ---- sequences -------------------------------------------------------------------------------------------------------


def pairs(model: Any, view: View) -> Iterator[Entry]:
    """A few sources with the predicted and the true target."""
    _, data = seen(view)
    chosen = spread(len(data), PAIRS)
    part = data.part(chosen)
    predicted = model._decoded(part, 2 * (model.longest_target or 1))
    for x, hypothesis, target in zip(part.x, predicted, part.targets, strict=True):
        source = x[::-1] if model.reverse_source else x
        yield {
            "prompt": sequence_text(model.source_vocab, source),
            "text": sequence_text(model.target_vocab, np.array(hypothesis.tokens, np.int32)),
            "target": sequence_text(model.target_vocab, target[:-1]),
            "temperature": 0.0,
        }


def sequence_text(vocab: Vocab | None, sequence: Array) -> str:
    """A source or target as text: ids without a vocabulary as numbers, of real steps their number."""
    if sequence.ndim > 1:
        return f"{len(sequence)} steps of {sequence.shape[1]} numbers"
    return " ".join(map(str, sequence.tolist())) if vocab is None else encodable(vocab.decode(sequence))


# ---- the list --------------------------------------------------------------------------------------------------------


SEQUENCE_FLOW = Observation("gradient_flow", "often", flow_of_sequences)

TEXTS = (
    Observation("gradient_flow", "often", flow_of_text),
    Observation("sample", "sample", sample),
    Observation("text", "end", text),
)
CLASSES = (SEQUENCE_FLOW, Observation("confusion", "end", confusion))
VALUES = (SEQUENCE_FLOW, Observation("forecast", "end", predictions))
SEQUENCES = (SEQUENCE_FLOW, Observation("sample", "end", pairs))
