"""Two stored results as a result of the gate: the same rows, verdicts and outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from fusetune.bench.compare.baselines import find_baseline
from fusetune.bench.compare.cautions import cautions, refuse_other_devices, refuse_other_forms
from fusetune.bench.compare.pairing import pair_up, summaries
from fusetune.bench.compare.sources import read_side
from fusetune.bench.compare.stored import PYTEST_METRIC, Stored
from fusetune.bench.gate import (
    LEAST_PAIRS,
    TIMING_THRESHOLD,
    GateResult,
    Outcome,
    Row,
    Rules,
    Side,
    Verdict,
    decide,
    judge,
    notes_on,
)

Run = Mapping[str, Sequence[float]]
_UNCLEAR: Outcome = "can't tell"
_MORE = f"Give {LEAST_PAIRS} processes or more a side, or use `bench gate`."
_IN_TURN = "Use `bench gate`, which measures both sides in turn."


def compare_stored(base: str, head: str, *, rules: Rules | None = None) -> GateResult:
    """Compare two stored results.

    Args:
        base, head: what `read_side` reads: runs' directories, JSON files of pytest-benchmark, baselines.
        rules: thresholds and directions; None: those that every metric has.

    Returns:
        A result of the kind `compare`. Timings of fewer than 5 processes a side are never clear, because samples of
        one process are no independent evidence.

    Raises:
        InputError: a path is missing or no stored result, or the sides are of different devices or kinds.
        RunDirectoryError: a run cannot be read.
    """
    ours, notes_of_base = read_side(base)
    theirs, notes_of_head = read_side(head)
    return _compared((base, ours), (head, theirs), rules, (*notes_of_base, *notes_of_head))


def compare_with_baseline(folder: Path, head: str, *, rules: Rules | None = None) -> GateResult:
    """Compare a stored result with the baseline of its spec and its kind of machine.

    Args:
        folder: where baselines lie, as `bench run --save-baseline` writes them.
        head: what `read_side` reads.
        rules: as for `compare_stored`.

    Raises:
        InputError: there is no such baseline, or as for `compare_stored`.
        RunDirectoryError: a run cannot be read.
    """
    theirs, notes = read_side(head)
    path = str(find_baseline(folder, theirs[0]))
    ours, notes_of_base = read_side(path)
    return _compared((path, ours), (head, theirs), rules, (*notes_of_base, *notes))


def _compared(
    base: tuple[str, Sequence[Stored]],
    head: tuple[str, Sequence[Stored]],
    rules: Rules | None,
    notes: Sequence[str],
) -> GateResult:
    """Judge two sides that have been read."""
    (base_name, ours), (head_name, theirs) = base, head
    refuse_other_forms(ours, theirs)
    refuse_other_devices(ours, theirs)
    pairs, unpaired = pair_up(ours, theirs)
    rows = [_advised(row) for row in judge(pairs, rules or Rules(), decide=_decide_from_enough)]
    names = list(dict.fromkeys(name for each in ours for name in each.benchmarks))
    rows += _summary_rows(ours, theirs)
    rows.sort(key=lambda row: names.index(row.benchmark) if row.benchmark in names else len(names))
    processes = {name: min(_count(ours, name), _count(theirs, name)) for name in names}
    return GateResult(
        title=theirs[0].title,
        base=_side(base_name, ours),
        head=_side(head_name, theirs),
        rows=tuple(rows),
        notes=(*cautions(ours, theirs), *unpaired, *notes_on(pairs, rows), *notes),
        pairs={name: count for name, count in processes.items() if count},
        kind="compare",
    )


def _count(side: Sequence[Stored], name: str) -> int:
    return sum(name in each.benchmarks for each in side)


def _side(name: str, side: Sequence[Stored]) -> Side:
    first = side[0]
    commits = {each.commit for each in side}
    return Side(
        name,
        commit=first.commit if len(commits) == 1 else None,
        dirty=any(each.dirty for each in side) if any(each.dirty is not None for each in side) else None,
        machine=first.machine,
        versions=first.versions,
    )


def _decide_from_enough(
    base: Sequence[Run],
    head: Sequence[Run],
    *,
    staged: bool = False,
    threshold: float = TIMING_THRESHOLD,
) -> Verdict:
    """Decide on timings by the gate's rule. Fewer processes than it takes are shown, and no evidence."""
    if len(base) >= LEAST_PAIRS:
        return decide(base, head, staged=staged, threshold=threshold)
    ratios = [median(theirs["wall"]) / median(ours["wall"]) for ours, theirs in zip(base, head, strict=True)]
    return Verdict(_UNCLEAR, median(ratios) - 1, None, None, 1.0, None, len(base))


def _advised(row: Row) -> Row:
    """Say what makes an unclear timing clear. More pairs are no advice, for nothing is measured here."""
    if row.outcome != _UNCLEAR or row.comparison == "learning" or row.p is None:
        return row
    if row.n >= LEAST_PAIRS:
        return replace(row, advice=_IN_TURN)
    few = f"{row.n} process a side is" if row.n == 1 else f"{row.n} processes a side are"
    change = "none" if row.effect == 0 else f"{100 * (row.effect or 0):+.1f} %"
    said = f"Not clear: {change} (n = {row.n}), and {few} no evidence of a change."
    return replace(row, p=None, low=None, high=None, detectable=None, sentence=said, advice=_MORE)


def _summary_rows(base: Sequence[Stored], head: Sequence[Stored]) -> list[Row]:
    """Show the benchmarks of which a side kept no raw samples. Nothing about them can be tested."""
    rows = []
    for name in sorted(summaries(base, head)):
        ours, theirs = _medians(base, name), _medians(head, name)
        if not ours or not theirs:
            continue
        sides = [
            side
            for side, of in (("base", base), ("head", head))
            if any(name in each.summaries for each in of)
        ]
        where = " and ".join(sides)
        middle, other = median(ours), median(theirs)
        rows.append(
            Row(
                name,
                PYTEST_METRIC,
                "timing",
                _UNCLEAR,
                f"Only a summary without raw samples is stored in {where}, so no difference can be tested.",
                base=middle,
                head=other,
                effect=other / middle - 1,
                n=min(len(ours), len(theirs)),
                advice="Save the samples too, by --benchmark-save-data or --benchmark-json.",
            )
        )
    return rows


def _medians(side: Sequence[Stored], name: str) -> list[float]:
    return [
        median(each.benchmarks[name][0].metrics[PYTEST_METRIC].values)
        for each in side
        if name in each.benchmarks
    ]
