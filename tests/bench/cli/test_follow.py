"""`bench report --html --follow`: a page that is written anew while a run goes on, by a clock that a test moves."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fusetune.bench.cli import follow as room
from fusetune.bench.cli.follow import Follower
from fusetune.bench.cli.page_file import part_of
from fusetune.bench.errors import RunDirectoryError
from fusetune.bench.results import RunDirectory, acquire_lock, is_being_written, study_run
from tests.bench.cli.test_commands import run

ROOT = Path(__file__).parents[3]
OLD_RUNS = ROOT / "tests" / "bench" / "old_runs"


class Script:
    """A run's directory and a clock. At each second what the script has for it happens."""

    def __init__(self, directory: Path, events: dict[int, Callable[[], None]], *, ends_at: int) -> None:
        self.directory = directory
        self.events = events
        self.ends_at = ends_at
        self.second = 0
        self.write_takes = 0
        self.fails: list[RunDirectoryError] = []
        self.written: list[tuple[int, bool, int | None, int]] = []
        self.said: list[str] = []

    def now(self) -> float:
        return self.second

    def sleep(self, seconds: float) -> None:
        self.second += round(seconds)
        self.events.get(self.second, lambda: None)()

    def is_running(self, directory: Path) -> bool:
        assert directory == self.directory
        return self.second < self.ends_at

    def write(self, is_running: bool, refresh_s: int | None) -> str:
        if self.fails:
            raise self.fails.pop(0)
        path = self.directory / "records.jsonl"
        count = path.read_bytes().count(b"\n") if path.exists() else 0
        self.written.append((self.second, is_running, refresh_s, count))
        self.second += self.write_takes
        return f"Running: {count} trials." if is_running else ""

    def play(self) -> list[tuple[int, bool, int | None, int]]:
        Follower(self.directory, self.write, self.said.append, self.is_running, self).follow()
        return self.written


def append(path: Path, text: str = "{}\n") -> Callable[[], None]:
    def add() -> None:
        with path.open("a") as file:
            file.write(text)

    return add


def test_the_page_is_written_when_records_came_at_most_every_five_seconds_and_once_at_the_end(
    tmp_path: Path,
) -> None:
    records = tmp_path / "records.jsonl"
    events = {second: append(records) for second in (2, 3, 4, 30, 99)}
    script = Script(tmp_path, events, ends_at=100)
    assert script.play() == [
        (0, True, 5, 0),
        (5, True, 5, 3),
        (30, True, 5, 4),
        (99, True, 5, 5),
        (100, False, None, 5),
    ]
    assert script.said == [
        "Running: 0 trials. The page follows until the run is over, or Ctrl-C.",
        "The run is over, and whole.",
    ]


def test_the_log_of_a_search_counts_too(tmp_path: Path) -> None:
    script = Script(tmp_path, {8: append(tmp_path / "search.jsonl")}, ends_at=20)
    assert [second for second, *_ in script.play()] == [0, 8, 20]


def test_a_page_that_takes_long_is_written_less_often_and_loads_itself_less_often(tmp_path: Path) -> None:
    events = {second: append(tmp_path / "records.jsonl") for second in range(1, 200)}
    script = Script(tmp_path, events, ends_at=150)
    script.write_takes = 3
    *shown, last = script.play()
    assert [second for second, *_ in shown] == [0, 63, 126]
    assert [refresh_s for *_, refresh_s, _ in shown] == [5, 60, 60]
    assert last[1:3] == (False, None)


def test_a_run_that_is_over_has_its_page_once(tmp_path: Path) -> None:
    assert Script(tmp_path, {}, ends_at=0).play() == [(0, False, None, 0)]


def test_ctrl_c_leaves_a_page_that_does_not_load_itself_again(tmp_path: Path) -> None:
    def press() -> None:
        raise KeyboardInterrupt

    script = Script(tmp_path, {3: press}, ends_at=100)
    assert script.play() == [(0, True, 5, 0), (3, True, None, 0)]
    assert script.said[-1] == "Running: 0 trials."


def test_what_cannot_be_read_or_written_now_is_said_once_and_tried_again(tmp_path: Path) -> None:
    script = Script(tmp_path, {}, ends_at=30)
    full = RunDirectoryError("report.html", "the disk is full", to_do="Free some space.")
    script.fails = [full, full, full]
    assert script.play() == [(15, True, 5, 0), (30, False, None, 0)]
    assert script.said[0] == "note: report.html: the disk is full. Free some space. It is tried again."
    assert len(script.said) == 3


def test_a_last_page_that_cannot_be_written_and_a_directory_that_vanished_are_errors(tmp_path: Path) -> None:
    script = Script(tmp_path, {}, ends_at=0)
    script.fails = [RunDirectoryError("report.html", "the disk is full")]
    with pytest.raises(RunDirectoryError, match="the disk is full"):
        script.play()
    directory = tmp_path / "run"
    directory.mkdir()
    script = Script(directory, {4: directory.rmdir}, ends_at=10)
    with pytest.raises(RunDirectoryError, match="run: is gone; the run was followed there until now"):
        script.play()


# Who holds a lock.


def test_a_lock_that_is_held_is_seen_by_others_without_being_touched(tmp_path: Path) -> None:
    assert not is_being_written(tmp_path)
    lock = acquire_lock(tmp_path)
    before = (tmp_path / "lock").stat()
    assert is_being_written(tmp_path)
    assert (tmp_path / "lock").stat() == before
    os.close(lock)
    assert not is_being_written(tmp_path)
    again = os.open(tmp_path / "lock", os.O_RDWR)
    fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody else holds it
    os.close(again)


def test_without_a_list_of_locks_the_process_counts_whose_number_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Path.read_text

    def without_proc(path: Path, *args: str | None, **more: str | None) -> str:
        if path == Path("/proc/locks"):
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return read(path, *args, **more)

    monkeypatch.setattr(Path, "read_text", without_proc)
    lock = acquire_lock(tmp_path)
    assert is_being_written(tmp_path)
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    for content, expected in (
        (f"{ended.pid}\n", False),
        ("1\n", True),
        ("no number", False),
        ("9" * 40, False),
    ):
        (tmp_path / "lock").write_text(content)
        assert is_being_written(tmp_path) == expected, content
    os.close(lock)


# A real run's directory.


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The directory of an old run of trainings."""
    return Path(shutil.copytree(next((OLD_RUNS / "trainings").iterdir()), tmp_path / "run"))


def status_of(path: Path, **more: bool) -> str:
    directory = RunDirectory.open(path)
    records, _ = directory.records()
    return part_of(directory, records, study_run(directory, records), **more).status


def test_a_page_tells_a_run_that_goes_on_from_one_that_was_killed_and_one_that_is_whole(own: Path) -> None:
    lines = (own / "records.jsonl").read_bytes().splitlines(keepends=True)
    count = len(lines)
    assert status_of(own) == ""
    assert status_of(own, is_running=True) == f"Running: {count} of {count} trials."
    (own / "records.jsonl").write_bytes(b"".join(lines[:-2]))
    assert re.fullmatch(
        rf"Interrupted: {count - 2} of {count} trials, 2 are missing\. "
        rf"Continue with `.*bench run --resume {re.escape(str(own))}`\.",
        status_of(own),
    )
    lock = acquire_lock(own)
    assert status_of(own) == f"Running: {count - 2} of {count} trials."
    os.close(lock)


@pytest.mark.parametrize("kind", sorted(path.name for path in OLD_RUNS.iterdir() if path.is_dir()))
def test_a_page_can_be_written_before_the_first_record(kind: str, tmp_path: Path) -> None:
    path = Path(shutil.copytree(next((OLD_RUNS / kind).iterdir()), tmp_path / "run"))
    for name in ("records.jsonl", "search.jsonl"):
        (path / name).unlink(missing_ok=True)
    assert status_of(path, is_running=True).startswith("Running: 0 ")


def test_a_line_that_is_being_written_is_no_news_and_no_error(
    own: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is over when it is looked at for the third time."""
    monkeypatch.setattr(os, "nice", lambda _: 0)
    monkeypatch.setattr(room, "SystemClock", lambda: Script(own, {}, ends_at=0))
    looks = iter([True, True])
    monkeypatch.setattr(
        "fusetune.bench.results.is_being_written", lambda _: next(looks, False), raising=False
    )
    with (own / "records.jsonl").open("a") as file:
        file.write('{"trial": "half')
    before = {path.name: path.read_bytes() for path in own.iterdir()}
    code, out, err = run(capsys, "report", str(own), "--html", "--follow")
    assert (code, err) == (0, "")
    page, running, note, over = out.splitlines()
    assert page == f"page: {own}/report.html"
    assert running.startswith("Running: ")
    assert note.endswith("records.jsonl: the last line was cut short by a crash and is left out")
    assert over == "The run is over, and whole."
    after = {path.name: path.read_bytes() for path in own.iterdir()}
    html = after.pop("report.html").decode()
    assert after == before
    assert 'http-equiv="refresh"' not in html


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("run", "--follow"), "--follow: writes a page, which is not asked for. Add --html"),
        (("run", "run", "--html", "--follow"), "--follow: follows one run, and 2 are named. Name one"),
    ],
)
def test_what_cannot_be_followed(
    own: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    complaint: str,
) -> None:
    monkeypatch.chdir(own.parent)
    assert run(capsys, "report", *arguments) == (2, "", f"error: {complaint}\n")


@pytest.mark.slow
def test_a_real_run_is_followed_to_its_end(tmp_path: Path) -> None:
    """The page grows while the run goes on, and ends like the one that `bench report --html` writes."""
    spec = ROOT / "specs" / "smoke.yaml"
    words = [sys.executable, "-m", "bench"]
    settings = [
        "--set",
        "factors={optimizer: [momentum, adam]}",
        "--set",
        "train.epochs=3",
        "--set",
        "target=null",
    ]
    with subprocess.Popen(
        [*words, "run", str(spec), *settings, "--results", str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        until = time.monotonic() + 120
        while not (found := list(tmp_path.glob("smoke/*/run.json"))) and time.monotonic() < until:
            assert running.poll() is None
            time.sleep(0.2)
        directory = found[0].parent
        followed = subprocess.run(
            [*words, "report", str(directory), "--html", "--follow", "--output", str(tmp_path / "live.html")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        output, _ = running.communicate(timeout=240)
    assert running.returncode == 0, output
    assert followed.returncode == 0, followed.stderr
    assert output.rstrip().splitlines()[-1] == f"page: {directory}/report.html"
    page, *_, over = followed.stdout.splitlines()
    assert page == f"page: {tmp_path}/live.html"
    assert over == "The run is over, and whole."
    live, last = ((path).read_text() for path in (tmp_path / "live.html", directory / "report.html"))
    assert [re.sub("Written .* by", "", each) for each in (live, last)] == [
        re.sub("Written .* by", "", last)
    ] * 2
    assert not list(tmp_path.rglob("*.unfinished"))


@pytest.mark.slow
def test_an_interrupted_run_leaves_a_page_that_says_how_to_continue(tmp_path: Path) -> None:
    spec = ROOT / "specs" / "smoke.yaml"
    words = [sys.executable, "-m", "bench"]
    settings = ["--set", "factors={}", "--set", "factors.optimizer=[momentum, adam]", "--set", "seeds=100"]
    with subprocess.Popen(
        [*words, "run", str(spec), *settings, "--results", str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        until = time.monotonic() + 120
        while not list(tmp_path.glob("smoke/*/records.jsonl")) and time.monotonic() < until:
            assert running.poll() is None
            time.sleep(0.2)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=120)
    assert running.returncode == 130, err
    (page,) = tmp_path.glob("smoke/*/report.html")
    assert err.rstrip().splitlines()[-1] == f"page: {page}"
    text = page.read_text()
    assert re.search(r"Interrupted: \d+ of \d+ trials, \d+ are missing\. Continue with <code>", text)
    assert f"bench run --resume {page.parent}" in text
