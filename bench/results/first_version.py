"""Conversion of records of schema version 1, which had outcomes in the provenance, to version 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_AUTO = "base_lr_auto"
_OF_TRAININGS = (_AUTO, "contention", "epochs_made_again")
_OF_RANGE_TESTS = ("reason", "warnings", "confirm_lrs")
_OF_NOISE = ("small", "big", "samples", "train_batch_size", "note", _AUTO)
# Statuses of trials without an outcome.
_WITHOUT_END = ("failed", "out_of_memory")


def second_version(content: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return a record of version 1 in the format of version 2.

    Args:
        content: one validated line of records.jsonl.
        kind: the run's kind, which implies the kind of a record without a mark.

    Example:
        >>> old = {"trial": "a", "factors": {}, "status": "ok", "provenance": {"jobs": 1, "from_study": True}}
        >>> new = second_version(old, "search")
        >>> new["provenance"], new["outcome"]
        ({'jobs': 1}, {'kind': 'training', 'from_log': True})
    """
    provenance = dict(content.get("provenance", {}))
    left = provenance.pop("left_behind", {})
    worker = {
        "put_back": left.get("put_back", []),
        "replaced_for": left.get("worker_replaced_for", []),
        "unexplained_kill": provenance.pop("unexplained_kill", False),
    }
    outcome = _outcome(content, provenance, kind)
    return {
        "schema_version": 2,
        **content,
        "provenance": provenance,
        "outcome": outcome,
        "worker": worker if any(worker.values()) else None,
    }


def _outcome(content: Mapping[str, Any], provenance: dict[str, Any], kind: str) -> dict[str, Any] | None:
    """Return the outcome, and remove its fields from the provenance."""
    measurement = provenance.pop("measurement", None)
    if measurement == "runs":
        return {"kind": "earlier_trainings", **provenance.pop("runs")}
    if measurement == "rates":
        return {"kind": "earlier_range_tests", **provenance.pop("rates")}
    if measurement == "noise" and "small" in provenance:
        return {"kind": "gradient_noise", **_taken(provenance, _OF_NOISE)}
    if measurement == "throughput" and content["status"] == "ok":
        return {"kind": "throughput"}
    if measurement is not None:
        return {"kind": "failed_measurement", "measurement": measurement}
    if "prediction" in provenance:
        return {"kind": "memory_prediction", **provenance.pop("prediction")}
    if kind == "batch-size":
        return {"kind": "memory_probe"} if "batch_size" in content["factors"] else None
    if kind == "lr-range":
        found = _taken(provenance, _OF_RANGE_TESTS)
        return {"kind": "range_test", **found} if content["status"] not in _WITHOUT_END else None
    found = _taken(provenance, _OF_TRAININGS)
    if "from_study" in provenance:
        found["from_log"] = provenance.pop("from_study")
    return {"kind": "training", **found} if found or content["status"] not in _WITHOUT_END else None


def _taken(provenance: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Remove fields from the provenance, and return those that are not null."""
    found = {name: provenance.pop(name) for name in names if name in provenance}
    return {name: value for name, value in found.items() if value is not None}
