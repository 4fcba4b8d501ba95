"""The figures of stored comparisons, on recordings of which they are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusetune.bench.compare.measure import (
    false_alarms,
    in_turn,
    main,
    of_two,
    one_after_the_other,
    read_recording,
)


def recording(path: Path, levels: list[float], noise: float = 0.001) -> Path:
    """Write processes with these typical times, and a reference loop that is slowed as they are."""
    rng = np.random.default_rng(0)
    wall = np.outer(levels, 1 + noise * rng.standard_normal(33)) * (
        1 + noise * rng.standard_normal((len(levels), 1))
    )
    arrays: dict[str, Any] = {
        "a/wall": wall,
        "a/ref": np.outer(levels, [1.0, 1.0]),
        "a@1.05/wall": 2 * wall,
    }
    np.savez(path, **arrays)
    return path


def test_a_machine_that_becomes_slower_is_a_false_alarm_of_stored_results_alone(tmp_path: Path) -> None:
    drifting = read_recording(recording(tmp_path / "a.npz", [1.0] * 10 + [1.1] * 10))
    assert list(drifting) == ["a"]
    alarms, number = false_alarms(one_after_the_other(drifting, 5))
    assert (alarms > 0, number) == (True, 11)
    assert false_alarms(one_after_the_other(drifting, 5, between=5)) == (6, 6)
    assert false_alarms(in_turn(drifting, 5)) == (0, 11)


def test_a_steady_machine_has_none(tmp_path: Path) -> None:
    steady = read_recording(recording(tmp_path / "a.npz", [1.0] * 20))
    assert false_alarms(one_after_the_other(steady, 5))[0] == 0


def test_a_later_recording_of_a_slower_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, later = recording(tmp_path / "a.npz", [1.0] * 10), recording(tmp_path / "b.npz", [1.1] * 10)
    assert false_alarms(of_two(read_recording(first), read_recording(later), 5)) == (4, 4)
    assert main([str(first), str(later)]) == 0
    out = capsys.readouterr().out
    assert "20 in between        too few runs, 0 of 0" in out
    assert "base first           100.0 %, 4 of 4" in out
    assert "base later           0.0 %, 0 of 4" in out


def test_what_is_no_recording_is_one_sentence_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.npz").write_text("text")
    np.savez(tmp_path / "b.npz", other=[1.0])
    for name in ("a.npz", "b.npz", "c.npz"):
        assert main([str(tmp_path / name)]) == 2
        assert "is no recording" in capsys.readouterr().err
