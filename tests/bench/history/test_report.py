"""What a person sees: in 100 columns, without colour, and with nothing of others printed raw."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fusetune.bench.gate.measured import Measured, Metric
from fusetune.bench.history.entries import Entry
from fusetune.bench.history.log import History
from fusetune.bench.history.report import show_histories, show_history
from fusetune.bench.history.sparkline import place, sparkline
from fusetune.bench.history.study import study_history
from fusetune.bench.terminal import SafeConsole
from tests.bench.history.made_runs import DAY, FIRST, MACHINE, alternating, entry, process
from tests.bench.history.test_study import count, slowed


def shown(entries: Sequence[Entry], others: Any = (), *, runs: bool = False) -> str:
    console = SafeConsole(file=io.StringIO(), width=100, color_system=None)
    history = History(Path("results/history/m/smoke.jsonl"), MACHINE, "smoke", tuple(entries), (), others)
    show_history(study_history(history, count), console, runs=runs)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 100
    return "\n".join(line.rstrip() for line in text.splitlines())


def test_a_change_is_told_with_its_commits_and_its_environment() -> None:
    text = shown(slowed(versions={"torch": "2.9.1"}))
    assert (
        "Changes\n"
        "✗ smoke: step time +10.0 % worse, 10.1 ms -> 11.1 ms, for 12 runs\n"
        "    last before 000000000000 2025-10-20 change 11\n"
        "    first after 000000000000 2025-10-21 change 12\n"
        "    in between  1 commit, the last one included\n"
        "    environment torch 2.9.0 -> 2.9.1\n"
        "    measured by lower quartile\n"
    ) in text + "\n"


def test_changes_between_the_same_two_runs_are_told_together() -> None:
    runs = [
        entry(number, {name: [process(peak=1024 * (1 + (number > 9)))] for name in ("smoke", "other")})
        for number in range(20)
    ]
    text = shown(runs)
    assert text.count("last before") == 1
    assert "✗ smoke: peak memory +100 % worse" in text
    assert "✗ other: peak memory +100 % worse" in text


def test_the_command_that_finds_the_commit_is_there_where_there_are_several() -> None:
    runs = [each.model_copy(update={"commit": f"{3 * number:040x}"}) for number, each in enumerate(slowed())]
    assert "    find it by  python -m bench history smoke --bisect step_time_s\n" in shown(runs) + "\n"
    assert "find it by" not in shown(slowed())


def test_an_older_worsening_is_found_with_its_revisions() -> None:
    times = [*alternating(10, 0.01), *alternating(10, 0.012), *alternating(10, 0.015)]
    runs = [
        entry(number, {"smoke": [process(time)]}, commit=f"{number:04x}{0:036x}")
        for number, time in enumerate(times)
    ]
    text = "\n".join(shown_with_two_commits_each(runs))
    assert "--bisect step_time_s --good 000900000000 --bad 000a00000000" in text
    assert text.count("find it by") == 2


def shown_with_two_commits_each(entries: Sequence[Entry]) -> list[str]:
    console = SafeConsole(file=io.StringIO(), width=100, color_system=None)
    history = History(Path("smoke.jsonl"), MACHINE, "smoke", tuple(entries))
    show_history(study_history(history, lambda first, last: 2), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_history_without_changes_says_so() -> None:
    text = shown([entry(number) for number in range(10)])
    assert "No change point was found." in text
    assert "Gaps" not in text
    assert "Notes" not in text


def test_gaps_and_other_machines_are_told() -> None:
    runs = [entry(number, at=FIRST + DAY * (number + (30 if number > 4 else 0))) for number in range(9)]
    text = shown(runs, others=(("gpu", (FIRST + 10 * DAY,)),))
    assert "Before run 6 of 9: 31 days, 1 run on gpu. The plots are not joined there." in text
    assert "▅▅▅▅▅┊▅▅▅▅" in text
    assert "1 run on gpu is not joined: --machine gpu shows it." in text


def test_a_missed_target_is_a_word() -> None:
    runs = [
        entry(number, {"smoke": [process(steps=96 if number < 10 else float("inf"))]}) for number in range(16)
    ]
    assert "✗ smoke: steps to target changed worse, 96 -> missed" not in shown(runs)
    assert "✗ smoke: steps to target worse, 96 -> missed, for 6 runs" in shown(runs)


def test_runs_are_listed_with_commit_value_and_mark() -> None:
    lines = shown(slowed(dirty=True), runs=True).splitlines()
    (changed,) = [line for line in lines if "+10.0 %" in line and "change 12" in line]
    assert changed.split()[:2] == ["000000000000*", "2025-10-21"]
    assert changed.endswith("✗ +10.0 % worse")
    assert "11.0 ms" in changed


def test_many_runs_are_cut_and_said_to_be() -> None:
    text = shown([entry(number) for number in range(50)], runs=True)
    assert "10 earlier runs are left out. --json has all." in text
    assert "change 10 " in text
    assert "change 9 " not in text


def test_a_metric_that_ended_is_said() -> None:
    runs = [entry(0), entry(1), entry(2, {"other": [process()]})]
    assert "smoke: step time is missing from the newest run." in shown(runs)


def test_texts_of_others_are_printed_safely() -> None:
    nasty = "\x1b]0;title\x07[red]\nx"
    runs = [
        entry(
            number,
            {nasty: [Measured({nasty: Metric((1.0 + (number > 9),), "none", "lower", "exact")})]},
            subject=nasty,
        )
        for number in range(20)
    ]
    text = shown(runs, runs=True)
    assert "\x1b" not in text
    assert "\x07" not in text


def test_long_names_do_not_break_the_table() -> None:
    name = "a-spec-with-a-long-name: optimizer=adamw,schedule=one-cycle,batch_size=128,implementation=fused"
    assert "step time" in shown([entry(number, {name: [process()]}) for number in range(100)], runs=True)


def test_the_histories_are_listed() -> None:
    console = SafeConsole(file=io.StringIO(), width=100, color_system=None)
    show_histories({"smoke": {"m1": Path("a"), "m2": Path("b")}, "digits": {"m1": Path("c")}}, console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert text.index("digits") < text.index("smoke")
    assert "Show one with: python -m bench history SPEC" in text


@pytest.mark.parametrize(
    ("levels", "line"),
    [
        ([0.0, 7.0], "▁█"),
        ([float(number) for number in range(8)], "▁▂▃▄▅▆▇█"),
        ([3.0, 3.0, 3.0], "▅▅▅"),
        ([5.0], "▅"),
        # The outlier stands at the top, and what is left is told apart.
        ([0.0, 1.0, 0.0, 1.0, 900.0, 0.0, 1.0], "▁▄▁▄█▁▄"),
    ],
)
def test_a_sparkline_goes_from_low_to_high(levels: list[float], line: str) -> None:
    assert sparkline(levels) == line


def test_a_sparkline_has_its_marks_and_keeps_its_width() -> None:
    levels = [0.0] * 5 + [1.0] * 5
    assert sparkline(levels, changes=[5], gaps=[2, 5]) == "▁▁┊▁▁▁│█████"
    for width in (2, 5, 11, 12, 13):
        assert len(sparkline(levels, changes=[5], gaps=[2], width=width)) <= width
    assert sparkline(levels, changes=[5], gaps=[2], width=6) == "…█████"


def test_a_dot_is_within_its_width() -> None:
    levels = [1.0, 2.0, 3.0]
    assert [place(level, levels, 5).index("•") for level in levels] == [0, 2, 4]
    assert {len(place(level, levels, 5)) for level in (-9.0, 2.0, 99.0)} == {5}
