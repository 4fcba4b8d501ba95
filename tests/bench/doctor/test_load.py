"""Who has the processor, by process files that the test makes up and by a process that it starts."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from fusetune.bench.doctor.checks import check_load
from fusetune.bench.doctor.load import BusyProcess, busy_processes, describe

TICKS = os.sysconf("SC_CLK_TCK")


def _process(root: Path, pid: int, name: str, seconds: float) -> None:
    folder = root / "proc" / str(pid)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stat").write_text(
        f"{pid} ({name}) R 1 1 1 0 -1 0 0 0 0 0 {round(seconds * TICKS)} 0 0 0 20 0 1 0\n"
    )


def test_seconds_of_the_interval_count_and_names_may_hold_anything(tmp_path: Path) -> None:
    _process(tmp_path, 2_000_001, "a (b) c", 100.0)
    _process(tmp_path, 2_000_002, "idle", 7.0)
    _process(tmp_path, os.getpid(), "this one", 1.0)

    def wait(seconds: float) -> None:
        _process(tmp_path, 2_000_001, "a (b) c", 100.0 + 1.5 * seconds)
        _process(tmp_path, 2_000_003, "new", 5.0)
        _process(tmp_path, os.getpid(), "this one", 9.0)

    (found,) = busy_processes(8.0, root=tmp_path, wait=wait) or []
    assert (found.pid, found.name, found.cores) == (2_000_001, "a (b) c", pytest.approx(1.5))
    assert busy_processes(0.0, root=tmp_path / "nowhere", wait=lambda _: None) is None


def _burn() -> None:
    while True:
        pass


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system has no /proc")
def test_a_process_that_burns_a_core_is_found() -> None:
    hog = multiprocessing.get_context("fork").Process(target=_burn, daemon=True)
    hog.start()
    try:
        time.sleep(0.05)
        found = {process.pid: process.cores for process in busy_processes(0.6) or []}
    finally:
        hog.kill()
    assert found[hog.pid] > 0.05


def test_the_load_is_a_note_where_others_have_the_processor_and_the_busiest_are_named() -> None:
    many = [BusyProcess(pid, "python", 0.5) for pid in range(5)]
    check = check_load(4.2, many, 2)
    assert check.state == "note"
    assert "pid 0" in check.detail
    assert "2 more 1.0" in describe(many)
    assert check_load(0.3, [BusyProcess(1, "shell", 0.06)], 2).state == "ok"
    assert [check_load(load, None, 4).state for load in (None, 1.0, 3.0)] == ["ok", "ok", "note"]
