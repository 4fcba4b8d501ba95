"""The landscape as characters: each timed config once, in its order, the chosen one and the default marked."""

from __future__ import annotations

import dataclasses
from statistics import median

import pytest

from fusetune.bench.autotune import Tuning, show_tuning
from fusetune.bench.autotune.character_plots import landscape_plot
from fusetune.bench.cli.console import make_console
from tests.bench.autotune.test_run import Scripted, by_block, tuned


@pytest.fixture(scope="module")
def replaced() -> Tuning:
    return tuned(Scripted(by_block, {("verify", 2): "wrong"}))


def test_each_timed_config_is_drawn_once_in_its_order(replaced: Tuning) -> None:
    plot = landscape_plot(replaced)
    assert plot is not None
    times = sorted(median(each.samples_s) for each in replaced.candidates if each.samples_s)
    drawn = {
        (x, y, series.name)
        for series in plot.series
        for x, y in zip(series.x, series.y, strict=True)
        if y is not None
    }
    assert [(x, y) for x, y, _ in sorted(drawn)] == list(enumerate(times, 1))
    found = {
        tuple(each.config.items()): median(each.samples_s) for each in replaced.candidates if each.samples_s
    }
    named = {name: y for _, y, name in drawn if name != "other"}
    assert named == {
        "chosen": found[tuple(replaced.winner.items())],
        "default": found[tuple(replaced.default.items())],
    }


def test_a_default_that_stays_is_one_point() -> None:
    plot = landscape_plot(tuned(Scripted(lambda config: 1.0 if config["BLOCK"] > 64 else 1.0004, default=2)))
    assert plot is not None
    assert [series.name for series in plot.series] == ["default, which stays", "other"]
    assert [value is not None for value in plot.series[0].y].count(True) == 1
    # Noise of a few percent is not drawn from edge to edge.
    values = [value for series in plot.series for value in series.y if value is not None]
    assert plot.y.high == pytest.approx(1.1 * min(values))


def test_a_plot_is_printed_where_there_is_something_to_see(
    replaced: Tuning, capsys: pytest.CaptureFixture[str]
) -> None:
    show_tuning(replaced, make_console())
    printed = capsys.readouterr().out
    assert "latency of 7 configs, the fastest first" in printed
    assert "C chosen   D default   o other" in printed
    assert max(map(len, printed.splitlines())) <= 100
    timed = {tuple(each.config.items()) for each in replaced.timed[:3]}
    few = tuple(
        each if tuple(each.config.items()) in timed else dataclasses.replace(each, samples_s=())
        for each in replaced.candidates
    )
    assert landscape_plot(dataclasses.replace(replaced, candidates=few)) is None
