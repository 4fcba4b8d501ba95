"""A row as plain values, for JSON, for JUnit and for the processes of pytest-xdist."""

from __future__ import annotations

import statistics
from typing import Any

from fusetune.bench.kernels import Row, SideResult
from fusetune.bench.stats import median_ratio


def columns_of(row: Row) -> dict[str, Any]:
    """Return the columns of a row, in SI base units.

    Returns:
        `name`, `status`, `reason`, `device`, `threads`, and what was found of the kernel: `error`, `eager_error`,
        `tolerance`, `checked_inputs`, `checked_timed_calls`, `repeatable`, `bytes_moved`, `compile_s`, `host_s`,
        `launches`, `extra_bytes`, `config`. Where it was timed: `policy`, `median_s`, `p20_s`, `p80_s`, `rounds`,
        `latencies_s` (policy -> median), `bandwidth_bytes_per_s`, `copy_bytes_per_s`, `copy_level`,
        `datasheet_bytes_per_s`, `contended_rounds`, and `competitors`, by name: `status`, and `median_s`, `speedup`,
        `speedup_low`, `speedup_high`, `is_sure` where it was timed.
    """
    ours = row.ours
    columns: dict[str, Any] = {
        "name": row.case.name,
        "status": row.status,
        "reason": ours.reason,
        "device": row.case.device,
        "threads": row.case.threads,
        "bytes_moved": row.bytes_moved,
        "compile_s": ours.compile_s,
        "host_s": ours.host_s,
        "launches": ours.launches,
        "extra_bytes": ours.extra_bytes,
        "config": dict(ours.config) if ours.config else None,
    }
    if ours.verification is not None:
        found = ours.verification
        columns |= {
            "error": found.error,
            "eager_error": found.eager_error,
            "tolerance": found.tolerance,
            "checked_inputs": found.checked,
            "checked_timed_calls": found.timed,
            "repeatable": found.repeatable,
            "notes": [*found.notes, *row.notes],
        }
    policy = row.policies[0].name
    if row.status != "ok" or not ours.latencies_s.get(policy):
        return columns
    mine = sorted(ours.latencies_s[policy])
    median_s = statistics.median(mine)
    return columns | {
        "policy": policy,
        "median_s": median_s,
        "p20_s": mine[len(mine) // 5],
        "p80_s": mine[-1 - len(mine) // 5],
        "rounds": len(mine),
        "latencies_s": {name: statistics.median(values) for name, values in ours.latencies_s.items()},
        "bandwidth_bytes_per_s": row.bytes_moved / median_s if row.bytes_moved else None,
        "copy_bytes_per_s": row.copy.bytes_per_s if row.copy else None,
        "copy_level": row.copy.level if row.copy else None,
        "datasheet_bytes_per_s": row.datasheet_bytes_per_s,
        "contended_rounds": sum(share > 0.1 for share in ours.contention),
        "competitors": {side.name: _competitor(side, ours, policy) for side in row.sides[1:]},
    }


def _competitor(side: SideResult, ours: SideResult, policy: str) -> dict[str, Any]:
    """Return what a competitor came to, and how much longer it took than ours, over rounds side by side."""
    theirs = side.latencies_s.get(policy)
    if side.status != "ok" or not theirs:
        return {"status": side.status, "reason": side.reason}
    found = median_ratio(list(zip(theirs, ours.latencies_s[policy], strict=False)))
    columns: dict[str, Any] = {"status": "ok", "median_s": statistics.median(theirs)}
    if found is not None:
        columns |= {
            "speedup": found.value,
            "speedup_low": found.low,
            "speedup_high": found.high,
            "is_sure": found.can_tell,
        }
    return columns
