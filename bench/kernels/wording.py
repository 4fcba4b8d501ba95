"""How rows are said: what all rows share, what each came to, and what was found in all. Terminal and page share it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from fusetune.bench.kernels.study import KernelsStudy, RowStudy, lost
from fusetune.bench.stats import Estimate, counted, estimate_text, percent, ratio_text
from fusetune.bench.units import format_bytes, format_rate, format_seconds
from fusetune.tuner.measure import is_contended

UNCLEAR = "~ the rounds cannot tell the two sides apart"


def threads_text(study: KernelsStudy) -> str:
    """Return the number of threads of the rows on a CPU. Empty without one."""
    threads = sorted({row.row.case.threads for row in study.rows if row.row.case.device == "cpu"})
    return f"{', '.join(map(str, threads))} thread{'' if threads == [1] else 's'}" if threads else ""


def clocks_text(study: KernelsStudy) -> str:
    """Return what was on the clock, by the rows' own policies. Empty without rows."""
    return "; ".join(dict.fromkeys(row.row.policies[0].name for row in study.rows))


def copies_text(study: KernelsStudy) -> str:
    """Return the bandwidths of the copies that rows are held to, by level of memory. Empty without one."""
    copies: dict[str, list[float]] = {}
    for row in study.rows:
        if row.row.copy is not None:
            copies.setdefault(row.row.copy.level, []).append(row.row.copy.bytes_per_s)
    return ", ".join(f"{level} {_range(each)}" for level, each in copies.items())


def _range(rates: Sequence[float]) -> str:
    """Return the least and the largest of some bandwidths, or one of them where they hardly differ."""
    low, high = min(rates), max(rates)
    return f"{format_rate(low)} .. {format_rate(high)}" if high > 1.05 * low else format_rate(high)


def speedup_text(speedup: Estimate) -> str:
    """Return a speedup with its interval, and a `~` where it may be none.

    Example:
        >>> speedup_text(Estimate(1.5, 1.42, 1.61, 30, 1.0)), speedup_text(Estimate(1.01, 0.98, 1.02, 30, 1.0))
        ('1.50x [1.42, 1.61]', '~1.01x [0.98, 1.02]')
    """
    if speedup.low is None or speedup.high is None:
        return estimate_text(speedup)
    low, high = (ratio_text(end).removesuffix("x") for end in (speedup.low, speedup.high))
    return f"{estimate_text(speedup)} [{low}, {high}]"


def counts_of(row: RowStudy) -> Iterator[str]:
    """Yield what else is known of a row: error, launches, times on the host, memory and launch config."""
    found, ours = row.verification, row.row.ours
    if found is not None and row.is_ok:
        yield f"error {error_text(found.error)} (limit {error_text(found.tolerance)})"
    if ours.launches is not None:
        yield f"{ours.launches} launch{'' if ours.launches == 1 else 'es'}"
    if ours.host_s is not None:
        yield f"host {format_seconds(ours.host_s)}"
    if ours.compile_s is not None:
        yield f"compile {format_seconds(ours.compile_s)}"
    if ours.extra_bytes is not None:
        yield f"extra {format_bytes(ours.extra_bytes)}"
    if ours.config:
        yield " ".join(f"{name}={value}" for name, value in ours.config.items())


def error_text(error: float) -> str:
    """Return a relative error.

    Example:
        >>> error_text(3.14e-7), error_text(0.0)
        ('3.1e-7', '0')
    """
    return f"{error:.1e}".replace("e-0", "e-") if error else "0"


def static_text(facts: Mapping[str, float | str]) -> str:
    """Return the forecast, then the facts that it rests on.

    Args:
        facts: of `Row.static`, for one target.

    Example:
        >>> static_text({"gpu": "H100 SXM", "verdict": "memory-bound, 100 % of copy", "registers": 40})
        'H100 SXM, memory-bound, 100 % of copy, 40 registers'
    """
    said = [str(facts["verdict"])] if "verdict" in facts else []
    if "gpu" in facts:
        said.insert(0, str(facts["gpu"]))
    named = {
        "registers": "registers",
        "spills": "spills",
        "occupancy": "occupancy",
        "instructions_per_element": "instructions an element",
    }
    said += [f"{_short(facts[key])} {words}" for key, words in named.items() if key in facts]
    return ", ".join(said)


def _short(value: float | str) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def notes_of(row: RowStudy) -> Iterator[str]:
    """Yield what a reader of the row must know."""
    ours, found = row.row.ours, row.verification
    if found is not None and not found.repeatable:
        yield "two calls on the same values differ in their bits"
    if found is not None:
        yield from found.notes
    if ours.void_rounds:
        yield void_text(ours.void_rounds)
    if is_contended(row.contention):
        yield f"contended: {percent(row.contention or 0.0)} of the processor missing"
    yield from row.row.notes


def summary_lines(rows: Sequence[RowStudy]) -> Iterator[str]:
    """Yield how many rows have a time, and a line for each competitor."""
    failed = [row for row in rows if not row.is_ok]
    if failed:
        counts = [f"{number} {word}" for word, number in Counter(map(status_word, failed)).items()]
        yield f"{len(failed)} of {counted(len(rows), 'row')} without a time: {', '.join(counts)}"
    else:
        yield f"every row is right and has a time ({len(rows)})"
    for name in dict.fromkeys(name for row in rows for name in row.speedups or {}):
        found = [row.speedups[name] for row in rows if row.speedups and name in row.speedups]
        faster = sum(each.can_tell and each.value > 1 for each in found)
        slower = sum(each.can_tell and each.value < 1 for each in found)
        unclear = len(found) - faster - slower
        yield f"against {name}: faster in {faster}, slower in {slower}, can't tell in {unclear} of {len(found)}"


def has_unclear(rows: Sequence[RowStudy]) -> bool:
    return any(not each.can_tell for row in rows for each in (row.speedups or {}).values())


def status_word(row: RowStudy) -> str:
    """Return the status of a row: `void` where it is right and no round of it counts."""
    return "void" if row.row.status == "ok" and not row.is_ok else row.row.status


def no_time_text(row: RowStudy) -> str:
    """Say why a row has no time. Empty where it has one.

    Args:
        row: of any status.
    """
    if row.is_ok:
        return ""
    ours = row.row.ours
    if row.row.status != "ok":
        return lost(ours)
    if ours.void_rounds:
        return f"void: {void_text(ours.void_rounds)}, and no other is left"
    return "no round was timed"


def void_text(rounds: int) -> str:
    """Say how many rounds do not count.

    Example:
        >>> void_text(3)
        '3 rounds void, because the device was throttled'
    """
    return f"{counted(rounds, 'round')} void, because the device was throttled"
