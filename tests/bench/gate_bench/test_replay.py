"""Replays: pairs are neighbours, noise of a known law gives the nominal shares, and the shipped recording is whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from fusetune.bench.errors import InputError, SetupError
from fusetune.bench.gate_bench import record as recorder
from fusetune.bench.gate_bench.recording import RECORDING, Recording, load
from fusetune.bench.gate_bench.replay import LEAST_PAIRS, Score, comparison, main, score, tables, title_of
from fusetune.bench.gate_bench.rules import RULES, Answer, Rule, benchstat, compare_fail
from fusetune.bench.gate_bench.suite import ROUNDS, time_rounds
from fusetune.bench.gate_bench.workloads import WORKLOADS
from fusetune.tuner.measure import Stopwatch


def made(processes: int, between: float, workloads: int = 4, seed: int = 0) -> Recording:
    """Processes that differ by normal noise, with rounds that hardly do."""
    rng = np.random.default_rng(seed)
    walls = {
        f"w{i}": np.exp(
            between * rng.standard_normal((processes, 1)) + 1e-4 * rng.standard_normal((processes, 9))
        )
        for i in range(workloads)
    }
    return Recording(walls, np.ones((processes, 12)), np.ones(processes), {"cores": 2})


def test_pairs_are_neighbours_and_chance_names_their_sides() -> None:
    runs = [{"wall": [float(i)], "ref": [1.0]} for i in range(40)]
    firsts, heads_later = set(), 0
    for seed in range(200):
        base, head = comparison(runs, 5, 0.0, np.random.default_rng(seed))
        for b, h in zip(base, head, strict=True):
            assert {b["wall"][0], h["wall"][0]} == {2 * (b["wall"][0] // 2), 2 * (b["wall"][0] // 2) + 1}
            heads_later += h["wall"][0] > b["wall"][0]
        assert np.diff([b["wall"][0] // 2 for b in base]).tolist() == [1.0] * 4
        firsts.add(base[0]["wall"][0] // 2)
    assert firsts == set(range(16))
    assert 430 <= heads_later <= 570


def test_a_slowdown_multiplies_the_times_of_head_alone() -> None:
    runs = made(40, 0.1).runs("w0")
    same, slowed = (comparison(runs, 10, by, np.random.default_rng(3)) for by in (0.0, 0.05))
    assert same[0] == slowed[0]
    for before, after in zip(same[1], slowed[1], strict=True):
        np.testing.assert_allclose(after["wall"], 1.05 * np.array(before["wall"]))
        assert after["ref"] == before["ref"]


def test_false_alarms_by_noise_of_a_known_law_are_those_of_the_law() -> None:
    """Normal noise of 4 %: one of two equal processes is 5 % slower with P(N(0, 4 sqrt 2) > log 1.05) = 0.194."""
    recording = made(400, 0.04, workloads=2)
    single = score(recording, Rule("min", 1, compare_fail("min", 5)), 0.0, draws=300)
    assert single.rate == pytest.approx(0.194, abs=0.045)
    # Half of the two-sided 0.05, and a little less, for the exact test has steps.
    exact = score(recording, Rule("benchstat", 10, benchstat(10)), 0.0, draws=300)
    assert exact.rate == pytest.approx(0.0216, abs=0.02)


def test_the_gate_keeps_its_level_and_finds_what_is_large() -> None:
    recording = made(80, 0.02, workloads=2)
    for rule in (each for each in RULES if each.ours):
        assert score(recording, rule, 0.0, draws=12).rate <= 1 / 24
        assert score(recording, rule, 0.1, draws=4).rate == 1.0


def test_intervals_hold_what_workloads_and_comparisons_leave_open() -> None:
    def of(*shares: float) -> Score:
        return Score(
            {str(i): [Answer(j < share * 100, 1, "") for j in range(100)] for i, share in enumerate(shares)}
        )

    low, high = of(0.0, 1.0, 0.0, 1.0).interval()
    assert low < 0.1
    assert high > 0.9
    # 0 of 300 by Wilson: z^2 / (n + z^2).
    assert of(0.0, 0.0, 0.0).interval() == pytest.approx((0.0, 3.8415 / 303.8415), abs=1e-4)
    assert of(0.1, 0.2, 0.1).worst == ("1", 0.2)
    assert of(0.1, 0.2, 0.3).rate == pytest.approx(0.2)


def test_a_recording_is_read_as_it_was_written_and_grows(tmp_path: Path) -> None:
    file = tmp_path / "new" / "r.npz"
    first = made(20, 0.1)
    first.save(file)
    again = load(file)
    np.testing.assert_allclose(again.walls_s["w2"], first.walls_s["w2"], rtol=1e-6)
    assert (again.pairs, again.facts, sorted(again.walls_s)) == (10, {"cores": 2}, ["w0", "w1", "w2", "w3"])
    longer = again.joined(made(6, 0.1, seed=1))
    assert longer.pairs == 13
    np.testing.assert_array_equal(longer.walls_s["w1"][:20], again.walls_s["w1"])
    with pytest.raises(InputError, match="other workloads"):
        again.joined(made(6, 0.1, workloads=2))


def test_recording_stops_at_its_limit_with_whole_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    found = recorder.record(told.append, processes=9, limit_s=0.0, run=lambda: {"a": [1.0, 2.0]})
    assert (found.pairs, len(told)) == (1, 2)
    found = recorder.record(told.append, processes=9, run=lambda: {"a": [1.0, 2.0]})
    assert found.pairs == 4
    assert (found.refs_s > 0).all()
    monkeypatch.setattr(recorder, "_SUITE", "fusetune.no_such_module")
    with pytest.raises(SetupError, match="No module named"):
        recorder.record(told.append)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(WORKLOADS))
def test_every_workload_can_be_timed(name: str) -> None:
    rounds = time_rounds(WORKLOADS[name](), Stopwatch("cpu"))
    assert len(rounds) == ROUNDS
    assert min(rounds) > 0


def test_the_shipped_recording_has_every_workload_and_enough_pairs() -> None:
    found = load()
    assert list(found.walls_s) == list(WORKLOADS)
    assert found.pairs >= 19
    assert RECORDING.stat().st_size <= 300 * 2**10
    for walls_s in found.walls_s.values():
        assert walls_s.shape == (2 * found.pairs, ROUNDS)
        assert (walls_s > 0).all()
    assert (found.refs_s > 0).all()
    assert "on 2 cores" in title_of(found)


def test_the_table_of_the_shipped_recording_has_a_row_for_each_rule() -> None:
    whole = load()
    some = Recording({"sort": whole.walls_s["sort"]}, whole.refs_s, whole.loads, whole.facts)
    console = Console(width=100, record=True, color_system=None)
    for table in tables(some, draws=2):
        console.print(table)
    lines = console.export_text().splitlines()
    assert max(map(len, map(str.rstrip, lines))) <= 100
    for rule in RULES:
        assert any(rule.name in line and str(min(rule.pairs, some.pairs)) in line for line in lines)
    assert "…" not in "".join(lines)


def test_bad_files_get_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.npz").write_text("no")
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    made(2 * LEAST_PAIRS - 2, 0.1).save(tmp_path / "short.npz")
    for name, said in (
        ("missing.npz", "no recording"),
        ("text.npz", "no recording"),
        ("other.npz", "no recording"),
        ("short.npz", "9 pairs"),
    ):
        assert main(["--recording", str(tmp_path / name), "--draws", "2"]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert "Traceback" not in error
