"""Trials on several kinds of device: steps are pooled, times are of one kind.

A step takes another time on another device, and a training the same steps. So `time_to_target = steps_to_target x
step_time` can be written for a kind on which a trial was not run: its own steps, and the step time that its
configuration has there.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from fusetune.bench.results import Record
from fusetune.bench.spec import freeze

_STEP = ("step_time_s", "step_time_median_s", "samples_per_s")
# What was measured with a clock of the other device, or depends on its memory.
_OTHERS = (
    "setup_s",
    "first_step_s",
    "compile_s",
    "training_s",
    "evaluation_s",
    "peak_bytes",
    "processor_missing",
)


@dataclass(frozen=True)
class Kinds:
    """The kinds of device that a run's trials were on.

    Args:
        main: the kind whose times are compared: the one with the most trials, of as many the first by name.
        trials: kind -> number of trials.
        untimed: number of trials elsewhere whose configuration has no step time on `main`.
    """

    main: str
    trials: Mapping[str, int]
    untimed: int


def on_one_kind(records: Sequence[Record]) -> tuple[Sequence[Record], Kinds | None]:
    """Return the records with all times of one kind of device.

        time_to_target = steps_to_target x median over the configuration's trials on that kind of step_time

    Args:
        records: of a run. Their provenance has `device_name`.

    Returns:
        The records in their order, and the kinds. The same records and None where all are of one kind. A trial of
        another kind, whose configuration was never timed on the main one, has no times.

    Example:
        >>> def trial(seed, kind, steps, step_s):
        ...     values = {"steps_to_target": steps, "step_time_s": step_s, "time_to_target_s": steps * step_s}
        ...     return Record(f"seed={seed}", {}, seed, "ok", values=values, provenance={"device_name": kind})
        >>> trials = [trial(0, "H100", 100, 0.01), trial(1, "H100", 90, 0.03), trial(2, "A100", 80, 9)]
        >>> records, kinds = on_one_kind(trials)
        >>> kinds.main, records[2].values["time_to_target_s"]
        ('H100', 1.6)
    """
    trials = Counter(map(kind_of_device, records))
    trials.pop("", None)
    if len(trials) < 2:
        return records, None
    main = min(trials, key=lambda kind: (-trials[kind], kind))
    times: dict[object, dict[str, list[float]]] = {}
    for record in records:
        if kind_of_device(record) in (main, ""):
            found = times.setdefault(freeze(record.factors), {name: [] for name in _STEP})
            for name in _STEP:
                if name in record.values:
                    found[name].append(record.values[name])
    moved = [
        record
        if kind_of_device(record) in (main, "")
        else _moved(record, times.get(freeze(record.factors), {}))
        for record in records
    ]
    untimed = sum(
        "steps_to_target" in each.values and "time_to_target_s" not in each.values for each in moved
    )
    return moved, Kinds(main, dict(trials), untimed)


def kind_of_device(record: Record) -> str:
    """Return the name of the device that a trial was on. Empty where it is not known."""
    return str(record.provenance.get("device_name") or "")


def _moved(record: Record, times: Mapping[str, Sequence[float]]) -> Record:
    """Return a record of another kind with the step time that its configuration has on the main one."""
    gone = {*_STEP, *_OTHERS, "time_to_target_s"}
    values = {name: value for name, value in record.values.items() if name not in gone}
    values |= {name: median(found) for name, found in times.items() if found and name in record.values}
    steps, step_s = values.get("steps_to_target"), values.get("step_time_s")
    if steps is not None and step_s is not None:
        values["time_to_target_s"] = steps * step_s
    curve = [
        {**entry, "time_s": None if step_s is None or (step := entry.get("step")) is None else step * step_s}
        for entry in record.curve
    ]
    return dataclasses.replace(record, values=values, samples={}, curve=curve)
