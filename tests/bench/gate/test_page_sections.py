"""What the page says of a gate: its rows, the pairs in their order, and a gate's directory shown again."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from fusetune.bench.cli import program as cli
from fusetune.bench.errors import RunDirectoryError
from fusetune.bench.gate import (
    GateDirectory,
    GateResult,
    Measured,
    Metric,
    Pair,
    Rules,
    SelfTest,
    StoredGate,
    as_json,
    gate_part,
    judge,
    metric_title,
    read_stored_gate,
    study_self_test,
)
from fusetune.bench.gate.json_text import from_json
from fusetune.bench.page import Part
from tests.bench.gate import gate_results
from tests.bench.page_reader import check_page, compiled, line, plot, plots, sentences, table

HOSTILE = '</script><script>alert(1)</script>"[x].y'
REQUEST: dict[str, Any] = {
    "spec": "specs/smoke.yaml",
    "command": "",
    "folder": ".",
    "base": "main",
    "head": "working tree",
    "configurations": ["optimizer=adam"],
    "overrides": ["seeds=3"],
    "budget_s": 90.0,
    "self_test_s": None,
}


def side(step_time: float, steps: float = 100.0, **others: Any) -> Measured:
    metrics = {
        "step_time_s": Metric((step_time, 3 * step_time, step_time / 3)),
        "steps_to_target": Metric((steps,), "count", comparison="learning"),
    }
    return Measured(metrics, seconds=2.0, contention=0.02, **others)


def made_pairs(name: str = "smoke") -> tuple[Pair, ...]:
    """Five pairs, the last index first in time. Head is 10 % slower, and misses its target once."""
    return tuple(
        Pair(
            name,
            index,
            side(0.010 + 0.0001 * index),
            side(0.011 + 0.0001 * index, math.inf if index == 3 else 100.0),
            head_first=index % 2 == 1,
            started=1000.0 - index,
        )
        for index in range(5)
    )


def stored(result: Any, pairs: tuple[Pair, ...] = (), **changes: Any) -> StoredGate:
    content = {"title": "specs/smoke.yaml", "request": {**REQUEST, **changes}, "seed": 1}
    return StoredGate(Path("results/gate/one"), content, pairs, result)


def part_of(result: Any, pairs: tuple[Pair, ...] = ()) -> Part:
    return gate_part(stored(result, pairs))


@pytest.mark.parametrize("name", ["everything", "slower", "gone", "unclear", "nothing", "stored"])
def test_a_result_reads_back_as_it_was(name: str) -> None:
    result: GateResult = getattr(gate_results, name)()
    assert from_json(json.loads(json.dumps(as_json(result)))) == result


def test_each_verdict_has_its_numbers_and_its_sentence() -> None:
    result = gate_results.everything()
    part = part_of(result)
    assert part.answer.startswith("✗ REGRESSED: smoke: fails in working tree and not in main")
    verdicts = table(part, "Verdicts")
    slower = line(verdicts, gate_results.SLOWER.sentence)
    assert [slower[title].text for title in ("verdict", "base", "head", "change")] == [
        "✗ REGRESSED",
        "12.3 ms",
        "13.8 ms",
        "+12.3 %",
    ]
    assert slower["change"].small == "+10.1..+14.6 %"
    missed = line(verdicts, gate_results.MISSED.sentence)
    assert (missed["head"].text, missed["head"].order) == ("missed", None)
    assert len(verdicts.rows) == len(result.rows)
    assert [cells[0].text for cells in verdicts.rows][:3] == ["✗ REGRESSED"] * 3
    assert part.banners == ("STAND-IN DATA: cifar10 is not on this machine.",)
    assert f"smoke, {metric_title('samples_per_s')}: {gate_results.UNCLEAR.advice}" in sentences(part)


def test_effects_are_those_of_the_rows_with_intervals_and_thresholds() -> None:
    part = part_of(gate_results.everything())
    drawn = plot(part, "Change of head against base")
    data = drawn.data["effects"]
    at = list(data["row"]).index("✗ smoke: step time")
    assert [data[name][at] for name in ("effect", "low", "high", "worse")] == pytest.approx(
        [12.3, 10.1, 14.6, 2.0]
    )
    at = list(data["row"]).index(f"? smoke: {metric_title('samples_per_s')}")
    assert data["worse"][at] == pytest.approx(-2.0)
    assert data["shown"][at] == "~-2.0 % -8.0..+3.0 %"
    # A target that was missed has no size, so no dot: it is named.
    assert not any("steps to target" in str(row) for row in data["row"])
    assert "✗ smoke: steps to target" in drawn.caption


def test_one_huge_change_bends_the_axis() -> None:
    rows = [dataclasses.replace(gate_results.EQUAL, benchmark=f"b{number}") for number in range(5)]
    huge = dataclasses.replace(gate_results.SLOWER, effect=30.0, low=25.0, high=35.0)
    spec = json.dumps(plot(part_of(gate_results.result(huge, *rows)), "Change of head").spec)
    assert "symlog" in spec
    assert "symlog" not in json.dumps(plot(part_of(gate_results.slower()), "Change of head").spec)


def test_pairs_are_drawn_in_the_order_in_which_they_ran() -> None:
    pairs = made_pairs()
    result = dataclasses.replace(gate_results.slower(), rows=judge(pairs, Rules()))
    drawn = plot(part_of(result, pairs), "smoke: step time")
    data = drawn.data["pairs"]
    base = [value for value, which in zip(data["value"], data["side"], strict=True) if which == "base"]
    head = [value for value, which in zip(data["value"], data["side"], strict=True) if which == "head"]
    # The median of three rounds, in ms, the last index first.
    assert base == pytest.approx([10.4, 10.3, 10.2, 10.1, 10.0])
    assert head == pytest.approx([11.4, 11.3, 11.2, 11.1, 11.0])
    assert "medians base 10.2 ms and head 11.2 ms" in drawn.alt
    order = table(part_of(result, pairs), "Pairs of processes")
    assert [cells[2].text for cells in order.rows] == ["4", "3", "2", "1", "0"]
    assert [cells[3].text for cells in order.rows] == ["base", "head", "base", "head", "base"]


def test_a_missed_target_is_never_a_number() -> None:
    pairs = tuple(dataclasses.replace(pair, base=side(0.01, 90.0 + pair.index)) for pair in made_pairs())
    drawn = plot(part_of(None, pairs), "smoke: steps to target")
    assert len(drawn.data["pairs"]["value"]) == 9
    assert "1 missed target of head cannot be drawn." in drawn.caption


def test_what_differs_besides_the_code_is_a_table() -> None:
    result = gate_results.slower()
    head = dataclasses.replace(result.head, versions={"torch": "2.14.0"}, environment="own")
    part = part_of(dataclasses.replace(result, head=head))
    differs = table(part, "What differs besides the code")
    assert [[cell.text for cell in cells] for cells in differs.rows] == [
        ["torch", "2.13.0", "2.14.0"],
        ["environment", "shared", "own"],
    ]
    assert "software" not in dict(part.facts)
    assert dict(part_of(result).facts)["base"] == "main (0123456789ab)"


def test_failures_say_which_side_and_why() -> None:
    pairs = (
        *made_pairs(),
        Pair("smoke", 9, side(0.01), Measured(failure="it diverged at step 3."), started=2000.0),
    )
    assert "smoke: head failed in 1 process: it diverged at step 3." in sentences(part_of(None, pairs))


def test_the_command_makes_the_same_gate() -> None:
    assert stored(None).command == (
        "python -m bench gate specs/smoke.yaml --base main --configuration optimizer=adam --set seeds=3 --budget 90s"
    )
    command = stored(
        None, spec=None, command="python 'a b.py'", base=None, configurations=[], budget_s=None
    ).command
    assert command == """python -m bench gate --command 'python '"'"'a b.py'"'"'' --set seeds=3"""
    assert "--self-test --minutes 2" in stored(None, self_test_s=120.0).command


def self_test() -> tuple[SelfTest, tuple[Pair, ...]]:
    pairs = tuple(
        Pair("smoke", index, side(0.01 + 1e-5 * (index * 7 % 10)), side(0.01 + 1e-5 * (index * 3 % 10)))
        for index in range(10)
    )
    return SelfTest(
        study_self_test(pairs, Rules(), 600.0, relabellings=20), 600.0, 40.0, "one", ("A note.",)
    ), pairs


def test_a_self_test_reads_back_and_is_shown() -> None:
    found, pairs = self_test()
    assert SelfTest.from_dict(json.loads(json.dumps(found.as_dict()))) == found
    part = part_of(found, pairs)
    (row,) = found.rows
    cells = line(table(part, "Timings"), "step time")
    assert cells["noise"].text == f"{100 * row.noise:.1f} %"
    assert cells["false alarms"].text == f"{row.alarms} of 20"
    drawn = plot(part, "Noise, and the slowdown")
    assert row.detectable is not None
    assert drawn.data["noise"]["percent"] == pytest.approx([100 * row.noise, 100 * row.detectable])
    check_page(part)


def written(results: Path, result: Any = None) -> Path:
    with GateDirectory.create(
        results, {"title": "specs/smoke.yaml", "request": REQUEST} | {"seed": 1}
    ) as directory:
        directory.append(made_pairs())
        if result is not None:
            directory.write_result(as_json(result) if isinstance(result, GateResult) else result.as_dict())
    return directory.path


def run_cli(*words: str) -> int | str | None:
    with pytest.raises(SystemExit) as stop:
        cli.main(list(words))
    return stop.value.code


def test_report_shows_a_gate_again_and_writes_its_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, gate_results.slower())
    assert not run_cli("report", str(tmp_path / "gate"))  # the newest one
    out = capsys.readouterr().out
    assert "✗ REGRESSED  smoke: step time 12.3 % slower in working tree than in main." in out
    assert f"{path}/pairs.jsonl" in out
    before = {each.name for each in path.iterdir()}
    assert not run_cli("report", str(path), "--html")
    assert "page: " in capsys.readouterr().out
    assert {each.name for each in path.iterdir()} == {*before, "report.html"}
    assert "REGRESSED" in (path / "report.html").read_text()


def test_report_shows_a_self_test_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, self_test()[0])
    assert not run_cli("report", str(path))
    assert "in 20 comparisons of the same code" in capsys.readouterr().out


def test_a_gate_without_verdicts_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path)
    assert not run_cli("report", str(path))
    out = capsys.readouterr().out
    assert "No verdict yet: 5 pairs are finished." in out
    assert f"gate --resume {path}" in out
    part = gate_part(read_stored_gate(path))
    assert part.answer == "No verdict yet: 5 pairs are finished."
    check_page(part)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"kind": "gate"}', '{"kind": "self-test", "rows": [{}]}'])
def test_a_broken_result_is_one_sentence(tmp_path: Path, text: str) -> None:
    path = written(tmp_path)
    (path / "result.json").write_text(text)
    with pytest.raises(RunDirectoryError, match="is broken"):
        read_stored_gate(path)


def test_a_later_result_is_refused() -> None:
    with pytest.raises(ValueError, match="newer"):
        from_json({**as_json(gate_results.slower()), "schema_version": 99})


def test_each_plot_compiles() -> None:
    for result in (
        gate_results.everything(),
        gate_results.nothing(),
        gate_results.passed(),
        gate_results.gone(),
    ):
        for drawn in plots(part_of(result, made_pairs())):
            assert compiled(drawn)["marks"]
    check_page(part_of(gate_results.everything(), made_pairs()))


def test_names_of_others_are_never_markup() -> None:
    row = dataclasses.replace(gate_results.SLOWER, benchmark=HOSTILE, sentence=f"{HOSTILE}.", advice=HOSTILE)
    hostile = gate_results.result(row, title=HOSTILE, notes=(HOSTILE,))
    part = part_of(hostile, made_pairs(HOSTILE))
    assert "<script>alert" not in check_page(part)
    assert HOSTILE not in json.dumps([each.spec for each in plots(part)], default=dict)
