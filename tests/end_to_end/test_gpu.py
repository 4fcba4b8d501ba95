"""The commands on a GPU, as a person uses them: run by `make gpu-check`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.conftest import ROOT, Done

Bench = Callable[..., Done]

pytestmark = pytest.mark.gpu

SPEC = """\
name: small
data:   {name: digits, validation: 300}
model:  {name: cnn, width: 8, depth: 2}
train:  {optimizer: momentum, base_lr: 0.05, batch_size: 64, epochs: 4}
target: {metric: val_accuracy, at_least: 0.6}
limits: {memory: 2GiB}
"""


@pytest.fixture
def spec(tmp_path: Path) -> str:
    (tmp_path / "small.yaml").write_text(SPEC)
    return "small.yaml"


def test_the_smoke_spec_trains_with_the_fused_kernels(bench: Bench) -> None:
    done = bench("run", str(ROOT / "specs/smoke.yaml"))
    assert done.code == 0, done.out + done.err
    assert {record["provenance"]["device"] for record in done.records} == {"cuda"}
    assert all(record["status"] in ("ok", "missed_target") for record in done.records)
    accuracy: dict[tuple[str, int], dict[str, float]] = {}
    for record in done.records:
        of_both = accuracy.setdefault((record["factors"]["optimizer"], record["seed"]), {})
        of_both[record["factors"]["implementation"]] = record["values"]["best_val_accuracy"]
    for of_both in accuracy.values():
        assert of_both["fused"] == pytest.approx(of_both["torch"], abs=0.05)
    assert "optimizer by triton, activations by triton" in done.out


def test_the_step_time_is_the_gpus(bench: Bench, spec: str) -> None:
    done = bench("run", spec)
    assert done.code == 0, done.out + done.err
    (record,) = done.records
    assert record["status"] == "ok", record["reason"]
    assert min(record["samples"]["step_time_s"]) > 0
    assert record["values"]["peak_bytes"] < 2**31


def test_what_does_not_fit_is_out_of_memory_and_not_a_failure(bench: Bench, spec: str) -> None:
    done = bench("run", spec, "--set", "limits.memory=1MiB")
    assert done.code == 0, done.out + done.err
    assert {record["status"] for record in done.records} == {"out_of_memory"}


def test_a_largest_batch_is_predicted_and_run(bench: Bench, spec: str) -> None:
    wide = ["--set", "model.width=512", "--set", "limits.memory=null"]
    done = bench("batch-size", spec, "--memory", "300MiB", "--memory-only", "--json", *wide)
    assert done.code == 0, done.out + done.err
    (found,) = json.loads(done.out)["configurations"]
    runs = [row for row in found["rows"] if row["probe"]]
    assert len(runs) == found["probes"] <= 4
    fits = {row["batch_size"]: row["needed_bytes"] for row in runs if row["status"] == "ok"}
    assert found["batch_size"] == max(fits)
    assert 0.85 * found["limit_bytes"] < fits[found["batch_size"]] <= found["limit_bytes"] == 300 * 2**20


def test_a_learning_rate_is_found(bench: Bench, spec: str) -> None:
    done = bench("lr-range", spec, "--no-confirm")
    assert done.code == 0, done.out + done.err
    (record,) = done.records
    assert 1e-3 < record["values"]["suggested_lr"] < 2


def test_a_search_trains_and_names_a_winner(bench: Bench, spec: str) -> None:
    design = "design={search: {budget_epochs: 12}}"
    done = bench("run", spec, "--set", design, "--set", "factors.activation=[relu, tanh]")
    assert done.code == 0, done.out + done.err
    assert "Winner" in done.out
