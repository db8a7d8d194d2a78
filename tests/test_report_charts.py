# SPDX-License-Identifier: MIT
"""Charts and their axes, escaping, and the summary of a log in a notebook."""

import math
import re

import pytest
from report_tools import curve_entries, end_entry, language_model_entries, run_entry

from crnn.report import summary_html
from crnn.report.charts import MOST_POINTS, Band, Curve, Mark, line_chart, scatter_chart
from crnn.report.markup import Markup, escape, tag
from crnn.report.scales import Scale, duration, number, scale_of, thinned


def path_of(chart, name):
    """The d attribute of a curve."""
    return re.search(rf'<path d="([^"]*)"[^>]*data-name="{name}"', chart)[1]


# ---- escaping --------------------------------------------------------------------------------------------------------


def test_text_is_escaped_and_markup_is_not():
    assert tag("p", "<script>", tag("b", "&"), title='"') == '<p title="&quot;">&lt;script&gt;<b>&amp;</b></p>'


def test_markup_that_is_changed_is_text_again():
    assert tag("p", Markup("<b>") + "<i>") == "<p>&lt;b&gt;&lt;i&gt;</p>"


def test_characters_that_html_does_not_allow_are_replaced():
    assert escape("a\0b\x1b[31m\ud800\ufffe\tc\n") == "a\ufffdb\ufffd[31m\ufffd\ufffd\tc\n"


# ---- axes and numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 1), (1.41, 3.32), (-5, 7e6), (0, 1e-7), (1e-100, 1e-99), (-1e100, 1e100), (3, 3), (0, 0), (5, 5 + 1e-12)],
)
@pytest.mark.parametrize("whole", [False, True])
def test_an_axis_holds_its_values_and_has_some_round_ticks(low, high, whole):
    scale = scale_of([low, math.nan, high, math.inf], whole=whole)
    assert -1e-6 <= scale(low) <= scale(high) <= 1 + 1e-6
    ticks = scale.ticks()
    assert 2 <= len(ticks) <= 11
    assert len({label for _, label in ticks}) == len(ticks)
    assert all(len(label) <= 9 for _, label in ticks)


@pytest.mark.parametrize(("low", "high"), [(1, 1e6), (1e-12, 3e-2), (1.4, 3.3), (2, 2), (1e-100, 1e100), (0.3, 40)])
def test_a_logarithmic_axis_holds_its_positive_values(low, high):
    scale = scale_of([low, 0.0, -1.0, high], log=True)
    assert -1e-6 <= scale(low) <= scale(high) <= 1 + 1e-6
    labels = [label for _, label in scale.ticks()]
    assert 2 <= len(set(labels)) == len(labels) <= 12


def test_an_axis_without_values_is_drawn():
    assert len(scale_of([]).ticks()) > 2
    assert len(scale_of([math.nan, math.inf], log=True).ticks()) > 0


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0, 50_000, ["0", "10k", "20k", "30k", "40k", "50k"]),
        (0, 1, ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0, 0.002, ["0", "0.0005", "0.0010", "0.0015", "0.0020"]),
        (0, 1e-5, ["0", "2e−6", "4e−6", "6e−6", "8e−6", "1e−5"]),
    ],
)
def test_ticks_are_labelled_in_one_unit(low, high, labels):
    assert [label for _, label in Scale(low, high).ticks()] == labels


def test_ticks_of_decades_are_powers():
    assert [label for _, label in Scale(1e-3, 1e3, log=True).ticks()] == ["0.001", "0.1", "10", "1000"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.23456, "1.235"),
        (0.012345, "0.01235"),
        (123.456, "123.5"),
        (12345.6, "12,346"),
        (1234567, "1,234,567"),
        (2.5e-7, "2.5e−7"),
        (-0.5, "−0.5000"),
        (math.nan, "NaN"),
        (-math.inf, "−∞"),
        (None, "–"),
        ("a", "a"),
    ],
)
def test_numbers_have_four_digits(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.0034, "3.4 ms"),
        (0.034, "34 ms"),
        (0.34, "0.34 s"),
        (4.21, "4.2 s"),
        (59.0, "59 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (math.nan, "–"),
    ],
)
def test_durations_are_in_the_unit_that_fits(seconds, text):
    assert duration(seconds) == text


def test_thinning_keeps_ends_and_peaks():
    x, y = list(range(10_000)), [1.0] * 10_000
    y[1234], y[7777] = 9.0, -9.0
    thin_x, thin_y = thinned(x, y, 100)
    assert len(thin_x) <= 100
    assert {0, 1234, 7777, 9999} <= set(thin_x)
    assert thin_x == sorted(thin_x)
    assert [y[n] for n in thin_x] == thin_y


# ---- charts ----------------------------------------------------------------------------------------------------------


def test_text_cannot_reverse_what_follows_it():
    assert escape("a\u202eb\u2066c\u05d0") == "a\ufffdb\ufffdc\u05d0"


def test_a_curve_is_interrupted_where_it_is_not_finite():
    chart = line_chart("Loss", [Curve("a", [0, 1, 2, 3, 4], [1.0, 2.0, math.nan, 2.0, 1.0])])
    assert path_of(chart, "a") == "M0 1000L250 0M750 0L1000 1000"
    assert 'data-y="1,2,nan,2,1"' in chart


def test_a_logarithmic_chart_leaves_out_what_is_not_positive():
    chart = line_chart("Loss", [Curve("a", [0, 1, 2], [0.0, 1.0, 10.0])], log=True)
    assert path_of(chart, "a").count("M") == 1
    assert path_of(chart, "a").count("L") == 1


def test_a_single_point_is_a_dot():
    assert "<circle" in line_chart("Loss", [Curve("a", [1], [2.0])])


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf, -math.inf], [1e308, -1e308], [0.0, 0.0]])
@pytest.mark.parametrize("log", [False, True])
def test_curves_without_anything_to_draw_are_empty_charts(values, log):
    chart = line_chart("Loss", [Curve("a", range(len(values)), values)], log=log)
    positions = " ".join(re.findall(r' (?:d|[cxy][12xy]?)="([^"]*)"', chart)).split()
    assert positions
    assert not {"nan", "inf", "nan%", "inf%"} & set(positions)


def test_names_in_charts_are_escaped():
    chart = line_chart("<b>", [Curve('"><script>', [0, 1], [1.0, 2.0])], x_label="<i>", y_label="<u>")
    assert not {"<b>", "<script>", "<i>", "<u>"} & set(re.findall("<[a-z]+>", chart))


def test_a_long_curve_is_thinned():
    chart = line_chart("Loss", [Curve("a", range(100_000), [math.sin(n) for n in range(100_000)])])
    assert 50 < path_of(chart, "a").count("L") < MOST_POINTS


def test_bands_marks_and_lines_are_drawn():
    marks = [Mark(1, 2.0, "best"), Mark(1, math.nan, "worst")]
    bands = [Band([0, 1, 2], [0.0, 1.0, math.nan], [2.0, 3.0, 4.0])]
    chart = line_chart("F", [Curve("a", [0, 2], [0.0, 4.0])], marks=marks, bands=bands, verticals=[(1, "now")])
    assert chart.count("<circle") == 1
    assert "M0 500L500 250L500 750L0 1000Z" in chart
    assert ">now</text>" in chart


def test_a_scatter_chart_has_one_axis_for_both():
    chart = scatter_chart("V", [0.0, 10.0, math.nan], [5.0, 10.0, 1.0], x_label="truth", y_label="prediction")
    assert re.findall(r'<circle cx="([^"]*)" cy="([^"]*)"', chart) == [("0%", "50%"), ("100%", "0%")]


# ---- the summary in a notebook -------------------------------------------------------------------------------------


def test_the_summary_shows_losses_epochs_and_how_training_ended():
    text = summary_html(language_model_entries())
    assert "LanguageModel · 12 epochs · 480 updates" in text
    assert "finished" in text
    assert 'data-name="training"' in text
    assert 'data-name="validation"' in text
    assert len(re.findall("<tr", text)) == 9
    assert "<script" not in text
    assert "<style" not in text


def test_the_best_epoch_is_shown_although_it_is_not_among_the_last():
    entries = curve_entries(30)
    for entry in entries:
        if entry["kind"] == "epoch":
            entry["valid_loss"] = 1.0 + abs(entry["epoch"] - 3)
    assert re.search(r"best: 1\.000, epoch 3", summary_html(entries))
    assert re.search(r"<td[^>]*>3</td>.*>best</td>", summary_html(entries))


@pytest.mark.parametrize("entries", [[], [run_entry()], [run_entry(), end_entry(0)]])
def test_a_log_without_updates_says_so(entries):
    assert "No update has been logged yet" in summary_html(entries)


def test_losses_that_are_not_finite_are_shown_in_the_table():
    entries = curve_entries(2)
    entries[-1]["train_loss"] = entries[-1]["valid_loss"] = math.nan
    assert ">NaN</td>" in summary_html(entries)


def test_notes_and_reasons_are_escaped():
    text = summary_html([run_entry(kind="<b>"), *curve_entries(1), end_entry(reason="<i>", notes=["<u>"])])
    assert not re.search("<b>|<i>|<u>", text)


def test_the_same_entries_give_the_same_summary():
    assert summary_html(language_model_entries()) == summary_html(language_model_entries())


def test_the_summary_of_a_long_run_is_small():
    assert len(summary_html(curve_entries(2000))) < 60_000
