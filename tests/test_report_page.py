# SPDX-License-Identifier: MIT
"""Pages about runs: what they show, that nothing of the user's becomes markup, and what they replace."""

import base64
import itertools
import math
import random
import re
from html.parser import HTMLParser

import pytest
import report_tools as tools

from crnn.report import flow, page
from crnn.report.elements import chosen
from crnn.report.runs import SPEEDS, ReportRun
from crnn.report.sections import SECTIONS
from crnn.training.entries import KINDS, is_entry, is_history

VOID = {"meta", "input", "br", "link", "col"}
HOSTILE = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<!--",
    "]]>",
    "&amp;",
    "'\"`",
    "\0\x1b[2J",
    "\u202eabc",
    "\ud800",
    "</style>",
    "</p></main>",
]


class Tree(HTMLParser):
    """Elements of a page in their order, with the problem of every end tag that fits no start."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.problems, self.texts = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.problems.append(tag)

    def handle_data(self, data):
        if self.open[-1:] not in (["script"], ["style"]):
            self.texts.append(data)

    def all(self, tag, **wanted):
        return [
            attributes
            for name, attributes in self.elements
            if name == tag and all(attributes.get(key.rstrip("_")) == value for key, value in wanted.items())
        ]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def tree_of(*runs, **options):
    """The tree of a page, which is checked to be well-formed."""
    text = page.page([(f"run {number}", run) for number, run in enumerate(runs)], **options)
    tree = Tree(text)
    assert tree.problems == []
    assert tree.open == []
    ids = [attributes["id"] for _, attributes in tree.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {each["href"].removeprefix("#") for each in tree.all("a")} <= set(ids)
    assert len(text.encode()) < 2_000_000
    return tree


def sections(tree):
    return [attributes["id"] for attributes in tree.all("section")]


LOGS = {
    "language model": tools.language_model_entries,
    "classifier": tools.classifier_entries,
    "forecaster": tools.forecaster_entries,
}


# ---- the invented logs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", LOGS.values(), ids=LOGS)
def test_the_invented_logs_are_logs(make):
    entries = make()
    assert all(map(is_entry, entries))
    assert is_history(entries, 10_000)


def test_every_kind_of_entry_is_invented():
    made = {entry["kind"] for make in LOGS.values() for entry in make()} | {tools.values_entry(1)["kind"]}
    assert made == set(KINDS)


# ---- what a page shows -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("language model", ["summary", "curves", "samples", "text", "flow", "settings"]),
        ("classifier", ["summary", "curves", "confusion", "flow", "settings"]),
        ("forecaster", ["summary", "curves", "forecast", "flow", "settings"]),
    ],
)
def test_a_page_has_the_sections_that_the_log_has_something_for(kind, expected):
    assert sections(tree_of(LOGS[kind]())) == expected


def test_sections_are_in_the_order_of_the_list():
    tree = tree_of(*(make() for make in LOGS.values()), [tools.values_entry(3)])
    assert sections(tree) == [section.key for section in SECTIONS]


def test_the_summary_says_what_how_well_and_how_long():
    text = tree_of(tools.language_model_entries()).text
    assert "88,123 parameters, trained on 41,000 tokens" in text
    assert "Training has finished; the weights of epoch 8 are kept." in text
    assert re.search(r"validation loss 1\.562 nats, epoch 9", text)
    assert "test loss 1.600 of the weights that are kept" in text
    assert "480 updates" in text
    assert "The training loss still falls" in text


def test_the_summary_says_that_weights_are_averaged():
    averaged = [tools.run_entry(average="EMA(decay=0.9, start=1)"), *tools.language_model_entries()[1:]]
    sentence = "Validation losses are those of the average of the weights, EMA(decay=0.9, start=1), once it has begun."
    assert sentence in tree_of(averaged).text
    assert "Validation losses" not in tree_of(tools.language_model_entries()).text
    assert "Validation losses" not in tree_of([tools.run_entry(average=[1]), *averaged[1:]]).text


def test_a_log_that_still_grows_says_so():
    entries = [entry for entry in tools.language_model_entries() if entry["update"] <= 100]
    assert "Training has not ended: this page was made after update 100 of 480." in tree_of(entries).text


def test_a_resumed_run_has_not_ended():
    again = {**tools.run_entry(), "update": 481, "epoch": 12, "started": "2026-12-01T00:00:00Z"}
    entries = [*tools.language_model_entries(), again]
    assert "Training has not ended" in tree_of(entries).text
    assert "started 2026-11-26 00:18 UTC" in tree_of(entries).text
    more = [{**each, "epoch": 12 + each["epoch"], "update": 481 + each["update"]} for each in tools.curve_entries(1)]
    assert tree_of([*entries, *more]).texts.count("resumed") == 2  # on both scales


def test_several_runs_are_overlaid_and_their_differences_are_in_a_table():
    runs = [tools.language_model_entries(), tools.language_model_entries(1, hidden=256, end=1.2)]
    tree = tree_of(*runs)
    names = [each["data-name"] for each in tree.all("path") if "data-name" in each]
    assert {"run 0, training", "run 0, validation", "run 1, training", "run 1, validation"} <= set(names)
    assert "model: hidden size 128 256" in tree.text
    assert "model: cell lstm lstm" in tree.text.split("All settings")[1]
    assert "model: cell" not in tree.text.split("What differs")[1].split("All settings")[0]
    assert len([box for box in tree.all("input", type="checkbox") if "checked" in box]) == 2


def test_settings_that_a_run_has_not_do_not_differ_and_counts_have_groups_of_digits():
    runs = [tools.language_model_entries(), tools.language_model_entries(1, hidden=256)]
    runs[0][0]["model"]["config"] = runs[0][0]["model"]["config"] | {"embedding_size": None}
    runs[0][0]["options"]["carry"], runs[1][0]["options"]["carry"] = None, 1280
    differing = tree_of(*runs).text.split("What differs")[1].split("All settings")[0]
    assert "embedding size" not in differing
    assert "training: carry \N{EN DASH} 1,280" in differing
    assert "parameters 88,123" in tree_of(runs[0]).text


def test_the_speed_is_a_mean_over_many_short_updates():
    entries = [
        {"kind": "train", "epoch": 1, "update": n, "train_loss": 1.0, "tokens": 10, "seconds": 0.1 + 0.8 * (n % 2)}
        for n in range(1, 601)
    ]
    entries = [entry | {"tokens_per_second": entry["tokens"] / entry["seconds"]} for entry in entries]
    curve = ReportRun("", entries).curve("tokens_per_second", "speed")
    assert (len(curve.x), curve.x[-1]) == (SPEEDS, 600)
    assert curve.y == pytest.approx([20.0] * SPEEDS)


def test_what_is_counted_is_named_for_all_runs():
    runs = [tools.language_model_entries(), tools.language_model_entries(1)]
    assert "Speed, tokens/s" in tree_of(*runs).text
    runs[1][0]["counted"] = "targets"
    tree = tree_of(*runs)
    assert "Speed, tokens/s or targets/s" in tree.text
    assert "loss, nats per token or target" in tree.text


def test_runs_of_one_name_get_numbers():
    text = page.page([("a", tools.curve_entries()), ("a", tools.curve_entries())])
    assert "a (2)" in text


def test_runs_of_equal_settings_say_so():
    assert "All settings of these runs are the same." in tree_of(*[tools.language_model_entries()] * 2).text


def test_a_table_of_losses_alone_makes_a_page():
    tree = tree_of(tools.curve_entries(valid=False))
    assert sections(tree) == ["summary", "curves"]
    assert "The log ends with update 480." in tree.text


@pytest.mark.parametrize("entries", [[], [tools.run_entry()], [tools.run_entry(), tools.end_entry(0)]])
def test_a_log_with_hardly_anything_makes_a_page(entries):
    assert sections(tree_of(entries))[0] == "summary"


@pytest.mark.parametrize("kind", KINDS)
def test_a_log_of_one_kind_of_entry_makes_a_page(kind):
    entries = [entry for make in LOGS.values() for entry in make()] + [tools.values_entry(2)]
    tree = tree_of([entry for entry in entries if entry["kind"] == kind])
    assert "summary" in sections(tree)


def test_losses_that_are_not_finite_are_left_out_of_curves():
    entries = tools.curve_entries()
    for entry in entries[5:]:
        for name in ("train_loss", "valid_loss", "grad_norm", "lr", "seconds", "tokens_per_second"):
            if name in entry:
                entry[name] = math.inf if entry["update"] % 8 else math.nan
    text = page.page([("a", entries), ("b", [*tools.forecaster_entries(), tools.end_entry(valid_loss=math.nan)])])
    assert not re.search(r' (?:d|cx|cy|x\d?|y\d?)="[^"]*(?:nan|inf)', text)


def test_only_numbers_that_are_not_finite_make_a_page():
    entries = [tools.flow_entry(1), tools.text_entry(1, units=2), tools.values_entry(1), tools.forecast_entry(1)]
    flow_norms, text, values, forecast = entries
    flow_norms["norms"] = [[math.nan] * 48, [0.0] * 48]
    text["surprisal"] = [math.inf] * 600
    values["truth"] = values["predicted"] = [math.nan] * 200
    for series in forecast["series"]:
        series["truth"] = series["predicted"] = series["lower"] = [math.nan] * 48
    assert all(map(is_entry, entries))
    assert "no factor per step" in tree_of(entries).text


def test_entries_without_content_make_no_section():
    entries = [
        {**tools.flow_entry(1), "layers": [], "norms": [], "saturation": [], "spectral_radius": []},
        tools.text_entry(1, tokens=[]),
        tools.confusion_entry(1, classes=0),
        tools.forecast_entry(1, series=0),
        tools.values_entry(1, count=0),
    ]
    assert all(map(is_entry, entries))
    assert sections(tree_of(entries)) == ["summary"]


def test_the_same_entries_give_the_same_page():
    runs = [(name, make()) for name, make in LOGS.items()]
    assert page.page(runs) == page.page([(name, make()) for name, make in LOGS.items()])


def test_a_page_loads_nothing():
    tree = tree_of(*(make() for make in LOGS.values()))
    assert not {"link", "img", "iframe", "object", "embed", "base", "form"} & {name for name, _ in tree.elements}
    assert all("src" not in attributes for _, attributes in tree.elements)
    text = page.page([("a", tools.language_model_entries())])
    assert set(re.findall(r"https?://[^\s\"'<)]*", text)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert "@import" not in text
    assert "url(" not in text


# ---- size ------------------------------------------------------------------------------------------------------------


def test_a_log_of_100000_entries_is_thinned():
    entries = tools.curve_entries(2000, updates=200)
    assert len(entries) > 100_000
    tree = tree_of(entries)
    assert "200 of 2,000 epochs" in tree.text or re.search(r"1\d\d of 2,000 epochs", tree.text)


def test_many_runs_show_less_of_each():
    runs = [(f"run {seed}", tools.language_model_entries(seed)) for seed in range(8)]
    text = page.page(runs)
    assert len(text.encode()) < 2_000_000
    assert Tree(text).problems == []
    assert text.count('class="tokens"') >= 8


def test_a_page_of_very_many_runs_has_all_curves_and_the_other_parts_of_the_first_runs():
    count, entries = 30, tools.language_model_entries()
    text = page.page([(f"run {number}", entries) for number in range(count)])
    assert len(text.encode()) < 2_000_000
    tree = Tree(text)
    assert tree.problems == []
    shown = len(set(re.findall(r'<article class="run-(\d+)"', text)))
    assert 0 < shown < count
    assert f"Of the other {count - shown} runs this is left out" in tree.text
    assert len(set(re.findall(r'data-name="run (\d+), validation', text))) == count


def test_an_entry_that_is_far_too_large_for_a_page_is_left_out():
    huge = tools.text_entry(12, list("abcdefghij" * 5_000), units=2)
    text = page.page([("", [*tools.curve_entries(), huge])])
    assert len(text.encode()) < 2_000_000
    assert Tree(text).problems == []


@pytest.mark.parametrize("most", [1, 2, 5, 16])
def test_chosen_entries_end_with_the_last_and_begin_with_the_first(most):
    for count in range(1, 60):
        some = chosen(list(range(count)), most)
        assert len(some) <= most
        assert some[-1] == count - 1
        assert some == sorted(set(some))
        assert most == 1 or some[0] == 0


# ---- hostile text ----------------------------------------------------------------------------------------------------


def hostile_entries():
    """A log all of whose texts try to become markup."""
    bad = HOSTILE
    settings = {text: text for text in bad}
    run = tools.run_entry(kind=bad[0], **settings)
    run |= {"machine": settings, "data": {**settings, "targets": 3}, "name": bad[1], "started": bad[0], "unit": bad[4]}
    run |= {"counted": bad[1], "crnn": bad[0]}
    run["model"] |= {"text": "".join(bad), "config": settings}
    confusion = tools.confusion_entry(1, labels=bad)
    forecast, flow_norms = tools.forecast_entry(1), tools.flow_entry(1, layers=len(bad))
    flow_norms["layers"] = bad
    for series, name in zip(forecast["series"], bad, strict=False):
        series["name"] = name
    text = tools.text_entry(1, tokens=bad * 3, units=len(bad))
    text |= {"units": bad, "surprisal_unit": bad[1]}
    sample = {**tools.sample_entry(1), "prompt": bad[0], "text": "\n".join(bad)}
    values = {**tools.values_entry(1), "data": bad[0]}
    end = tools.end_entry(1, reason=bad[0], notes=bad, **settings)
    end["scores"] = settings
    return [run, *tools.curve_entries(1), sample, text, confusion, forecast, flow_norms, values, end]


@pytest.mark.parametrize("count", [1, 2])
def test_hostile_text_stays_text(count):
    entries = hostile_entries()
    assert all(map(is_entry, entries))
    text = page.page([(HOSTILE[0], entries), (HOSTILE[1], entries)][:count], title="".join(HOSTILE))
    tree = Tree(text)
    assert tree.problems == []
    assert tree.open == []
    assert len(tree.all("script")) == 1
    assert len(tree.all("style")) == 1
    assert len(tree.all("main")) == 1
    assert not tree.all("img")
    assert not any(name.startswith("on") for _, attributes in tree.elements for name in attributes)
    assert "<!--" not in text
    assert not re.search("[\0-\x08\x0b-\x1f\x7f\ud800-\udfff]", text)
    assert tree.text.count("</script><script>alert(1)</script>") > 20
    text.encode()


# ---- what sections compute -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("norms", "layer", "sentence"),
    [
        ([1e-6, 1e-3, 1.0], "layer 0", "gradients fade (×0.501 per step): half is left after 1.0 steps"),
        ([1.0, 1e-3, 1e-6], "layer 0, reverse", "gradients fade (×0.501 per step)"),
        ([1e6, 1e3, 1.0], "layer 0", "gradients explode (×2.00 per step)"),
        ([0.7, 0.8, 1.0], "layer 0", "gradients keep their order of magnitude"),
        ([0.0, 0.5, 1.0], "layer 0", "half is left after 10.0 steps; after 10 steps nothing is left."),
        ([1.0, 0.7, 0.0], "layer 0", "no factor per step"),
        ([math.inf, 0.7, 0.1], "layer 0", "they double in 3.6 steps; after 10 steps they are not finite"),
        ([0.0, 1.0, 1.0], "layer 0", "gradients keep their order of magnitude"),
    ],
)
def test_a_sentence_says_whether_gradients_fade_or_explode(norms, layer, sentence):
    entry = {"layers": [layer], "steps": [0, 10, 20], "norms": [norms]}
    if norms == [1e-6, 1e-3, 1.0]:
        assert flow.factor_per_step(entry, 0) == pytest.approx(1e-6 ** (1 / 20))
    assert sentence in flow.verdict(entry, 0)


@pytest.mark.parametrize("norms", [[5e-324, 1.7e308], [1.7e308, 5e-324]])
def test_extreme_gradients_have_a_verdict(norms):
    entry = {**tools.flow_entry(1, layers=1, steps=2), "norms": [norms], "steps": [3, 4]}
    assert "layer 0: gradients" in tree_of([entry]).text


def test_the_heat_map_has_a_cell_for_each_step_and_epoch():
    entries = [tools.flow_entry(epoch, layers=1, steps=7) for epoch in (0, 1, 4)]
    text = page.page([("a", entries)])
    paths = "".join(re.findall(r'<path d="([^"]*)" class="q\d+"', text))
    cells = re.findall(r"M(\d+) (\d+)h", paths)
    assert sorted(cells) == sorted((str(column), str(row)) for column in range(7) for row in range(3))


def test_tokens_are_colored_by_surprisal_and_carry_the_activity_of_units():
    entry = tools.text_entry(1, tokens=["a", "b", "c"], units=2)
    entry["surprisal"] = [0.0, 2.0, 4.0]
    text = page.page([("a", [entry])])
    assert re.findall(r'<span class="(s\d)" title="([^"]*)">([abc])</span>', text) == [
        ("s0", "0 nats", "a"),
        ("s8", "2.00 nats", "b"),  # the highest surprisal but for the largest 3 %
        ("s8", "4.00 nats", "c"),
    ]
    assert f'data-activity="{entry["activity"]}"' in text
    assert len(base64.b64decode(entry["activity"])) == 6
    assert "<noscript>" in text


def test_samples_of_one_time_are_together_and_show_their_targets():
    pairs = [{**tools.sample_entry(4, text=f"text {n}"), "prompt": f"source {n}", "target": f"t {n}"} for n in range(3)]
    tree = tree_of([tools.sample_entry(1), *pairs])
    assert len(tree.all("details")) == 2
    assert "source source 2 predicted text 2 target t 2" in tree.text


def test_what_the_kept_weights_do_is_named():
    entries = [tools.flow_entry(12), tools.confusion_entry(12), tools.flow_entry(12), tools.end_entry()]
    tree = tree_of(entries)
    assert "at the end, with the weights of epoch 8" in tree.text
    assert tree.texts.count("kept") == 2  # a row in the map of each layer
    assert "kept" not in tree_of([*entries[:-1], {**tools.end_entry(), "best_epoch": None}]).texts


def test_the_confusion_matrix_names_the_most_frequent_errors():
    entry = tools.confusion_entry(1, labels=["cat", "dog"])
    entry["counts"] = [[7, 3], [0, 10]]
    tree = tree_of([entry])
    assert "17 of 20 right (85.0 %), on validation data. Most frequent errors: cat taken for dog (3)." in tree.text
    assert "70 %" in tree.text


def test_a_forecast_shows_its_error_and_its_band():
    entry = tools.forecast_entry(1, series=1)
    series = entry["series"][0]
    series["predicted"] = [value + 0.5 for value in series["truth"]]
    tree = tree_of([entry])
    assert "mean absolute error 0.500" in tree.text
    assert len([each for each in tree.all("path") if "fill-opacity" in (each.get("style") or "")]) == 1


# ---- accessibility ---------------------------------------------------------------------------------------------------


def test_charts_have_names_and_boxes_that_scroll_can_be_focused():
    tree = tree_of(*(make() for make in LOGS.values()))
    charts = tree.all("svg", role="img")
    assert len(charts) >= 20
    assert all(chart.get("aria-label") for chart in charts)
    scrolling = tree.all("div", class_="scroll")
    assert len(scrolling) > 5
    assert all(box["tabindex"] == "0" and box["aria-label"] for box in scrolling)


def test_headings_form_an_outline():
    tree = tree_of(*(make() for make in LOGS.values()))
    levels = [int(name[1]) for name, _ in tree.elements if re.fullmatch("h[1-6]", name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_every_control_has_a_label():
    tree = tree_of(tools.language_model_entries(), tools.classifier_entries())
    text = page.page([("a", tools.language_model_entries()), ("b", tools.classifier_entries())])
    for control in ("<input", "<select"):
        for place in [found.start() for found in re.finditer(control, text)]:
            before = text[:place]
            assert before.rfind("<label") > before.rfind("</label>")
    assert len(tree.all("input")) + len(tree.all("select")) >= 5


# ---- files -----------------------------------------------------------------------------------------------------------


def test_a_page_is_written_and_replaced(tmp_path):
    path = tmp_path / "run.html"
    page.write(path, [("a", tools.curve_entries(1))])
    assert page.is_report(path)
    assert path.read_text("utf-8").startswith("<!doctype html>\n")
    page.write(path, [("b", tools.curve_entries(2))], title="A title")
    assert "<title>A title</title>" in path.read_text("utf-8")


def test_an_empty_file_is_written_to(tmp_path):
    path = tmp_path / "run.html"
    path.touch()
    page.write(path, [("a", [])])
    assert page.is_report(path)


OTHER_FILES = ["<!doctype html>\n<p>mine", "x", '<meta name="generator" content="crnn report 1">']


@pytest.mark.parametrize("content", OTHER_FILES)
def test_another_file_is_not_replaced(tmp_path, content):
    path = tmp_path / "run.html"
    path.write_text(content)
    with pytest.raises(FileExistsError, match="path: expected a new file, or a report of crnn to replace, got another"):
        page.write(path, [("a", [])])
    assert path.read_text() == content


@pytest.mark.parametrize("run", [[], ("a",), ("a", 3), ("a", ["b"]), (1, []), "ab"])
def test_runs_without_names_or_entries_are_refused(tmp_path, run):
    with pytest.raises(TypeError, match=r"runs\[1\]: expected a name and entries"):
        page.write(tmp_path / "r.html", [("a", tools.curve_entries()), run])


def test_no_runs_are_refused(tmp_path):
    with pytest.raises(ValueError, match="runs: expected at least one run, got none"):
        page.write(tmp_path / "run.html", [])
    assert list(tmp_path.iterdir()) == []


def test_scripts_and_styles_are_part_of_the_package():
    text = page.page([("a", [])])
    assert "text colored" in text or "coloured by a hidden unit" in text
    assert "color-scheme: light dark" in text


# ---- numbers of any kind ---------------------------------------------------------------------------------------------

EXTREMES = [0.0, -0.0, math.nan, math.inf, -math.inf, 1.7e308, -1.7e308, 5e-324, -1e-300, 1e100, 1.0, 0, 1, 2**53 - 1]


def mutated(value, rng):
    """A value in which some numbers are replaced by extreme ones, and some texts by hostile ones."""
    if isinstance(value, dict):
        return {key: each if key == "kind" else mutated(each, rng) for key, each in value.items()}
    if isinstance(value, list):
        return [mutated(each, rng) for each in value]
    if isinstance(value, bool) or value is None or rng.random() < 0.8:
        return value
    if isinstance(value, str):
        return rng.choice(HOSTILE)
    fitting = [each for each in EXTREMES if type(each) is type(value) and not (type(each) is int and each < 0)]
    return rng.choice(fitting)


@pytest.mark.parametrize("seed", range(12))
def test_logs_of_extreme_numbers_make_pages(seed):
    rng = random.Random(seed)
    runs = []
    for make in LOGS.values():
        entries = [*make(), tools.values_entry(3)]
        changed = [mutated(entry, rng) for entry in entries]
        runs.append([new if is_entry(new) else old for new, old in zip(changed, entries, strict=True)])
    tree_of(*runs[: 1 + seed % 3])
