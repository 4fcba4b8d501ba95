"""The figures, on recordings whose noise and slowdowns are made here."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusetune.bench.history import measure as script

RUNS = 42


def save(path: Path, content: dict[str, Any]) -> None:
    np.savez(path, **content)


def recording(path: Path, **benchmarks: np.ndarray) -> Path:
    """Write times of runs: each has 40 rounds around its time."""
    rounds = 1 + 0.01 * np.random.default_rng(9).random(40)
    save(path, {f"{name}/wall": np.outer(times, rounds) for name, times in benchmarks.items()})
    return path


def steady(noise: float = 0.005, seed: int = 0) -> np.ndarray:
    return np.exp(np.random.default_rng(seed).normal(0, noise, RUNS))


def test_a_steady_benchmark_has_no_false_change_and_a_slowdown_is_named_soon(tmp_path: Path) -> None:
    recordings = script.read_recordings([recording(tmp_path / "a.npz", a=steady())])
    figures = script.measure(recordings, ["a"])
    assert (figures.false_at_end, figures.false_ever) == (0, 0)
    for slowdown in script.SLOWDOWNS:
        assert figures.found(slowdown) == 1
        # A segment has three runs. A run before the slowdown that happens to be slow may count as one of them.
        assert 1 <= figures.delay(slowdown, 0.5) <= figures.delay(slowdown, 0.9) <= 4


def test_a_benchmark_that_jumps_by_itself_is_a_false_alarm(tmp_path: Path) -> None:
    times = steady() * np.where(np.arange(RUNS) >= 20, 1.5, 1.0)
    figures = script.measure(script.read_recordings([recording(tmp_path / "a.npz", a=times)]), ["a"])
    assert figures.false_at_end == figures.false_ever == 1


def test_a_change_that_goes_away_counts_as_false_at_any_time_alone(tmp_path: Path) -> None:
    # Three slow runs are a segment as long as they are the newest. Once the noise is known better, they are none.
    times = np.ones(30) * np.exp(0.03 * (np.arange(30) % 2))
    times[:10] = 1.0
    times[5:8] *= 1.05
    figures = script.measure(
        script.read_recordings([recording(tmp_path / "a.npz", a=np.tile(times, 2)[:RUNS])]), ["a"]
    )
    assert figures.false_ever > figures.false_at_end


def test_real_slowdowns_are_used_where_they_were_recorded(tmp_path: Path) -> None:
    """The slow variant here is not slower. Its slowdown is thus never found, and the other one is."""
    path = recording(tmp_path / "a.npz", **{"a": steady(), "a@1.05": steady(seed=1)})
    figures = script.measure(script.read_recordings([path]), ["a"])
    assert figures.found(1.05) == 0
    assert figures.found(1.10) == 1
    assert figures.delay(1.05, 0.5) == math.inf


def test_the_reference_loop_takes_out_what_slows_the_machine(tmp_path: Path) -> None:
    machine = np.exp(np.cumsum(np.random.default_rng(3).normal(0, 0.05, RUNS)))
    rounds = np.ones(40)
    wall = np.outer(steady() * machine, rounds)
    save(tmp_path / "with.npz", {"a/wall": wall, "a/ref": np.outer(machine, rounds[:12])})
    save(tmp_path / "without.npz", {"a/wall": wall})
    with_it, without = (
        script.measure(script.read_recordings([tmp_path / name]), ["a"])
        for name in ("with.npz", "without.npz")
    )
    assert (with_it.false_ever, without.false_ever) == (0, 1)
    assert with_it.found(1.05) == 1


def test_the_burn_in_rounds_do_not_count(tmp_path: Path) -> None:
    wall = np.outer(steady(), np.ones(40))
    wall[:, : script.BURN_IN] *= np.random.default_rng(5).lognormal(0, 2, (RUNS, script.BURN_IN))
    save(tmp_path / "a.npz", {"a/wall": wall})
    assert script.measure(script.read_recordings([tmp_path / "a.npz"]), ["a"]).found(1.05) == 1


def test_the_two_halves_share_no_benchmark(tmp_path: Path) -> None:
    path = recording(tmp_path / "a.npz", **dict.fromkeys("edcba", steady()), **{"a@1.05": steady()})
    assert script.halves(script.read_recordings([path])) == (["a", "c", "e"], ["b", "d"])


def test_the_script_prints_the_figures_of_a_half(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recording(tmp_path / "a.npz", a=steady(), b=steady(seed=1))
    assert script.main([str(path), "--half", "other", "--penalty", "10", "--penalty", "1e9"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("benchmarks: b\n")
    first, second = out.split("other   penalty ")[1:]
    assert "5 unchanged series: false 0.0 % at the end, 0.0 % at any time" in first
    assert "x1.05 (8): found 100 %, half within" in first
    assert "found 0 %, half within more than 15 runs" in second


def test_a_machine_that_is_slower_in_the_next_recording_is_a_false_alarm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = recording(tmp_path / "1.npz", a=steady(), b=steady(seed=1))
    second = recording(tmp_path / "2.npz", a=1.2 * steady(seed=2), b=steady(seed=3))
    recordings = script.read_recordings([first, second])
    series = 10 * 10
    assert script.measure_joined(recordings, ["a"]) == (series, 1.0)
    assert script.measure_joined(recordings, ["b"]) == (series, 0.0)
    assert script.main([str(first), str(second), "--half", "all", "--joined"]) == 0
    assert f"{2 * series} joined series: false 50.0 %" in capsys.readouterr().out
    assert script.main([str(first), "--joined"]) == 2
    assert "have no benchmark with 15 runs in two of them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "it has no array `<benchmark>/wall`"),
        ({"a/wall": np.full((RUNS, 40), math.nan)}, "'a' has no finite positive times"),
        ({"a/wall": np.zeros((RUNS, 40))}, "'a' has no finite positive times"),
        ({"a/wall": np.ones(RUNS)}, "'a' has no finite positive times"),
        ({"a/wall": np.ones((5, 40))}, "have no benchmark with 30 runs"),
    ],
)
def test_bad_recordings_are_one_sentence_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: dict[str, np.ndarray], said: str
) -> None:
    save(tmp_path / "a.npz", content)
    assert script.main([str(tmp_path / "a.npz"), "--half", "all"]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_what_is_no_recording_at_all_is_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.npz").write_text("no archive")
    for name in ("text.npz", "nowhere.npz"):
        assert script.main([str(tmp_path / name)]) == 2
        assert "is no recording" in capsys.readouterr().err
