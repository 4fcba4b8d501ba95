"""Tuning in real processes: configs that die, hang or are wrong are rows, and the best one that is right wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusetune.bench.autotune import LaneWorkbench, tune
from fusetune.bench.autotune.tuning import Tuning
from fusetune.bench.kernels import Case, kernel_source
from fusetune.kernels.autotune import read_entry

HERS = Path(__file__).with_name("her_kernel.py")


class PassingClock:
    """Seconds that pass by calls alone, so that a busy machine ends no budget."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 1e-3
        return self.now_s


@pytest.mark.slow
def test_configs_that_die_hang_fail_or_are_wrong_are_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    case = Case(kernel_source(f"{HERS}:KERNEL"), "her_doubling", 20_000, "float32")
    with LaneWorkbench(cold=False) as workbench:
        opened = workbench.open(case)
        workbench._lane.build_timeout_s = 15.0
        workbench.open = lambda case: opened  # type: ignore[method-assign]
        found: Tuning = tune(case, workbench, budget_s=1e9, clock=PassingClock())
    outcomes = {candidate.config["STEPS"]: candidate for candidate in found.candidates}
    assert found.status == "ok"
    assert outcomes[4].status == "crashed"
    assert outcomes[5].status == "timed out"
    assert outcomes[6].status == "does not build"
    assert outcomes[7].status == "wrong"
    assert dict(found.winner) in ({"STEPS": 1}, {"STEPS": 64})
    assert outcomes[1].samples_s
    if found.is_replaced:
        assert len(found.entries) == 1
        assert read_entry(opened.keys[0]).config == {"STEPS": 1}  # type: ignore[union-attr]
