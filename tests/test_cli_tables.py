# SPDX-License-Identifier: MIT
"""Tables that the command line reads: how they are written is found, or refused with line and column."""

import bz2
import gzip
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crnn.cli.tables.labels import classes_in, targets_of
from crnn.cli.tables.layout import Layout
from crnn.cli.tables.sequences import read_sequences
from crnn.cli.tables.table import Reading, TableError


@pytest.fixture
def read(tmp_path):
    """The sequences in a file with this content."""

    def read_text(content, *, name="t.csv", labelled=True, per_step=False, encoding="utf-8-sig", **options):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        written = {key: options.pop(key, None) for key in ("delimiter", "header")}
        reading = Reading(encoding, decimal=options.pop("decimal", "."), **written)
        found = {"format": "auto", "id": None, "time": None, "labels": (), "columns": ()} | options
        return read_sequences(path, Layout(**found, reading=reading), labelled=labelled, per_step=per_step)

    return read_text


def numbers(sequences):
    return [x.squeeze(1).tolist() if x.shape[1] == 1 else x.tolist() for x in sequences.x]


LONG = "id,time,x,y,label\na,0,1,2,up\na,1,3,4,up\nb,0,5,6,down\n"


# ---- formats -----------------------------------------------------------------------------------------------------


def test_a_long_table_has_a_row_for_each_step(read):
    found = read(LONG)
    assert numbers(found) == [[[1, 2], [3, 4]], [[5, 6]]]
    assert (found.labels, found.ids) == (["up", "down"], ["a", "b"])
    assert (found.lines, found.times) == ([[2, 3], [4]], [["0", "1"], ["0"]])
    layout = found.layout
    assert (layout.format, layout.id, layout.time, layout.labels) == ("long", "id", "time", ("label",))
    assert layout.columns == ("x", "y")
    said = "2 sequences of 1 to 2 steps of 2 values (x, y); long format: a row is a step, labels in column label"
    assert said in found.describe()


def test_rows_of_an_id_need_not_be_together(read):
    found = read("id,x,label\na,1,up\nb,2,down\na,3,up\n")
    assert numbers(found) == [[1, 3], [2]]
    assert found.lines == [[2, 4], [3]]


def test_a_wide_table_has_a_row_for_each_sequence(read):
    found = read("label,t0,t1,t2\nup,1,2,3\ndown,4,5,\n")
    assert numbers(found) == [[1, 2, 3], [4, 5]]
    assert (found.labels, found.ids, found.layout.format) == (["up", "down"], None, "wide")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", "1\t0.5\t-2\t3e-1\n-1\t1\t2\tNaN\n"),
        ("a.txt", "  1.0000000e+00   5.0000000e-01  -2.0  3.0e-01\n -1.0000000e+00   1.0   2.0\n"),
        ("a.csv", "1,0.5,-2,0.3\n-1,1,2,\n"),
        ("a.csv", "1;0.5;-2;0.3\r\n-1;1;2;\r\n"),
        ("a.csv", "1, 0.5, -2, 0.3\n\n-1, 1, 2,\n\n"),
    ],
)
def test_wide_tables_without_a_header_have_labels_in_the_first_column(read, name, content):
    found = read(content, name=name)
    assert numbers(found) == [[0.5, -2, 0.3], [1, 2]]
    assert classes_in(found, per_step=False) == [-1, 1]
    assert targets_of(found, [-1, 1], per_step=False) == [1, -1]


def test_ids_that_do_not_repeat_are_those_of_rows_that_are_sequences(read):
    found = read("id,label,t0,t1\nr1,up,1,2\nr2,down,3,4\n")
    assert (found.layout.format, found.ids, numbers(found)) == ("wide", ["r1", "r2"], [[1, 2], [3, 4]])


def test_a_format_that_is_given_is_not_looked_for(read):
    content = "id,label,t0,t1\nr1,up,1,2\nr2,down,3,4\n"
    found = read(content, format="long")
    assert (found.layout.format, numbers(found)) == ("long", [[[1, 2]], [[3, 4]]])
    assert len(read("id,label,x\na,up,1\na,down,2\n", format="wide")) == 2


def test_a_table_of_steps_without_ids_is_one_sequence(read):
    found = read("x,tag\n1,a\n2,b\n3,a\n", per_step=True, format="long", labels=("tag",))
    assert (numbers(found), found.labels, found.ids) == ([[1, 2, 3]], [["a", "b", "a"]], None)


def test_columns_are_named_or_numbered_and_others_are_left_out(read):
    found = read(LONG, id="1", time="2", labels=("5",), columns=("y",))
    assert (numbers(found), found.columns) == ([[2, 4], [6]], ["y"])
    content = "0,a,7,1\n1,a,8,2\n0,b,9,3\n"
    found = read(content, id="2", time="1", labelled=False, columns=("4",), format="long")
    assert (numbers(found), found.ids) == ([[1, 2], [3]], ["a", "b"])
    assert found.layout.columns == ("4",)


def test_several_columns_of_labels(read):
    found = read("id,x,hot,wet\na,1,1,0\na,2,1,0\nb,3,0,\n", labels=("hot", "wet"))
    assert found.labels == [["1", "0"], ["0", ""]]


# ---- how it is written -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_delimiters_and_line_ends(read, delimiter, end):
    content = LONG.replace(",", delimiter).replace("\n", end)
    assert len(read(content, delimiter=delimiter if delimiter == "|" else None)) == 2


def test_quoted_cells_hold_delimiters_quotes_and_line_ends(read):
    found = read('label,t0,t1\n"a, ""b""\nc",1,2\n"d",3,4\n')
    assert found.labels == ['a, "b"\nc', "d"]
    assert found.lines == [[3], [4]]  # where a row ends


def test_a_comma_may_be_the_decimal_mark(read):
    content = "label;t0;t1\nup;1,5;2,25\ndown;-3,5;4,0\n"
    assert numbers(read(content, decimal=",")) == [[1.5, 2.25], [-3.5, 4.0]]
    with pytest.raises(TableError, match=r"line 2, column 2 \(t0\): expected a number, got '1,5'"):
        read(content, delimiter=";")
    with pytest.raises(TableError, match=r"expected a number, got '1\.5'"):
        read("label;t0\nup;1.5\ndown;2,5\n", decimal=",")


@pytest.mark.parametrize(
    ("cells", "options", "message"),
    [
        ("b;0,5", {}, "expected a number, got '0,5'; --decimal , reads a comma as the decimal mark"),
        ("b;1.5", {"decimal": ","}, "expected a number, got '1.5'; with --decimal , a number has no point"),
        ("b;1.234,5", {}, "expected a number, got '1.234,5'"),
    ],
)
def test_a_number_with_another_decimal_mark_is_refused_with_the_option(read, cells, options, message):
    with pytest.raises(TableError, match=f"{re.escape(message)}$"):
        read(f"label;x\na;2\n{cells}\n", **options)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("separator", [";", ",", "\t"])
def test_the_first_line_of_a_spreadsheet_program_names_the_delimiter(read, separator, end):
    content = f"sep={separator}\n" + "id,x,label\na,1,up\na,2,up\nb,3,down\n".replace(",", separator)
    found = read(content.replace("\n", end))
    assert (numbers(found), found.labels, found.lines) == ([[1, 2], [3]], ["up", "down"], [[3, 4], [5]])
    with pytest.raises(TableError, match="line 6, column 2"):
        read((content + f"b{separator}?{separator}down\n").replace("\n", end))


def test_empty_rows_at_the_end_are_no_rows(read):
    assert numbers(read(LONG + ",,,,\r\n , ,,,\n\n")) == [[[1, 2], [3, 4]], [[5, 6]]]
    with pytest.raises(TableError, match=r"line 5, column 1 \(id\): expected an id, got an empty cell"):
        read(LONG + ",,,,\nb,1,5,6,down\n")


@pytest.mark.parametrize("start", [b"PK\x03\x04\x14\x00", b"\xd0\xcf\x11\xe0\xa1\xb1"])
def test_a_workbook_is_refused(read, start):
    with pytest.raises(TableError, match="expected CSV, got a workbook, or another archive; save its sheet as CSV"):
        read(start + b"\0" * 20, name="t.xlsx")


def test_a_column_without_values_is_refused_with_the_options_that_name_others(read):
    content = "subject,x,label\ns1,1,up\ns1,2,up\ns2,3,down\n"
    with pytest.raises(TableError, match=r"got 's1'; --id names a column of ids, --text one of texts, --column"):
        read(content)
    assert numbers(read(content, id="subject")) == [[1, 2], [3]]
    with pytest.raises(TableError, match=r"got 's1'$"):
        read(content, columns=("subject", "x"))


def test_rows_that_are_not_sorted_are_refused_with_what_to_do(read):
    with pytest.raises(TableError, match=r"got 0; sort the rows by time$"):
        read(LONG.replace("a,1", "a,0"))
    with pytest.raises(TableError, match=r"got 0; sort the rows by time, or name the column of sequences with --id$"):
        read("time,x,label\n0,1,a\n1,2,a\n0,1,b\n")


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress])
def test_compressed_tables(read, compress):
    assert len(read(compress(LONG.encode()), name="t.csv.gz")) == 2


def test_byte_order_marks_and_other_encodings(read):
    assert len(read(b"\xef\xbb\xbf" + LONG.encode())) == 2
    found = read(LONG.replace("up", "grün"), encoding="latin-1")
    assert found.labels == ["grün", "down"]
    with pytest.raises(ValueError, match=r"not utf-8-sig text at byte 28 .*line 2"):
        read(LONG.replace("up", "grün").encode("latin-1"))


def test_a_header_is_known_by_its_names_or_by_numbers_below_it(read):
    assert read("label,1,2\nup,3,4\ndown,5,6\n").labels == ["up", "down"]  # a name that is known
    assert read("kind,1,2\nup,3,4\ndown,5,6\n", labels=("kind",)).labels == ["up", "down"]  # one that was given
    assert read("kind,a,b\nup,3,4\ndown,5,6\n", labels=("1",)).labels == ["up", "down"]
    assert read("up,3,4\ndown,5,6\n").labels == ["up", "down"]
    assert read("1,2,3\n2,3,4\n").labels == ["1", "2"]
    assert read("kind,1,2\nup,3,4\n", header=False, labels=("1",)).labels == ["kind", "up"]
    for content in ("kind,1,2\nup,3,4\ndown,5,6\n", "a,b\nc,d\n"):
        with pytest.raises(TableError, match="expected --header or --no-header, because it is unclear whether"):
            read(content, labels=("1",))


# ---- times -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "times",
    [
        ("0", "1"),
        ("-1.5", "1e3"),
        ("2026-01-31", "2026-02-01"),
        ("2026-01-31 09:59:59", "2026-01-31T10:00"),
        ("2026-01-31T12:00+02:00", "2026-01-31T10:30Z"),
        ("2025-12", "2026-01"),
    ],
)
def test_times_rise_within_a_sequence(read, times):
    content = "id,time,x,label\na,{},1,up\na,{},2,up\nb,{},3,down\n"
    assert len(read(content.format(*times, times[0]))) == 2
    for wrong in ((times[1], times[0], times[0]), (times[0], times[0], times[0])):
        with pytest.raises(TableError, match=r"line 3, column 2 \(time\): expected a later time .* of id 'a', got "):
            read(content.format(*wrong))
    with pytest.raises(TableError, match=r"line 4, column 2 \(time\): expected a number or a date, .* got 'soon'"):
        read(content.format(*times, "soon"))


# ---- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("", {}, "expected a table, got an empty file"),
        ("\n \n", {}, "expected a table, got an empty file"),
        ("label,x\n", {"header": True}, "expected at least one row below the header, got none"),
        ("x,y\n1,2\n", {}, "label: expected the column of the labels, such as label=y; .* has the columns x, y"),
        ("x,y\n1,2\n", {"labels": ("z",)}, "--label: expected one of the columns x, y of .*t.csv, got 'z'"),
        ("1,2\n3,4\n", {"labels": ("3",)}, "--label: expected a column from 1 to 2 of .*t.csv, got '3'"),
        (LONG, {"id": "nobody"}, "--id: expected one of the columns id, time, x, y, label of"),
        (LONG, {"time": "when"}, "--time: expected one of the columns"),
        (LONG, {"columns": ("z",)}, "--column: expected one of the columns"),
        (LONG, {"columns": ("x", "x")}, "expected each column once, got x for two purposes"),
        (LONG, {"columns": ("label",)}, "expected each column once, got label for two purposes"),
        (LONG, {"id": "label"}, "expected each column once, got label for two purposes"),
        ("label,class,x\na,b,1\n", {}, "expected --label, because label and class are both possible"),
        ("time,Timestamp,id,label,x\n1,1,a,b,1\n", {}, "expected --time, because time and Timestamp are both possible"),
        ("label,x,x\na,1,2\n", {}, "expected columns of different names, got 'x' twice"),
        (",x,label\n0,1,a\n1,2,b\n", {}, r"line 1, column 1: expected a name, got none, as an index has; --column"),
        (LONG.replace("3,4", "3,"), {}, r"line 3, column 4 \(y\): expected a number, got an empty cell"),
        (LONG.replace("3,4", "nan,4"), {}, r"line 3, column 3 \(x\): expected a number, got an empty cell or NaN"),
        (LONG.replace("3,4", "3,-inf"), {}, r"line 3, column 4 \(y\): expected a number, got infinity"),
        (LONG.replace("3,4", "3,four"), {}, r"line 3, column 4 \(y\): expected a number, got 'four'"),
        (LONG.replace("3,4", "3"), {}, r"line 3, column 4 \(y\): expected a number, got 'up'"),
        (LONG.replace("3,4,up", "3,4,up,5"), {}, "line 3: expected 5 cells, one for each column, got 6"),
        ("id,x,label\na,1,b\na,2\n", {}, "line 3.*expected the label 'b' of line 2, because both .* id 'a', got ''"),
        (LONG.replace("b,0", ",0"), {}, r"line 4, column 1 \(id\): expected an id, got an empty cell"),
        (LONG.replace("1,3,4,up", "1,3,4,down"), {}, r"line 3, column 5 \(label\): expected the label 'up' of line 2"),
        ("x,label\n1,a\n2,b\n", {"format": "long"}, "expected one label for all rows, .* there are no ids, got 'b'"),
        ("label\na\nb\n", {"format": "long", "header": True}, "expected at least one column of values, got none"),
        ("label,a,b\nup,,\n", {"header": True}, "line 2: expected a sequence of at least one number, got none"),
        ("label,a,b,c\nup,1,,2\n", {}, r"line 2, column 3 \(b\): expected a number, got an empty cell or NaN before"),
        ("label,a,b,c\nup,1,inf,2\n", {}, r"line 2, column 3 \(b\): expected a number, got infinity before"),
        ("label,a,b\nup,1,2,3\n", {"header": True}, "line 2: expected 3 cells, one for each column, got 4"),
        ('label,a\n"up,1\n', {"header": True}, "line 2: expected a row of CSV, got unexpected end of data"),
        ('label,a\nup,"1"2\n', {"header": True, "delimiter": ","}, "line 2: expected a row of CSV, got "),
        ("a;1,5;2\nb;2,5;3\n", {}, "expected --delimiter, because comma and semicolon are both possible"),
        (b"label,a\nup,\x00\n", {}, "NUL at character 11.*line 2"),
    ],
)
def test_a_table_that_is_not_as_it_should_be_is_refused_with_line_and_column(read, content, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(content, **options)
    assert re.search(message, str(caught.value)), caught.value
    assert "\n" not in str(caught.value)


def test_a_folder_and_a_file_that_is_not_there_are_refused(tmp_path):
    layout = Layout("auto", None, None, (), (), Reading("utf-8", None, None, "."))
    with pytest.raises(TableError, match="expected a table, got a folder"):
        read_sequences(tmp_path, layout, labelled=True)
    with pytest.raises(FileNotFoundError):
        read_sequences(tmp_path / "none.csv", layout, labelled=True)


def test_an_error_after_many_lines_names_its_line(read):
    rows = "".join(f"{i % 2},{i}\n" for i in range(20_000))
    with pytest.raises(TableError, match="line 20001, column 2: expected a number, got 'x'"):
        read(rows + "1,x\n")


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["b", "a", "b"], ["a", "b"]),
        (["2", "1", ""], [1, 2]),
        (["1.0", "0", "-1"], [-1, 0, 1]),
        (["1", "1.5"], ["1", "1.5"]),
        (["1", "one"], ["1", "one"]),
        (["10", "9"], [9, 10]),
    ],
)
def test_labels_are_integers_if_all_of_them_are_whole_numbers(read, labels, classes):
    found = read("label,x\n" + "".join(f"{label},1\n" for label in labels))
    assert classes_in(found, per_step=False) == classes


@pytest.mark.parametrize(("labels", "got"), [("aa", "only 'a'"), (["", ""], "none")])
def test_one_class_is_too_few(read, labels, got):
    found = read("label,x\n" + "".join(f"{label},1\n" for label in labels))
    with pytest.raises(TableError, match=f"at least two classes in column label, got {got}"):
        classes_in(found, per_step=False)


def test_a_label_that_a_model_does_not_know_is_refused_with_its_line(read):
    found = read("label,x\n1,1\n7,1\n")
    assert targets_of(found, [1, 7], per_step=False) == [1, 7]
    with pytest.raises(TableError, match="line 3: expected one of the classes 1, 2 in column label, got '7'"):
        targets_of(found, [1, 2], per_step=False)


def test_numbers_are_read_as_python_reads_them(read):
    written = ["0.1", "1e-3", "-7", "3.141592653589793", "1e300"]
    found = read("label," + ",".join("abcde") + "\nup," + ",".join(written) + "\ndown,1\n")
    np.testing.assert_array_equal(found.x[0][:, 0], [float(each) for each in written])


# ---- texts -------------------------------------------------------------------------------------------------------


def test_a_row_may_be_a_text(read):
    found = read('id,text,label\n1,"good, ""fine""\nday",pos\n2,bad day,neg\n')
    assert found.x == ['good, "fine"\nday', "bad day"]
    assert (found.labels, found.layout.text, found.layout.format) == (["pos", "neg"], "text", "wide")
    said = "2 texts; a row is a text, texts in column text, labels in column label, ids in column id"
    assert said in found.describe()
    assert read("label,review,stars\npos,fine,5\nneg,bad,1\n", text="review").unused == ["stars"]


def test_a_row_may_be_a_word(read):
    found = read("id,token,label\n1,the,D\n1,dog,N\n2,a,D\n", per_step=True, format="long")
    assert (found.x, found.labels) == ([["the", "dog"], ["a"]], [["D", "N"], ["D"]])
    assert "a row is a word" in found.describe()


def test_a_long_text_is_read_however_its_lines_are_cut(read):
    text = "line\n" * 200 + "x" * 200_000
    assert read(f'label,text\npos,"{text}"\nneg,short\n').x == [text, "short"]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("text,label\nfine,pos\n,neg\n", {}, r"line 3, column 1 \(text\): expected a text, got an empty cell"),
        ("text,label,x\nfine,pos,1\n", {"text": "text", "columns": ("x",)}, "text_column and column: expected one of"),
        ("text,word,label\na,b,pos\n", {}, "expected --text, because text and word are both possible"),
        ("text,label\na,pos\n", {"text": "label"}, "expected each column once, got label for two purposes"),
    ],
)
def test_texts_that_cannot_be_read_are_refused(read, content, options, message):
    with pytest.raises(TableError, match=message):
        read(content, **options)


# ---- any file ----------------------------------------------------------------------------------------------------

WORDS = ("a", "label", "id", "time", "text", "x", '"', '"a\nb"', "ü", "\r", "", " ")
CELLS = st.sampled_from(["1", "-0.5", "nan", "inf", "1e999", "1_0", *WORDS])
ROWS = st.lists(st.lists(CELLS, max_size=5).map(",".join), max_size=6).map("\n".join)


def check(found):
    """Sequences are whole: lines and labels for each, and finite numbers."""
    assert len(found) == len(found.lines) > 0
    assert all(len(x) for x in found.x)
    assert found.layout.text is not None or all(np.isfinite(x).all() for x in found.x)
    assert found.labels is None or len(found.labels) == len(found)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=ROWS | ROWS.map(lambda text: text.replace(",", ";")) | st.text(max_size=40), per_step=st.booleans())
def test_any_table_is_read_or_refused_in_one_line(read, content, per_step):
    format = {"format": "long"} if per_step else {}
    content = content.encode("utf-8", "surrogatepass")
    for labelled in (True, None, False):
        try:
            found = read(content, labelled=labelled, per_step=per_step, **format)
        except ValueError as error:
            message = str(error)
        else:
            message = found.describe()
            check(found)
        assert len(message.splitlines()) == 1


def test_underscores_are_not_those_of_numbers_in_python(read):
    sequences = read("x,label\n1,1_2\n2,12\n3,1_2\n")
    assert classes_in(sequences, per_step=False) == ["12", "1_2"]
    with pytest.raises(TableError, match=r"t.csv: line 3, column 1 \(x\): expected a number, got '1_0'"):
        read("x,label\n1,a\n1_0,b\n")


def test_lines_that_end_with_a_carriage_return_alone_are_refused(read):
    with pytest.raises(TableError, match="expected a row of CSV, got a carriage return alone, which is no line end"):
        read("x,label\r1,a\r2,b\r")
