"""Rows for other programs: JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from fusetune.bench.kernels.study import KernelsStudy, RowStudy, lost
from fusetune.bench.kernels.wording import error_text, speedup_text
from fusetune.bench.stats import percent
from fusetune.bench.terminal import escaped, spreadsheet_text
from fusetune.bench.units import format_rate, format_seconds

# Of a row without a time these are left out.
_OF_TIMES = (
    "latency_s",
    "p20_s",
    "p80_s",
    "n",
    "bandwidth_bytes_per_s",
    "share_of_copy",
    "share_of_datasheet",
)
_COLUMNS = (
    "name",
    "kernel",
    "shape",
    "dtype",
    "direction",
    "status",
    "reason",
    "policy",
    *_OF_TIMES,
    "error",
    "tolerance",
    "launches",
    "host_s",
    "compile_s",
    "moved_bytes",
    "extra_bytes",
    "contention",
)


def json_rows(study: KernelsStudy) -> list[dict[str, Any]]:
    """Return a list of rows as plain data. Each has `name` and `status`, and `latency_s` only where the status is `ok`.

    Args:
        study: from `study_rows`.
    """
    return [_json_row(row) for row in study.rows]


def as_json(study: KernelsStudy) -> str:
    """Return `json_rows` as a text."""
    return json.dumps(json_rows(study), indent=1, allow_nan=False) + "\n"


def as_csv(study: KernelsStudy) -> str:
    """Return a line a row, with the same names as in `json_rows`.

    A speedup has three columns, e.g. `speedup_over_eager`, `speedup_over_eager_low` and `speedup_over_eager_high`.

    Args:
        study: from `study_rows`.
    """
    names = list(dict.fromkeys(name for row in study.rows for name in row.speedups or {}))
    ends = ("", "_low", "_high")
    head = [*_COLUMNS, *(f"speedup_over_{name}{end}" for name in names for end in ends)]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(map(spreadsheet_text, head))
    for row in study.rows:
        content = _flat(row)
        found = row.speedups or {}
        values: list[Any] = [content.get(name) for name in _COLUMNS]
        for name in names:
            speedup = found.get(name)
            values += [None] * 3 if speedup is None else [speedup.value, speedup.low, speedup.high]
        writer.writerow(["" if value is None else _cell(value) for value in values])
    return stream.getvalue()


def as_markdown(study: KernelsStudy) -> str:
    """Return a table for comments on pull requests. Rows without a time say why below it.

    Args:
        study: from `study_rows`.
    """
    names = list(dict.fromkeys(name for row in study.rows for name in row.speedups or {}))
    head = [
        "row",
        "latency",
        "p20 .. p80",
        "n",
        "bandwidth",
        "of copy",
        *(f"over {escaped(n)}" for n in names),
        "error",
    ]
    lines = [
        f"### {escaped(study.run.spec.name)}",
        "",
        _line(head),
        _line(["---", *["--:"] * (len(head) - 1)]),
    ]
    lines += [_line(list(_markdown_cells(row, names))) for row in study.rows]
    failed = [row for row in study.rows if not row.is_ok]
    if failed:
        lines += ["", *(f"- {escaped(row.row.case.name)}: {escaped(lost(row.row.ours))}" for row in failed)]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_cells(row: RowStudy, names: Sequence[str]) -> Iterator[str]:
    yield escaped(row.row.case.name)
    latency = row.latency
    if latency is None:
        yield escaped(row.row.status)
        yield from [""] * (5 + len(names))
        return
    yield format_seconds(latency.median_s)
    yield f"{format_seconds(latency.p20_s)} .. {format_seconds(latency.p80_s)}"
    yield str(latency.n)
    yield "-" if row.bytes_per_s is None else format_rate(row.bytes_per_s)
    yield "-" if row.share_of_copy is None else percent(row.share_of_copy)
    found = row.speedups or {}
    for name in names:
        yield escaped(speedup_text(found[name])) if name in found else "-"
    yield "-" if row.verification is None else error_text(row.verification.error)


def _flat(row: RowStudy) -> dict[str, Any]:
    """Return what a row comes to, without what has parts of its own."""
    case, ours, latency = row.row.case, row.row.ours, row.latency
    found: dict[str, Any] = {
        "name": case.name,
        "kernel": case.kernel,
        "shape": case.shape,
        "dtype": case.dtype,
        "direction": case.direction,
        "status": row.row.status,
        "reason": ours.reason,
        "policy": row.row.policies[0].name,
        "moved_bytes": row.row.bytes_moved,
        "launches": ours.launches,
        "host_s": ours.host_s,
        "compile_s": ours.compile_s,
        "extra_bytes": ours.extra_bytes,
        "contention": row.contention,
    }
    if row.verification is not None:
        found |= {"error": _finite(row.verification.error), "tolerance": _finite(row.verification.tolerance)}
    if latency is not None:
        found |= {
            "latency_s": latency.median_s,
            "p20_s": latency.p20_s,
            "p80_s": latency.p80_s,
            "n": latency.n,
            "bandwidth_bytes_per_s": row.bytes_per_s,
            "share_of_copy": row.share_of_copy,
            "share_of_datasheet": row.share_of_datasheet,
        }
    return found


def _json_row(row: RowStudy) -> dict[str, Any]:
    flat = _flat(row)
    ordered = {name: flat[name] for name in _COLUMNS if name in flat}
    copy = row.row.copy
    found = {
        **ordered,
        "device": row.row.case.device,
        "threads": row.row.case.threads,
        "copy": None if copy is None else {"bytes_per_s": copy.bytes_per_s, "level": copy.level},
        "speedups": {
            name: {
                "value": each.value,
                "low": each.low,
                "high": each.high,
                "n": each.n,
                "can_tell": each.can_tell,
            }
            for name, each in (row.speedups or {}).items()
        },
        "missing": {side.name: lost(side) for side in row.row.sides[1:] if side.status != "ok"},
        "policies": {name: each.median_s for name, each in row.latencies.items()},
        "void_rounds": row.row.ours.void_rounds,
        "config": None if row.row.ours.config is None else dict(row.row.ours.config),
        "static": {target: dict(facts) for target, facts in row.row.static.items()},
        "notes": list(row.row.notes),
    }
    if row.row.status == "ok" and row.latency is None:
        found["status"] = "skipped"
    return found


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _cell(value: Any) -> Any:
    return spreadsheet_text(value) if isinstance(value, str) else value
