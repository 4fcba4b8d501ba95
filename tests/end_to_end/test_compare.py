"""`bench run --save-baseline`, and `bench compare` of what it kept, for real."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fusetune.bench.cli import program as cli
from fusetune.bench.machine import describe_machine, machine_kind

SPEC = """
name: small
data: {name: spirals, validation: 40, limit: 120}
model: {name: mlp, width: 8, depth: 1}
train: {optimizer: adam, base_lr: 0.01, batch_size: 32, epochs: 2}
target: {metric: val_accuracy, at_least: 0.2}
seeds: 2
threads: 1
device: cpu
"""


def bench(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    return int(ended.value.code or 0)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    (tmp_path / "small.yaml").write_text(SPEC)
    return tmp_path


@pytest.mark.slow
def test_a_run_is_kept_found_again_and_compared(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("run", "small.yaml", "--save-baseline") == 0
    out = capsys.readouterr().out
    (kept,) = Path("results/baselines").rglob("*.json")
    assert kept == Path("results/baselines", machine_kind(describe_machine("cpu")), "small.json")
    assert f"baseline: {kept}, 1 process\n" in out

    (first,) = Path("results/small").iterdir()
    assert bench("run", "--resume", str(first), "--save-baseline", "elsewhere") == 0  # nothing is missing
    assert Path("elsewhere", *kept.parts[2:]).read_text() == kept.read_text()

    assert bench("run", "small.yaml") == 0
    # The same code with the same seeds learns the same. How fast it did, one process does not tell.
    assert bench("compare", "--baseline", "results/baselines", "results/small", "--json", "same.json") == 0
    rows = {row["metric"]: row for row in json.loads(Path("same.json").read_text())["rows"]}
    assert {name: row["outcome"] for name, row in rows.items()} == {
        "time_to_target_s": "can't tell",
        "steps_to_target": "pass",
        "step_time_s": "can't tell",
        "final_val_accuracy": "pass",
        "peak_bytes": "pass",
    }
    assert rows["steps_to_target"]["n"] == 2

    # A wider model holds more, which needs no statistics.
    assert bench("run", "small.yaml", "--set", "model.width=16") == 0
    capsys.readouterr()
    assert bench("compare", "--baseline", "results/baselines", "--json", "wider.json") == 1
    wider = json.loads(Path("wider.json").read_text())
    assert "peak_bytes" in {row["metric"] for row in wider["rows"] if row["outcome"] == "regressed"}
    assert "The settings differ: model.width: 8 -> 16." in wider["notes"]


def test_the_spec_comes_before_the_option(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("run", "--save-baseline", "small.yaml") == 2
    assert (
        "write SPEC before --save-baseline: bench run small.yaml --save-baseline" in capsys.readouterr().err
    )
    assert not Path("results").exists()
