"""Lines of records.jsonl as records. Lines as this version writes them can take a short way.

The short way accepts a part of what the long way accepts, with the same result. It leaves the rest to the long way,
which has the messages. A run can have 100,000 trainings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter
from pydantic_core import from_json

from fusetune.bench.kinds import function, kind_of
from fusetune.bench.results.curve_columns import CurveColumns
from fusetune.bench.results.records import Record, Status
from fusetune.bench.results.run_info import RunInfo
from fusetune.bench.results.schema import Index, checked_factors, checked_values, record_of

# Records of one run have few different provenances. With more of them than this, keeping them saves nothing.
_MOST_KEPT = 4096
_REST = b',"provenance":'
Reader = Literal["report", "page"]


@dataclass(frozen=True)
class _Head:
    """The fields of a record before its provenance, as this version writes them."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    schema_version: Literal[2]
    trial: str
    factors: dict[str, Any]
    seed: Index
    status: Status
    reason: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    samples: dict[str, list[float]] = field(default_factory=dict)
    curve: list[dict[str, float | None]] = field(default_factory=list)


_HEAD = TypeAdapter(_Head)


class RecordReader:
    """Reads the records of one run.

    Args:
        run: the run.
        needed_by: what reads the records. `report` is the study of the run's kind and its report in a terminal, see
            `bench.kinds.Kind.curve_fields`. `page` is the page too, see `page_fields` there. What these do not read is
            left out, and equal factors and equal provenances are one object. None: nothing is left out.
    """

    def __init__(self, run: RunInfo, *, needed_by: Reader | None = None) -> None:
        kind = kind_of(run.kind)
        self._kind = run.kind
        fields = None
        if kind is not None and needed_by is not None:
            fields = kind.page_fields if needed_by == "page" else kind.curve_fields
        self._curve_fields: tuple[str, ...] | None = None if fields is None else function(fields)(run)
        self._factors: dict[str, dict[str, Any]] = {}
        self._rests: dict[bytes, Record] = {}

    def quick(self, line: bytes) -> Record | None:
        """Return the record of a line, reduced for a report. None: the long way has to tell what the line is."""
        at = line.rfind(_REST)
        if self._curve_fields is None or at < 0:
            return None
        try:
            head = _HEAD.validator.validate_json(line[:at] + b"}")
            values = checked_values(head.values)
            factors = self._shared(self._factors, repr(head.factors), lambda: checked_factors(head.factors))
            rest = self._shared(self._rests, line[at:], lambda: self._rest(line[at + 1 :]))
        except (ArithmeticError, TypeError, ValueError):  # the errors of pydantic are ValueErrors
            return None
        return Record(
            head.trial,
            factors,
            head.seed,
            head.status,
            head.reason,
            values,
            {},
            CurveColumns(head.curve, self._curve_fields),
            rest.provenance,
            rest.findings,
            rest.outcome,
            rest.worker,
        )

    def build(self, content: Any) -> Record:
        """Return the record of a JSON object, the long way.

        Raises:
            LaterVersionError, ValueError: as `record_of`.
        """
        record = record_of(content, self._kind)
        if self._curve_fields is None:
            return record
        return replace(record, samples={}, curve=CurveColumns(record.curve, self._curve_fields))

    def _rest(self, line: bytes) -> Record:
        """Return a record that has what a line says from its provenance on, and nothing else."""
        content = from_json(b"{" + line)
        if not content.keys() <= {"provenance", "findings", "outcome", "worker"}:
            raise ValueError("a field of the head")
        return record_of(
            {"schema_version": 2, "trial": "", "factors": {}, "seed": 0, "status": "ok", **content},
            self._kind,
        )

    def _shared(self, kept: dict[Any, Any], key: Any, make: Callable[[], Any]) -> Any:
        """Return what was made for an equal key before, or make it. The number of those kept is bounded."""
        found = kept.get(key)
        if found is None:
            if len(kept) >= _MOST_KEPT:
                kept.clear()
            found = kept[key] = make()
        return found
