"""Golden outputs of hand-made results. `UPDATE_GOLDEN=1 pytest tests/bench/gate/test_outputs.py` writes them anew."""

from __future__ import annotations

import io
import json
import math
import os
import re
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from fusetune.bench.gate import (
    GateResult,
    Row,
    Side,
    as_json,
    as_junit,
    as_markdown,
    show_gate,
)
from fusetune.bench.gate.markdown import MOST_CHARACTERS
from fusetune.bench.gate.wording import WORDS
from fusetune.bench.terminal import SafeConsole
from tests.bench.gate import gate_results
from tests.bench.gate.gate_results import ADAM, CASES, EQUAL, HOSTILE, SLOWER, everything, hostile, result

GOLDEN = Path(__file__).parents[1] / "golden"


def shown(made: GateResult, width: int = 100, **settings: Any) -> str:
    console = SafeConsole(
        file=io.StringIO(), width=width, **{"force_terminal": False, "color_system": None, **settings}
    )
    show_gate(made, console)
    return "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())  # type: ignore[attr-defined]


def json_text(made: GateResult) -> str:
    return json.dumps(as_json(made), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


OUTPUTS: dict[str, Callable[[GateResult], str]] = {
    "txt": shown,
    "md": as_markdown,
    "xml": as_junit,
    "json": json_text,
}


@pytest.mark.parametrize("ending", OUTPUTS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_an_output_is_the_golden_one(case: Callable[[], GateResult], ending: str) -> None:
    if ending != "txt" and case.__name__ not in ("everything", "hostile", "nothing"):
        return
    text = OUTPUTS[ending](case())
    golden = GOLDEN / f"gate_{case.__name__}.{ending}"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


# The terminal


@pytest.mark.parametrize("width", [100, 140])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_no_line_is_wider_than_the_console_and_nothing_is_cut(
    case: Callable[[], GateResult], width: int
) -> None:
    text = shown(case(), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text


def test_colour_adds_nothing_but_colour() -> None:
    coloured = shown(everything(), force_terminal=True, color_system="truecolor", no_color=False)
    assert "\x1b[" in coloured
    plain = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert [line.rstrip() for line in plain.splitlines()] == shown(everything()).splitlines()


def test_the_first_lines_hold_the_verdict_in_words() -> None:
    for case in CASES:
        made = case()
        assert WORDS[made.outcome] in "".join(shown(made).splitlines()[:3])


def test_each_row_that_is_no_plain_pass_has_its_sentence_and_advice() -> None:
    text = " ".join(shown(everything()).split())
    for row in everything().rows:
        assert (row.sentence in text) == (row.outcome != "pass"), row
        assert row.advice in text


def test_the_longest_numbers_fit_into_100_columns() -> None:
    row = replace(
        SLOWER, benchmark="b" * 200, metric="m" * 60, base=1234567.0, head=0.0001234, effect=-0.99951, low=-0.99999,
        high=123.4, p=0.00001, n=1000, outcome="can't tell",
    )  # fmt: skip
    text = shown(result(row))
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    letters = re.sub(r"[^bm]", "", text.partition("head")[2])
    assert letters.count("b") >= 200
    assert letters.count("m") >= 60


def test_control_characters_do_not_reach_the_terminal() -> None:
    text = shown(hostile())
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert "\\x1b[31m" in text


# Markdown


def tables(markdown: str) -> list[list[str]]:
    """The cells of each row, split where GitHub splits them: at bars that are not escaped."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in markdown.splitlines()
        if line.startswith("|")
    ]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_every_row_of_the_table_has_every_cell_and_the_worst_come_first(
    case: Callable[[], GateResult],
) -> None:
    made = case()
    rows = tables(as_markdown(made))[2:]
    assert len(rows) == len(made.rows)
    assert all(len(row) == 9 for row in rows)
    places = [list(WORDS.values()).index(row[0].strip("*").split(" ", 1)[1]) for row in rows]
    assert places == sorted(places)


def test_hostile_names_make_no_markup_no_mention_and_no_link() -> None:
    text = as_markdown(hostile())
    assert "<script" not in text
    assert not re.search(r"[@#]\w", re.sub(r"&#\d+;", "", text))
    assert "://" not in text
    assert "](" not in text
    assert "**bold**" not in text
    assert "`" not in text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\u202e]", text)
    # A mention is a letter right after an at sign. A comment stands between them.
    assert not re.search(r"&#64;\w", text)
    assert len(tables(text)) == 3


def test_what_is_folded_is_opened_and_closed() -> None:
    text = as_markdown(everything())
    assert text.count("<details>") == text.count("</details>") == text.count("<summary>") == 1
    folded = text.partition("<details>")[2].partition("</details>")[0]
    assert folded.count("\n- ") == len(everything().rows)


@pytest.mark.parametrize("number", [400, 5000])
def test_a_comment_stays_under_githubs_limit_and_counts_what_it_leaves_out(number: int) -> None:
    passes = [replace(EQUAL, benchmark=f"benchmark {i} {HOSTILE}") for i in range(number)]
    made = result(*passes, SLOWER, notes=(f"STAND-IN {HOSTILE * 100}",) * 100)
    text = as_markdown(made)
    assert len(text) <= MOST_CHARACTERS
    rows = tables(text)[2:]
    assert "REGRESSED" in rows[0][0]
    assert f"... and {number + 1 - len(rows)} more rows, see result.json" in text
    notes = text.count("\n- STAND")
    assert notes > 0
    assert f"... and {100 - notes} more notes, see result.json" in text
    assert text.rstrip().endswith("</code>")


# JUnit


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_junit_has_a_test_case_a_row_and_says_what_failed(case: Callable[[], GateResult]) -> None:
    made = case()
    root = ElementTree.fromstring(as_junit(made))
    suite = root.find("testsuite")
    cases = suite.findall("testcase")
    for element in (root, suite):
        assert int(element.get("tests")) == len(cases)
        assert int(element.get("failures")) == len(suite.findall("testcase/failure"))
        assert element.get("errors") == "0"
    assert int(suite.get("skipped")) == len(suite.findall("testcase/skipped"))
    if not made.rows:
        assert suite.findall("testcase/failure")
        return
    for found, row in zip(cases, made.rows, strict=True):
        kinds = {"regressed": "failure", "missing": "failure", "can't tell": "skipped"}
        assert [child.tag for child in found] == [kinds.get(row.outcome, "system-out")]
        if row.outcome in kinds:
            assert found[0].get("message")
        assert (found.get("classname") == row.benchmark) == (row.benchmark != HOSTILE)


# What Jenkins' schema (xUnit plug-in, junit-10.xsd) allows: attributes, required ones, and children in their order.
SCHEMA: dict[str, tuple[set[str], set[str], list[str]]] = {
    "testsuites": ({"name", "time", "tests", "failures", "errors"}, set(), ["testsuite"]),
    "testsuite": (
        {"name", "tests", "failures", "errors", "skipped", "time", "timestamp", "hostname", "id", "package"},
        {"name", "tests", "failures", "errors"},
        ["properties", "testcase", "system-out", "system-err"],
    ),
    "properties": (set(), set(), ["property"]),
    "property": ({"name", "value"}, {"name", "value"}, []),
    "testcase": (
        {"name", "time", "classname", "group"},
        {"name"},
        ["skipped", "error", "failure", "system-out", "system-err"],
    ),
    "failure": ({"message", "type"}, set(), []),
    "skipped": ({"message", "type"}, set(), []),
    "system-out": (set(), set(), []),
}
TEXTS = {"failure", "skipped", "system-out"}
TIME = re.compile(r"(([0-9]{0,3},)*[0-9]{3}|[0-9]{0,3})*(\.[0-9]*)?")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_junit_has_the_form_that_is_published(case: Callable[[], GateResult]) -> None:
    root = ElementTree.fromstring(as_junit(case()))
    assert root.tag == "testsuites"
    for element in root.iter():
        allowed, required, children = SCHEMA[element.tag]
        assert required <= set(element.attrib) <= allowed
        order = [children.index(child.tag) for child in element]
        assert order == sorted(order)
        assert TIME.fullmatch(element.get("time", "0"))
        assert element.tag in TEXTS or not (element.text or "").strip()


# JSON


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_json_has_the_same_numbers_and_texts(case: Callable[[], GateResult]) -> None:
    made = case()
    written = json.loads(json_text(made))
    for row, found in zip(made.rows, written["rows"], strict=True):
        missed = dict.fromkeys(found.pop("missed"), math.inf)
        assert Row(**{**found, **missed}) == row
    assert [written["title"], written["notes"], written["pairs"]] == [
        made.title,
        list(made.notes),
        made.pairs,
    ]
    assert Side(**written["base"]) == made.base
    assert Side(**written["head"]) == made.head


def test_json_has_no_number_that_is_not_finite() -> None:
    missed = next(row for row in as_json(everything())["rows"] if row["metric"] == "steps_to_target")
    assert (missed["base"], missed["head"], missed["missed"]) == (310.0, None, ["head"])
    wild = replace(EQUAL, effect=math.inf, low=-math.inf, high=math.nan)
    row = as_json(result(wild))["rows"][0]
    assert (row["effect"], row["low"], row["high"]) == (None, None, None)


def test_json_holds_every_field_of_a_row_and_of_a_result() -> None:
    written = as_json(everything())
    assert {field.name for field in fields(GateResult)} | {"schema_version", "outcome"} == set(written)
    assert all({field.name for field in fields(Row)} | {"missed"} == set(row) for row in written["rows"])


def test_all_outputs_say_the_same_outcome() -> None:
    for case in CASES:
        made = case()
        word = WORDS[made.outcome]
        assert word in shown(made)
        assert f"### {word}" in re.sub(r"### . ", "### ", as_markdown(made))
        value = ElementTree.fromstring(as_junit(made)).find(".//property[@name='verdict']").get("value")
        assert word in value
        assert as_json(made)["outcome"] == made.outcome


def test_the_cases_cover_each_outcome() -> None:
    assert {case().outcome for case in CASES} == set(WORDS)
    assert {row.outcome for row in everything().rows} == set(WORDS)
    assert gate_results.GONE.benchmark == ADAM
