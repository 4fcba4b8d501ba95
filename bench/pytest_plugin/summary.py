"""The columns of kernels as lines of text, in pytest-benchmark's table and after it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fusetune.bench.terminal import one_line
from fusetune.bench.units import format_seconds

Columns = Mapping[str, Any]
_WIDTH, _NAME_WIDTH, _INDENT = 100, 30, 32 * " "
_LONGEST_NOTE = 160


def name_in_table(columns: Columns, median_s: float) -> str:
    """Return what stands behind a benchmark's name in pytest-benchmark's table.

    Args:
        columns: of the kernel, see `columns_of`.
        median_s: of the table's own row. An earlier run's row has another one.

    Example:
        >>> eager = {"status": "ok", "median_s": 2e-3, "speedup": 2.0, "is_sure": True}
        >>> columns = {"bytes_moved": 8_000_000, "copy_bytes_per_s": 1e10, "median_s": 1e-3}
        >>> name_in_table(columns | {"competitors": {"eager": eager}}, 1e-3)
        ' 8 GB/s, 80 % of copy, 2.00x eager'
    """
    moved = columns.get("bytes_moved")
    if not moved or median_s <= 0:
        return ""
    found = [*_bandwidth(moved / median_s, columns)]
    timed = {name: each for name, each in columns.get("competitors", {}).items() if "speedup" in each}
    if timed and median_s == columns.get("median_s"):
        fastest = min(timed, key=lambda name: float(timed[name]["median_s"]))
        mark = "" if timed[fastest].get("is_sure") else "~"
        found.append(f"{mark}{timed[fastest]['speedup']:.2f}x {one_line(fastest)}")
    return " " + ", ".join(found)


def summary_lines(kernels: Sequence[Columns]) -> Iterator[str]:
    """Yield the summary's lines: a kernel a line, then what was not timed.

    Args:
        kernels: the columns of each, see `columns_of`.

    Example:
        >>> for line in summary_lines([{"name": "gelu/1000/float32", "status": "ok", "error": 1e-7}]):
        ...     print(line)
        gelu/1000/float32               right (error 1.0e-07)
        1 kernel was verified and not timed. Time it with pytest-benchmark, and without pytest-xdist.
    """
    for columns in kernels:
        line = one_line(str(columns["name"])).ljust(_NAME_WIDTH)
        for fact in _facts(columns):
            if len(line) + len(fact) > _WIDTH and line.strip():
                yield line
                line = _INDENT
            line += fact if line == _INDENT else f"  {fact}"
        yield line
    untimed = sum(each["status"] == "ok" and "median_s" not in each for each in kernels)
    if untimed:
        counted, pronoun = ("1 kernel was", "it") if untimed == 1 else (f"{untimed} kernels were", "them")
        yield (
            f"{counted} verified and not timed. Time {pronoun} with pytest-benchmark, and without pytest-xdist."
        )


def _facts(columns: Columns) -> Iterator[str]:
    """Yield what a kernel came to, the most important first."""
    if columns["status"] != "ok":
        yield f"{columns['status']}: {one_line(str(columns.get('reason', '')))[:_LONGEST_NOTE]}"
        return
    if "median_s" not in columns:
        yield f"right (error {columns.get('error', 0.0):.1e})"
        return
    spread = f"{format_seconds(columns['p20_s'])} to {format_seconds(columns['p80_s'])}"
    yield f"{format_seconds(columns['median_s'])} [{spread}, n {columns['rounds']}]"
    if columns.get("bandwidth_bytes_per_s"):
        yield ", ".join(_bandwidth(columns["bandwidth_bytes_per_s"], columns))
    for name, other in columns.get("competitors", {}).items():
        yield f"{one_line(name)} {_speedup(other)}"
    yield f"error {columns.get('error', 0.0):.1e}"


def _bandwidth(bytes_per_s: float, columns: Columns) -> Iterator[str]:
    yield f"{bytes_per_s / 1e9:.3g} GB/s"
    if columns.get("copy_bytes_per_s"):
        yield f"{100 * bytes_per_s / columns['copy_bytes_per_s']:.0f} % of copy"
    if columns.get("datasheet_bytes_per_s"):
        yield f"{100 * bytes_per_s / columns['datasheet_bytes_per_s']:.0f} % of datasheet"


def _speedup(other: Columns) -> str:
    """Say how much longer a competitor took. `~`: the data cannot tell that from chance."""
    if other["status"] != "ok":
        return str(other["status"])
    if "speedup" not in other:
        return format_seconds(other["median_s"])
    mark = "" if other.get("is_sure") else "~"
    interval = ""
    if other.get("speedup_low") is not None:
        interval = f" [{other['speedup_low']:.2f}..{other['speedup_high']:.2f}]"
    return f"{mark}{other['speedup']:.2f}x{interval}"
