"""Programs that this project did not write: how they start, how they end, and what they see."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from fusetune.bench.workers import running_program

PYTHON = [sys.executable, "-I", "-S", "-c"]


@pytest.mark.parametrize(
    ("code", "expected"),
    [("", 0), ("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 15)", -signal.SIGTERM)],
)
def test_a_program_has_its_own_exit_code(code: str, expected: int) -> None:
    with running_program([*PYTHON, code]) as program:
        assert program.wait() == expected


def test_a_program_has_its_streams_its_folder_its_variables_and_a_group_of_its_own(tmp_path: Path) -> None:
    code = (
        "import os, sys; print(sys.stdin.read(), os.getcwd(), os.environ['X'], os.getsid(0) == os.getpgrp())"
    )
    with running_program(
        [*PYTHON, code],
        cwd=tmp_path,
        env={"X": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        out, _ = program.communicate("in")
        assert out.split() == ["in", str(tmp_path.resolve()), "1", "True"]


def test_a_program_inherits_nothing_of_its_guard(request: pytest.FixtureRequest) -> None:
    """No descriptor besides the three streams, and no signal that is ignored or blocked."""
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    # A shell's job in the background ignores the first two, and one under nohup the last. So would all that it starts.
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            request.addfinalizer(partial(signal.signal, number, signal.SIG_IGN))
            signal.signal(number, signal.SIG_DFL)
    with running_program(
        ["/bin/sh", "-c", "ls /proc/self/fd; grep -E '^Sig(Blk|Ign)' /proc/self/status"],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    ) as program:
        out = program.communicate()[0].split()
    assert out[:3] == ["0", "1", "2"]
    assert (
        len([word for word in out if word.isdigit() and len(word) < 4]) == 4
    )  # and the listed folder itself
    # The C library keeps signals 32 and 33 for itself: no program can set them, so they stay as this test found them.
    masks = [int(out[place], 16) & ~(0b11 << 31) for place in (-3, -1)]
    assert out[-2] == "SigIgn:"
    assert masks == [0, 0]


@pytest.mark.parametrize(("word", "error"), [("./nothing-there", FileNotFoundError), ("/", PermissionError)])
def test_a_program_that_cannot_be_started_is_an_error_at_once(word: str, error: type[OSError]) -> None:
    with pytest.raises(error, match=word), running_program([word]):
        pytest.fail("the block was entered")


def test_a_program_that_still_runs_is_asked_and_may_clean_up(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time\n"
        "def clean_up(number, frame):\n"
        "    open('cleaned', 'w').close()\n"
        "    sys.exit(5)\n"
        "signal.signal(signal.SIGINT, clean_up)\n"
        "open('ready', 'w').close()\n"
        "while True: time.sleep(0.01)\n"
    )
    with running_program([*PYTHON, code], asked_by=signal.SIGINT, grace_s=60, cwd=tmp_path) as program:
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
    assert program.returncode == 5
    assert (tmp_path / "cleaned").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a guard")
def test_a_program_whose_guard_is_killed_ends(tmp_path: Path) -> None:
    code = "import os, time; open('child', 'w').write(f'{os.getpid()}\\n'); time.sleep(600)"
    with running_program([*PYTHON, code], cwd=tmp_path) as program:
        file = tmp_path / "child"
        while not file.exists() or not file.read_text().endswith("\n"):
            time.sleep(0.01)
        assert int(file.read_text()) != program.pid
        os.kill(program.pid, signal.SIGKILL)
        state = Path(f"/proc/{int(file.read_text())}/stat")
        while state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
    assert program.returncode == -signal.SIGKILL
