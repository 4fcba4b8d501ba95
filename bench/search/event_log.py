"""A search on disk: its event log, search.jsonl in the run's directory.

Each line is an event. Replaying all lines in order restores the search. docs/records.md describes each field.

    {"event": "begin", "training": 0, "config": {"base_lr": 0.1}}    a training begins, numbers start at 0
    {"event": "epoch", "training": 0, "entry": {"epoch": 1, ...}}     its next epoch, as an entry of its curve
    {"event": "made again", "training": 0, "epochs": 2}               epochs that a second worker had to repeat
    {"event": "end", "training": 0, "status": "dropped", "reason": "..."}
    {"event": "conclude"}                                             the search is over and the winner is final

Only the process that holds the run's lock appends lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

from fusetune.bench.results import LineFile, Record, TrainingOutcome
from fusetune.bench.search.plan import BUDGET_SPENT, SearchPlan
from fusetune.bench.spec import freeze, same_value
from fusetune.tuner.search import SearchTrial, Status

LOG = "search.jsonl"
FAILED = ("diverged", "out_of_memory", "failed")
Entry = dict[str, float | None]


@dataclass
class Training:
    """The state of one training according to the log.

    Args:
        config: factor name -> value.
        entries: its learning curve. Each entry has a finite value of the metric.
        status, reason: as in `tuner.search.SearchTrial`.
        made_again: number of epochs that were repeated, because the worker that had trained them was lost.
    """

    config: dict[str, Any]
    entries: list[Entry] = field(default_factory=list)
    status: Status = "paused"
    reason: str = ""
    made_again: int = 0


class EventLog:
    """The events of one search.

    Args:
        directory: the run's directory.
        plan: the search's settings.
        records: the run's records. They replace a missing log.
        writing: whether to truncate a torn last line now and append each further event. Else the file stays unchanged.
        go_on: the command that continues the run, for the error message of a full disk.

    Attributes:
        note: a sentence on lines that were cut off, or on a log that was rebuilt from the records. Else empty.
        trainings: all trainings in the order in which they began.
        is_over: whether the search was concluded.
        spent: for each epoch of the budget, in order, the number of its training and the value that it reported. A
            training that failed spent an epoch without a value. Empty where the log was rebuilt from records.

    Raises:
        RunDirectoryError: the log cannot be read or changed, or a line is not an event of this search.
    """

    def __init__(
        self,
        directory: Path,
        plan: SearchPlan,
        records: Sequence[Record] = (),
        *,
        writing: bool = True,
        go_on: str = "",
    ) -> None:
        self._plan = plan
        self._writing = writing
        self._file = LineFile(
            directory / LOG, "an event of this search", "Restore the file, or start a new run.", go_on=go_on
        )
        self._apply: Mapping[str, Callable[[Mapping[str, Any]], None]] = {
            "begin": self._begun,
            "epoch": self._reported,
            "made again": self._repeated,
            "end": self._ended,
            "conclude": self._concluded,
        }
        self.trainings: list[Training] = []
        self.is_over = False
        self.spent: list[tuple[int, float | None]] = []
        missing = not self._file.path.exists()
        lines, torn = self._file.lines()
        if writing:
            self._file.cut_torn_line()
        self.note = self._file.torn_note if torn else ""
        for number, line in enumerate(lines, start=1):
            self._file.parse(number, line, self._take)
        if missing and records:
            self.note = (
                f"{self._file.path} is missing; the search is rebuilt from records.jsonl, "
                "without the trainings that had not ended"
            )
            self._take_from(records)
            self.spent = []

    def begin(self, trial: SearchTrial) -> None:
        """Append the beginning of a training, under the searcher's number."""
        self._add({"event": "begin", "training": trial.number, "config": trial.config})

    def report(self, trial: SearchTrial, entry: Mapping[str, float | None]) -> None:
        """Append a training's next epoch, as an entry of its curve."""
        self._add({"event": "epoch", "training": trial.number, "entry": dict(entry)})

    def add_repeats(self, trial: SearchTrial, epochs: int) -> None:
        """Append the number of a training's epochs that were repeated."""
        if epochs:
            self._add({"event": "made again", "training": trial.number, "epochs": epochs})

    def close(self, trial: SearchTrial) -> None:
        """Append how a training ended."""
        end = {"training": trial.number, "status": trial.status, "reason": trial.reason}
        self._add({"event": "end", **end})

    def conclude(self) -> None:
        """Append the end of the search."""
        self._add({"event": "conclude"})

    def values(self, training: Training) -> list[float]:
        """Return the metric after each epoch of a training."""
        return [cast(float, entry[self._plan.metric]) for entry in training.entries]

    def _add(self, *events: dict[str, Any]) -> None:
        """Append events to the file, then apply them as a reader of the file would."""
        if self._writing:
            self._file.append(events, allow_nan=True)
        for event in events:
            self._take(event)

    def _take(self, event: Any) -> None:
        """Apply an event to the trainings.

        Raises:
            ValueError, TypeError: the event does not belong to this search.
        """
        if not isinstance(event, Mapping):
            raise TypeError("an event is a mapping")
        kind = str(event.get("event"))
        if kind not in self._apply:
            raise ValueError(f"unknown event {kind!r}; known: {', '.join(self._apply)}")
        try:
            self._apply[kind](event)
        except KeyError as error:
            raise ValueError(f"{kind}: {error} is missing") from error

    def _begun(self, event: Mapping[str, Any]) -> None:
        if event["training"] != len(self.trainings):
            raise ValueError(
                f"training {event['training']!r} cannot begin; {len(self.trainings)} is the next"
            )
        self.trainings.append(Training(configuration(self._plan.space, event["config"])))

    def _reported(self, event: Mapping[str, Any]) -> None:
        training, entry = self._waiting(event), dict(event["entry"])
        value, epoch = entry[self._plan.metric], len(training.entries) + 1
        if not _is_number(value):
            raise ValueError(f"{self._plan.metric} is {value!r}, which is no finite number")
        if entry["epoch"] != epoch:
            raise ValueError(f"epoch {entry['epoch']!r} does not follow epoch {epoch - 1}")
        training.entries.append(entry)
        self.spent.append((event["training"], value))

    def _repeated(self, event: Mapping[str, Any]) -> None:
        self._waiting(event).made_again += int(event["epochs"])

    def _ended(self, event: Mapping[str, Any]) -> None:
        training, status = self._waiting(event), event["status"]
        if status not in get_args(Status) or status == "paused":
            known = ", ".join(name for name in get_args(Status) if name != "paused")
            raise ValueError(f"unknown status {status!r}; known: {known}")
        training.status, training.reason = status, str(event["reason"])
        if status in FAILED:
            self.spent.append((event["training"], None))

    def _concluded(self, event: Mapping[str, Any]) -> None:
        self.is_over = True

    def _waiting(self, event: Mapping[str, Any]) -> Training:
        """Return the event's training, after a check that it has begun and has not ended."""
        number = event["training"]
        if number not in range(len(self.trainings)):
            raise ValueError(f"training {number!r} has not begun")
        if self.trainings[number].status != "paused":
            raise ValueError(f"training {number} has ended before")
        training: Training = self.trainings[number]
        return training

    def _take_from(self, records: Sequence[Record]) -> None:
        """Rebuild the events from records, for a search whose log is missing or older than this format."""
        events: list[dict[str, Any]] = []
        known = 0
        for record in records:
            if record.seed == self._plan.seed and _is_of(record, self._plan.space):
                events += _events_of(record, known, self._plan.metric)
                known += 1
        if any(record.seed in self._plan.fresh_seeds for record in records):
            events.append({"event": "conclude"})
        self._add(*events)


def configuration(space: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration from disk with each value replaced by the equal choice of the space.

    Raises:
        ValueError: a factor is missing or unknown, or a value is not in the space.
    """
    if config.keys() != space.keys():
        raise ValueError(f"config: has {', '.join(config)}; the factors are {', '.join(space)}")
    found = {}
    for name, given in space.items():
        value = config[name]
        if isinstance(given, Mapping):
            if not _is_number(value) or not given["low"] <= value <= given["high"]:
                raise ValueError(
                    f"config.{name}: {value!r} is not between {given['low']!r} and {given['high']!r}"
                )
            found[name] = value
            continue
        # Records hold a mapping with only a name as that name. `freeze` treats the two as equal.
        same = [choice for choice in given if same_value(choice, value)]
        same += [choice for choice in given if freeze(choice) == freeze(value)]
        if not same:
            raise ValueError(f"config.{name}: {value!r} is none of the choices")
        found[name] = same[0]
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_of(record: Record, space: Mapping[str, Any]) -> bool:
    try:
        configuration(space, record.factors)
    except ValueError:
        return False
    return True


def _events_of(record: Record, number: int, metric: str) -> list[dict[str, Any]]:
    """Return the events of a training that has ended, as far as its record holds them."""
    events: list[dict[str, Any]] = [{"event": "begin", "training": number, "config": record.factors}]
    for entry in record.curve:
        if not _is_number(entry.get(metric)):
            break
        events.append({"event": "epoch", "training": number, "entry": entry})
    outcome = record.outcome if isinstance(record.outcome, TrainingOutcome) else TrainingOutcome()
    if repeats := outcome.epochs_made_again:
        events.append({"event": "made again", "training": number, "epochs": repeats})
    status, reason = "finished", record.reason
    if record.status in ("diverged", "out_of_memory", "failed"):
        status = record.status
    elif reason.startswith(("dropped: ", "paused: ")):
        status, reason = "dropped", reason.partition(": ")[2]
        reason = BUDGET_SPENT if reason.startswith(BUDGET_SPENT) else reason
    return [*events, {"event": "end", "training": number, "status": status, "reason": reason}]
