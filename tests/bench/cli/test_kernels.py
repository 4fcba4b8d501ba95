"""`bench kernels` as a person calls it, with rows made by hand in place of measured ones."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fusetune.bench.cli import program as cli
from fusetune.bench.kernels import Row, SideResult
from fusetune.bench.results import RunDirectory, find_run
from tests.bench.kernels.made_rows import rounds, side, verified
from tests.bench.kernels.made_rows import row as made_row
from tests.bench.page.checked import status_of

Made = Callable[[Any], Row]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run the program: exit code, stdout, stderr."""
    with pytest.raises(SystemExit) as stop:
        cli.main(list(arguments))
    out, err = capsys.readouterr()
    assert isinstance(stop.value.code, int)
    return stop.value.code, out, err


def good(each: Any) -> Row:
    ours = side("ours", 1e-3, verification=verified(), launches=1, extra_bytes=0)
    return made_row([ours, *(side(name, 2e-3) for name in each.competitors)], each.case)


def wrong(each: Any) -> Row:
    return made_row([SideResult("ours", "wrong", "the error is 0.1")], each.case)


class Engine:
    """Makes a row of each case. It is interrupted before the case of that number."""

    def __init__(self) -> None:
        self.make: Made = good
        self.interrupted_at: int | None = None
        self.planned: list[Any] = []

    def __call__(self, loaded: Any, planned: Any, keeper: Any) -> None:
        self.loaded, self.planned = loaded, list(planned)
        for number, each in enumerate(planned):
            if number == self.interrupted_at:
                raise KeyboardInterrupt
            keeper.row_started(each.case)
            keeper.row_news(each.case, "verifying")
            keeper.row_finished(self.make(each))


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Engine:
    made = Engine()
    monkeypatch.setattr("fusetune.bench.kernels.measure_planned", made, raising=False)
    monkeypatch.chdir(tmp_path)
    return made


def test_names_are_measured_recorded_and_reported_again(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "kernels", "gelu", "adam", "--set", "shapes=[1000, 2000]")
    assert (code, err) == (0, "")
    assert [each.case.name for each in engine.planned] == [
        "gelu/1000/float32",
        "gelu/2000/float32",
        "adam/1000/float32",
        "adam/2000/float32",
    ]
    assert "[4/4] ok  latency 1.00 ms" in out
    assert "every row is right and has a time (4)" in out
    assert "against eager: faster in 4, slower in 0, can't tell in 0 of 4" in out
    directory = RunDirectory.open(find_run(Path("results/kernels")))
    assert directory.run.kind == "kernels"
    assert directory.run.trials == 4
    code, again, _ = run(capsys, "report", "results/kernels")
    assert code == 0
    assert again in out  # word by word


def test_a_row_that_is_wrong_has_no_time_and_the_code_is_1(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.make = wrong
    code, out, _ = run(capsys, "kernels", "gelu", "--json", "-")
    assert code == 1
    (found,) = json.loads(out)
    assert found["name"] == "gelu/1048576/float32"
    assert found["status"] == "wrong"
    assert "latency_s" not in found


def test_standard_output_has_the_rows_alone_where_they_go_there(
    engine: Engine, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, err = run(
        capsys, "kernels", "gelu", "--csv", "-", "--json", "rows.json", "--markdown", "rows.md"
    )
    assert code == 0
    (line,) = csv.DictReader(io.StringIO(out))
    assert float(line["latency_s"]) == pytest.approx(1e-3)
    assert "every row is right" in err
    assert json.loads((tmp_path / "rows.json").read_text())[0]["status"] == "ok"
    assert (tmp_path / "rows.md").read_text().startswith("### kernels")


def test_an_interrupt_keeps_finished_rows_and_reports_them(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.interrupted_at = 1
    code, out, err = run(capsys, "kernels", "gelu", "silu", "--json", "rows.json")
    assert code == 130
    assert "interrupted; finished rows are kept in results/kernels/" in err
    assert "gelu/1048576/float32" in out
    assert len(json.loads(Path("rows.json").read_text())) == 1
    (page,) = Path("results/kernels").glob("*/report.html")
    status = status_of(page.read_text())
    assert status.startswith(
        "Interrupted: 1 of 2 rows, 1 is missing. It cannot be continued. Start it anew with "
    )
    engine.interrupted_at = 0
    code, _, err = run(capsys, "kernels", "gelu", "--results", "other")
    assert (code, err) == (130, "interrupted; no row was finished.\n")
    assert not list(Path("other").glob("*/*"))


def test_what_compare_says_of_two_runs(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "kernels", "gelu", "--results", "a")

    def heavier(each: Any) -> Row:
        ours = SideResult(
            "ours", latencies_s={"wall, cold": rounds(1e-3)}, launches=2, verification=verified()
        )
        return made_row([ours], each.case)

    engine.make = heavier
    run(capsys, "kernels", "gelu", "--results", "b")
    code, out, _ = run(capsys, "compare", "a/kernels", "b/kernels", "--json", "verdict.json")
    assert code == 1
    rows = {row["metric"]: row for row in json.loads(Path("verdict.json").read_text())["rows"]}
    assert rows["launches"]["outcome"] == "regressed"
    assert rows["moved_bytes"]["outcome"] == "pass"
    assert rows["latency_s"]["comparison"] == "timing"
    assert rows["latency_s"]["benchmark"] == "kernels: kernel=gelu,shape=1048576,dtype=float32"
    engine.make = wrong
    run(capsys, "kernels", "gelu", "--results", "c")
    code, out, _ = run(capsys, "compare", "a/kernels", "c/kernels")
    assert code == 1
    assert "the kernel failed: wrong: the error is 0.1" in " ".join(out.split())


BAD: list[tuple[list[str], str]] = [
    (["gleu"], "unknown 'gleu'; known: adam"),
    (["gelu", "--set", "dtypes=[float33]"], "dtypes[0]: unknown 'float33'; known: bfloat16"),
    (["gelu", "--set", "shapes=[0]"], "shapes[0]: must be 1 to"),
    (["gelu", "--set", "shapes=[resnet50]"], "gelu has no parameters to update on resnet50"),
    (["adam", "--set", "directions=[backward]"], "adam has no gradient"),
    (["gelu", "--set", "competitors=[egaer]"], "competitors: unknown 'egaer'; known: eager"),
    (["gelu", "--static", "sm_91"], "static: unknown 'sm_91'; known: sm_80"),
    (["gelu", "--json", "missing/rows.json"], "--json missing/rows.json: its folder is not there"),
    (["gelu", "--json", "-", "--csv", "-"], "--csv -: is where --json goes"),
    (["nowhere.yaml"], "nowhere.yaml: no such file"),
    (["nowhere.py"], "nowhere.py: no such file"),
    (["mine.module:KERNEL"], "mine.module"),
    (["a.yaml", "b.yaml"], "b.yaml: is a second spec"),
    ([], "specs/kernels.yaml: no such file. Name a spec, a kernel such as gelu"),
    (["gelu", "--record"], "--record: has no spec"),
    (["gelu", "--set", "device=cuda"], "device: cuda is asked for, but torch finds no CUDA device"),
]


@pytest.mark.parametrize(("arguments", "said"), BAD, ids=[said[:30] for _, said in BAD])
def test_bad_input_is_one_sentence_and_code_2(
    arguments: list[str], said: str, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    if "device=cuda" in arguments:
        import torch

        if torch.cuda.is_available():
            pytest.skip("it is there")
    code, _, err = run(capsys, "kernels", *arguments)
    assert code == 2
    assert said in err
    assert "Traceback" not in err
    assert not engine.planned
    assert not Path("results").exists()


@pytest.mark.slow  # a process of its own imports the file
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("import nothing_of_that_name", "nothing_of_that_name"),
        ("1 / 0", "ZeroDivisionError"),
        ("import os; os._exit(0)", "mine.py: the worker exited with code 0"),
    ],
)
def test_a_file_that_cannot_be_imported_is_one_sentence(
    content: str, said: str, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.py").write_text(content)
    code, _, err = run(capsys, "kernels", "mine.py")
    assert code == 2
    assert said in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_file_of_ones_own_is_planned_by_what_it_says(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.py").write_text(
        "import torch\n"
        "def fused(x): return x + x\n"
        "def reference(x): return 2 * x\n"
        "def make_inputs(seed): return (torch.randn(300, generator=torch.Generator().manual_seed(seed)),)\n"
    )
    code, _, err = run(capsys, "kernels", "mine.py")
    assert (code, err) == (0, "")
    (planned,) = engine.planned
    assert planned.case.shape == 300
    assert planned.competitors == ("eager", "compile")
    assert planned.case.source.reference == f"{Path('mine.py').absolute()}:fused"


def test_a_spec_next_to_names_gives_them_its_settings(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("k.yaml").write_text(
        "name: mine\nkernels: {gelu: {shapes: 8}, relu: }\nshapes: 16\nbudget: {row: 2s}\n"
    )
    assert run(capsys, "kernels", "k.yaml", "gelu", "silu", "--budget", "9s")[0] == 0
    assert [each.case.name for each in engine.planned] == ["gelu/8/float32", "silu/16/float32"]
    assert (engine.loaded.spec.budget.row, engine.loaded.spec.budget.total) == (2.0, 9.0)
    assert find_run(Path("results/mine"))
    assert run(capsys, "kernels", "k.yaml", "--record")[0] == 0
    assert list(Path("results/history").glob("*/mine.jsonl"))


def test_the_two_kinds_of_specs_are_sent_to_their_commands(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("k.yaml").write_text("kernels: {gelu: }\n")
    code, _, err = run(capsys, "run", "k.yaml")
    assert code == 2
    assert "is a spec for `bench kernels`" in err
