# SPDX-License-Identifier: MIT
"""Entries of logs as trainings of several kinds make them, with invented numbers."""

import base64
import math
import random

LETTERS = "the quick brown fox jumps over the lazy dog and then it sleeps. "
MACHINE = {"cpu": "x86_64 CPU", "cores": 8, "isa": "avx2", "system": "Linux", "python": "3.12.1", "numpy": "2.1.0"}


def run_entry(kind="LanguageModel", *, unit="nats", counted="tokens", epochs=12, update=0, **options):
    """The entry with which a run begins."""
    return {
        "kind": "run",
        "epoch": 0,
        "update": update,
        "crnn": "0.9.0",
        "started": "2026-11-26T00:18:56Z",
        "name": "m.safetensors",
        "machine": MACHINE | {"threads": 2},
        "model": {
            "kind": kind,
            "text": f"{kind}(lstm, hidden 128)",
            "parameters": 88_123,
            "config": {"cell": "lstm", "hidden_size": options.pop("hidden", 128), "num_layers": 2, "dropout": 0.1},
        },
        "data": {"train": "5f" * 32, "valid": "a7" * 32, "targets": 41_000},
        "options": {"batch_size": 32, "bptt": 64, "optimizer": "Adam(lr=0.002)", "schedule": "cosine"} | options,
        "epochs": epochs,
        "updates": epochs * 40,
        "unit": unit,
        "counted": counted,
    }


def curve_entries(epochs=12, *, seed=0, start=3.3, end=1.4, accuracy=True, updates=40, valid=True):
    """Entries of kind "train" and "epoch" of a loss that falls and, of the validation data, rises in the end."""
    rng, entries = random.Random(seed), []
    total = epochs * updates
    for epoch in range(1, epochs + 1):
        for update in range((epoch - 1) * updates + 4, epoch * updates + 1, 4):
            part = update / total
            loss = end + (start - end) * math.exp(-5 * part) + rng.gauss(0, 0.03)
            entries.append(
                {
                    "kind": "train",
                    "epoch": epoch,
                    "update": update,
                    "train_loss": loss,
                    "tokens": 8192,
                    "seconds": 0.4 + rng.random() * 0.05,
                    "tokens_per_second": 8192 / (0.42 + rng.random() * 0.05),
                    "lr": 1e-3 * (1 + math.cos(math.pi * part)),
                    "grad_norm": 0.5 + 2 * math.exp(-6 * part) * rng.random(),
                }
            )
        part = epoch / epochs
        entry = {"kind": "epoch", "epoch": epoch, "update": epoch * updates, "train_loss": loss, "tokens": 81920}
        entry |= {"seconds": 4.2}
        if valid:
            entry["valid_loss"] = end + 0.08 + (start - end) * math.exp(-5 * part) + 0.25 * max(0, part - 0.6)
        if valid and accuracy:
            entry["valid_accuracy"] = 0.2 + 0.4 * part
        entries.append(entry)
    return entries


def sample_entry(epoch, text="", temperature=0.8):
    """A generated text, better the later it is."""
    rng = random.Random(epoch)
    made = "".join(c if rng.random() < 0.3 + 0.07 * epoch else rng.choice("etaoin shr\n") for c in LETTERS * 4)
    return {
        "kind": "sample",
        "epoch": epoch,
        "update": 40 * epoch,
        "prompt": "the ",
        "text": text or made,
        "temperature": temperature,
    }


def flow_entry(epoch, layers=2, steps=48, factor=0.9):
    """Gradients that change by a factor per step back in time."""
    rng = random.Random(epoch)
    positions = [round(n * 1.34) for n in range(steps)]
    last = positions[-1]
    norms = [
        [float(f"{0.02 * (layer + 1) * factor ** (last - t) * (0.8 + 0.4 * rng.random()):.4g}") for t in positions]
        for layer in range(layers)
    ]
    return {
        "kind": "gradient_flow",
        "epoch": epoch,
        "update": 40 * epoch,
        "layers": [f"layer {layer}" for layer in range(layers)],
        "steps": positions,
        "norms": norms,
        "saturation": [round(0.01 * epoch + 0.02 * layer, 4) for layer in range(layers)],
        "spectral_radius": [round(0.7 + 0.03 * epoch, 4), *[None] * (layers - 1)],
    }


def text_entry(epoch, tokens=None, units=16):
    """A text with the surprisal of its tokens and the activity of hidden units."""
    rng = random.Random(epoch)
    tokens = list((LETTERS * 10)[:600]) if tokens is None else tokens
    activity = bytearray()
    for unit in range(units):
        for number in range(len(tokens)):
            activity.append(round(100 * math.sin(number / (3 + unit)) + rng.randint(-20, 20)) & 0xFF)
    return {
        "kind": "text",
        "epoch": epoch,
        "update": 40 * epoch,
        "tokens": tokens,
        "surprisal": [round(rng.expovariate(0.3 + 0.1 * epoch) * (2 if t == " " else 1), 3) for t in tokens],
        "surprisal_unit": "nats",
        "units": [f"layer {unit % 2}, unit {3 * unit}" for unit in range(units)],
        "activity": base64.b64encode(bytes(activity)).decode(),
        "scale": [round(1 - unit / 40, 4) for unit in range(units)],
    }


def confusion_entry(epoch, classes=10, labels=None):
    """Predictions of which most are right."""
    rng = random.Random(epoch)
    labels = [str(n) for n in range(classes)] if labels is None else labels
    counts = [
        [rng.randint(20, 40) if a == b else int(rng.random() < 0.25) * rng.randint(1, 9) for b in range(len(labels))]
        for a in range(len(labels))
    ]
    entry = {"kind": "confusion", "epoch": epoch, "update": 40 * epoch, "data": "valid"}
    return entry | {"labels": labels, "counts": counts}


def forecast_entry(epoch, series=3, steps=48, bands=True):
    """Waves, their continuation and its forecast."""
    made = []
    for number in range(series):
        wave = [round(math.sin(t / (4 + number)) * (1 + number) + 0.01 * t, 4) for t in range(3 * steps)]
        truth = wave[2 * steps :]
        predicted = [round(v + math.sin(t / 5) * 0.4 / epoch, 4) for t, v in enumerate(truth)]
        one = {"name": f"series {number}", "history": wave[: 2 * steps], "truth": truth, "predicted": predicted}
        if bands:
            one["lower"] = [round(v - 0.2 - 0.01 * t, 4) for t, v in enumerate(predicted)]
            one["upper"] = [round(v + 0.2 + 0.01 * t, 4) for t, v in enumerate(predicted)]
        made.append(one)
    return {"kind": "forecast", "epoch": epoch, "update": 40 * epoch, "series": made, "data": "valid"}


def values_entry(epoch, count=200):
    """Numbers and their predictions."""
    rng = random.Random(epoch)
    truth = [round(rng.gauss(20, 5), 3) for _ in range(count)]
    predicted = [round(v + rng.gauss(0, 6 / epoch), 3) for v in truth]
    entry = {"kind": "values", "epoch": epoch, "update": 40 * epoch, "data": "valid"}
    return entry | {"truth": truth, "predicted": predicted}


def end_entry(epoch=12, reason="finished", notes=(), **scores):
    """The entry with which a run ends."""
    return {
        "kind": "end",
        "epoch": epoch,
        "update": 40 * epoch,
        "reason": reason,
        "best_epoch": 8,
        "scores": scores or {"valid_loss": 1.512, "valid_accuracy": 0.47, "test_loss": 1.6},
        "notes": list(notes),
        "seconds": 50.1,
    }


def ordered(entries):
    """Entries of one run in the order in which training makes them."""
    place = {"run": 0, "train": 1, "epoch": 2, "end": 9}
    return sorted(entries, key=lambda entry: (entry["update"], place.get(entry["kind"], 3)))


def language_model_entries(seed=0, *, end=1.4, **options):
    """A whole log of a language model."""
    looks = [0, 1, 2, 4, 8, 12]
    entries = [run_entry(**options), *curve_entries(seed=seed, end=end)]
    for epoch in looks:
        entries += [sample_entry(epoch), flow_entry(epoch), text_entry(epoch)]
    notes = ["The training loss still falls: more epochs may help."]
    return ordered([*entries, end_entry(notes=notes)])


def classifier_entries(seed=0):
    """A whole log of a classifier."""
    entries = [run_entry("SequenceClassifier", counted="targets"), *curve_entries(seed=seed, start=2.3, end=0.2)]
    for epoch in (0, 1, 4, 12):
        entries += [flow_entry(epoch, layers=1, factor=0.8), confusion_entry(epoch)]
    return ordered([*entries, end_entry()])


def forecaster_entries(seed=0):
    """A whole log of a forecasting regressor."""
    entries = [run_entry("SequenceRegressor", unit="", counted="targets")]
    entries += curve_entries(seed=seed, start=1.0, end=0.02, accuracy=False)
    for epoch in (1, 4, 12):
        entries += [flow_entry(epoch, layers=1, factor=1.02), forecast_entry(epoch)]
    return ordered([*entries, end_entry()])
