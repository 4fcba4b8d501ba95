"""`bench report` of one run and of several, in the terminal and as a page."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.bench.cli.test_commands import run
from tests.bench.page.checked import ids_of

OLD_RUNS = Path(__file__).parents[1] / "old_runs"


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of old runs that a test may change, in which the command works."""
    shutil.copytree(OLD_RUNS, tmp_path / "old")
    monkeypatch.chdir(tmp_path)
    return Path("old")


def sections(path: Path) -> list[str]:
    """Return the anchors of a page's sections."""
    return [
        each
        for each in ids_of(path.read_text())
        if re.fullmatch(r"part-\d+-[a-z-]+", each) and "title" not in each
    ]


def test_without_html_reports_are_printed_one_after_the_other(
    old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = [run(capsys, "report", str(old / name))[1] for name in ("trainings", "fused")]
    code, out, _ = run(capsys, "report", str(old / "trainings"), str(old / "fused"))
    assert (code, out) == (0, "\n".join(alone))
    assert not list(Path().rglob("*.html"))


def test_one_run_has_its_page_and_several_share_one_here(
    old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "report", str(old / "trainings"), "--html")
    own = next((old / "trainings").iterdir()) / "report.html"
    assert (code, out) == (0, f"page: {own}\n")
    assert {each.split("-")[1] for each in sections(own)} == {"1"}
    code, out, _ = run(capsys, "report", str(old / "trainings"), str(old / "fused"), "--html")
    assert (code, out) == (0, "page: report.html\n")
    assert {each.split("-")[1] for each in sections(Path("report.html"))} == {"1", "2"}
    code, out, _ = run(capsys, "report", str(old / "trainings"), "--html", "--output", "mine.html")
    assert (code, out) == (0, "page: mine.html\n")
    assert sections(Path("mine.html")) == sections(own)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--output", "a.html"), "--output: names the file of the page, which is not asked for. Add --html"),
        (("--html", "--output", "old"), "--output: old is a directory. Name a file in it: old/report.html"),
        (
            ("--html", "--output", "no/a.html"),
            "--output: there is no directory no. Make it, or name another file",
        ),
    ],
)
def test_a_page_that_cannot_be_where_it_is_asked_for(
    old: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], complaint: str
) -> None:
    code, out, err = run(capsys, "report", str(old / "trainings"), *arguments)
    assert (code, out, err) == (2, "", f"error: {complaint}\n")


def test_a_run_in_a_folder_that_is_not_writable_says_what_to_do(
    old: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = next((old / "trainings").iterdir())

    def refuse(path: Path, content: bytes) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("fusetune.bench.results.whole_file.write_whole", refuse)
    monkeypatch.setattr("fusetune.bench.results.write_whole", refuse, raising=False)
    code, _, err = run(capsys, "report", str(own), "--html")
    assert code == 2
    assert err == (
        f"error: {own}/report.html: not allowed; Permission denied. "
        "Write the page elsewhere: `bench report DIRECTORY --html --output FILE`\n"
    )
    assert os.listdir(own) == os.listdir(OLD_RUNS / own.relative_to(old))
