"""The progress of a run: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fusetune.bench.results import Record
from fusetune.bench.stats import STATUS_WORDS, counted, percent
from fusetune.bench.units import format_count, format_metric, format_seconds
from fusetune.tuner.measure import is_contended

PLAIN_INTERVAL_S = 10.0  # between two progress lines of a trial without a terminal
_REFRESH_PER_S = 4
_COLOURS = {"ok": "green", "failed": "red"}


@dataclass
class _InFlight:
    index: int
    started_s: float
    said_s: float
    update: Mapping[str, Any] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Share of the trial's steps that are done, 0 to 1."""
        steps = self.update.get("steps") or 0
        return min(1.0, self.update.get("step", 0) / steps) if steps else 0.0


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
        self._total = 0
        self._done = 0
        self._started_s = 0.0
        self._durations_s: list[float] = []
        self._in_flight: dict[str, _InFlight] = {}

    def start(self, total: int, done: int) -> None:
        """Begin: `total` trials planned, `done` of them recorded before."""
        with self._lock:
            self._total, self._done, self._started_s = total, done, self._clock()
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

    def trial_started(self, trial_id: str, index: int) -> None:
        """Note that the trial at position `index` (from 1) of the run has begun."""
        with self._lock:
            now = self._clock()
            self._in_flight[trial_id] = _InFlight(index, now, now)
        if self._live is None:
            self._print(Text(f"{self._position(index)} {trial_id}"))

    def trial_progress(self, trial_id: str, update: Mapping[str, Any]) -> None:
        """Take news of a trial.

        Args:
            trial_id: of a trial that has begun.
            update: any of phase, epoch, epochs, step, steps, loss, val_accuracy, samples_per_s, processor_missing.
        """
        with self._lock:
            trial = self._in_flight.get(trial_id)
            if trial is None:
                return
            trial.update = {**trial.update, **update}
            now = self._clock()
            if self._live is not None or now - trial.said_s < PLAIN_INTERVAL_S:
                return
            trial.said_s = now
        self._print(Text(f"{self._position(trial.index)} {_doing(trial.update)}"))

    def trial_finished(self, record: Record, index: int) -> None:
        """Print the finished trial as a line that stays."""
        # Without a display, the line of the trial's start has its name, and the position identifies it.
        name = f"{record.trial}  " if self._live is not None else ""
        line = Text(f"{self._position(index)} {name}")
        line.append(STATUS_WORDS[record.status], style=_COLOURS.get(record.status, "yellow"))
        outcome = _outcome(record)
        line.append(f"  {outcome}" if outcome else "")
        with self._lock:
            now = self._clock()
            trial = self._in_flight.pop(record.trial, None)
            if trial is not None:
                self._durations_s.append(now - trial.started_s)
            self._done += 1
            if self._live is None:
                line.append(f"  ({format_seconds(now - self._started_s)} so far{self._left_clause(now)})")
        self._print(line)

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
            return self._time_left_s(self._clock())

    def frame(self) -> RenderableType:
        """Build the live display: two lines for each trial in flight, and the overall bar."""
        with self._lock:
            now = self._clock()
            lines: list[RenderableType] = [
                Text(line, no_wrap=True, overflow="ellipsis")
                for trial_id, trial in self._in_flight.items()
                for line in _two_lines(self._position(trial.index), trial_id, _doing(trial.update))
            ]
            shares = sum(trial.share for trial in self._in_flight.values())
            overall = Table.grid(padding=(0, 1), expand=True)
            overall.add_column(ratio=1)
            overall.add_column(no_wrap=True)
            overall.add_row(
                ProgressBar(total=max(self._total, 1), completed=self._done + shares),
                f"{self._done}/{self._total} {self._noun}s, {format_seconds(now - self._started_s)} so far"
                f"{self._left_clause(now)}",
            )
            return Group(*lines, overall)

    def _time_left_s(self, now: float) -> float | None:
        in_flight = [(now - trial.started_s, trial.share) for trial in self._in_flight.values()]
        known = self._durations_s or [elapsed / share for elapsed, share in in_flight if share > 0]
        waiting = self._total - self._done - len(in_flight)
        if not known:
            return 0.0 if not in_flight and waiting <= 0 else None
        usual_s = sum(known) / len(known)
        running_s = sum(
            elapsed / share - elapsed if share > 0 else max(0.0, usual_s - elapsed)
            for elapsed, share in in_flight
        )
        return (waiting * usual_s + running_s) / max(1, len(in_flight))

    def _left_clause(self, now: float) -> str:
        left = self._time_left_s(now)
        return "" if left is None or self._done == self._total else f", about {format_seconds(left)} left"

    def _position(self, index: int) -> str:
        """Write a trial's position in the run, right-aligned."""
        return f"[{index:>{len(str(self._total))}}/{self._total}]"

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
    if record.status in ("diverged", "out_of_memory", "failed") and record.reason:
        parts.append(record.reason)
    return "  ".join(parts)
