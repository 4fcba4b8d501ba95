"""A page of 5,000 trials: small enough to send, and light enough to open at once."""

from __future__ import annotations

import math
import random
from itertools import product
from typing import Any

import pytest

from fusetune.bench.page import Page, render
from fusetune.bench.report import training_part
from fusetune.bench.results.records import Record, Status
from fusetune.bench.results.run_info import RunInfo
from fusetune.bench.stats import Summary, summarize
from tests.bench.page.conftest import Opener

FACTORS: dict[str, list[Any]] = {
    "optimizer": ["sgd", "adamw", "adam", "lion"],
    "base_lr": [float(f"{10 ** (-4 + 0.15 * place):.2g}") for place in range(25)],
    "batch_size": [2**power for power in range(3, 13)],
}
SEEDS = range(5)
MOST_BYTES, MOST_ELEMENTS = 15 * 10**6, 6000


def many_trials(seeds: range = SEEDS) -> tuple[Summary, list[Record]]:
    """Return 1,000 configurations with some seeds each, and curves of ten epochs."""
    random_ = random.Random(0)
    records = [
        one_trial(dict(zip(FACTORS, levels, strict=True)), seed, random_)
        for seed in seeds
        for levels in product(*FACTORS.values())
    ]
    spec = {
        "name": "many trials",
        "factors": FACTORS,
        "seeds": list(seeds),
        "target": {"metric": "val_accuracy", "at_least": 0.6},
    }
    baseline = {"optimizer": "sgd", "base_lr": FACTORS["base_lr"][3], "batch_size": 64}
    run = {"spec": spec, "trials": len(records), "jobs": 1, "baseline": baseline}
    return summarize(RunInfo.from_dict(run), records), records


def one_trial(factors: dict, seed: int, random_: random.Random) -> Record:
    """Return a trial whose learning depends on rate and batch size, with noise."""
    rate, size = math.log10(factors["base_lr"]), math.log2(factors["batch_size"])
    skill = math.exp(-((rate + 2 - 0.2 * (size - 6)) ** 2))
    steps, step_time = (
        max(1, 4096 // factors["batch_size"]),
        1e-4 * factors["batch_size"] * random_.uniform(0.95, 1.05),
    )
    curve = [
        {
            "epoch": epoch,
            "step": epoch * steps,
            "time_s": epoch * steps * step_time,
            "train_loss": 2.3 * math.exp(-epoch * skill / 4) + random_.uniform(0, 0.1),
            "val_loss": 2.3 * math.exp(-epoch * skill / 5) + random_.uniform(0, 0.1),
            "val_accuracy": min(1.0, 0.95 * skill * (1 - math.exp(-epoch / 3)) + random_.uniform(0, 0.05)),
        }
        for epoch in range(1, 11)
    ]
    reached = next((point for point in curve if point["val_accuracy"] >= 0.6), None)
    accuracy = max(point["val_accuracy"] for point in curve)
    values = {
        "step_time_s": step_time,
        "samples_per_s": factors["batch_size"] / step_time,
        "peak_bytes": 1e6 * factors["batch_size"],
        "best_val_accuracy": accuracy,
        "test_accuracy": accuracy,
    }
    if reached:
        values |= {"steps_to_target": reached["step"], "time_to_target_s": reached["time_s"]}
    name = ",".join(f"{key}={value}" for key, value in factors.items())
    status: Status = "ok" if reached else "missed_target"
    return Record(f"{name},seed={seed}", factors, seed, status, values=values, curve=curve)


@pytest.mark.slow
def test_five_thousand_trials_fit_and_make_few_elements(opener: Opener) -> None:
    summary, records = many_trials()
    assert len(records) == 5000
    part = training_part(summary, records)
    assert len(render(Page("many", (part,))).encode()) < MOST_BYTES
    opened = opener(part)
    tab = opened.tab
    assert tab.evaluate("document.getElementsByTagName('*').length") < MOST_ELEMENTS
    assert (
        tab.evaluate("Math.max(...[...document.querySelectorAll('table')].map((each) => each.rows.length))")
        <= 26
    )
    tab.get_by_label("Filter").first.fill("lion")
    assert tab.locator("table.data").first.locator("tbody tr").count() <= 25
    opened.draw_all()
    assert tab.locator(".drawing.failed").count() == 0
    assert opened.is_quiet(), opened
