"""Progress with a fake clock: what a terminal and a log show, and the time left."""

from __future__ import annotations

import io
import threading
from typing import Any

import pytest
from rich.console import Console

from fusetune.bench.report.live import Progress
from fusetune.bench.results.records import STATUSES, Record


class FakeClock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def log(clock: FakeClock) -> tuple[Progress, io.StringIO]:
    out = io.StringIO()
    return Progress(Console(file=out, force_terminal=False, width=100), clock=clock), out


def finished(trial: str, status: Any = "ok", reason: str = "", **values: float) -> Record:
    return Record(trial, {}, 0, status, reason, values)


def frame(progress: Progress) -> str:
    """What the live display shows, as text."""
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(progress.frame())
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_log_has_the_banner_a_line_per_start_and_end_and_the_time_left() -> None:
    clock = FakeClock()
    progress, out = log(clock)
    progress.message("cifar on a stand-in")
    progress.start(3, 0)
    progress.trial_started("a=1,seed=0", 1)
    clock.now += 20
    progress.trial_finished(finished("a=1,seed=0", time_to_target_s=12.5, best_val_accuracy=0.615), 1)
    progress.stop()
    assert out.getvalue().splitlines() == [
        "cifar on a stand-in",
        "3 trials",
        "[1/3] a=1,seed=0",
        "[1/3] ok  target in 12.5 s  best val acc 61.50 %  (20.0 s so far, about 40.0 s left)",
    ]


def test_a_log_reports_a_trial_in_flight_at_most_every_ten_seconds() -> None:
    clock = FakeClock()
    progress, out = log(clock)
    progress.start(1, 0)
    progress.trial_started("t", 1)
    for step in range(1, 61):
        clock.now += 0.5
        progress.trial_progress("t", {"epoch": 1, "epochs": 4, "step": step, "steps": 240, "loss": 1.5})
    lines = [line for line in out.getvalue().splitlines() if "epoch" in line]
    assert lines == ["[1/1] epoch 1/4  loss 1.5"] * 3


def test_a_long_line_of_a_log_is_wrapped_and_loses_nothing() -> None:
    clock = FakeClock()
    progress, out = log(clock)
    progress.start(1, 0)
    progress.trial_finished(finished("t", "failed", "ValueError: " + "x" * 200), 1)
    assert max(map(len, out.getvalue().splitlines())) <= 100
    assert out.getvalue().count("x") == 200


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_has_its_line_and_trouble_its_reason(status: str) -> None:
    progress, out = log(FakeClock())
    progress.start(1, 0)
    progress.trial_finished(finished("t", status, "because of [brackets]"), 1)
    line = out.getvalue().splitlines()[-1]
    assert line.startswith("[1/1] ")
    assert ("because of [brackets]" in line) == (status in ("diverged", "out_of_memory", "failed"))


def test_contention_is_said_while_a_trial_runs_and_where_it_ends() -> None:
    clock = FakeClock()
    progress, out = log(clock)
    progress.start(1, 0)
    progress.trial_started("t", 1)
    for missing in (0.05, 0.45):
        clock.now += 20
        progress.trial_progress("t", {"epoch": 1, "epochs": 4, "processor_missing": missing})
    progress.trial_finished(finished("t", processor_missing=0.3), 1)
    quiet, busy, end = out.getvalue().splitlines()[-3:]
    assert "contended" not in quiet
    assert "contended: 45 %" in busy
    assert "contended: 30 %" in end


def test_the_time_left_is_the_mean_of_finished_trials_times_those_to_come() -> None:
    clock = FakeClock()
    progress, _ = log(clock)
    progress.start(5, 1)
    for index, seconds in ((2, 10.0), (3, 30.0)):
        progress.trial_started(f"t{index}", index)
        clock.now += seconds
        progress.trial_finished(finished(f"t{index}"), index)
    assert progress.time_left_s() == 2 * 20.0
    progress.trial_started("t4", 4)
    clock.now += 5
    assert progress.time_left_s() == 20.0 + (20.0 - 5)


def test_a_trial_in_flight_counts_by_the_part_of_its_steps_that_is_done() -> None:
    clock = FakeClock()
    progress, _ = log(clock)
    progress.start(3, 0)
    progress.trial_started("t", 1)
    assert progress.time_left_s() is None
    clock.now += 10
    progress.trial_progress("t", {"step": 25, "steps": 100})
    assert progress.time_left_s() == pytest.approx(30 + 2 * 40)


def test_trials_side_by_side_share_the_time_left() -> None:
    clock = FakeClock()
    progress, _ = log(clock)
    progress.start(6, 0)
    for name, index in (("a", 1), ("b", 2)):
        progress.trial_started(name, index)
    clock.now += 10
    for name in "ab":
        progress.trial_progress(name, {"step": 50, "steps": 100})
    assert progress.time_left_s() == pytest.approx((10 + 10 + 4 * 20) / 2)


def test_nothing_is_left_at_the_end() -> None:
    clock = FakeClock()
    progress, _ = log(clock)
    progress.start(1, 1)
    assert progress.time_left_s() == 0.0


def test_the_frame_shows_every_trial_in_flight_and_the_overall_bar() -> None:
    clock = FakeClock()
    progress, _ = log(clock)
    progress.start(8, 2)
    for name, index in (("a=1,seed=0", 3), ("a=2,seed=0", 4)):
        progress.trial_started(name, index)
    progress.trial_progress(
        "a=1,seed=0",
        {
            "epoch": 2,
            "epochs": 4,
            "step": 50,
            "steps": 100,
            "loss": 1.25,
            "val_accuracy": 0.5,
            "samples_per_s": 4321.0,
        },
    )
    clock.now += 30
    text = frame(progress)
    assert "[3/8] a=1,seed=0\n      epoch 2/4  loss 1.25  val acc 50.00 %  4,321 samples/s\n" in text
    assert "[4/8] a=2,seed=0\n      starting\n" in text
    assert "2/8 trials, 30.0 s so far, about" in text


def test_unknown_values_of_a_trial_are_left_out() -> None:
    progress, _ = log(FakeClock())
    progress.start(1, 0)
    progress.trial_started("t", 1)
    progress.trial_progress("t", {"phase": "loading data", "loss": None, "val_accuracy": None, "steps": None})
    assert frame(progress).splitlines()[1].strip() == "loading data"


def test_progress_of_a_trial_that_has_ended_is_ignored() -> None:
    progress, out = log(FakeClock())
    progress.start(1, 0)
    progress.trial_started("t", 1)
    progress.trial_finished(finished("t"), 1)
    before = out.getvalue()
    progress.trial_progress("t", {"epoch": 3})
    assert out.getvalue() == before


def test_a_terminal_keeps_finished_trials_as_lines_and_takes_the_display_away() -> None:
    clock = FakeClock()
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, color_system=None, legacy_windows=False)
    progress = Progress(console, clock=clock)
    progress.message("banner")
    progress.start(2, 0)
    progress.trial_started("t1", 1)
    progress.trial_finished(finished("t1", "diverged", "loss was NaN at step 7"), 1)
    progress.message("a note")
    progress.stop()
    progress.stop()
    text = out.getvalue()
    assert "[1/2] t1  diverged  loss was NaN at step 7" in text
    assert "a note" in text
    assert text.index("banner") < text.index("diverged") < text.index("a note")
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h")


def test_threads_may_report_at_once() -> None:
    progress, out = log(FakeClock())
    progress.start(40, 0)

    def work(first: int) -> None:
        for index in range(first, first + 10):
            progress.trial_started(f"t{index}", index)
            progress.trial_progress(f"t{index}", {"step": 1, "steps": 2})
            progress.trial_finished(finished(f"t{index}"), index)

    threads = [threading.Thread(target=work, args=(first,)) for first in (1, 11, 21, 31)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [line for line in out.getvalue().splitlines() if "] ok" in line]
    assert {line.split("/")[0].strip("[ ") for line in lines} == {str(index) for index in range(1, 41)}
    assert len(lines) == 40
    assert progress.time_left_s() == 0.0


class AskingFile(io.StringIO):
    """A console's file that, at every write, has another thread ask for a frame, as the live display does."""

    progress: Progress | None = None

    def write(self, text: str) -> int:
        if self.progress is not None:
            asking = threading.Thread(target=self.progress.frame, daemon=True)
            asking.start()
            asking.join(timeout=5)
            assert not asking.is_alive(), "a lock was held while printing"
        return super().write(text)


def test_no_lock_is_held_while_printing() -> None:
    clock = FakeClock()
    out = AskingFile()
    progress = Progress(Console(file=out, force_terminal=False, width=100), clock=clock)
    out.progress = progress
    progress.message("banner")
    progress.start(2, 0)
    progress.trial_started("t", 1)
    clock.now += 60
    progress.trial_progress("t", {"epoch": 1, "epochs": 2})
    progress.trial_finished(finished("t"), 1)
    progress.message("a note")
    assert len(out.getvalue().splitlines()) == 6


def on_a_cluster(progress: Progress, nodes: int) -> None:
    """A trial on each of two devices a node."""
    places = [(node, device) for node in range(nodes) for device in "01"]
    for node, device in places:
        progress.device_joined(f"node-{node:02}", device, "Example GPU")
    for index, (node, device) in enumerate(places, start=1):
        trial = f"a={node},seed={device}"
        progress.trial_started(trial, index)
        update = {"node": f"node-{node:02}", "device": device, "samples_per_s": 10.0 * node}
        progress.trial_progress(trial, {**update, "step": 1, "steps": 4})


def test_the_frame_of_many_nodes_has_a_line_for_the_most_troubled_and_the_fastest() -> None:
    progress, _ = log(FakeClock())
    progress.start(1000, 0)
    on_a_cluster(progress, 64)
    progress.trial_lost("a=7,seed=1", "node-07", "the node does not answer", 1)
    lines = frame(progress).splitlines()
    assert len(lines) <= 18
    assert max(map(len, lines)) <= 100
    assert [line.split()[0] for line in lines[1:4]] == ["node-07", "node-63", "node-62"]
    assert lines[1].split()[1:6] == ["1/2", "0", "70", "1", "a=7,seed=0"]
    (rest,) = [line for line in lines if " others" in line]
    shown = {int(line[5:7]) for line in lines if line.startswith("node-")}
    others = set(range(64)) - shown
    assert rest.split()[:2] == [str(len(others)), "others"]
    assert f"{2 * len(others)}/{2 * len(others)}" in rest
    assert f"{20 * sum(others):,}" in rest
    assert "0/1000 trials, 64 nodes, 127 of 128 devices busy, 1 lost" in " ".join(frame(progress).split())


def test_a_log_of_several_nodes_counts_what_went_well() -> None:
    clock = FakeClock()
    progress, out = log(clock)
    progress.start(1000, 0)
    on_a_cluster(progress, 2)
    clock.now += 5
    progress.trial_finished(finished("a=0,seed=0"), 1)
    progress.trial_finished(finished("a=0,seed=1", "failed", "a reason"), 2)
    clock.now += 6
    progress.trial_progress("a=1,seed=0", {"step": 2})
    progress.trial_lost("a=1,seed=1", "node-01", "preempted", 1)
    progress.device_left("node-01", "1", "preempted")
    progress.device_left("node-01", "0", "preempted")
    assert out.getvalue().splitlines() == [
        "1000 trials",
        "[   2/1000] a=0,seed=1  failed  a reason  on node-00  (5.00 s so far, about 41m45s left)",
        "2/1000 trials, 2 nodes, 2 of 4 devices busy, 11.0 s so far, about 41m52s left",
        "[   4/1000] a=1,seed=1  lost on node node-01, attempt 1: preempted",
        "node node-01 left: preempted",
    ]
