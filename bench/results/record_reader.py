"""Lines of records.jsonl as records. Lines as this version writes them can take a short way.

The short way accepts a part of what the long way accepts, with the same result. It leaves the rest to the long way,
which has the messages. A run can have 100,000 trainings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from msgspec import Meta, MsgspecError, Raw, Struct
from msgspec.json import Decoder

from fusetune.bench.kinds import function, kind_of
from fusetune.bench.results.curve_columns import CurveColumns
from fusetune.bench.results.packed_values import PackedValues
from fusetune.bench.results.records import SCHEMA_VERSION, Record, Status
from fusetune.bench.results.run_info import RunInfo
from fusetune.bench.results.schema import checked_factors, checked_values, record_of

# Records of one run have few different factors and provenances. With more than this, keeping them saves nothing.
_MOST_KEPT = 4096
Reader = Literal["report", "page"]
# A whole number stays one. Those beyond 64 bits take the long way, for a float may not hold them.
_Number = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | float


class _Line(Struct, forbid_unknown_fields=True, gc=False):
    """A line, as this version writes it: all fields are there. Those in `Raw` are known to be JSON, and no more."""

    schema_version: Literal[2]
    trial: str
    factors: Raw
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    status: Status
    reason: str
    values: dict[str, _Number]
    provenance: Raw
    findings: Raw
    outcome: Raw
    worker: Raw


class _Epoch(Struct, forbid_unknown_fields=True, gc=False):
    """An entry of a training's curve, for a report. A number that is not there is None, as one that is null."""

    epoch: float | None = None
    step: float | None = None
    samples: float | None = None
    time_s: float | None = None
    train_loss: float | None = None
    train_accuracy: float | None = None
    val_loss: float | None = None
    val_accuracy: float | None = None
    test_loss: float | None = None
    test_accuracy: float | None = None
    lr: float | None = None
    grad_norm: float | None = None


class _ReducedLine(_Line, kw_only=True, gc=False):
    """A line of a training, for a report."""

    samples: dict[str, list[float]]
    curve: list[_Epoch]


class _WholeLine(_Line, kw_only=True, gc=False):
    """A line of which all is kept."""

    samples: dict[str, list[_Number]]
    curve: list[dict[str, _Number | None]]


class RecordReader:
    """Reads the records of one run. Equal factors of them are one object, and so are equal provenances.

    Args:
        run: the run.
        needed_by: what reads the records. `report` is the study of the run's kind and its report in a terminal, see
            `bench.kinds.Kind.curve_fields`. `page` is the page too, see `page_fields` there. What these do not read is
            left out. None: nothing is.
    """

    def __init__(self, run: RunInfo, *, needed_by: Reader | None = None) -> None:
        kind = kind_of(run.kind)
        self._kind = run.kind
        fields = None
        if kind is not None and needed_by is not None:
            fields = kind.page_fields if needed_by == "page" else kind.curve_fields
        self._curve_fields: tuple[str, ...] | None = None if fields is None else function(fields)(run)
        self._decoder: Decoder[Any] = Decoder(_WholeLine if fields is None else _ReducedLine)
        self._factors: dict[bytes, dict[str, Any]] = {}
        self._rests: dict[tuple[bytes, ...], Record] = {}

    def quick(self, line: bytes) -> Record | None:
        """Return the record of a line, as `build` does. None: the long way has to tell what the line is."""
        fields = self._curve_fields
        try:
            found = self._decoder.decode(line)
            values: Mapping[str, float] = checked_values(found.values)
            if fields is not None:
                values = PackedValues(values)
            written = bytes(found.factors)
            factors = self._shared(self._factors, written, lambda: checked_factors(json.loads(written)))
            rest = self._shared(
                self._rests,
                parts := (
                    bytes(found.provenance),
                    bytes(found.findings),
                    bytes(found.outcome),
                    bytes(found.worker),
                ),
                lambda: self._rest(*map(json.loads, parts)),
            )
            curve = found.curve if fields is None else CurveColumns.of_objects(found.curve, fields)
        except (ArithmeticError, AttributeError, MsgspecError, RecursionError, TypeError, ValueError):
            return None
        return Record(
            found.trial,
            factors,
            found.seed,
            found.status,
            found.reason,
            values,
            found.samples if fields is None else {},
            curve,
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

    def _rest(self, provenance: Any, findings: Any, outcome: Any, worker: Any) -> Record:
        """Return a record that has these parts of a line, and nothing else."""
        return record_of(
            {
                "schema_version": SCHEMA_VERSION,
                "trial": "",
                "factors": {},
                "seed": 0,
                "status": "ok",
                "provenance": provenance,
                "findings": findings,
                "outcome": outcome,
                "worker": worker,
            },
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
