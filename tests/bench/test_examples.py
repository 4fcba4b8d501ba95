"""results/examples: two real runs, whose reports and pages are those that the README shows."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fusetune.bench.cli import program as cli
from fusetune.bench.cli.page_file import part_of
from fusetune.bench.results import study_run
from fusetune.bench.results.directory import RunDirectory
from fusetune.bench.results.records import SCHEMA_VERSION
from tests.bench.page.browser import browser_program
from tests.bench.page.picture import RUN, SCALE, WIDTH

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "results" / "examples"
RUNS = sorted(path.parent.relative_to(EXAMPLES) for path in EXAMPLES.glob("*/*/run.json"))
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MOST_BYTES = 300_000
SHOWN = re.compile(
    r"^<!-- of (results/examples/\S+) -->\n```text\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE
)
IMAGE = re.compile(r"!\[([^\]]+)\]\(https://raw\.githubusercontent\.com/fusetune/fusetune/main/([^)]+)\)")


def written(path: Path) -> list[Path]:
    return [EXAMPLES / path / "run.json", EXAMPLES / path / "records.jsonl"]


def test_there_are_two_kinds_and_they_are_small() -> None:
    assert {json.loads((EXAMPLES / path / "run.json").read_text())["kind"] for path in RUNS} == {
        "run",
        "lr-range",
    }
    assert sum(file.stat().st_size for path in RUNS for file in written(path)) < MOST_BYTES


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.parent.name)
def test_a_run_is_whole_real_clean_and_without_the_places_of_a_machine(path: Path) -> None:
    directory = RunDirectory.open(EXAMPLES / path)
    records, notes = directory.records()  # each field is held to the schema
    run = directory.run
    assert notes == []
    assert len({record.trial for record in records}) == len(records) == run.trials
    assert {record.status for record in records} <= {"ok", "missed_target", "diverged"}
    assert run.schema_version == SCHEMA_VERSION
    assert run.dirty is False
    assert run.stand_in is None
    assert (ROOT / run.spec_path).is_file()
    for file in written(path):
        text = file.read_text()
        assert socket.gethostname() not in text
        assert re.findall(r'"(?:/|~|[A-Z]:\\)[^"]*"', text) == []


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.parent.name)
def test_the_report_is_printed_and_the_page_is_written(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    shutil.copytree(EXAMPLES / path, tmp_path / path)
    for options in ([], ["--html"]):
        with pytest.raises(SystemExit) as end:
            cli.main(["report", str(tmp_path / path.parent), *options])
        assert end.value.code == 0
    assert max(map(len, capsys.readouterr().out.splitlines()[:-1])) <= 100
    directory = RunDirectory.open(EXAMPLES / path)
    records, _ = directory.records()
    part = part_of(directory, records, study_run(directory, records))
    page = (tmp_path / path / "report.html").read_text()
    assert part.title in page
    filled = [section.key for section in part.sections if section.blocks]
    assert len(filled) >= 2
    for name in filled:
        assert f'-{name}"' in page


def printed(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """The report of an example, in 100 columns."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit):
        cli.main(["report", str(path)])
    return "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda path: path.name
)
def test_what_a_page_shows_of_an_example_is_what_its_report_prints(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = page.read_text()
    shown = re.findall(
        r"^<!-- of (results/examples/\S+) -->\n```text\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE
    )
    for path, block in shown:
        report = printed(Path(path), monkeypatch, capsys)
        for piece in re.split(r"\n\n+", block.strip("\n")):
            assert piece in report
    assert shown or page.name != "README.md"


@pytest.mark.slow
def test_the_picture_is_made_by_a_browser_or_skipped(tmp_path: Path) -> None:
    assert RUN.is_dir()
    browser_program()
    # In a process of its own, because a process can have one Playwright at a time.
    command = [sys.executable, "-m", "tests.bench.page.picture", str(tmp_path / "report.png")]
    subprocess.run(command, cwd=ROOT, check=True)
    with Image.open(tmp_path / "report.png") as made:
        assert made.width == SCALE * WIDTH
        assert made.height > made.width / 2
        assert len(made.convert("RGB").getcolors(1 << 20) or ()) > 10
    assert (tmp_path / "report.png").stat().st_size < MOST_BYTES


def test_the_picture_is_there_and_its_words_are_the_pages_answer() -> None:
    ((alt, path),) = IMAGE.findall(README)
    assert (ROOT / path).stat().st_size < MOST_BYTES
    directory = RunDirectory.open(EXAMPLES / next(run for run in RUNS if run.parent.name == "digits-rates"))
    records, _ = directory.records()
    part = part_of(directory, records, study_run(directory, records))
    numbers = set(re.findall(r"\d[\d.]*\d|\d", alt))
    assert len(numbers) >= 6
    assert numbers <= set(re.findall(r"\d[\d.]*\d|\d", part.answer))
    assert README.index("![") < README.index("## Two commands")
