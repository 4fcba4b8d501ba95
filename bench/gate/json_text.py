"""A result as a JSON object, for scripts. docs/records.md describes each field."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from fusetune.bench.gate.result import GateResult, Row, Side

SCHEMA_VERSION = 1
_SIDES = ("base", "head")


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


def _side(side: Side) -> dict[str, Any]:
    return {**dataclasses.asdict(side), "machine": dict(side.machine), "versions": dict(side.versions)}


def _row(row: Row) -> dict[str, Any]:
    content = dataclasses.asdict(row)
    content["missed"] = [side for side in _SIDES if content[side] is not None and math.isinf(content[side])]
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in content.items()
    }
