"""What the page says of a history: the levels and changes of the study, and the newest change in a sentence."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from fusetune.bench.cli import program as cli
from fusetune.bench.history import History, history_part, read_history, study_history
from fusetune.bench.history.entries import Entry
from fusetune.bench.page import Part
from tests.bench.history.made_runs import DAY, FIRST, MACHINE, alternating, entry, process, write
from tests.bench.page_reader import check_page, line, plot, plots, sentences, table

HOSTILE = '</script><script>alert(1)</script>"[x].y'


def made(**fields: str) -> list[Entry]:
    """12 runs of 10 ms, then 10 of 12 ms with more memory, after a pause of 40 days. One run misses its target."""
    times = [*alternating(12, 0.010), *alternating(10, 0.012)]
    return [
        entry(
            index + 1,
            {
                "smoke": [
                    process(time, 1024 if index < 12 else 2048, math.inf if index == 20 else 96),
                    process(1.02 * time, 1024 if index < 12 else 2048, math.inf if index == 20 else 96),
                ]
            },
            at=FIRST + index * DAY + (40 * DAY if index >= 12 else 0),
            versions={"torch": "2.9.0" if index < 12 else "2.10.0"},
            **fields,
        )
        for index, time in enumerate(times)
    ]


def history_of(results: Path, entries: list[Entry]) -> History:
    write(results, entries)
    return read_history(results, "smoke", MACHINE)


def part_of(found: History) -> Part:
    return history_part(study_history(found, lambda first, last: 1), found)


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Part:
    results = tmp_path_factory.mktemp("results")
    write(results, [entry(99)], machine="another-machine")
    return part_of(history_of(results, made()))


def test_the_newest_change_is_a_sentence(part: Part) -> None:
    assert part.answer == (
        "The newest change is smoke: peak memory +100 % worse, 1.00 KiB -> 2.00 KiB, and 1 metric more, first seen "
        "at 000000000000 2025-11-30 change 13."
    )


def test_each_run_has_its_median_and_the_ends_of_its_processes(part: Part) -> None:
    runs = plot(part, "smoke: step time").data["runs"]
    # The median of two processes, the second one 2 % slower, in ms.
    assert runs["value"][0] == pytest.approx(10.1)
    assert (runs["low"][0], runs["high"][0]) == (pytest.approx(10.0), pytest.approx(10.2))
    assert list(runs["run"]) == list(range(1, 23))
    assert runs["commit"][12] == "000000000000"


def test_levels_and_changes_are_those_of_the_study(part: Part) -> None:
    drawn = plot(part, "smoke: peak memory")
    assert drawn.data["levels"]["value"] == [1.0, 1.0, 2.0, 2.0]  # KiB
    assert drawn.data["levels"]["run"] == pytest.approx([0.6, 12.4, 12.6, 22.4])
    assert "1 change: +100 % worse" in drawn.alt
    marks = json.dumps(drawn.spec, default=dict)
    assert '"at": 12.5, "label": "+100 % worse"' in marks
    assert '"at": 12.5, "label": "gap"' in marks
    changed = line(table(part, "Changes"), "smoke: peak memory")
    assert (changed["before"].text, changed["after"].text, changed["runs since"].text) == (
        "1.00 KiB",
        "2.00 KiB",
        "10",
    )
    assert "torch 2.9.0 -> 2.10.0" in changed["what else changed"].text


def test_a_missed_target_is_never_a_number(part: Part) -> None:
    drawn = plot(part, "smoke: steps to target")
    assert drawn.data["runs"]["value"][20] is None
    assert "No point for 1 run that missed the target." in drawn.caption
    runs = table(part, "Runs")
    missed = next(cells for cells in runs.rows if cells[0].text == "21")
    assert "missed" in [cell.text for cell in missed]
    assert [cells[0].text for cells in runs.rows][:2] == ["22", "21"]


def test_gaps_notes_and_kinds_of_machines_are_said(part: Part) -> None:
    assert any("41 days" in each for each in sentences(part))
    assert line(table(part, "Kinds of machines"), "another-machine")["runs"].text == "1"


def test_a_history_without_a_change_says_so(tmp_path: Path) -> None:
    quiet = part_of(history_of(tmp_path, [entry(number) for number in range(1, 4)]))
    assert quiet.answer == "No change point was found in 3 runs."
    assert line(table(quiet, "Metrics"), "step time")["noise"].text == "-"
    check_page(quiet)


def test_each_plot_compiles(part: Part) -> None:
    assert len(plots(part)) == 3
    check_page(part)


def test_names_of_others_are_never_markup(tmp_path: Path) -> None:
    hostile = made(subject=HOSTILE, stand_in=HOSTILE)
    renamed = [
        each.model_copy(update={"benchmarks": {HOSTILE: each.benchmarks["smoke"]}}) for each in hostile
    ]
    part = part_of(history_of(tmp_path, renamed))
    assert "<script>alert" not in check_page(part)
    assert HOSTILE not in json.dumps([each.spec for each in plots(part)], default=dict)


def run_cli(*words: str) -> int | str | None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["history", *words])
    return stop.value.code


def test_the_command_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, made())
    page = tmp_path / "page.html"
    assert not run_cli("smoke", "--results", str(tmp_path), "--html", str(page))
    assert capsys.readouterr().out == f"page: {page}\n"
    assert "The newest change is" in page.read_text()


def test_a_page_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, made())
    assert run_cli("smoke", "--results", str(tmp_path), "--html", str(tmp_path / "no" / "page.html")) == 2
    assert "its folder is not there. Make it first" in capsys.readouterr().err
    assert run_cli("smoke", "--results", str(tmp_path), "--html", "x.html", "--json") == 2
    assert "--html goes without --json" in capsys.readouterr().err
    write(tmp_path, made(), spec="other")
    assert run_cli("--results", str(tmp_path), "--html", str(tmp_path / "x.html")) == 2
    assert "known: other, smoke. Name one" in capsys.readouterr().err
