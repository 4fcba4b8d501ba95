"""The tables as columns of plain values: trials, curves and samples. Pure, without pandas.

No name of a factor or of a metric can take the place of another column. A factor's column is `factor.<name>`, and a
number that is not in `bench.units.METRICS` is `value.<name>`. No other column has a dot in its name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fusetune.bench.results import KernelOutcome, Record, RunInfo, TuningOutcome
from fusetune.bench.spec import value_label
from fusetune.bench.units import METRICS

# text: any string. label: one of few. integer: never missing. count: one that may be missing. flag: true or false.
Type = Literal["text", "label", "integer", "count", "number", "flag"]
# Id of a run, its run.json, and its records.
Loaded = tuple[str, RunInfo, Sequence[Record]]

_MOST_WHOLE = 2**63
_MOST_EXACT = 2**53  # larger integers are not exact as float64
# Number of an epoch's entry -> its unit. Losses of range tests follow by their pattern.
_CURVE = {
    "epoch": "count",
    "step": "count",
    "samples": "count",
    "time_s": "s",
    **{
        f"{part}_{score}": unit
        for part in ("train", "val", "test")
        for score, unit in (("loss", "nats"), ("accuracy", "fraction"))
    },
    "lr": "none",
    "grad_norm": "none",
    "smoothed": "nats",
}
_REPEAT = re.compile(r"loss_\d+")


@dataclass(frozen=True)
class TableColumn:
    """A column of a table.

    Args:
        name: unique within the table.
        type: what its values are.
        values: one for each row. None: missing.
        unit: of numbers. Empty for all else.
    """

    name: str
    type: Type
    values: Sequence[Any]
    unit: str = ""


def trials_table(runs: Iterable[Loaded]) -> tuple[TableColumn, ...]:
    """Return a row for each record: where it is from, its status, its factors and its metrics.

    Args:
        runs: any number, of any kinds.

    Example:
        >>> record = Record("a", {"status": 3}, 0, "ok", values={"steps": 80})
        >>> [(column.name, column.values) for column in trials_table([("id", RunInfo(), [record])])][3:8]
        [('trial', ['a']), ('seed', [0]), ('status', ['ok']), ('reason', ['']), ('device_name', [None])]
        >>> [(column.name, column.values) for column in trials_table([("id", RunInfo(), [record])])][9:]
        [('factor.status', [3]), ('steps', [80])]
    """
    rows = _rows(runs)
    records = [record for _, _, record in rows]
    found = {name for record in records for name in record.values}
    metrics = [*(name for name in METRICS if name in found), *sorted(found - set(METRICS))]
    return (
        *_identity(rows),
        TableColumn("status", "label", [record.status for record in records]),
        TableColumn("reason", "text", [_text(record.reason) for record in records]),
        TableColumn("device_name", "label", [_device(run, record) for _, run, record in rows]),
        TableColumn("stand_in", "flag", [run.stand_in is not None for _, run, _ in rows]),
        *_factors(records),
        *(
            _numbers(name, [record.values.get(name) for record in records], unit_of(name), name in METRICS)
            for name in metrics
        ),
        *_tunings(records),
    )


def curves_table(runs: Iterable[Loaded]) -> tuple[TableColumn, ...]:
    """Return a row for each entry of each curve: an epoch of a training, or a rate of a range test.

    Args:
        runs: any number, of any kinds. Records without a curve have no row.
    """
    rows = [(name, run, record) for name, run, record in _rows(runs) for _ in record.curve]
    entries = [entry for _, _, record in _rows(runs) for entry in record.curve]
    found = {name for entry in entries for name in entry}
    repeats = sorted((name for name in found if _REPEAT.fullmatch(name)), key=lambda name: (len(name), name))
    known = {**_CURVE, **dict.fromkeys(repeats, "nats")}
    names = [*(name for name in known if name in found), *sorted(found - set(known))]
    return (
        *_identity(rows),
        *_factors([record for _, _, record in rows]),
        *(
            _numbers(name, [entry.get(name) for entry in entries], known.get(name, ""), name in known)
            for name in names
        ),
    )


def samples_table(runs: Iterable[Loaded]) -> tuple[TableColumn, ...]:
    """Return a row for each raw measurement. `side` and `policy` are only those of kernels and launch configs.

    Args:
        runs: any number, of any kinds.
    """
    series = [(row, *found) for row in _rows(runs) for found in _series(row[2])]
    repeated = [(row, name, side, policy) for row, name, side, policy, values in series for _ in values]
    numbers = [value for *_, values in series for value in values]
    return (
        *_identity([row for row, *_ in repeated]),
        TableColumn("metric", "label", [name for _, name, _, _ in repeated]),
        TableColumn("side", "label", [side for _, _, side, _ in repeated]),
        TableColumn("policy", "label", [policy for *_, policy in repeated]),
        TableColumn("index", "integer", [index for *_, values in series for index in range(len(values))]),
        TableColumn("value", "number", numbers),
        TableColumn("unit", "label", [unit_of(name) for _, name, _, _ in repeated]),
    )


TABLES: dict[str, Callable[[Iterable[Loaded]], tuple[TableColumn, ...]]] = {
    "trials": trials_table,
    "curves": curves_table,
    "samples": samples_table,
}


def unit_of(metric: str) -> str:
    """Return the unit of a metric or of a sample.

    Example:
        >>> unit_of("peak_bytes"), unit_of("replaced_step_time_s"), unit_of("confirm_lr")
        ('bytes', 's', 'none')
    """
    if metric in METRICS:
        return METRICS[metric].unit
    for ending, unit in (("_per_s", "none"), ("_s", "s"), ("_bytes", "bytes"), ("_loss", "nats")):
        if metric.endswith(ending):
            return unit
    return "none"


_Row = tuple[str, RunInfo, Record]


def _rows(runs: Iterable[Loaded]) -> list[_Row]:
    return [(name, run, record) for name, run, records in runs for record in records]


def _identity(rows: Sequence[_Row]) -> tuple[TableColumn, ...]:
    """Return what says which trial a row is of. `run` and `trial` together are unique."""
    return (
        TableColumn("run", "label", [_text(name) for name, _, _ in rows]),
        TableColumn("spec", "label", [_text(run.spec.name) for _, run, _ in rows]),
        TableColumn("kind", "label", [_text(run.kind) for _, run, _ in rows]),
        TableColumn("trial", "label", [_text(record.trial) for _, _, record in rows]),
        TableColumn("seed", "integer", [record.seed for _, _, record in rows]),
    )


def _device(run: RunInfo, record: Record) -> str | None:
    found = record.provenance.get("device_name") or run.machine.device_name
    return None if found is None else _text(str(found))


def _factors(records: Sequence[Record]) -> tuple[TableColumn, ...]:
    """Return a column for each factor of any record, in the order in which they occur."""
    names = dict.fromkeys(name for record in records for name in record.factors)
    return tuple(
        _factor(name, [(name in record.factors, record.factors.get(name)) for record in records])
        for name in names
    )


def _factor(name: str, cells: Sequence[tuple[bool, Any]]) -> TableColumn:
    """Return a factor's column: numbers, texts or flags where all levels are such, and labels in all other cases.

    null is a level, not a missing value, for pandas leaves missing values out of its groups.
    """
    levels = [value for is_there, value in cells if is_there]
    kinds = {type(value) for value in levels}
    kind: Type = "label"
    write: Callable[[Any], Any] = _label
    if kinds == {bool}:
        kind, write = "flag", bool
    elif kinds == {int} and all(-_MOST_WHOLE <= value < _MOST_WHOLE for value in levels):
        kind, write = "count", int
    elif kinds <= {int, float} and all(abs(value) <= _MOST_EXACT for value in levels if type(value) is int):
        kind, write = "number", float
    elif all(isinstance(value, str) for value in levels):
        write = _text
    values = [write(value) if is_there else None for is_there, value in cells]
    return TableColumn(_text(f"factor.{name}"), kind, values)


def _numbers(name: str, values: Sequence[float | None], unit: str, is_known: bool) -> TableColumn:
    """Return a column of numbers: integers where it counts something and every value is whole."""
    is_count = unit == "count" and all(value is None or float(value).is_integer() for value in values)
    cells = [None if value is None else int(value) if is_count else float(value) for value in values]
    return TableColumn(
        name if is_known else _text(f"value.{name}"), "count" if is_count else "number", cells, unit or "none"
    )


def _series(record: Record) -> Iterator[tuple[str, str | None, str | None, Sequence[float]]]:
    """Yield metric, side, policy and raw values of everything that a record measured."""
    if isinstance(record.outcome, KernelOutcome):
        from fusetune.bench.kernels import row_of_record

        row = row_of_record(record)
        for side in row.sides:
            for policy, times in side.latencies_s.items():
                yield "latency_s", _text(side.name), _text(policy), times
            if side.contention:
                yield "processor_missing", _text(side.name), None, side.contention
    elif isinstance(record.outcome, TuningOutcome):
        from fusetune.bench.autotune import config_text, tuning_of_record

        tuning = tuning_of_record(record)
        for candidate in tuning.candidates:
            yield "latency_s", config_text(candidate.config), _text(tuning.policy), candidate.samples_s
        confirmed = tuning.confirmation
        if confirmed is not None:
            fastest = next(
                (each.config for each in tuning.candidates if each.outcome == "fastest"), tuning.winner
            )
            yield "confirmation_s", config_text(tuning.default), _text(tuning.policy), confirmed.defaults_s
            yield "confirmation_s", config_text(fastest), _text(tuning.policy), confirmed.challengers_s
    else:
        for name, values in record.samples.items():
            yield _text(name), None, None, values


def _tunings(records: Sequence[Record]) -> tuple[TableColumn, ...]:
    """Return what tunings came to. Runs without one have no such columns."""
    if not any(isinstance(record.outcome, TuningOutcome) for record in records):
        return ()
    from fusetune.bench.autotune import config_text, tuning_of_record

    tunings = [
        tuning_of_record(record) if isinstance(record.outcome, TuningOutcome) else None for record in records
    ]
    found = [tuning.confirmation if tuning else None for tuning in tunings]

    def known(name: str) -> list[float | None]:
        numbers = [None if each is None else float(getattr(each, name)) for each in found]
        return [None if number is None or math.isnan(number) else number for number in numbers]

    return (
        TableColumn(
            "default", "label", [config_text(tuning.default) if tuning else None for tuning in tunings]
        ),
        TableColumn(
            "winner", "label", [config_text(tuning.winner) if tuning else None for tuning in tunings]
        ),
        TableColumn("gain", "number", known("gain"), "none"),
        TableColumn("gain_low", "number", known("low"), "none"),
        TableColumn("gain_high", "number", known("high"), "none"),
    )


def _label(value: Any) -> str:
    return _text(value_label(value))


def _text(text: str) -> str:
    """Return a text that every library can hold: a half of a surrogate pair is written out."""
    return text.encode("utf-8", "backslashreplace").decode()
