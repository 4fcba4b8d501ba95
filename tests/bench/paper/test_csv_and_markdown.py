"""CSV reads back as it was, and Markdown shows texts of others as they are."""

from __future__ import annotations

import csv
import io
import math
import struct

import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusetune.bench.paper import Column, Figure, PaperTable, as_csv, as_markdown
from fusetune.bench.terminal import spreadsheet_text

COLUMNS = (
    Column("factor.name", "name"),
    Column("step_time_s", "step time", "s", ("min", "max")),
    Column("p", "p", ""),
)


@given(st.lists(st.floats(allow_nan=False), min_size=3, max_size=3), st.integers(1, 10**6))
def test_numbers_read_back_bit_by_bit(numbers: list[float], n: int) -> None:
    value, low, high = numbers
    table = PaperTable("", "", COLUMNS, (("a", Figure(value, low, high, n), Figure(n)),))
    (row,) = csv.DictReader(io.StringIO(as_csv(table)))
    names = ("step_time_s", "step_time_s_min", "step_time_s_max")
    read = [struct.pack("d", float(row[name])) for name in names]
    assert read == [struct.pack("d", number) for number in numbers]
    assert (int(row["step_time_s_n"]), int(row["p"])) == (n, n)


def test_pandas_reads_missing_and_missed() -> None:
    rows = (("a", Figure(None), Figure(1)), ("b", Figure(math.inf, 0.1, math.inf, 3), Figure(0.25)))
    frame = pandas.read_csv(io.StringIO(as_csv(PaperTable("", "", COLUMNS, rows))))
    assert list(frame) == [
        "factor.name",
        "step_time_s",
        "step_time_s_min",
        "step_time_s_max",
        "step_time_s_n",
        "p",
    ]
    assert pandas.isna(frame["step_time_s"][0])
    assert frame["step_time_s"][1] == math.inf
    assert frame["step_time_s_min"][1] == 0.1


@pytest.mark.parametrize(
    "text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", " =1", "\t=1", "\r=1", "\n@a"]
)
def test_no_cell_begins_as_a_formula(text: str) -> None:
    table = PaperTable("", "", (Column(text, text), *COLUMNS[1:]), ((text, Figure(-1.5), Figure(-2)),))
    head, row = csv.reader(io.StringIO(as_csv(table)))
    for cell in (head[0], row[0]):
        assert not cell.lstrip().startswith(("=", "+", "-", "@"))
    assert row[1] == "-1.5"  # a number stays one


def test_plain_texts_and_numbers_as_texts_stay() -> None:
    for text in ("adam", "a-b", "0.1", "-0.1", "+1e5", "[1, 2]", ""):
        assert spreadsheet_text(text) == text


@given(st.text())
def test_any_text_is_one_cell_of_one_line(text: str) -> None:
    table = PaperTable("", "", (Column("name", "name"),), ((text,),))
    content = as_csv(table)
    assert len(content.splitlines()) == 2
    assert [len(row) for row in csv.reader(io.StringIO(content))] == [1, 1]


def test_markdown_has_bold_marks_and_notes() -> None:
    rows = (
        ("a|b", Figure(2.0, 1.0, 3.0, 5, is_best=True), Figure(1)),
        ("<b>", Figure(5.0, 4.0, 6.0, 5, ("tie", "contended")), Figure(2, marks=("behind", "baseline"))),
    )
    text = as_markdown(PaperTable("tab:x", "Two_of *them*.", COLUMNS, rows, ("~ not told.", "* ours.")))
    assert text.splitlines() == [
        "Two&#95;of &#42;them&#42;.",
        "",
        "| name | step time [s] | p |",
        "| --- | --: | --: |",
        "| a&#124;b | **2.0** [1.0, 3.0] | 1 |",
        "| &lt;b&gt; | &#126;5.0‡ [4.0, 6.0] | 2†&#42; |",
        "",
        "&#126; not told.",
        "",
        "&#42; ours.",
    ]


def test_people_see_the_first_rows_and_csv_has_all() -> None:
    table = PaperTable("", "", (Column("x", "x", ""),), tuple((Figure(n),) for n in range(5)), most_shown=2)
    assert as_markdown(table).splitlines()[-2:] == ["| 0 |", "| 1 |"]
    assert as_csv(table).splitlines() == ["x", "0", "1", "2", "3", "4"]
