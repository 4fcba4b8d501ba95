"""Pairs of two sides' processes and seeds, as the gate's judge takes them.

A process is the unit of a timing and of an exact metric, a seed the unit of what was learned. So the timings of all
seeds of one process are one run. Pair i holds the timings of the i-th process and what the i-th seed learned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from statistics import mean

from fusetune.bench.compare.stored import Stored, condensed
from fusetune.bench.errors import InputError
from fusetune.bench.gate import Measured, Metric, Pair, parts

Seeds = Mapping[int, Measured]
# What `peak_bytes_of` in a record's provenance says where the memory of a whole process was counted.
_VARYING = "the process"


def pair_up(base: Sequence[Stored], head: Sequence[Stored]) -> tuple[list[Pair], list[str]]:
    """Pair the processes and the seeds of two sides.

    Args:
        base, head: processes of one form.

    Returns:
        The pairs of all benchmarks, and notes about what has no partner.

    Raises:
        InputError: the sides have benchmarks in common, but no seed of any.
    """
    if any(each.condensed for each in (*base, *head)):
        base, head = tuple(map(condensed, base)), tuple(map(condensed, head))
    base, head = _of_one_nature(base, head)
    left_out = summaries(base, head)
    pairs: list[Pair] = []
    notes: list[str] = []
    alone: list[str] = []
    names = list(dict.fromkeys(name for each in (*base, *head) for name in each.benchmarks))
    for name in names:
        ours = [each.benchmarks.get(name, {}) for each in base]
        theirs = [each.benchmarks.get(name, {}) for each in head]
        based, headed = _all_seeds(ours), _all_seeds(theirs)
        if based and headed and not set(based) & set(headed):
            alone.append(name)
            notes.append(
                f"{name} has seeds {_listed(based)} in base and {_listed(headed)} in head, and none in both."
            )
        if name in left_out and based and headed:
            continue
        if base[0].form == "batch-size" and not (based and headed) and not _is_whole({**based, **headed}):
            side = "base" if based else "head"
            notes.append(
                f"{name} was measured in {side} alone, because a search of batch sizes tries its own."
            )
            continue
        pairs += _pairs(name, ours, theirs)
    if alone and len(alone) == sum(_is_in(base, name) and _is_in(head, name) for name in names):
        known = notes[0].rstrip(".")
        raise InputError(
            f"{base[0].path} and {head[0].path}", "no seed in common", known, "Use the same seeds"
        )
    return pairs, notes


def _of_one_nature(base: Sequence[Stored], head: Sequence[Stored]) -> tuple[list[Stored], list[Stored]]:
    """Compare peak memory by what varies where a process's memory is counted, and not as an exact metric."""
    if not any(_VARYING in each.peak_bytes_of for each in (*base, *head)):
        return list(base), list(head)

    def softened(measured: Measured) -> Measured:
        metrics = {
            key: replace(found, comparison="learning") if key == "peak_bytes" else found
            for key, found in measured.metrics.items()
        }
        return replace(measured, metrics=metrics)

    both = [
        [
            replace(
                each,
                benchmarks={
                    name: {seed: softened(found) for seed, found in seeds.items()}
                    for name, seeds in each.benchmarks.items()
                },
            )
            for each in side
        ]
        for side in (base, head)
    ]
    return both[0], both[1]


def summaries(base: Sequence[Stored], head: Sequence[Stored]) -> set[str]:
    """Return the benchmarks of which a side kept no raw samples."""
    return {name for each in (*base, *head) for name in each.summaries}


def _is_in(side: Sequence[Stored], name: str) -> bool:
    return any(name in each.benchmarks for each in side)


def _is_whole(seeds: Seeds) -> bool:
    """Whether a benchmark is a configuration's search of batch sizes as a whole, and not one of its sizes."""
    return any(each.failure or "largest_batch_size" in each.metrics for each in seeds.values())


def _pairs(name: str, ours: Sequence[Seeds], theirs: Sequence[Seeds]) -> list[Pair]:
    based, headed = _all_seeds(ours), _all_seeds(theirs)
    seeds = sorted(based.keys() & headed.keys())
    if not seeds:  # one side alone
        return [Pair(name, 0, _whole(based), _whole(headed))]
    processes = [
        _process(*each) for each in zip(ours, theirs, strict=False) if each[0].keys() & each[1].keys()
    ]
    trainings = [(based[seed], headed[seed]) for seed in seeds]
    order = {key: None for found in (*based.values(), *headed.values()) for key in found.metrics}
    nothing = (Measured(), Measured())
    return [
        Pair(name, index, _merged(timed[0], learned[0], order), _merged(timed[1], learned[1], order))
        for index, (timed, learned) in enumerate(zip_longest(processes, trainings, fillvalue=nothing))
    ]


def _all_seeds(side: Sequence[Seeds]) -> dict[int, Measured]:
    """Return each seed's first training. Another process with the same seed learns the same, which is no evidence."""
    found: dict[int, Measured] = {}
    for seeds in side:
        for seed, measured in seeds.items():
            found.setdefault(seed, measured)
    return found


def _whole(seeds: Seeds) -> Measured:
    """All metrics that a benchmark has in any seed, where the other side has nothing."""
    metrics: dict[str, Metric] = {}
    for measured in seeds.values():
        for key, found in measured.metrics.items():
            metrics.setdefault(key, found)
    failure = next((measured.failure for measured in seeds.values() if measured.failure), "")
    return Measured(metrics, failure=failure)


def _process(base: Seeds, head: Seeds) -> tuple[Measured, Measured]:
    """Join what two processes timed over the seeds that both finished. A side has as many rounds as the other."""
    seeds = sorted(
        seed for seed in base.keys() & head.keys() if not (base[seed].failure or head[seed].failure)
    )
    ours, theirs = ([side[seed] for seed in seeds] for side in (base, head))
    sides: tuple[dict[str, Metric], dict[str, Metric]] = ({}, {})
    for key in dict.fromkeys(key for each in (*ours, *theirs) for key in each.metrics):
        both = [
            (a.metrics[key], b.metrics[key]) for a, b in zip(ours, theirs, strict=True) if _have(key, a, b)
        ]
        first = next(each.metrics[key] for each in (*ours, *theirs) if key in each.metrics)
        if first.comparison == "learning":
            continue
        if not both:
            for side, measured in zip(sides, (ours, theirs), strict=True):
                found = [each.metrics[key] for each in measured if key in each.metrics]
                side.update({key: found[0]} if found else {})
            continue
        least = [min(len(a.values), len(b.values)) for a, b in both]
        for index, side in enumerate(sides):
            values = [pair[index].values[:count] for pair, count in zip(both, least, strict=True)]
            side[key] = Metric(_joined(values, first), first.unit, first.better, first.comparison)
    shares = [[each.contention for each in side if each.contention is not None] for side in (ours, theirs)]
    base_share, head_share = (mean(share) if share else None for share in shares)
    return Measured(sides[0], contention=base_share), Measured(sides[1], contention=head_share)


def _have(key: str, base: Measured, head: Measured) -> bool:
    return key in base.metrics and key in head.metrics


def _joined(values: Sequence[tuple[float, ...]], metric: Metric) -> tuple[float, ...]:
    """Join the values of all seeds: a timing to as many parts as the gate has, equal exact values to one."""
    joined = tuple(value for each in values for value in each)
    if metric.comparison == "exact":
        return joined[:1] if len(set(joined)) == 1 else joined
    return parts(joined)


def _merged(process: Measured, training: Measured, order: Mapping[str, None]) -> Measured:
    """Join the timings of a process and what one seed learned."""
    learned = {key: found for key, found in training.metrics.items() if found.comparison == "learning"}
    metrics = {**process.metrics, **learned}
    return Measured(
        {key: metrics[key] for key in order if key in metrics},
        failure=training.failure,
        contention=process.contention,
    )


def _listed(seeds: Mapping[int, Measured]) -> str:
    shown = [str(seed) for seed in sorted(seeds)]
    return ", ".join(shown if len(shown) <= 5 else [*shown[:4], "..."])
