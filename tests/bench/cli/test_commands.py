"""The commands that train nothing, and what becomes of errors."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fusetune.bench import catalog
from fusetune.bench.cli import program as cli
from fusetune.bench.cli.exit_codes import FAIL_ON, exit_code
from fusetune.bench.errors import InputError
from fusetune.bench.results.records import Record
from fusetune.bench.results.run_info import RunInfo
from fusetune.bench.results.written_spec import WrittenSpec
from fusetune.tuner.schedules.table import SCHEDULES

ROOT = Path(__file__).parents[3]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run the command line in this process: exit code, stdout, stderr."""
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    out, err = capsys.readouterr()
    assert isinstance(stop.value.code, int)
    return stop.value.code, out, err


def test_list_names_everything_a_spec_can_use_in_100_columns(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "list")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 100
    words = set(re.findall(r"[\w-]+", out))
    for table in (
        catalog.DATASETS,
        catalog.MODELS,
        catalog.ACTIVATIONS,
        catalog.NORMS,
        catalog.OPTIMIZERS,
        SCHEDULES,
    ):
        assert set(table) <= words
    assert {*catalog.PRECISIONS, *catalog.METRICS_TO_REACH} <= words


def test_doctor_says_what_is_here_in_100_columns(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "doctor")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 100
    for name in ("Python", "torch", "device", "memory", "CIFAR-10", "results"):
        assert re.search(rf"^{name}\b", out, flags=re.MULTILINE), name


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ("rnu",),
            "unknown command 'rnu'; known: autotune, batch-size, compare, doctor, gate, history, init, kernels, list, ",
        ),
        (("run",), "name a SPEC, e.g. specs/cifar.yaml, or --resume DIR"),
        (("run", "x.yaml", "--fail-on", "missed,out_of_memory"), "Did you mean 'out-of-memory'?"),
        (("run", "nowhere.yaml"), "nowhere.yaml: no such file; known here: "),
        (("run", "specs/smoke.yaml", "--jobs", "0"), "0 is not in the range"),
        (("run", "--resume", "nowhere"), "nowhere: no run is there"),
        (("lr-range", "specs/smoke.yaml", "--min", "nan"), "--min: nan must be finite"),
        (("lr-range", "specs/smoke.yaml", "--max", "nan"), "--max: nan must be finite"),
        (("lr-range", "specs/smoke.yaml", "--max", "inf"), "--max: inf must be finite"),
        (("lr-range", "specs/smoke.yaml", "--min", "-inf"), "is not in the range"),
        (("lr-range", "specs/smoke.yaml", "--min", "11"), "--min: 11 must be below --max, 10"),
        (("batch-size", "specs/smoke.yaml", "--memory", "1e308TiB"), "--memory: '1e308TiB' must be finite"),
        (("batch-size", "specs/smoke.yaml", "--memory", "nan"), "--memory: 'nan' is not a quantity"),
        (("run", "specs/smoke.yaml", "--set", "limits.memory=1e308TiB"), "'1e308TiB' must be finite"),
        (("run", "specs/smoke.yaml", "--set", "limits.trial_time=1e308h"), "'1e308h' must be finite"),
        (("report", "nowhere"), "nowhere: is not a directory"),
        (("report", "--nonsense"), "No such option"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_commands_are_one_message_and_exit_2(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    complaint: str,
) -> None:
    monkeypatch.chdir(ROOT)
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert complaint in err
    assert "Traceback" not in err


def test_only_a_failed_trial_makes_the_exit_1() -> None:
    def records(*statuses: str) -> list[Record]:
        return [Record(str(index), {}, 0, status) for index, status in enumerate(statuses)]  # type: ignore[arg-type]

    findings = ("ok", "missed_target", "diverged", "out_of_memory", "stopped_early")
    assert exit_code(records(*findings)) == 0
    assert exit_code(records(*findings, "failed")) == 1
    for asked, statuses in FAIL_ON.items():
        for status in (*findings, "failed"):
            code = exit_code(records("ok", status), (asked,))
            assert code == (1 if status in (*statuses, "failed") else 0), (asked, status)


def test_of_a_search_the_winners_fresh_seeds_can_miss_the_target() -> None:
    search = {"search": {"budget_epochs": 9, "prior": False, "fresh_seeds": 1}}
    spec = {"design": search, "seeds": [0], "factors": {"optimizer": ["sgd"]}, "train": {"epochs": 3}}
    run = RunInfo(kind="search", spec=WrittenSpec(spec))
    dropped = Record("a", {}, 0, "stopped_early")
    assert exit_code([dropped], ("missed",), run) == 0
    assert exit_code([dropped, Record("b", {}, 1, "missed_target")], ("missed",), run) == 1


def test_an_expected_error_shows_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_options: object) -> None:
        raise InputError("here", "is wrong", to_do="Mend it")

    monkeypatch.setattr(cli.commands.commands["schema"], "callback", refuse)
    assert run(capsys, "schema") == (2, "", "error: here: is wrong. Mend it\n")


def test_an_ascii_terminal_gets_its_report_too() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "list"],
        cwd=ROOT,
        env={"PYTHONIOENCODING": "ascii", "PATH": "", "LC_ALL": "C"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "resnet9" in done.stdout
