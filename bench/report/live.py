"""The progress of a run: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fusetune.bench.results import Record
from fusetune.bench.stats import STATUS_WORDS, counted, percent
from fusetune.bench.status import Board, by_node, device_words
from fusetune.bench.units import format_count, format_metric, format_seconds
from fusetune.tuner.measure import is_contended

PLAIN_INTERVAL_S = 10.0  # between two progress lines of a trial without a terminal
_REFRESH_PER_S = 4
# Lines of nodes in the display, and lines that it leaves free.
_LEAST_ROWS, _MOST_ROWS, _OTHER_LINES = 4, 16, 8
# With several nodes and more trials than this, one that went well has no line of its own.
_MOST_LINES = 200
_TROUBLES = ("diverged", "out_of_memory", "failed")
_COLOURS = {"ok": "green", "failed": "red"}


class Progress:
    """Shows the progress of a run. Its methods may be called from any thread.

    Args:
        console: a terminal gets a live display under the finished trials, anything else plain lines.
        clock: returns monotonic seconds.
        noun: what is counted.

    Example:
        >>> import sys
        >>> progress = Progress(Console(file=sys.stdout, force_terminal=False), clock=iter([0.0, 0.0, 2.0]).__next__)
        >>> progress.start(total=2, done=0)
        2 trials
        >>> progress.trial_started("batch_size=64,seed=0", 1)
        [1/2] batch_size=64,seed=0
        >>> record = Record("batch_size=64,seed=0", {}, 0, "ok", values={"time_to_target_s": 1.5})
        >>> progress.trial_finished(record, 1)
        [1/2] ok  target in 1.50 s  (2.00 s so far, about 2.00 s left)
        >>> progress.stop()
    """

    def __init__(
        self, console: Console, *, clock: Callable[[], float] = time.monotonic, noun: str = "trial"
    ) -> None:
        self._console = console
        self._clock = clock
        self._noun = noun
        # Never held while printing, because the display's thread holds its own lock when it asks for a frame.
        self._lock = threading.Lock()
        self._live: Live | None = None
        self._board = Board()
        # When a trial's last line was printed, or the last line on all nodes under the empty name.
        self._said_s: dict[str, float] = {}

    def start(self, total: int, done: int) -> None:
        """Begin: `total` trials planned, `done` of them recorded before."""
        with self._lock:
            self._board.start(total, done, now_s=self._clock())
        before = f", {done} of them recorded before" if done else ""
        self._print(Text(f"{counted(total, self._noun)}{before}"))
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(
                console=self._console,
                get_renderable=self.frame,
                refresh_per_second=_REFRESH_PER_S,
                transient=True,
            )
            self._live.start()

    def device_joined(self, node: str, device: str, kind: str) -> None:
        """Note that a device takes trials. With several nodes, the display has a line for each node."""
        with self._lock:
            self._board.device_joined(node, device, kind)

    def device_left(self, node: str, device: str, reason: str) -> None:
        """Note that a device takes no more trials. With the last one of a node, print that the node left, and why."""
        with self._lock:
            is_last = self._board.device_left(node, device, reason, now_s=self._clock())
        if is_last:
            self._print(Text(f"node {node} left: {reason}", style="yellow"))

    def trial_started(self, trial_id: str, index: int) -> None:
        """Note that the trial at position `index` (from 1) of the run has begun."""
        with self._lock:
            now = self._said_s[trial_id] = self._clock()
            self._board.trial_started(trial_id, index, now_s=now)
            by_trial = self._live is None and self._board.nodes == 1
        if by_trial:
            self._print(Text(f"{self._position(index)} {trial_id}"))

    def trial_progress(self, trial_id: str, update: Mapping[str, Any]) -> None:
        """Take news of a trial.

        Args:
            trial_id: of a trial that has begun.
            update: any of phase, epoch, epochs, step, steps, loss, val_accuracy, samples_per_s, processor_missing, and
                on a cluster its node and its device.
        """
        with self._lock:
            trial = self._board.trial_progress(trial_id, update)
            if trial is None:
                return
            now = self._clock()
            if self._board.nodes > 1:
                words = self._overall(now) if self._is_due("", now) else ""
            else:
                doing = self._is_due(trial_id, now)
                words = f"{self._position(trial.index)} {_doing(trial.update)}" if doing else ""
        if words:
            self._print(Text(words))

    def trial_lost(self, trial_id: str, node: str, reason: str, attempt: int) -> None:
        """Print that a trial was lost with its device or node, and waits again."""
        with self._lock:
            trial = self._board.flights.get(trial_id)
            self._board.trial_lost(trial_id, node, reason, attempt, now_s=self._clock())
            self._said_s.pop(trial_id, None)
        position = f"{self._position(trial.index)} " if trial is not None else ""
        self._print(
            Text(f"{position}{trial_id}  lost on node {node}, attempt {attempt}: {reason}", style="yellow")
        )

    def trial_finished(self, record: Record, index: int) -> None:
        """Print the finished trial as a line that stays.

        With several nodes and more than 200 trials, those in trouble have lines, and the others are counted.
        """
        with self._lock:
            now = self._clock()
            trial = self._board.flights.get(record.trial)
            self._board.trial_finished(record, now_s=now)
            self._said_s.pop(record.trial, None)
            several = self._board.nodes > 1
            overall = self._overall(now) if several and self._is_due("", now) else ""
            in_brief = several and self._board.total > _MOST_LINES and record.status not in _TROUBLES
            so_far = "" if in_brief or self._live is not None else self._so_far(now)
        if not in_brief:
            # Without a display, the line of the trial's start has its name, and the position identifies it.
            name = f"{record.trial}  " if self._live is not None or several else ""
            line = Text(f"{self._position(index)} {name}")
            line.append(STATUS_WORDS[record.status], style=_COLOURS.get(record.status, "yellow"))
            outcome = _outcome(record)
            line.append(f"  {outcome}" if outcome else "")
            if several and trial is not None and trial.node:
                line.append(f"  on {trial.node}")
            line.append(f"  ({so_far})" if so_far else "")
            self._print(line)
        if overall:
            self._print(Text(overall))

    def message(self, text: str) -> None:
        """Print a note or a warning that stays."""
        self._print(Text(text))

    def stop(self) -> None:
        """End the live display. Further calls do nothing."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def time_left_s(self) -> float | None:
        """Estimate the seconds left from the mean duration of the finished trials.

        Before the first trial has finished, durations are extrapolated from the steps that trials in flight have done.
        Trials in flight share the work to come. None: nothing is known yet.
        """
        with self._lock:
            return self._board.time_left_s(self._clock())

    def frame(self) -> RenderableType:
        """Build the live display: two lines for each trial in flight, or a line for each node, and the overall bar."""
        with self._lock:
            now = self._clock()
            board = self._board
            lines: list[RenderableType]
            if board.nodes > 1:
                wall = datetime.now(timezone.utc)
                lines = [by_node(board.status(now, wall), wall, self._most_rows())]
            else:
                lines = [
                    Text(line, no_wrap=True, overflow="ellipsis")
                    for trial_id, trial in board.flights.items()
                    for line in _two_lines(self._position(trial.index), trial_id, _doing(trial.update))
                ]
            shares = sum(trial.share for trial in board.flights.values())
            overall = Table.grid(padding=(0, 1), expand=True)
            overall.add_column(ratio=1)
            overall.add_column(no_wrap=True)
            overall.add_row(
                ProgressBar(total=max(board.total, 1), completed=board.done + shares), self._overall(now)
            )
            return Group(*lines, overall)

    def _overall(self, now: float) -> str:
        """Say how far the whole run is."""
        board = self._board
        words = f"{board.done}/{board.total} {self._noun}s"
        if board.nodes > 1:
            words += f", {device_words(board.status(now, datetime.now(timezone.utc)))}"
            words += f", {board.lost} lost" if board.lost else ""
        return f"{words}, {self._so_far(now)}"

    def _so_far(self, now: float) -> str:
        return f"{format_seconds(now - self._board.started_s)} so far{self._left_clause(now)}"

    def _is_due(self, name: str, now: float) -> bool:
        """Tell whether a log gets another line on a trial, or on all nodes under the empty name."""
        if self._live is not None or now - self._said_s.setdefault(name, now) < PLAIN_INTERVAL_S:
            return False
        self._said_s[name] = now
        return True

    def _most_rows(self) -> int:
        """Return how many nodes a terminal has room for."""
        return max(_LEAST_ROWS, min(_MOST_ROWS, self._console.height - _OTHER_LINES))

    def _left_clause(self, now: float) -> str:
        left = self._board.time_left_s(now)
        return (
            ""
            if left is None or self._board.done == self._board.total
            else f", about {format_seconds(left)} left"
        )

    def _position(self, index: int) -> str:
        """Write a trial's position in the run, right-aligned."""
        return f"[{index:>{len(str(self._board.total))}}/{self._board.total}]"

    def _print(self, line: Text) -> None:
        self._console.print(line, highlight=False)


def _two_lines(position: str, trial_id: str, doing: str) -> tuple[str, str]:
    return f"{position} {trial_id}", f"{' ' * len(position)} {doing}"


def _doing(update: Mapping[str, Any]) -> str:
    parts = []
    if update.get("phase"):
        parts.append(str(update["phase"]))
    if update.get("epoch") is not None:
        parts.append(f"epoch {update['epoch']}/{update.get('epochs', '?')}")
    if update.get("loss") is not None:
        parts.append(f"loss {update['loss']:.4g}")
    if update.get("val_accuracy") is not None:
        parts.append(f"val acc {format_metric('best_val_accuracy', update['val_accuracy'])}")
    if update.get("samples_per_s") is not None:
        parts.append(f"{format_count(update['samples_per_s'])} samples/s")
    if is_contended(update.get("processor_missing")):
        parts.append(_contended(update["processor_missing"]))
    return "  ".join(parts) or "starting"


def _contended(missing: float) -> str:
    return f"contended: {percent(missing)} of the processor missing"


def _outcome(record: Record) -> str:
    parts = []
    if record.status == "ok" and "time_to_target_s" in record.values:
        parts.append(f"target in {format_metric('time_to_target_s', record.values['time_to_target_s'])}")
    if "latency_s" in record.values:
        parts.append(f"latency {format_metric('latency_s', record.values['latency_s'])}")
    if "best_val_accuracy" in record.values:
        parts.append(f"best val acc {format_metric('best_val_accuracy', record.values['best_val_accuracy'])}")
    elif "best_val_loss" in record.values:
        parts.append(f"best val loss {format_metric('best_val_loss', record.values['best_val_loss'])}")
    if is_contended(record.values.get("processor_missing")):
        parts.append(_contended(record.values["processor_missing"]))
    if record.status in _TROUBLES and record.reason:
        parts.append(record.reason)
    return "  ".join(parts)
