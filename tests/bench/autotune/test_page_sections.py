"""What the page says of launch configs: the samples of the race, whether the default stays, and what was not timed."""

from __future__ import annotations

import dataclasses
import json
import math
from statistics import median

import pytest

from fusetune.bench.autotune import (
    Candidate,
    Tuning,
    describe_tunings,
    record_of_tuning,
    study_tunings,
    tunings_part,
)
from fusetune.bench.autotune.page_sections import main_parameters
from fusetune.bench.page import Part
from tests.bench.autotune.test_run import CASE, Scripted, by_block, tuned
from tests.bench.page_reader import check_page, line, plot, plots, sentences, table

HOSTILE = '</script><script>alert(1)</script>"[x].y'


def part_of(*tunings: Tuning) -> Part:
    records = [record_of_tuning(each) for each in tunings]
    return tunings_part(
        study_tunings(describe_tunings([CASE], ["bench", "autotune"]), records, "results/one"), records
    )


def named(tuning: Tuning, kernel: str) -> Tuning:
    return dataclasses.replace(tuning, case=dataclasses.replace(CASE, kernel=kernel))


@pytest.fixture(scope="module")
def replaced() -> Tuning:
    return tuned(Scripted(by_block, {("verify", 2): "wrong"}))


@pytest.fixture(scope="module")
def stays() -> Tuning:
    """The default is the best but for noise."""
    return tuned(Scripted(lambda config: 1.0 if config["BLOCK"] > 64 else 1.0004, default=2))


def test_each_timed_config_has_its_median_and_its_rounds(replaced: Tuning) -> None:
    part = part_of(replaced)
    timed = sorted(
        (each for each in replaced.candidates if each.samples_s), key=lambda each: median(each.samples_s)
    )
    drawn = plot(part, "Time by launch config").data["configs"]
    assert drawn["time"] == pytest.approx([median(each.samples_s) for each in timed])
    assert drawn["config"] == [
        f"BLOCK={each.config['BLOCK']} num_warps={each.config['num_warps']}" for each in timed
    ]
    assert sorted(set(drawn["role"])) == ["chosen", "default", "other"]
    at = list(drawn["role"]).index("chosen")
    assert f"BLOCK={replaced.winner['BLOCK']}" in str(drawn["config"][at])
    race = plot(part, "Rounds in the race").data["race"]
    assert race["rounds"] == [len(each.samples_s) for each in timed]
    assert race["outcome"] == [each.outcome for each in timed]


def test_the_answer_is_the_verdict_of_the_terminal(replaced: Tuning, stays: Tuning) -> None:
    found = replaced.confirmation
    assert found is not None
    assert part_of(replaced).answer == (
        f"gelu/1000/float32: BLOCK=256 num_warps={replaced.winner['num_warps']}: {found.gain:.3f} times as fast as the "
        f"default [{found.low:.3f}, {found.high:.3f}], over 12 fresh rounds."
    )
    assert "The default stays" in part_of(stays).answer
    both = part_of(replaced, named(stays, "silu"))
    assert both.answer == (
        f"1 of 2 cases got a new launch config, up to {found.gain:.3f} times as fast as the default."
    )
    assert line(table(both, "Cases"), "silu/1000/float32")["the default"].text == "stays"


def test_a_gain_that_may_be_none_stays_unclear(stays: Tuning) -> None:
    assert stays.confirmation is not None
    part = part_of(stays, named(stays, "silu"))
    assert line(table(part, "Cases"), "silu/1000/float32")["gain"].text.startswith("~")
    drawn = plot(part, "Gain of the fastest").data["gains"]
    assert set(drawn["verdict"]) == {"stays ~"}
    assert plot(part, "Gain of the fastest").alt.endswith("the default is replaced in 0.")


def test_what_was_not_timed_says_why_and_has_no_time(replaced: Tuning) -> None:
    part = part_of(replaced)
    configs = table(part, "Configs")
    failed = next(cells for cells in configs.rows if "failed" in cells[-1].text)
    assert [cell.text for cell in failed] == ["128", "4", "-", "-", "-", "failed: wrong, as scripted"]
    assert "1 config failed: wrong, as scripted." in sentences(part)
    same = tuned(Scripted(by_block, code=lambda config: str(config["BLOCK"]), default=1))
    rows = table(part_of(same), "Configs").rows
    assert sum("same code, as BLOCK=" in cells[-1].text for cells in rows) == 4


def test_the_heat_map_has_the_fastest_of_each_cell(replaced: Tuning) -> None:
    cells = plot(part_of(replaced), "Time by BLOCK and num_warps").data["cells"]
    best = {
        (str(each.config["num_warps"]), str(each.config["BLOCK"])): median(each.samples_s)
        for each in replaced.candidates
        if each.samples_s
    }
    found = dict(zip(zip(cells["across"], cells["down"], strict=True), cells["time"], strict=True))
    assert found == pytest.approx(best)
    assert [cells["role"][at] for at in range(len(best))].count("chosen") == 1
    # On a CPU warps change nothing, so one parameter is left, and no map.
    alone = tuned(Scripted(by_block, code=lambda config: str(config["BLOCK"]), default=1))
    assert not any("Time by BLOCK" in each.title for each in plots(part_of(alone)))


def test_the_parameters_that_matter_most_come_first() -> None:
    grid = [
        Candidate({"a": a, "b": b, "c": 1}, samples_s=(math.exp(0.1 * a + b),))
        for a in (1, 2)
        for b in (1, 2)
    ]
    assert main_parameters(grid) == ["b", "a"]


def test_the_fresh_rounds_are_drawn_as_pairs(replaced: Tuning) -> None:
    found = replaced.confirmation
    assert found is not None
    drawn = plot(part_of(replaced), "The fastest against the default").data["rounds"]
    assert drawn["round"] == [*range(1, 13), *range(1, 13)]
    assert drawn["time"] == pytest.approx([*found.challengers_s, *found.defaults_s])
    assert drawn["side"] == ["the fastest"] * 12 + ["the default"] * 12


def test_a_case_whose_default_is_wrong_is_said_apart() -> None:
    part = part_of(tuned(Scripted(by_block, {("thorough", 0): "wrong"})))
    assert part.answer == "gelu/1000/float32 cannot be tuned, wrong: as scripted."
    assert [section.key for section in part.ordered] == ["failures", "reproduce"]
    assert "gelu/1000/float32: wrong: as scripted." in sentences(part)
    check_page(part)


def test_each_plot_compiles(replaced: Tuning, stays: Tuning) -> None:
    nothing = tuned(Scripted(by_block), 0.1)
    many = [named(replaced, f"kernel{number}") for number in range(4)]
    for part in (part_of(), part_of(replaced), part_of(stays, nothing), part_of(*many)):
        check_page(part)
    assert part_of(nothing).answer.endswith("The default stays: nothing was timed.")


def test_names_of_others_are_never_markup(replaced: Tuning) -> None:
    candidates = tuple(
        dataclasses.replace(
            each, config={HOSTILE: each.config["BLOCK"], "w": each.config["num_warps"]}, reason=HOSTILE
        )
        for each in replaced.candidates
    )
    hostile = dataclasses.replace(
        named(replaced, HOSTILE), candidates=candidates, notes=(HOSTILE,), default={HOSTILE: 64, "w": 4}
    )
    part = part_of(hostile)
    assert "<script>alert" not in check_page(part)
    fields = [
        channel.get("field")
        for each in plots(part)
        for layer in json.loads(json.dumps(each.spec, default=dict))["layer"]
        for channel in layer["encoding"].values()
        if isinstance(channel, dict)
    ]
    assert HOSTILE not in fields
