"""Other work comes while a run lasts: what was learnt is the same, timings say so, and no factor is called faster."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fusetune.bench.results.directory import RunDirectory, find_run
from fusetune.bench.results.outcomes import TrainingOutcome
from fusetune.bench.results.records import Record
from fusetune.bench.stats.effects import gain
from fusetune.bench.stats.summary import Summary, summarize
from fusetune.tuner.measure import is_contended
from fusetune.tuner.measure.contention import read_processor
from tests.end_to_end.conftest import environment

SPEC = """\
name: busy
data:   {name: spirals, limit: 1000, validation: 200}
model:  {name: mlp, width: 32, depth: 2}
train:  {optimizer: adam, base_lr: 0.01, batch_size: 16, epochs: 12}
factors: {base_lr: [0.01, 0.03], schedule: [constant, cosine]}
seeds: 3
target: {metric: val_accuracy, at_least: 0.8}
"""
TRIALS = 12
# Each keeps a core of its own busy. Free ones may come to share a core, and leave the other to the training.
HOG = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"


def run(directory: Path, *, hogs: set[int]) -> tuple[Summary, list[Record], str]:
    """Run the spec. From half of its trials on, a process burns each of these cores."""
    directory.mkdir()
    (directory / "busy.yaml").write_text(SPEC)
    process = subprocess.Popen(
        [sys.executable, "-m", "fusetune.bench", "run", "busy.yaml"],
        cwd=directory,
        env=environment(directory),
        stdout=subprocess.PIPE,
        text=True,
    )
    burning: list[subprocess.Popen[bytes]] = []
    deadline = time.monotonic() + 200
    try:
        while process.poll() is None and time.monotonic() < deadline:
            found = list(directory.glob("results/*/*/records.jsonl"))
            if found and not burning and len(found[0].read_text().splitlines()) >= TRIALS // 2:
                burning = [subprocess.Popen([sys.executable, "-c", HOG, str(core)]) for core in hogs]
            time.sleep(0.02)
    finally:
        for hog in burning:
            hog.kill()
            hog.wait()
        process.kill()
    out = process.communicate()[0]
    assert process.returncode == 0, out
    with RunDirectory.open(find_run(directory / "results" / "busy")) as opened:
        records, _ = opened.records()
        return summarize(opened.run, records), records, out


@pytest.mark.slow
@pytest.mark.skipif(
    read_processor().threads is None, reason="this system does not count how long threads wait"
)
def test_a_hog_for_half_of_a_run_changes_no_finding(tmp_path: Path) -> None:
    quiet, quiet_records, _ = run(tmp_path / "quiet", hogs=set())
    busy, records, out = run(tmp_path / "busy", hogs=os.sched_getaffinity(0))

    def by_steps(summary: Summary) -> list[tuple[float, str]]:
        found = [(c.metrics.get("steps_to_target"), str(c.factors)) for c in summary.configurations]
        return sorted((steps.median if steps else math.inf, name) for steps, name in found)

    assert by_steps(busy) == by_steps(quiet)
    # The second half had a competitor on each core. The one in flight when they came may count or not.
    late = records[TRIALS // 2 + 1 :]
    assert len(late) == TRIALS // 2 - 1
    assert all(is_contended(record.values.get("processor_missing")) for record in late)
    assert all(isinstance(r.outcome, TrainingOutcome) and r.outcome.contention for r in late)
    assert "contended" in out
    assert "quiet machine" in out

    for effect in busy.effects:
        assert all(level.step_time is None for level in effect.levels[1:])
    cells = [[r for r in records if r.factors == c.factors] for c in busy.configurations]
    for other in cells[1:]:
        found = gain(cells[0], other, score_metric="best_val_accuracy", with_target=True)
        assert found.step_time is None or not found.step_time.can_tell

    def steps_made(some: list[Record]) -> int:
        return sum(
            len(r.samples["step_time_s"]) + len(r.samples.get("replaced_step_time_s", [])) for r in some
        )

    # What was timed again adds less than half to the work: the rest of the time is what was missing.
    assert steps_made(records) <= 1.5 * steps_made(quiet_records)
