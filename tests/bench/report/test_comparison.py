"""Golden reports of synthetic runs. `UPDATE_GOLDEN=1 pytest tests/bench/report/test_comparison.py` writes them anew."""

from __future__ import annotations

import dataclasses
import io
import math
import os
import re
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fusetune.bench.report import comparison
from fusetune.bench.report.comparison import render_run
from fusetune.bench.report.curves import learning_curves
from fusetune.bench.results.records import Record
from fusetune.bench.results.run_info import RunInfo
from fusetune.bench.stats.significance import Estimate
from fusetune.bench.stats.summary import Summary, summarize
from fusetune.bench.units import format_metric

GOLDEN = Path(__file__).parents[1] / "golden"
TARGET = {"metric": "val_accuracy", "at_least": 0.6, "at_most": None}


def run_of(factors: dict[str, list[Any]], **changes: Any) -> RunInfo:
    """The same as an object."""
    return RunInfo.from_dict(run_json(factors, **changes))


def run_json(factors: dict[str, list[Any]], **changes: Any) -> dict[str, Any]:
    run = {
        "spec": {
            "name": "demo",
            "data": {"name": "digits"},
            "model": {"name": "cnn"},
            "factors": factors,
            "design": "grid",
            "seeds": [0, 1, 2],
            "target": TARGET,
        },
        "machine": {"device": "cpu", "device_name": "Example CPU", "cores": 2, "memory_bytes": 24 * 2**30},
        "versions": {"python": "3.11.9", "torch": "2.13.0", "triton": "3.7.1", "fusetune": "0.1.0"},
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "dirty": False,
        "started": "2026-01-02T03:04:05Z",
        "schema_version": 1,
        "stand_in": None,
        "baseline": {name: values[0] for name, values in factors.items()},
        "trials": 0,
        "data": ["digits"],
        "jobs": 1,
    }
    spec_changes = {key: changes.pop(key) for key in ("design", "seeds", "target") if key in changes}
    run["spec"] |= spec_changes  # type: ignore[operator]
    return run | changes


def trial(factors: dict[str, Any], seed: int, steps: float, step_time: float, accuracy: float) -> Record:
    """A trial that reached the target after `steps` steps, or missed it with `steps` infinite."""
    reached = steps != float("inf")
    values = {
        "step_time_s": step_time,
        "samples_per_s": 64 / step_time,
        "peak_bytes": 200.0 * 2**20 + seed,
        "best_val_accuracy": accuracy,
        "test_accuracy": accuracy - 0.01,
        "steps": 400.0,
        "training_s": 400 * step_time,
        "setup_s": 0.5,
    }
    if reached:
        values |= {"steps_to_target": steps, "time_to_target_s": steps * step_time}
    status = "ok" if reached else "missed_target"
    reason = "" if reached else f"best val_accuracy {accuracy:.3f}"
    return Record(f"{factors},seed={seed}", factors, seed, status, reason, values)  # type: ignore[arg-type]


def cells(factors: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(factors, values, strict=True)) for values in product(*factors.values())]


def grid_records(factors: dict[str, list[Any]], seeds: int) -> list[Record]:
    """Every later level of a factor needs a third fewer steps and a tenth more time a step; seeds differ by 7 %."""
    records = []
    for seed in range(seeds):
        for cell in cells(factors):
            level = sum(values.index(cell[name]) for name, values in factors.items())
            noise = 1 + 0.07 * ((3 * seed + level) % 5 - 2) / 2
            accuracy = 0.62 + 0.01 * level + 0.002 * seed
            records.append(trial(cell, seed, round(300 / 1.5**level), 0.01 * 1.1**level * noise, accuracy))
    return records


FOUR: dict[str, list[Any]] = {
    "batch_size": [256, 64],
    "schedule": ["constant", "one-cycle"],
    "optimizer": ["momentum", "adam"],
    "activation": ["relu", "gelu"],
}
TWO: dict[str, list[Any]] = {"batch_size": [256, 64], "optimizer": ["momentum", "adam"]}


def full_grid() -> Summary:
    records = grid_records(FOUR, 3)
    return summarize(run_of(FOUR, trials=len(records)), records, "results/demo/20260102-030405-ab12")


def contended() -> Summary:
    """Half of the trials were timed beside other work."""
    records = [
        dataclasses.replace(
            record,
            values={
                **record.values,
                "processor_missing": 0.45 if record.seed == 1 else 0.01,
                "step_time_median_s": 0.95 * record.values["step_time_s"],
                "step_time_q1_s": 0.9 * record.values["step_time_s"],
                "step_time_q3_s": 1.05 * record.values["step_time_s"],
            },
            provenance={
                "threads": 1,
                "threads_choice": {"asked": "auto", "threads": 1, "reason": "more do not help"},
            },
        )
        for record in grid_records(TWO, 3)
    ]
    return summarize(run_of(TWO, trials=len(records)), records, "results/demo/20260102-030405-ab12")


def with_curves() -> Summary:
    """Every training has a curve to its accuracy, with a point of each quarter of its time."""
    records = [
        dataclasses.replace(
            record,
            curve=[
                {
                    "epoch": epoch,
                    "time_s": epoch * record.values["training_s"] / 4,
                    "val_accuracy": record.values["best_val_accuracy"] * (1 - 0.5**epoch),
                }
                for epoch in range(1, 5)
            ],
        )
        for record in grid_records(FOUR, 3)
    ]
    return summarize(run_of(FOUR, trials=len(records)), records, "results/demo/20260102-030405-ab12")


def many_seeds() -> Summary:
    records = grid_records({"batch_size": [256, 64]}, 5)
    run = run_of({"batch_size": [256, 64]}, trials=10, seeds=[0, 1, 2, 3, 4])
    return summarize(run, records, "results/demo/20260102-030405-ab12")


def every_status() -> Summary:
    factors = {"batch_size": [64, 128, 256, 512, 1024, 2048]}
    oom = {"wanted_bytes": 9.5 * 2**30, "limit_bytes": 8.0 * 2**30}
    reason = "wanted at least 9.50 GiB, the limit is 8.00 GiB"
    records = []
    for seed in range(2):
        records += [
            trial({"batch_size": 64}, seed, 300 + seed, 0.01, 0.64),
            trial({"batch_size": 128}, seed, 200 if seed else float("inf"), 0.01, 0.59 + 0.02 * seed),
            Record("c", {"batch_size": 256}, seed, "stopped_early", "no better for 4 epochs",
                   {"best_val_accuracy": 0.5, "step_time_s": 0.02}),
            Record("d", {"batch_size": 512}, seed, "diverged", f"loss was NaN at step {3 + seed}",
                   {"step_time_s": 0.03}),
            Record("e", {"batch_size": 1024}, seed, "out_of_memory", reason, oom),
            Record("f", {"batch_size": 2048}, seed, "failed",
                   "ValueError: batch_size 2048 is more than the 1,437 training samples (tuner/batches.py:40)"),
        ]  # fmt: skip
    return summarize(run_of(factors, trials=12, seeds=[0, 1], jobs=2), records)


def one_seed() -> Summary:
    return summarize(run_of(TWO, trials=4, seeds=[0]), grid_records(TWO, 1))


def no_target() -> Summary:
    records = [
        Record(
            r.trial, r.factors, r.seed, "ok", values={k: v for k, v in r.values.items() if "_target" not in k}
        )
        for r in grid_records(TWO, 3)
    ]
    return summarize(run_of(TWO, trials=12, target=None), records)


def interrupted() -> Summary:
    return summarize(run_of(TWO, trials=12), grid_records(TWO, 3)[:7], "results/demo/20260102-030405-ab12")


def stand_in() -> Summary:
    sentence = (
        "cifar10 is not on this machine; its stand-in cifar10-like is used: generated textures. "
        "Its accuracies are not CIFAR-10's."
    )
    run = run_json(TWO, trials=4, seeds=[0], stand_in=sentence, dirty=True)
    run["spec"]["data"], run["data"] = {"name": "cifar10"}, ["cifar10-like"]
    run |= {
        "profile": "cpu",
        "profile_changes": ["train.epochs: 16 -> 4"],
        "overrides": ["train.base_lr=0.1"],
    }
    return summarize(RunInfo.from_dict(run), grid_records(TWO, 1))


def target_on_the_test_set() -> Summary:
    run = run_of(TWO, trials=4, seeds=[0], target={"metric": "test_accuracy", "at_least": 0.6})
    return summarize(run, grid_records(TWO, 1))


def one_at_a_time() -> Summary:
    start = {"batch_size": 256, "schedule": {"name": "one-cycle", "pct_start": 0.3, "warmup_epochs": 1}}
    others = [{**start, "batch_size": 64}, {**start, "schedule": "warmup-stable-decay"}]
    records = []
    for seed in range(3):
        wobble = 1 + 0.01 * seed
        records += [
            trial(start, seed, 300, 0.010 * wobble, 0.62),
            trial(others[0], seed, 400, 0.004 * wobble**2, 0.65),
            trial(others[1], seed, float("inf"), 0.010 * wobble, 0.55 + 0.001 * seed),
        ]
    factors = {"batch_size": [64], "schedule": ["warmup-stable-decay"]}
    return summarize(run_of(factors, trials=9, baseline=start, design="one-at-a-time"), records)  # type: ignore[arg-type]


def never_reached() -> Summary:
    records = [trial(cell, 0, float("inf"), 0.01, 0.4 + 0.01 * i) for i, cell in enumerate(cells(TWO))]
    return summarize(run_of(TWO, trials=4, seeds=[0]), records)


def nothing_recorded() -> Summary:
    return summarize(run_of(TWO, trials=12), [], "results/demo/20260102-030405-ab12")


def no_factors() -> Summary:
    return summarize(
        run_of({}, trials=2, seeds=[0, 1]), [trial({}, seed, 300, 0.01, 0.7) for seed in range(2)]
    )


def with_diagnoses() -> Summary:
    high = {
        "name": "learning_rate_too_high",
        "title": "learning rate too high",
        "sentence": "The training loss rose to 4.1; the untrained model's was 2.3.",
        "evidence": {"lr": 3.0},
        "try_next": "Divide the learning rate by 3 to 10.",
        "confidence": "sure",
    }
    turns = high | {
        "name": "overfitting",
        "title": "overfitting",
        "sentence": "The validation loss turns after epoch 4 [of 12].",
        "try_next": "Stop at epoch 4.",
    }
    records = [
        dataclasses.replace(
            record, findings=[high, turns] if record.factors["batch_size"] == 256 and record.seed else []
        )
        for record in grid_records(TWO, 3)
    ]
    return summarize(run_of(TWO, trials=12), records)


CASES = [
    with_diagnoses,
    full_grid,
    with_curves,
    contended,
    many_seeds,
    every_status,
    one_seed,
    no_target,
    interrupted,
    stand_in,
    target_on_the_test_set,
    one_at_a_time,
    never_reached,
    nothing_recorded,
    no_factors,
]


def test_a_command_has_no_space_after_the_backslash_that_ends_a_line() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=False, color_system=None)
    render_run(full_grid(), console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert any(line.endswith("\\") for line in lines)
    assert not any(re.search(r"\\ +$", line) for line in lines)


def printed(summary: Summary, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False, color_system=None)
    render_run(summary, console)
    return "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())  # type: ignore[attr-defined]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_report_is_the_golden_one(case: Any) -> None:
    text = printed(case(), 100)
    golden = GOLDEN / f"{case.__name__}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_no_line_is_wider_than_the_console_and_nothing_is_cut(case: Any, width: int) -> None:
    text = printed(case(), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text


def test_every_configuration_and_every_number_of_the_ranking_survives_80_columns() -> None:
    summary = full_grid()
    words = printed(summary, 80).split()
    for configuration in summary.configurations:
        assert words.count(format_metric("samples_per_s", configuration.metrics["samples_per_s"].median)) >= 1
        assert f"{configuration.rank}" in " ".join(words).replace("~", " ").replace("*", " ").split()


def test_colour_adds_nothing_but_colour() -> None:
    coloured = Console(
        file=io.StringIO(), width=100, force_terminal=True, color_system="truecolor", no_color=False
    )
    render_run(every_status(), coloured)
    text = coloured.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[" in text
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert [line.rstrip() for line in plain.splitlines()] == printed(every_status(), 100).splitlines()


def test_the_curves_are_those_of_the_best_by_rank_and_of_the_baseline() -> None:
    plot = learning_curves(with_curves())
    assert plot is not None
    assert [series.marker for series in plot.series] == ["1", "2", "3", "4", "*"]
    assert [series.name for series in plot.series][::4] == [
        "64, one-cycle, adam, gelu",
        "256, constant, momentum, relu",
    ]
    first = with_curves().configurations[0]
    assert plot.series[0].y == [point.value for point in first.curve]
    assert plot.series[0].x == [point.time_s for point in first.curve]
    assert [(mark.name, mark.value) for mark in plot.marks] == [("target val_accuracy >= 0.6", 0.6)]


def test_one_epoch_is_no_curve() -> None:
    record = Record("a", {}, 0, "ok", curve=[{"epoch": 1, "time_s": 1.0, "val_accuracy": 0.5}])
    summary = summarize(run_of({}, trials=1, target=None), [record])
    assert learning_curves(summary) is None
    longer = dataclasses.replace(
        record, curve=[*record.curve, {"epoch": 2, "time_s": 2.0, "val_accuracy": 0.6}]
    )
    plot = learning_curves(summarize(run_of({}, trials=1, target=None), [longer]))
    assert plot is not None
    assert (plot.title, plot.series[0].x) == (
        "val_accuracy against epoch, medians over seeds, by rank",
        [1, 2],
    )


def gain_lines(time_ratio: float) -> list[str]:
    """The bars of a gain that is half of fewer steps, half of faster steps."""
    root = math.sqrt(time_ratio)
    estimates = [Estimate(value, None, None, 2, 1.0) for value in (time_ratio, root, root)]
    grid = comparison._bars(estimates[0], estimates[1], estimates[2], 0.5)
    console = Console(width=100, no_color=True)
    with console.capture() as capture:
        console.print(grid)
    return capture.get().splitlines()


def test_a_gain_that_prints_as_none_has_no_parts_and_a_small_one_no_long_bar() -> None:
    assert [line.count("█") for line in gain_lines(4.0)] == [comparison.BAR_WIDTH, 15, 15]
    assert all("50 % of it" in line for line in gain_lines(4.0)[1:])
    assert max(line.count("█") for line in gain_lines(1.02)) < comparison.BAR_WIDTH / 2
    assert max(line.count("█") for line in gain_lines(1.004)) <= 1
    assert not any("of it" in line for line in gain_lines(1.004))


def test_square_brackets_in_a_reason_are_printed_not_taken_for_markup() -> None:
    record = Record("a", {"batch_size": 64}, 0, "failed", "IndexError: x[red][/red] of [bold]")
    text = printed(summarize(run_of({"batch_size": [64]}, trials=1), [record]), 100)
    assert "x[red][/red] of [bold]" in text


def test_the_report_needs_no_torch() -> None:
    code = (
        "import sys, io; from fusetune.bench.stats.summary import summarize;"
        "from fusetune.bench.report.comparison import render_run; "
        "from fusetune.bench.results import RunInfo; "
        "import fusetune.bench.report.live; from rich.console import Console; "
        "render_run(summarize(RunInfo(), []), Console(file=io.StringIO())); "
        "print(sorted({'torch', 'scipy.stats'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
