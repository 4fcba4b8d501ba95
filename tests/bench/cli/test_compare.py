"""`bench compare` as a person calls it: outputs, options and exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from html import unescape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from fusetune.bench.cli import program as cli
from fusetune.bench.cli.run import _save_baseline
from fusetune.bench.compare.baselines import save_baseline
from fusetune.bench.compare.runs import read_run
from fusetune.bench.results.directory import RunDirectory
from tests.bench.compare.made_runs import MACHINE, training, write_run

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def no_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run the command: exit code, stdout, stderr."""
    with pytest.raises(SystemExit) as stop:
        cli.main(["compare", *arguments])
    out, err = capsys.readouterr()
    assert isinstance(stop.value.code, int)
    return stop.value.code, out, err


def made(tmp_path: Path, peak_bytes: int = 4096, rounds: bool = True) -> str:
    record = training(peak_bytes=peak_bytes)
    if not rounds:  # nothing but what is exact
        for key in ("step_time_s", "time_to_target_s"):
            assert isinstance(record.values, dict)
            del record.values[key]
        record.samples.clear()
        del record.values["steps_to_target"], record.values["final_val_accuracy"]
    return str(write_run(tmp_path, [record], spec={} if rounds else {"target": None}))


def test_a_page_has_the_verdicts_of_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, large = made(tmp_path), made(tmp_path, 8192)
    page = tmp_path / "page.html"
    code, out, _ = run(capsys, small, large, "--html", str(page), "--json", str(tmp_path / "verdict.json"))
    assert code == 1
    assert out.splitlines()[-1] == f"page: {page}"
    text = unescape(page.read_text())
    for row in json.loads((tmp_path / "verdict.json").read_text())["rows"]:
        assert row["sentence"] in text
    assert "REGRESSED" in text
    assert "Effects" in text or "effect" in text
    assert run(capsys, small, large, "--html", str(tmp_path / "no" / "page.html"))[0] == 2


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, large = made(tmp_path), made(tmp_path, 8192)
    exact = [made(tmp_path, size, rounds=False) for size in (4096, 4096, 2048)]
    assert run(capsys, *exact[:2])[0] == 0
    assert run(capsys, *exact[:2], "--strict")[0] == 0
    assert run(capsys, *exact[1:], "--strict")[0] == 0  # improved
    assert run(capsys, small, small)[0] == 0
    assert run(capsys, small, small, "--strict")[0] == 3
    assert run(capsys, small, large)[0] == 1
    assert run(capsys, small, large, "--strict")[0] == 1
    assert run(capsys, small, exact[0])[0] == 1  # metrics are missing


def test_the_table_fits_and_says_the_verdicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, made(tmp_path), made(tmp_path, 8192))
    assert code == 1
    assert not err
    assert max(map(len, out.splitlines())) <= 100
    for said in (
        "REGRESSED",
        "CAN'T TELL",
        "PASS",
        "peak memory",
        "4.00 KiB",
        "8.00 KiB",
        "Stored results give more false alarms",
    ):
        assert said in out


def test_outputs_are_written_besides_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    names = {option: tmp_path / f"out.{option}" for option in ("json", "markdown", "junit")}
    options = [word for option, path in names.items() for word in (f"--{option}", str(path))]
    code, out, _ = run(capsys, made(tmp_path), made(tmp_path, 8192), *options)
    assert code == 1
    assert "peak memory" in out
    content = json.loads(names["json"].read_text())
    assert (content["kind"], content["outcome"]) == ("compare", "regressed")
    assert [row["metric"] for row in content["rows"] if row["outcome"] == "regressed"] == ["peak_bytes"]
    markdown = names["markdown"].read_text()
    assert markdown.startswith("### ")
    assert "REGRESSED" in markdown.splitlines()[0]
    assert summary.read_text() == f"before\n{markdown}\n"
    cases = ElementTree.parse(names["junit"]).iter("testcase")
    assert sum(case.find("failure") is not None for case in cases) == 1


def test_an_output_whose_folder_is_missing_is_refused_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, made(tmp_path), made(tmp_path), "--junit", str(tmp_path / "no" / "j.xml"))
    assert code == 2
    assert not out
    assert err == f"error: --junit {tmp_path}/no/j.xml: its folder is not there. Make it first.\n"


def test_thresholds_of_a_spec(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "digits.yaml"
    text = "name: digits\ndata: {name: digits, validation: 100}\nmodel: {name: mlp}\n"
    text += "train: {optimizer: adam, base_lr: 0.1, batch_size: 32, epochs: 1}\n"
    spec.write_text(text + "gate: {metrics: {peak_bytes: {threshold: 0.05}}}\n")
    paths = made(tmp_path), made(tmp_path, 4200)
    assert run(capsys, *paths)[0] == 1
    assert run(capsys, *paths, "--spec", str(spec))[0] == 0
    spec.write_text(text + "gate: {metrics: {peek_bytes: {threshold: 0.05}}}\n")
    code, _, err = run(capsys, *paths, "--spec", str(spec))
    assert code == 2
    assert "peek_bytes" in err
    assert "Did you mean 'peak_bytes'?" in err


def test_the_baseline_of_this_kind_of_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_baseline(Path("results/baselines"), read_run(Path(made(Path("results")))))
    worse = made(Path("results"), 8192)
    code, out, _ = run(capsys, "--baseline", "results/baselines", worse)
    assert code == 1
    assert "results/baselines/example-2-cores-linux-x86_64/digits.json" in out
    newest = max(Path("results/digits").iterdir(), key=lambda path: path.name)
    run(capsys, "--baseline", "results/baselines", "--json", "out.json")
    assert json.loads(Path("out.json").read_text())["head"]["name"] == str(newest)
    write_run(Path("results"), [training()], name="other", machine={**MACHINE, "cores": 64})
    code, _, err = run(capsys, "--baseline", "results/baselines", "results/other")
    assert code == 2
    assert (
        "has no baseline example-64-cores-linux-x86_64/other; known: example-2-cores-linux-x86_64/digits"
        in err
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name BASE and HEAD, or --baseline DIR and HEAD"),
        (("a.json",), "name BASE and HEAD, or --baseline DIR and HEAD"),
        (("a.json", "b.json", "--baseline", "c"), "with --baseline give HEAD alone"),
        (("--baseline", "c"), "--baseline: no run is in results/. Give HEAD, or run a spec first"),
        (
            ("a.json", "b.json"),
            "a.json: is not there; known: a run's directory, a JSON file of pytest-benchmark",
        ),
        (("a.json", "b.json", "--spec", "no.yaml"), "no.yaml: no such file"),
        (("a.json", "b.json", "--jsn"), "No such option"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(
    arguments: tuple[str, ...],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert not out
    assert said in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "status", "out", "err"),
    [
        ({}, "ok", "1 process\n", ""),
        ({}, "missed_target", "1 process\n", ""),
        ({"dirty": True}, "ok", "1 process\n", "the next run replaces this baseline"),
        ({"commit": None, "dirty": None}, "ok", "1 process\n", "the next run replaces this baseline"),
        ({}, "failed", "", "no baseline was saved, because a trial failed"),
    ],
)
def test_what_bench_run_says_of_its_baseline(
    changes: dict[str, Any],
    status: str,
    out: str,
    err: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    directory = RunDirectory.open(write_run(tmp_path, [training(status=status, reason="x")], **changes))
    _save_baseline(tmp_path / "kept", directory, directory.records()[0], nothing=False)
    said = capsys.readouterr()
    assert said.out.endswith(out)
    assert (out == "") == (said.out == "")
    assert err in said.err
    assert (err == "") == (said.err == "")
    assert (tmp_path / "kept").exists() == (status != "failed")


def test_a_run_without_records_makes_no_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = RunDirectory.open(write_run(tmp_path, []))
    _save_baseline(tmp_path / "kept", directory, [], nothing=False)
    assert "no baseline was saved, because nothing was found" in capsys.readouterr().err
    assert not (tmp_path / "kept").exists()


def test_a_comparison_never_imports_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom fusetune.bench.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as stop:\n    assert stop.code == 1, stop.code\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    command = [sys.executable, "-c", code, "compare", made(tmp_path), made(tmp_path, 8192)]
    done = subprocess.run(command, cwd=ROOT / "src", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "REGRESSED" in done.stdout
