# SPDX-License-Identifier: MIT
"""What exported models offer besides the step, by their kind: probabilities, labels, the tokens of a vocabulary."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from crnn.c_export import numbers
from crnn.models.class_model import ClassModel
from crnn.models.language_model import LanguageModel
from crnn.nn.network import RNN
from crnn.text.vocab import Vocab

LONGEST_TEXT = 4095  # of a string constant, in C99


@dataclass
class Answers:
    """C text other than the step.

    Attributes
    ----------
    pieces : set of str
        The C functions that it calls, see `crnn.c_export.pieces`.
    declarations : list of str
        For the header.
    definitions : list of str
    outputs : str
        What y is, for the comment of the step.
    nbytes : int
        Size of the tables, as far as they do not depend on the machine.
    """

    pieces: set[str] = field(default_factory=set)
    declarations: list[str] = field(default_factory=list)
    definitions: list[str] = field(default_factory=list)
    outputs: str = "h of the top layer"
    nbytes: int = 0

    def add(self, comment: str, declaration: str, definition: Iterable[str]) -> None:
        """A function or a table, with its comment in the header."""
        self.declarations += [*comment_lines(comment), declaration, ""]
        self.definitions += ["", *definition]


def comment_lines(text: str, width: int = 112) -> list[str]:
    """A comment in C, broken into lines."""
    found, line = [], "/*"
    for word in f"{text} */".replace("*/ */", "*/").split():
        if len(line) + 1 + len(word) > width:
            found.append(line)
            line = " *"
        line += f" {word}"
    return [*found, line]


def string(content: bytes, what: str) -> str:
    """A string constant. Raises ValueError, which calls it ``what``, if it is too long for C99."""
    if len(content) > LONGEST_TEXT:
        raise ValueError(f"{what}: expected at most {LONGEST_TEXT} bytes, which C99 allows, got {len(content)}")
    special = b'"\\?'  # a ? may begin a trigraph
    return '"' + "".join(chr(b) if 32 <= b < 127 and b not in special else f"\\{b:03o}" for b in content) + '"'


def answers_of(model: Any, name: str, outputs: int) -> Answers:
    """Those of a model of any kind. Raises ValueError for tokens and classes that C cannot hold."""
    answers = Answers()
    if isinstance(model, LanguageModel):
        adaptive = model.adaptive_softmax is not None
        answers.outputs = f"the {'log-probabilities' if adaptive else 'logits'} of the next token"
        _add_softmax(answers, name, outputs)
        _add_vocabulary(answers, name, model.vocab)
    elif isinstance(model, ClassModel):
        answers.outputs = "the logits of the classes"
        add = _add_multilabel if model.multilabel else _add_softmax
        add(answers, name, outputs, *([model.thresholds] if model.multilabel else []))
        names = [str(label).encode("utf-8", "surrogatepass") for label in model.classes_.tolist()]
        _add_texts(answers, name, ("classes", "class_sizes"), names, "The classes, by their numbers, in UTF-8.")
    elif not isinstance(model, RNN):
        answers.outputs = "the predictions"
    return answers


def _add_softmax(answers: Answers, name: str, V: int) -> None:
    answers.pieces.add("softmax")
    probabilities = f"void {name}_probabilities(float p[{V}], const float y[{V}])"
    answers.add(
        "p = softmax(y): the probabilities of what a step gave as y. p may be y.",
        f"{probabilities};",
        [probabilities, "{", f"    softmax(p, y, {V});", "}"],
    )
    best = f"int {name}_most_probable(const float y[{V}])"
    answers.add(
        "The number of the most probable one: of the largest y, the first of several.",
        f"{best};",
        [
            best,
            "{",
            "    int i, best = 0;",
            f"    for (i = 1; i < {V}; ++i)",
            "        if (y[i] > y[best])",
            "            best = i;",
            "    return best;",
            "}",
        ],
    )


def _add_multilabel(answers: Answers, name: str, V: int, thresholds: list[float] | None) -> None:
    answers.pieces |= {"sigmoid"}
    probabilities = f"void {name}_probabilities(float p[{V}], const float y[{V}])"
    answers.add(
        "p = sigmoid(y): the probability of each class, independent of the others. p may be y.",
        f"{probabilities};",
        [
            probabilities,
            "{",
            "    int i;",
            f"    for (i = 0; i < {V}; ++i)",
            "        p[i] = sigmoid_of(y[i]);",
            "}",
        ],
    )
    applies = f"int {name}_applies(const float y[{V}], int i)"
    body = "y[i] > 0.0f" if thresholds is None else "(double)sigmoid_of(y[i]) > thresholds[i]"
    table = () if thresholds is None else numbers.array("double thresholds", V, numbers.doubles(np.array(thresholds)))
    answers.nbytes += 8 * len(thresholds or ())
    answers.add(
        "Whether class i applies.", f"{applies};", [*table, applies, "{", f"    return {body};", "}"]
    )


def _add_texts(
    answers: Answers, name: str, tables: tuple[str, str], texts: list[bytes], comment: str, argument: str = "classes"
) -> None:
    """A table of texts, and one of their sizes. Errors name the ``argument`` that has them."""
    declaration = f"const char *const {name}_{tables[0]}[{len(texts)}]"
    quoted = numbers.lines(string(text, argument) for text in texts)
    answers.add(comment, f"extern {declaration};", [f"{declaration} = {{", *quoted, "};"])
    declaration = f"const unsigned short {name}_{tables[1]}[{len(texts)}]"
    sizes = numbers.lines(str(len(text)) for text in texts)
    answers.add(
        "Their sizes in bytes, without the zero at the end of each; a text may have others.",
        f"extern {declaration};",
        [f"{declaration} = {{", *sizes, "};"],
    )
    answers.nbytes += sum(len(text) + 1 for text in texts) + 2 * len(texts)


def _add_vocabulary(answers: Answers, name: str, vocab: Vocab) -> None:
    V = len(vocab)
    tokens = [token if isinstance(token, bytes) else token.encode("utf-8", "surrogatepass") for token in vocab.tokens]
    if vocab.unit == "byte":
        answers.declarations += [*comment_lines("The id of a token, a byte, is its value."), ""]
        return
    unit = {"char": "character", "word": "word"}[vocab.unit]
    comment = f"The tokens by id: each is a {unit} in UTF-8."
    _add_texts(answers, name, ("tokens", "token_sizes"), tokens, comment, "vocab")
    missing = -1 if vocab.unknown_id is None else vocab.unknown_id
    unknown = "-1" if missing < 0 else f"{missing}, that of {tokens[missing].decode()},"
    find = f"int {name}_find(const char *token, int size)"
    answers.add(
        f"The id of a token of `size` bytes; {unknown} if there is none.",
        f"{find};",
        [
            find,
            "{",
            "    int id, i;",
            f"    for (id = 0; id < {V}; ++id) {{",
            f"        for (i = 0; i < size && i < {name}_token_sizes[id] && token[i] == {name}_tokens[id][i]; ++i)",
            "            ;",
            f"        if (i == size && i == {name}_token_sizes[id])",
            "            return id;",
            "    }",
            f"    return {missing};",
            "}",
        ],
    )


