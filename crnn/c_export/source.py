# SPDX-License-Identifier: MIT
"""The text of an exported model: its .c file and its header."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from crnn._version import __version__
from crnn.c_export import numbers, pieces
from crnn.c_export.answers import Answers, comment_lines
from crnn.c_export.network import Network
from crnn.c_export.self_test import SelfTest

MARK = "/* Exported by crnn "  # how files that may be replaced begin


@dataclass(frozen=True)
class Source:
    """A model's C text.

    Attributes
    ----------
    name : str
        Prefix of all public names; a C identifier.
    header : str
        Name of the header's file, for #include.
    """

    network: Network
    answers: Answers
    test: SelfTest
    name: str
    header: str

    # ---- the header --------------------------------------------------------------------------------------------------

    def header_lines(self) -> list[str]:
        """The .h file."""
        net, name, upper = self.network, self.name, self.name.upper()
        fields = [
            f"    {c_type} {field}{'' if c_type == 'uint64_t' else f'[{count}]'}; /* {comment} */"
            for c_type, field, count, comment in net.state_fields
        ]
        sizes = f"enum {{ {upper}_INPUTS = {net.parts.input_size}, {upper}_OUTPUTS = {net.output_size} }};"
        return [
            f"{MARK}{__version__}. {self._title()}; see {self.header.removesuffix('.h')}.c. */",
            f"#ifndef {upper}_H",
            f"#define {upper}_H",
            "",
            "#include <stdint.h>",
            "",
            "#ifdef __cplusplus",
            'extern "C" {',
            "#endif",
            "",
            f"/* {'How many ids there are' if net.takes_ids else 'Elements of x'}, and elements of y. */",
            sizes,
            "",
            *comment_lines(
                f"The state of one sequence, {net.state_bytes} bytes, yours to place and to copy: a copy continues "
                "independently. One thread at a time may use a state; the constants are shared."
            ),
            "typedef struct {",
            *fields,
            f"}} {name}_state;",
            "",
            "/* The state before the first step. */",
            f"void {name}_init({name}_state *state);",
            "",
            *self._step_comment(),
            *(f"{declaration};" for declaration in self._steps()),
            "",
            *self.answers.declarations,
            f"#ifdef {upper}_SELF_TEST",
            "/* 0, or the number of the first step whose outputs have other bits than crnn's, from 1. */",
            f"int {name}_self_test(void);",
            "#endif",
            "",
            "#ifdef __cplusplus",
            "}",
            "#endif",
            "#endif",
        ]

    def _title(self) -> str:
        net = self.network
        sizes = ", ".join(str(layer.H) for layer in net.layers)
        return f"{net.parts.kind}, {net.parts.cell} {sizes}"

    def _steps(self) -> list[str]:
        """The declarations of the functions that make a step."""
        net, name, upper = self.network, self.name, self.name.upper()
        y = f"{net.y_type} y[{upper}_OUTPUTS]"
        real = f"int {name}_step({name}_state *state, const {net.x_type} x[{upper}_INPUTS], {y})"
        by_id = f"int {name}_step{{}}({name}_state *state, int32_t id, {y})"
        if net.takes_ids:
            return [by_id.format("")]
        return [real, by_id.format("_id")] if net.takes_both else [real]

    def _step_comment(self) -> list[str]:
        net = self.network
        text = f"One step. y: {self.answers.outputs}"
        if net.pooled:
            text += ", of the sequence so far"
        text += ". Returns 1; or 0, without a change of the state, "
        if net.takes_ids:
            text += "if there is no such id."
        else:
            text += "if an x is not finite" + (" after it is standardised." if net.x_type == "double" else ".")
        if net.takes_both:
            text += f" {self.name}_step_id is a step whose x is 1 at id, and 0 elsewhere."
        return comment_lines(text)

    # ---- the source --------------------------------------------------------------------------------------------------

    def source_lines(self) -> Iterator[str]:
        """The .c file."""
        net = self.network
        yield from self._comment()
        yield from [f'#include "{self.header}"', "", "#include <float.h>", "#include <limits.h>", ""]
        yield pieces.text_of(net.pieces | self.answers.pieces)
        yield from ["/* ---- weights ---- */", ""]
        for constant in net.constants:
            yield from constant.definition()
            yield ""
        for name, values in net.scalings.items():
            yield from [*numbers.array(f"double {name}", len(values), numbers.doubles(values)), ""]
        yield from ["/* ---- the model ---- */", ""]
        yield from [*self._functions(), *self.answers.definitions, ""]
        yield from self.test.text(self.name, net)

    def _comment(self) -> list[str]:
        net, name = self.network, self.name
        recipe = net.layers[0].recipe
        title = f"{MARK}{__version__}: {self._title()}, {net.precision}."
        code = "and 2 to 4 kB of code" + ("" if not net.scalings else ", and double arithmetic for the scaling")
        tables = f" and {self.answers.nbytes} of tables" if self.answers.nbytes else ""
        scratch, state = net.scratch_bytes, net.state_bytes - net.scratch_bytes
        return [
            title,
            " *",
            *(f" *     {line}" for line in recipe.equations),
            " *",
            f" * layers          {len(net.layers)}: {', '.join(str(layer.H) for layer in net.layers)} units",
            f" * flash           {net.constant_bytes:,} bytes of weights{tables}, {code}",
            f" * RAM             {net.state_bytes:,} bytes: the state, {state:,}, and scratch, {scratch:,}",
            f" * multiply-adds   {net.multiply_adds:,} a step",
            " *",
            " * C99, needs no library. Each step has the bits of crnn's own, on every machine and with every compiler.",
            " *     -DCRNN_SIMD  uses vectors of the machine that is compiled for: AVX2 with FMA, AVX-512, NEON, DSP",
            f" *     -D{name.upper()}_SELF_TEST  adds a main that compares steps with those of crnn, bit by bit",
            " *",
            " * This file is made from your model. It is yours: use, change and distribute it as you like. */",
        ]

    def _functions(self) -> list[str]:
        net, name = self.network, self.name
        init = [f"void {name}_init({name}_state *state)", "{", *_indented(net.start_statements()), "}", ""]
        body = [line for number in range(len(net.layers)) for line in net.layer_statements(number)]
        outputs = net.output_statements()
        counter = ["int j;"] if any("j" in line.split("(")[0] or "; j <" in line for line in outputs) else []
        advance = [
            "/* All layers, and y. scratch has the first layer's sums with its input; `normal`: see add_product. */",
            f"static void advance({name}_state *state, int normal, {net.y_type} *y)",
            "{",
            *_indented(["float *const a = state->scratch;", *counter, *body, *outputs, "(void)normal;"]),
            "}",
            "",
        ]
        steps = self._steps()
        by_id = ["", *self._step_by_id(steps[-1])] if net.takes_ids or net.takes_both else []
        real = [] if net.takes_ids else ["", *self._step_of_reals(steps[0])]
        return [*init, *advance, *(real + by_id)[1:]]

    def _step_by_id(self, declaration: str) -> list[str]:
        net = self.network
        sums = net.first_sums_of_id()
        return [
            declaration,
            "{",
            *_indented(
                [
                    "float *const a = state->scratch;",
                    "int normal;",
                    f"if (id < 0 || id >= {net.parts.input_size})",
                    "    return 0;",
                    *sums,
                    "advance(state, normal, y);",
                    "return 1;",
                ]
            ),
            "}",
        ]

    def _step_of_reals(self, declaration: str) -> list[str]:
        net = self.network
        value = "x[i]" if net.x_type == "float" else "(float)((x[i] - x_mean[i]) / x_std[i])"
        return [
            declaration,
            "{",
            *_indented(
                [
                    "float *const a = state->scratch;",
                    "int normal, i;",
                    f"for (i = 0; i < {net.parts.input_size}; ++i) {{",
                    f"    const float value = {value};",
                    "    if (!is_finite(value))",
                    "        return 0;",
                    "    state->x[i] = normal_or_zero(value);",
                    "}",
                    *net.first_sums("state->x"),
                    "advance(state, normal, y);",
                    "return 1;",
                ]
            ),
            "}",
        ]


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"    {line}" for line in lines]
