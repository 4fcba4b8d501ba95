"""A result as a JSON object, for scripts. docs/records.md describes each field."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from fusetune.bench.gate.result import GateResult, Row, Side
from fusetune.bench.gate.wording import WORDS

SCHEMA_VERSION = 1
_SIDES = ("base", "head")
_TEXTS = ("benchmark", "metric", "comparison", "sentence", "unit", "better", "advice")
_NUMBERS = ("base", "head", "effect", "low", "high", "p", "n", "detectable", "threshold")


def as_json(result: GateResult) -> dict[str, Any]:
    """Return a result as plain data. Its numbers are finite, so any JSON parser reads it.

    Args:
        result: of a gate or a comparison.

    Example:
        >>> row = Row("digits", "steps_to_target", "learning", "regressed", "", base=300.0, head=math.inf)
        >>> written = as_json(GateResult("digits.yaml", Side("main"), Side("working tree"), (row,)))
        >>> written["outcome"], written["rows"][0]["head"], written["rows"][0]["missed"]
        ('regressed', None, ['head'])
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": result.kind,
        "title": result.title,
        "outcome": result.outcome,
        "base": _side(result.base),
        "head": _side(result.head),
        "rows": [_row(row) for row in result.rows],
        "notes": list(result.notes),
        "pairs": dict(result.pairs),
        "seconds": result.seconds,
        "budget_s": result.budget_s,
        "directory": result.directory,
    }


def from_json(content: Mapping[str, Any]) -> GateResult:
    """Return the result that `as_json` wrote.

    Args:
        content: of result.json.

    Raises:
        KeyError, TypeError, ValueError: it is none.

    Example:
        >>> row = Row("digits", "steps_to_target", "learning", "regressed", "", base=300.0, head=math.inf)
        >>> result = GateResult("digits.yaml", Side("main"), Side("working tree"), (row,))
        >>> from_json(as_json(result)) == result
        True
    """
    version = content["schema_version"]
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise ValueError(f"schema_version {version} is newer than this program")
    return GateResult(
        title=str(content["title"]),
        base=Side(**content["base"]),
        head=Side(**content["head"]),
        rows=tuple(map(_row_of, content["rows"])),
        notes=tuple(map(str, content["notes"])),
        pairs={str(name): int(count) for name, count in content["pairs"].items()},
        seconds=float(content["seconds"]),
        budget_s=None if content["budget_s"] is None else float(content["budget_s"]),
        directory=str(content["directory"]),
        kind=str(content["kind"]),
    )


def _row_of(content: Mapping[str, Any]) -> Row:
    fields = {key: value for key, value in content.items() if key != "missed"}
    row = Row(**{**fields, **dict.fromkeys(content["missed"], math.inf)})
    if row.outcome not in WORDS or not all(isinstance(row.__dict__[name], str) for name in _TEXTS):
        raise ValueError(f"no row of a gate: {row.benchmark}")
    for name in _NUMBERS:
        if not isinstance(row.__dict__[name], int | float | None):
            raise TypeError(f"{name} of {row.benchmark} is no number")
    return row


def _side(side: Side) -> dict[str, Any]:
    return {**dataclasses.asdict(side), "machine": dict(side.machine), "versions": dict(side.versions)}


def _row(row: Row) -> dict[str, Any]:
    content = dataclasses.asdict(row)
    content["missed"] = [side for side in _SIDES if content[side] is not None and math.isinf(content[side])]
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in content.items()
    }
