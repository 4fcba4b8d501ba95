"""The page of a run that was interrupted says so, and what to do. After a resumption it says nothing of it."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from fusetune.bench.results import Record, RecordKeeper
from tests.bench.autotune.test_run import Scripted, by_block, tuned
from tests.bench.cli.test_commands import run
from tests.bench.page.checked import status_of

OLD_RUNS = Path(__file__).parents[1] / "old_runs"


def interrupted(count: int, noun: str, missing: str, then: str) -> re.Pattern[str]:
    """A status that says how much is there, how much is missing, and what to do."""
    return re.compile(rf"Interrupted: {count} of \d {noun}s?, {missing} missing\. {then}\.")


def test_a_kind_without_resumption_is_started_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of `bench batch-size`, whose records are not counted before."""
    found = (
        path.parent
        for path in OLD_RUNS.glob("sizes/*/run.json")
        if json.loads(path.read_text())["kind"] == "batch-size"
    )
    own = Path(shutil.copytree(next(found), tmp_path / "run"))
    assert run(capsys, "report", str(own), "--html")[0] == 0
    assert status_of((own / "report.html").read_text()) == ""
    lines = (own / "records.jsonl").read_text().splitlines(keepends=True)
    first_noise = next(place for place, line in enumerate(lines) if ",noise" in json.loads(line)["trial"])
    anew = r"It cannot be continued. Start it anew with python -m bench batch-size sizes\.yaml .*"
    for kept in (first_noise, 2, 1):
        (own / "records.jsonl").write_text("".join(lines[:kept]))
        assert run(capsys, "report", str(own), "--html")[0] == 0
        status = status_of((own / "report.html").read_text())
        assert interrupted(0, "configuration", "1 is", anew).fullmatch(status), status


def test_an_interrupted_autotune_has_its_finished_cases(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tuned(Scripted(by_block))

    def tune(case: Any, *_: object, **__: object) -> Any:
        if case.kernel == "silu":
            raise KeyboardInterrupt
        return dataclasses.replace(found, case=case)

    monkeypatch.setattr("fusetune.bench.autotune.tune", tune, raising=False)
    words = ("autotune", "gelu", "silu", "tanh", "--results", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["bench", *words])  # what the page repeats
    code, out, err = run(capsys, *words)
    assert code == 130
    assert "interrupted; 1 of 3 cases are finished and kept." in err
    (page,) = tmp_path.glob("autotune/*/report.html")
    assert out.splitlines()[-1] == f"page: {page}"
    anew = r"It cannot be continued. Start it anew with python -m bench autotune gelu silu tanh .*"
    assert interrupted(1, "case", "2 are", anew).fullmatch(status_of(page.read_text()))
    assert "gelu/1048576/float32" in page.read_text().replace("<wbr>", "")


SPEC = """\
name: rates
data: {name: spirals, limit: 300, validation: 100}
model: {name: mlp, width: 8, depth: 1}
train: {base_lr: 0.1, batch_size: 32, epochs: 2}
factors: {optimizer: [sgd, adam]}
"""


def test_an_interrupted_search_says_how_many_epochs_it_keeps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    Path("rates.yaml").write_text(SPEC + "design: {search: {budget_epochs: 12, prior: false}}\n")
    monkeypatch.setattr("fusetune.bench.search.run_search", interrupt, raising=False)
    code, _, err = run(capsys, "run", "rates.yaml")
    assert code == 130, err
    assert "interrupted; 0 of 12 epochs, of 0 trainings, are kept. Continue with: " in err


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [("run",), ("lr-range", "--steps", "20", "--repeats", "1", "--no-confirm")]
)
def test_a_resumed_run_has_a_whole_page(
    command: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C comes when the first of two trials is recorded."""
    monkeypatch.chdir(tmp_path)
    Path("rates.yaml").write_text(SPEC)
    keep = RecordKeeper.keep_all

    def keep_one(self: RecordKeeper, records: Iterable[Any]) -> list[Record]:
        keep(self, records)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RecordKeeper, "keep_all", keep_one)
        code, _, err = run(capsys, command[0], "rates.yaml", *command[1:])
    assert code == 130, err
    (page,) = Path("results/rates").glob("*/report.html")
    assert err.rstrip().splitlines()[-1] == f"page: {page}"
    then = rf"Continue with .*bench {command[0]} --resume {page.parent}"
    assert interrupted(1, "trial", "1 is", then).fullmatch(status_of(page.read_text()))
    code, out, err = run(capsys, command[0], "--resume", str(page.parent))
    assert code == 0, err
    assert out.rstrip().splitlines()[-1] == f"page: {page}"
    text = page.read_text()
    assert status_of(text) == ""
    assert "Interrupted" not in text
    assert all(f"optimizer={name}" in text or f'"{name}"' in text for name in ("sgd", "adam"))
