"""Learning rate finders, judged by training at what they suggest.

    regret = 100 * (accuracy at the best rate of the grid - accuracy at the suggested rate)      in points

The grid's best rate has the highest mean accuracy over the seeds. Each seed's regret is taken at that rate and that
seed, so that both trainings have the same initial weights and the same order of samples. The best is the best of many
by the same seeds. So chance makes every finder's regret a little larger.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fusetune.bench.finder_bench.jobs import Answer, Job

# Half decades.
GRID = tuple(float(f"{10 ** (-4 + half / 2):.4g}") for half in range(11))
# A training that gets fewer of the best rate's right answers than this share has diverged or is stuck.
LOST = 0.5

_SUGGEST = "fusetune.bench.finder_bench.rate_finders:suggest"
_TRAIN = "fusetune.bench.finder_bench.rate_workloads:train"
Run = Callable[[Sequence[Job]], list[Answer]]


@dataclass(frozen=True, order=True)
class Entry:
    """A rule of a finder, with so many steps in its test."""

    finder: str
    rule: str
    steps: int


@dataclass(frozen=True)
class Suggested:
    """What an entry came to on one workload with one seed.

    Args:
        entry: the rule.
        workload: a name.
        seed: of the test and of the training.
        lr: the suggested rate, or None.
        steps: optimizer steps that the test made.
        failure: why there is no rate. Else empty.
        accuracy: of the training at that rate, in 0..1. 0 where its process failed.
        best: of the training at the grid's best rate with this seed.
    """

    entry: Entry
    workload: str
    seed: int
    lr: float | None
    steps: int = 0
    failure: str = ""
    accuracy: float = 0.0
    best: float = 0.0

    @property
    def regret(self) -> float:
        """Points of accuracy below the grid's best rate.

        Example:
            >>> round(Suggested(Entry("a", "b", 100), "w", 0, 0.1, accuracy=0.9, best=0.95).regret, 6)
            5.0
        """
        return 100 * (self.best - self.accuracy)

    @property
    def lost(self) -> bool:
        """Whether the training diverged or got stuck."""
        return self.accuracy < LOST * self.best


@dataclass(frozen=True)
class RateScore:
    """An entry over all workloads and seeds.

    Args:
        entry: the rule.
        mean: mean regret in points. None where no training was suggested.
        worst: the largest mean regret of a workload, and that workload's name.
        by_workload: mean regret on each workload.
        lost: trainings that diverged or got stuck.
        unanswered: tests without a rate, failures among them.
        trainings: tests with a rate.
        steps: mean optimizer steps of a test.
    """

    entry: Entry
    mean: float | None
    worst: tuple[float, str] | None
    by_workload: Mapping[str, float]
    lost: int
    unanswered: int
    trainings: int
    steps: float


@dataclass(frozen=True)
class RateResult:
    """All of a comparison.

    Args:
        suggested: every test.
        best_lr: workload -> the grid's best rate.
        best: workload -> mean accuracy there.
    """

    suggested: tuple[Suggested, ...]
    best_lr: Mapping[str, float]
    best: Mapping[str, float]

    def scores(self) -> list[RateScore]:
        """The entries, lowest mean regret first."""
        entries = sorted({each.entry for each in self.suggested})
        scores = [score([each for each in self.suggested if each.entry == entry]) for entry in entries]
        return sorted(scores, key=lambda each: (each.mean is None, each.mean))


def score(suggested: Sequence[Suggested]) -> RateScore:
    """Sum up one entry. Regrets are averaged over the seeds of a workload, then over the workloads."""
    there = [each for each in suggested if each.lr is not None]
    by_workload = {
        name: statistics.mean(each.regret for each in there if each.workload == name)
        for name in dict.fromkeys(each.workload for each in there)
    }
    worst = max(((regret, name) for name, regret in by_workload.items()), default=None)
    return RateScore(
        suggested[0].entry,
        statistics.mean(by_workload.values()) if by_workload else None,
        worst,
        by_workload,
        sum(each.lost for each in there),
        len(suggested) - len(there),
        len(there),
        statistics.mean(each.steps for each in suggested if each.steps) if there else 0.0,
    )


def compare_rates(
    finders: Mapping[str, Sequence[str]],
    workloads: Sequence[str],
    *,
    seeds: Sequence[int],
    lengths: Mapping[str, Sequence[int]],
    run: Run,
    grid: Sequence[float] = GRID,
) -> RateResult:
    """Ask every finder, train at every suggestion and at the grid's rates, and compare.

    Args:
        finders: finder -> its rules.
        workloads: names.
        seeds: of tests and trainings.
        lengths: finder -> optimizer steps of its tests.
        run: runs jobs.
        grid: rates that are trained for comparison.
    """
    asked = [
        (finder, length, workload, seed)
        for finder in finders
        for length in lengths[finder]
        for workload in workloads
        for seed in seeds
    ]
    answers = run(
        [
            Job(
                _SUGGEST,
                {"finder": finder, "workload": workload, "seed": seed, "steps": length},
                group=finder,
            )
            for finder, length, workload, seed in asked
        ]
    )
    suggested = [
        each
        for (finder, length, workload, seed), answer in zip(asked, answers, strict=True)
        for each in _suggestions(finder, finders[finder], length, workload, seed, answer)
    ]
    wanted = {(name, lr, seed): None for name in workloads for lr in grid for seed in seeds}
    wanted |= {(each.workload, each.lr, each.seed): None for each in suggested if each.lr is not None}
    trainings = list(wanted)
    trained = run(
        [
            Job(_TRAIN, {"workload": name, "lr": lr, "seed": seed}, group="train")
            for name, lr, seed in trainings
        ]
    )
    accuracies: dict[tuple[str, float | None, int], float] = {
        key: float(answer.value["accuracy"]) if answer.value else 0.0
        for key, answer in zip(trainings, trained, strict=True)
    }
    best_lr, best = {}, {}
    for name in workloads:
        means = {lr: statistics.mean(accuracies[name, lr, seed] for seed in seeds) for lr in grid}
        best_lr[name], best[name] = max(means.items(), key=lambda item: item[1])
    judged = (
        dataclasses.replace(
            each,
            accuracy=accuracies.get((each.workload, each.lr, each.seed), 0.0),
            best=accuracies[each.workload, best_lr[each.workload], each.seed],
        )
        for each in suggested
    )
    return RateResult(tuple(judged), best_lr, best)


def _suggestions(
    finder: str, rules: Sequence[str], length: int, workload: str, seed: int, answer: Answer
) -> Iterator[Suggested]:
    """Yield a suggestion a rule, whatever came of the test."""
    value = answer.value or {"rates": {}, "steps": 0}
    for rule in rules:
        lr = value["rates"].get(rule)
        usable = lr is not None and 0 < lr < float("inf")
        failure = "" if usable else answer.failure or f"suggested {lr}"
        yield Suggested(
            Entry(finder, rule, length), workload, seed, lr if usable else None, value["steps"], failure
        )
