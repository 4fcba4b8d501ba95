"""`bench report --latex | --markdown | --csv`, for every kind of run."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from pathlib import Path
from typing import Any

import click
import pytest

from fusetune.bench.autotune import Candidate, Confirmation, Tuning, describe_tunings, record_of_tuning
from fusetune.bench.cli import program as cli
from fusetune.bench.cli.program import commands
from fusetune.bench.kernels import Case, KernelSource, Policy, Row, SideResult, Verification
from fusetune.bench.kernels.records import record_of_row
from fusetune.bench.results import RunDirectory, RunInfo, WrittenSpec

OLD = Path(__file__).parents[1] / "old_runs"
TRAININGS = next((OLD / "trainings").iterdir())
FORMS = ("--latex", "--markdown", "--csv")


def report(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["report", *map(str, arguments)])
    return int(ended.value.code or 0)


def kernels_run(results: Path) -> Path:
    """A run of two rows, one of which has no time."""
    rows = [
        Row(
            Case(KernelSource("gelu"), "gelu", 8, "float32"),
            (
                SideResult(
                    "ours",
                    latencies_s={"wall, cold": [0.5] * 6},
                    verification=Verification(1e-7, 1e-7, 1e-6, 2),
                ),
                SideResult("eager", latencies_s={"wall, cold": [1.0] * 6}),
            ),
            (Policy(),),
            bytes_moved=64,
        ),
        Row(
            Case(KernelSource("relu"), "relu", 8, "float32"),
            (SideResult("ours", "wrong", "the error is 0.1"),),
        ),
    ]
    with RunDirectory.create(
        results, "kernels", RunInfo(kind="kernels", spec=WrittenSpec({"name": "kernels"}))
    ) as made:
        for row in rows:
            made.append(record_of_row(row))
    return made.path


def tunings_run(results: Path) -> Path:
    """A run of one tuning that replaced the default, and of one that did not."""
    case = Case(KernelSource("gelu"), "gelu", 8, "float32")
    candidates = (
        Candidate({"B": 1}, "slower", samples_s=(0.5,)),
        Candidate({"B": 2}, "fastest", samples_s=(0.25,)),
    )
    found = Confirmation(True, 0.001, 2.0, 1.75, 2.25, (0.5,) * 12, (0.25,) * 12)
    kept = Confirmation(False, 0.4, 1.01, math.nan, math.nan, (0.5,), (0.5,), complete=False)
    with RunDirectory.create(results, "autotune", describe_tunings([case], ["bench", "autotune"])) as made:
        for shape, winner, confirmed in ((8, {"B": 2}, found), (9, {"B": 1}, kept)):
            of = Case(KernelSource("gelu"), "gelu", shape, "float32")
            made.append(record_of_tuning(Tuning(of, "ok", "", {"B": 1}, winner, candidates, confirmed)))
    return made.path


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "run", [*sorted((OLD / "sizes").iterdir()), TRAININGS], ids=lambda run: run.name[-4:]
)
def test_old_runs_have_tables_on_stdout_and_nothing_else(
    run: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {file: file.stat().st_mtime_ns for file in run.iterdir()}
    assert report(run, form) == 0
    out, err = capsys.readouterr()
    assert err == ""
    first = {"--latex": "% \\usepackage{booktabs}", "--csv": "run,spec,stand_in,"}.get(form, "")
    assert out.startswith(first)
    if form == "--latex":
        assert out.endswith("\\end{table}\n")
        assert run.name in out
    if form == "--csv":
        assert len({len(row) for row in csv.reader(io.StringIO(out))}) == 1
    assert {file: file.stat().st_mtime_ns for file in run.iterdir()} == before


def test_the_ranking_has_the_medians_of_the_records(capsys: pytest.CaptureFixture[str]) -> None:
    """One seed a configuration, so each number is that of one line of records.jsonl."""
    report(TRAININGS, "--csv")
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    lines = [json.loads(line) for line in (TRAININGS / "records.jsonl").read_text().splitlines()]
    reached = sorted(line["values"]["time_to_target_s"] for line in lines if line["status"] == "ok")
    assert [float(row["time_to_target_s"]) for row in rows if row["time_to_target_s"]] == reached
    for row in rows:
        (line,) = [
            line
            for line in lines
            if (
                str(line["factors"]["batch_size"]),
                f"{line['factors']['base_lr']}".replace("1000000.0", "1e+06"),
            )
            == (row["factor.batch_size"], row["factor.base_lr"])
        ]
        assert float(row["step_time_s"]) == line["values"]["step_time_s"]
        assert row["told_from_first"] in ("", "false")


def rows_of(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> tuple[list[dict[str, str]], list[dict[str, Any]]]:
    """The CSV of the first old run of a kind, and its records as they lie on disk."""
    run = next(
        run
        for run in sorted((OLD / "sizes").iterdir())
        if json.loads((run / "run.json").read_text())["kind"] == kind
    )
    report(run, "--csv")
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    return rows, [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]


def test_a_range_test_has_its_rate_and_interval(capsys: pytest.CaptureFixture[str]) -> None:
    rows, lines = rows_of("lr-range", capsys)
    names = {"range_lr": "range_lr", "range_lr_low": "lr_interval_low", "range_lr_high": "lr_interval_high"}
    names |= {name: name for name in ("suggested_lr", "lr_low", "lr_high", "divergence_lr")}
    for row, line in zip(rows, lines, strict=True):
        for column, metric in names.items():
            assert (float(row[column]) if row[column] else None) == line["values"].get(metric)


def test_a_batch_size_has_its_memory_and_throughput(capsys: pytest.CaptureFixture[str]) -> None:
    rows, lines = rows_of("batch-size", capsys)
    probed = [line for line in lines if line["status"] == "ok" and "needed_bytes" in line["values"]]
    assert {int(row["batch_size"]): float(row["needed_bytes"]) for row in rows if row["needed_bytes"]} == {
        line["factors"]["batch_size"]: line["values"]["needed_bytes"] for line in probed
    }
    timed = [line for line in lines if "samples_per_s" in line["values"]]
    assert {int(row["batch_size"]): float(row["samples_per_s"]) for row in rows if row["samples_per_s"]} == {
        line["factors"]["batch_size"]: line["values"]["samples_per_s"] for line in timed
    }
    assert sum(row["is_recommended"] == "true" for row in rows) == 1


def test_kernels_have_their_own_csv_and_the_rest_as_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = kernels_run(tmp_path)
    assert report(run, "--csv") == 0
    first, second = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (first["name"], float(first["latency_s"]), float(first["speedup_over_eager"])) == (
        "gelu/8/float32",
        0.5,
        2.0,
    )
    assert (second["status"], second["latency_s"]) == ("wrong", "")
    assert report(run, "--markdown") == 0
    out = capsys.readouterr().out
    assert "| gelu/8/float32 | 500 | 1.28e-7 | – | 1.00e-7 | 2.00 |" in out
    assert "relu/8/float32: wrong: the error is 0.1." in out
    assert report(run, "--latex") == 0
    assert r"$1.00 \times 10^{-7}$" in capsys.readouterr().out


def test_a_gain_is_bold_where_the_test_replaced_the_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tunings_run(tmp_path)
    assert report(run, "--markdown") == 0
    out = capsys.readouterr().out
    assert "| gelu/8/float32 | B=1 | B=2 | 2 | **2.00** [1.75, 2.25] | 0.00100 |" in out
    assert "| gelu/9/float32 | B=1 | B=2 | 2 | &#126;1.01 | 0.400 |" in out
    assert report(run, "--csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["winner"], row["is_replaced"], row["gain_n"]) for row in rows] == [
        ("B=2", "true", "12"),
        ("B=1", "false", "1"),
    ]


def test_files_get_what_stdout_would(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {form: tmp_path / f"table{form}" for form in FORMS}
    assert report(TRAININGS, *(f"{form}={file}" for form, file in files.items())) == 0
    assert capsys.readouterr() == ("", "")
    for form, file in files.items():
        report(TRAININGS, form)
        assert capsys.readouterr().out == file.read_text(encoding="utf-8")


def test_a_torn_line_is_noted_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    shutil.copytree(TRAININGS, run)
    with (run / "records.jsonl").open("a") as file:
        file.write('{"torn')
    assert report(run, "--csv") == 0
    out, err = capsys.readouterr()
    assert "cut short" not in out
    assert "note: " in err
    assert "cut short by a crash" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["RUN", "--csv", "--latex"], "--latex -: is where --csv goes. Give another file."),
        (
            ["--csv", "RUN"],
            "--csv RUN: is a folder; what follows --csv is the file to write. Write --csv behind DIRECTORY",
        ),
        (["RUN", "--csv", "nowhere/x.csv"], "--csv nowhere/x.csv: its folder is not there. Make it first."),
        (["RUN", "--csv=RUN/records.jsonl"], "records.jsonl: is a file of a run. Give another file."),
        (["RUN", "--csv", "--html"], "--html: goes with no table. Give it to a command of its own"),
        (["RUN", "RUN", "--csv"], "--csv: is a table of one run; 2 were given. Give one DIRECTORY."),
        (["nowhere", "--csv"], "nowhere: is not a directory"),
        (
            ["GATE", "--csv"],
            "GATE: a gate ranks nothing; a table is one of a run. Use the option --markdown of",
        ),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(TRAININGS, run)
    gate = tmp_path / "gate"
    gate.mkdir()
    (gate / "gate.json").write_text("{}")
    message = message.replace("GATE", str(gate))
    before = (run / "records.jsonl").read_bytes()
    assert report(*(each.replace("RUN", str(run)).replace("GATE", str(gate)) for each in arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message.replace("RUN", str(run)) in " ".join(err.split())
    assert "Traceback" not in err
    assert (run / "records.jsonl").read_bytes() == before


def test_a_kind_of_later_versions_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    shutil.copytree(TRAININGS, run)
    content = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**content, "kind": "later"}))
    assert report(run, "--latex") == 2
    assert "a run of the kind 'later' is newer than this program" in " ".join(capsys.readouterr().err.split())


def test_help_describes_the_tables() -> None:
    command = commands.commands["report"]
    text = " ".join(
        command.get_help(click.Context(command, info_name="bench report", terminal_width=100)).split()
    )
    for form in FORMS:
        assert f"{form} [FILE]" in text
    assert "booktabs" in text
