"""What a comparison of finders came to, as tables of 100 columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import mean

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table

from fusetune.bench.finder_bench.batches import TRIES, FoundBatch
from fusetune.bench.finder_bench.rate_finders import REPEATS, STEPS
from fusetune.bench.finder_bench.rates import Entry, RateResult, RateScore

_OURS = "fusetune"


def rate_tables(result: RateResult) -> list[RenderableType]:
    """Return the table of all entries, the table of workloads, a note, and what failed."""
    scores = result.scores()
    table = _table("Learning-rate finders: accuracy lost to the best rate of a grid, in points", "finder")
    for column in ("steps asked", "made", "mean", "worst", "lost", "no rate"):
        table.add_column(column, justify="right")
    for each in scores:
        table.add_row(*_score_row(each))
    usual = [each for each in scores if is_default(each.entry)]
    by_workload = _table("Mean regret on each workload, with each finder's usual number of steps", "workload")
    for column in ("best rate", "accuracy", *(_short(each.entry) for each in usual)):
        by_workload.add_column(column, justify="right", max_width=9)
    for name, lr in result.best_lr.items():
        regrets = [each.by_workload.get(name) for each in usual]
        by_workload.add_row(
            name,
            f"{lr:.3g}",
            f"{100 * result.best[name]:.1f} %",
            *("-" if regret is None else f"{regret:.2f}" for regret in regrets),
        )
    note = (
        f"Mean of the workloads' means, and the worst of these. A regret is negative where a rate between those of the "
        f"grid is better. lost: trainings that diverged or got stuck, of {max(each.trainings for each in scores)}. "
        f"Ours makes {REPEATS} sweeps of {STEPS} steps by default, and `bench lr-range` confirms by short trainings. "
        "Its rule was chosen on small workloads such as these, on digits and generated data."
    )
    failures = Counter(
        f"{each.entry.finder}, {each.entry.rule}: {each.failure}" for each in result.suggested if each.failure
    )
    return [table, by_workload, note, *(f"{count} x {text}" for text, count in failures.most_common())]


def batch_tables(found: Sequence[FoundBatch]) -> list[RenderableType]:
    """Return the table of all finders and cases, a note, and what failed."""
    cases = {each.case: each.true for each in found}
    table = _table("Batch finders: size found, and its share of the largest that trains", "finder")
    for case, true in cases.items():
        table.add_column(f"{case}: {true}", justify="right", max_width=16)
    for column in ("usable", "trains", "survived"):
        table.add_column(column, justify="right")
    for finder in dict.fromkeys(each.finder for each in found):
        rows = [each for each in found if each.finder == finder]
        by_case = {each.case: each for each in rows}
        table.add_row(
            finder,
            *(_batch_cell(by_case[case]) for case in cases),
            f"{100 * mean(each.usable_share for each in rows):.0f} %",
            f"{sum(each.trained for each in rows)}/{TRIES * len(rows)}",
            f"{sum(each.survived for each in rows)}/{len(rows)}",
        )
    note = (
        "The largest is found by bisection to 0.5 %, each size in a fresh process. usable: mean share, 0 for a size "
        "that does not train and where there is none. trains: of trainings at the found sizes in fresh processes, "
        f"{TRIES} each. survived: the finder ended with a size."
    )
    return [
        table,
        note,
        *(f"{each.finder}, {each.case}: {each.failure}" for each in found if each.failure),
    ]


def is_default(entry: Entry) -> bool:
    """Whether this is the finder's usual number of steps."""
    return entry.steps == (REPEATS * STEPS if entry.finder.startswith(_OURS) else STEPS)


def _score_row(each: RateScore) -> list[str]:
    figures = (each.mean, each.worst[0] if each.worst else None)
    return [
        f"{each.entry.finder}, {each.entry.rule}",
        f"{each.entry.steps}{', usual' if is_default(each.entry) else ''}",
        f"{each.steps:.0f}",
        *("-" if value is None else f"{value:.2f}" for value in figures),
        str(each.lost),
        str(each.unanswered),
    ]


def _short(entry: Entry) -> str:
    """Name an entry in a narrow column."""
    name = f"fastai {entry.rule}" if entry.finder == "fastai" else entry.finder
    return name.replace("torch-lr-finder", "torch-lr finder")


def _batch_cell(each: FoundBatch) -> str:
    return f"{each.size}, {100 * each.share:.0f}\u00a0%" if each.survived else "failed"


def _table(title: str, first: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=first == "finder")
    return table
