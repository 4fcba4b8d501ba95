"""Rows as records of a run, and back."""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, replace
from functools import cache
from statistics import median
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fusetune.bench.kernels.case import Case
from fusetune.bench.kernels.row import Row, SideResult
from fusetune.bench.results import KernelOutcome, Record, finite_or_null, first_fault
from fusetune.errors import InvalidValueError
from fusetune.kernels import TritonSearch

# What the latencies of the kernel by the row's own policy are called among the samples of a record.
LATENCY = "latency_s"


def factors_of(case: Case) -> dict[str, Any]:
    """Return what tells a case from others of its run. A forward is not named.

    Example:
        >>> from fusetune.bench.kernels import KernelSource
        >>> factors_of(Case(KernelSource("gelu"), "gelu", 1000, "float32"))
        {'kernel': 'gelu', 'shape': 1000, 'dtype': 'float32'}
    """
    named = {"kernel": case.kernel, "shape": case.shape, "dtype": case.dtype}
    return named if case.direction == "forward" else {**named, "direction": case.direction}


def record_of_row(row: Row) -> Record:
    """Return a row as a record. A row without a time is a failed record with the reason.

    Args:
        row: of any status.
    """
    own = row.policies[0].name
    ours = row.ours
    is_ok = row.status == "ok"
    rounds = list(ours.latencies_s.get(own, ())) if is_ok else []
    others = {name: times for name, times in ours.latencies_s.items() if name != own}
    content = asdict(replace(row, sides=(replace(ours, latencies_s=others), *row.sides[1:])))
    values = {
        "host_s": ours.host_s,
        "compile_s": ours.compile_s,
        "launches": ours.launches,
        "moved_bytes": row.bytes_moved,
        "extra_bytes": ours.extra_bytes,
        "processor_missing": median(ours.contention) if ours.contention else None,
        LATENCY: median(rounds) if rounds else None,
    }
    return Record(
        trial=row.case.name,
        factors=factors_of(row.case),
        seed=0,
        status="ok" if is_ok else "failed",
        reason="" if is_ok else f"{row.status}: {ours.reason}".rstrip(": "),
        values={name: float(value) for name, value in values.items() if value is not None} if is_ok else {},
        samples={LATENCY: rounds} if rounds else {},
        provenance={"device": row.case.device, "threads": row.case.threads},
        outcome=KernelOutcome(finite_or_null(content)),
    )


def row_of_record(record: Record) -> Row:
    """Return the row that a record holds.

    Raises:
        InvalidValueError: it holds none. The message names the field.
    """
    if not isinstance(record.outcome, KernelOutcome):
        raise InvalidValueError(record.trial, "holds no kernel's row")
    content = copy.deepcopy(record.outcome.row)
    for side in content.get("sides", ()):
        found = side.get("verification") if isinstance(side, dict) else None
        if isinstance(found, dict):
            # What is not finite is null on disk.
            found.update({name: math.inf for name in ("error", "eager_error") if found.get(name, 0) is None})
    try:
        row = _adapter().validate_python(content)
    except ValidationError as error:
        raise InvalidValueError("outcome.row", first_fault(error)) from None
    try:
        for search in row.searches:
            TritonSearch.from_row(search)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidValueError("outcome.row.searches", f"is no search of Triton's: {error}") from None
    rounds = record.samples.get(LATENCY)
    if not row.sides or not row.policies:
        raise InvalidValueError("outcome.row", "has no sides or no policies")
    if rounds is None:
        return row
    ours: SideResult = row.ours
    latencies_s = {row.policies[0].name: tuple(rounds), **ours.latencies_s}
    return replace(row, sides=(replace(ours, latencies_s=latencies_s), *row.sides[1:]))


@cache
def _adapter() -> TypeAdapter[Row]:
    return TypeAdapter(Row)
