"""Runs of many trainings, made without training: as large as those of a cluster, the same for the same arguments."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from fusetune.bench.results import RunInfo, WrittenSpec

EPOCHS, STEPS = 10, 12  # of a training, and of an epoch
GOAL = 0.6
SIZES = [2**power for power in range(3, 13)]


def factors_of(configurations: int) -> dict[str, list[Any]]:
    """Return factors of about as many configurations: four optimizers, ten batch sizes, and rates."""
    rates = [
        float(f"{10 ** (-4 + 4 * place / max(1, configurations // 20 - 1)):.4g}")
        for place in range(configurations // 20)
    ]
    return {"optimizer": ["sgd", "adamw"], "base_lr": rates, "batch_size": SIZES}


def large_run(folder: Path, configurations: int, seeds: int, *, target: bool = True) -> Path:
    """Write a run of so many configurations, in twenties, and seeds, shuffled, and return its directory."""
    factors = factors_of(configurations)
    spec: dict[str, Any] = {
        "name": "many",
        "data": {"name": "digits"},
        "factors": factors,
        "seeds": list(range(seeds)),
    }
    if target:
        spec["target"] = {"metric": "val_accuracy", "at_least": GOAL}
    run = RunInfo(
        spec=WrittenSpec(spec),
        trials=configurations * seeds,
        baseline={"optimizer": "sgd", "base_lr": factors["base_lr"][0], "batch_size": 64},
        data=("digits",),
        run_id="20260101-000000-0000",
    )
    path = folder / "many" / run.run_id
    path.mkdir(parents=True)
    (path / "run.json").write_text(json.dumps(run.as_dict()))
    with (path / "records.jsonl").open("w") as file:
        for record in training_lines(factors, seeds):
            file.write(json.dumps(record, separators=(",", ":")) + "\n")
    return path


def training_lines(factors: dict[str, list[Any]], seeds: int) -> Iterator[dict[str, Any]]:
    """Yield the records, each block of a seed in an order of its own."""
    draw = random.Random(0)
    for seed in range(seeds):
        block = list(product(*factors.values()))
        draw.shuffle(block)
        for levels in block:
            yield training_line(dict(zip(factors, levels, strict=True)), seed, draw)


def training_line(factors: dict[str, Any], seed: int, draw: random.Random) -> dict[str, Any]:
    """Return the JSON object of a training whose learning depends on rate and batch size, with noise."""
    size = factors["batch_size"]
    skill = math.exp(-((math.log10(factors["base_lr"]) + 2 - 0.2 * (math.log2(size) - 6)) ** 2))
    step_s = [1e-4 * size * draw.uniform(0.95, 1.05) for _ in range(EPOCHS * STEPS)]
    step_time = sum(step_s) / len(step_s)
    curve = [
        {
            "epoch": epoch,
            "step": epoch * STEPS,
            "samples": epoch * STEPS * size,
            "time_s": epoch * STEPS * step_time,
            "train_loss": 2.3 * math.exp(-epoch * skill / 4) + draw.uniform(0, 0.1),
            "train_accuracy": min(1.0, skill * (1 - math.exp(-epoch / 3))),
            "val_loss": 2.3 * math.exp(-epoch * skill / 5) + draw.uniform(0, 0.1),
            "val_accuracy": min(1.0, 0.95 * skill * (1 - math.exp(-epoch / 3)) + draw.uniform(0, 0.05)),
            "lr": factors["base_lr"],
            "grad_norm": draw.uniform(0.5, 1.5),
        }
        for epoch in range(1, EPOCHS + 1)
    ]
    reached = next((point for point in curve if point["val_accuracy"] >= GOAL), None)
    values = {
        "peak_bytes": 10**6 * size,
        "steps": EPOCHS * STEPS,
        "epochs": EPOCHS,
        "samples": EPOCHS * STEPS * size,
        "training_s": EPOCHS * STEPS * step_time,
        "evaluation_s": 0.003,
        "first_step_s": 0.004,
        "test_loss": curve[-1]["val_loss"],
        "test_accuracy": curve[-1]["val_accuracy"],
        "best_val_accuracy": max(point["val_accuracy"] for point in curve),
        "best_val_loss": min(point["val_loss"] for point in curve),
        "step_time_s": step_time,
        "step_time_median_s": sorted(step_s)[len(step_s) // 2],
        "processor_missing": draw.uniform(0, 0.11),
        "samples_per_s": size / step_time,
        "setup_s": draw.uniform(0.01, 0.02),
        "parameters": 1210,
    }
    if reached:
        values |= {
            "steps_to_target": reached["step"],
            "epochs_to_target": reached["epoch"],
            "samples_to_target": reached["samples"],
            "time_to_target_s": reached["time_s"],
        }
    status = "ok" if reached else "missed_target"
    if draw.random() < 0.001:  # a few go wrong
        status, values, curve, step_s = "failed", {}, [], []
    return {
        "schema_version": 2,
        "trial": ",".join([*(f"{name}={value}" for name, value in factors.items()), f"seed={seed}"]),
        "factors": factors,
        "seed": seed,
        "status": status,
        "reason": "the worker was killed" if status == "failed" else "",
        "values": values,
        "samples": {"step_time_s": step_s} if step_s else {},
        "curve": curve,
        "provenance": {
            "device": "cpu",
            "device_name": "Example CPU",
            "torch": "2.13.0+cpu",
            "commit": "1e96ede8526c8910501bec2a41854cc712dd4d96",
            "dirty": False,
            "jobs": 1,
            "timings_shared": False,
            "threads_choice": {"threads": 1, "asked": 1, "reason": "the spec says so"},
            "data": "digits",
            "stand_in": False,
            "precision": "fp32",
            "threads": 1,
        },
        "findings": [],
        "outcome": {
            "kind": "training",
            "base_lr_auto": None,
            "contention": None,
            "epochs_made_again": 0,
            "from_log": False,
        }
        if curve
        else None,
        "worker": None,
    }
