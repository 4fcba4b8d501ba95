"""Search in a large launch-config space: time a quarter of it, chosen as the times come in, and race the best. Pure.

1. Start: a third of the quarter, spread evenly. Of random candidates the one is taken whose values are rarest so far.
2. Steps, until the quarter is spent: half of each batch are neighbours of the best few, at which one parameter has its
   next smaller or larger value. The other half are those of lowest time by a model of what was timed:

       log t = quadratic in the places of the parameters' values, products among them, by ridge regression

3. The best few race.

A batch is timed in a few interleaved rounds, and the best config so far is timed in each of them too. Times are taken
relative to it in the same round, so batches can be compared although the machine changes between them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fusetune.bench.autotune.race import RaceResult, Rules, run_race

LARGE_SPACE = 200
_RIDGE = 0.03
_FAILED = math.inf


@dataclass(frozen=True)
class Plan:
    """How a large space is searched.

    Args:
        share: of the space, that is timed at most.
        start: part of these that is spread evenly.
        batch: configs timed side by side.
        rounds: of a batch.
        best: configs whose neighbours are tried.
        finalists: configs in the race at the end.
    """

    share: float = 0.25
    start: float = 0.4
    batch: int = 10
    rounds: int = 9
    best: int = 3
    finalists: int = 24


@dataclass(frozen=True)
class SearchResult:
    """What a search came to.

    Args:
        winner: index of the config. None where all that were tried failed.
        tried: indices of the configs that were timed, in their order.
        behind: for each of them its time over that of the best before the race, minus 1. Infinite where it failed.
        race: of the finalists. None where there was none.
        finalists: their indices: candidate i of the race is `finalists[i]`.
        timings: samples taken in all.
    """

    winner: int | None
    tried: tuple[int, ...]
    behind: tuple[float, ...]
    race: RaceResult | None
    finalists: tuple[int, ...]
    timings: int


def run_search(
    configs: Sequence[Mapping[str, int]],
    sample: Callable[[int, int], float],
    *,
    plan: Plan | None = None,
    rules: Rules | None = None,
    first: Iterable[int] = (),
    may_go_on: Callable[[], bool] = lambda: True,
    seed: int = 0,
) -> SearchResult:
    """Search a space that is too large to time every config of it.

    Args:
        configs: the space. All have the same names.
        sample: `sample(index, round)` times a config once, see `run_race`. Rounds go on from batch to batch.
        plan: how much of it is timed, and in which steps.
        rules: of the race at the end.
        first: configs that are timed in any case, such as the default.
        may_go_on: asked before each sample.
        seed: of all that is random.

    Example:
        >>> space = [{"A": a, "B": b} for a in range(15) for b in range(15)]
        >>> found = run_search(space, lambda i, turn: 1.0 + abs(i // 15 - 9) + 0.1 * abs(i % 15 - 3))
        >>> space[found.winner], len(found.tried) <= len(space) / 4
        ({'A': 9, 'B': 3}, True)
    """
    plan = plan or Plan()
    generator = np.random.default_rng(seed)
    places = _places(configs)
    most = max(plan.batch, int(plan.share * len(configs)))
    pending = list(dict.fromkeys([*first, *_spread(places, int(plan.start * most), generator)]))
    logs: dict[int, float] = {}  # relative to an anchor that all batches are linked to
    turn = timings = 0
    stopped = False
    while not stopped and len(logs) < most:
        if not pending:
            pending = _next_batch(places, logs, min(plan.batch, most - len(logs)), plan.best, generator)
            if not pending:
                break
        batch, pending = pending[: plan.batch], pending[plan.batch :]
        known = [index for index in logs if logs[index] < _FAILED]
        anchor = min(known, key=logs.__getitem__) if known else batch[0]
        side_by_side = list(dict.fromkeys([anchor, *batch]))
        rows = []
        for _ in range(plan.rounds):
            row: dict[int, float] = {}
            for index in generator.permutation(side_by_side):
                if not may_go_on():
                    stopped = True
                    break
                seconds = sample(int(index), turn)
                timings += 1
                row[int(index)] = math.log(seconds) if math.isfinite(seconds) and seconds > 0 else _FAILED
            if stopped:
                break
            rows.append(row)
            turn += 1
            failed = {index for index, log in row.items() if log == _FAILED}
            logs.update(dict.fromkeys(failed, _FAILED))
            side_by_side = [index for index in side_by_side if index not in failed]
        logs.update(_relative(rows, side_by_side, anchor, logs[anchor] if known else 0.0))
    tried = tuple(logs)
    finite = sorted((index for index in logs if logs[index] < _FAILED), key=logs.__getitem__)
    finalists = tuple(finite[: plan.finalists])
    race = None
    if finalists and not stopped:
        race = run_race(
            len(finalists),
            lambda candidate, extra: sample(finalists[candidate], turn + extra),
            rules=rules,
            may_go_on=may_go_on,
            seed=seed,
        )
        timings += race.timings
    winner = finalists[0] if finalists else None
    if race is not None:
        winner = None if race.winner is None else finalists[race.winner]
    lowest = logs[finalists[0]] if finalists else 0.0
    behind = tuple(math.expm1(logs[index] - lowest) if finalists else math.inf for index in tried)
    return SearchResult(winner, tried, behind, race, finalists, timings)


def _places(configs: Sequence[Mapping[str, int]]) -> np.ndarray:
    """(configs, parameters) the place of each value among its parameter's values. Constants are left out."""
    columns = []
    for name in configs[0]:
        values = sorted({config[name] for config in configs})
        if len(values) > 1:
            columns.append([values.index(config[name]) for config in configs])
    return np.reshape(np.transpose(np.array(columns)), (len(configs), -1))


def _spread(places: np.ndarray, count: int, generator: np.random.Generator) -> list[int]:
    """Configs whose values are all about equally frequent."""
    frequency = [np.zeros(int(column.max()) + 1) for column in places.T]
    chosen: list[int] = []
    while len(chosen) < count:
        candidates = generator.choice(len(places), size=min(32, len(places)), replace=False)
        fresh = [int(candidate) for candidate in candidates if candidate not in chosen]
        if not fresh:
            continue
        costs = [
            sum(seen[value] for seen, value in zip(frequency, places[one], strict=True)) for one in fresh
        ]
        best = fresh[int(np.argmin(costs))]
        chosen.append(best)
        for seen, value in zip(frequency, places[best], strict=True):
            seen[value] += 1
    return chosen


def _relative(
    rows: Sequence[Mapping[int, float]], indices: Sequence[int], anchor: int, anchor_log: float
) -> dict[int, float]:
    """Log times on the scale of all batches: the median of what each is above the anchor in the same round."""
    if not rows:
        return {}
    reference = anchor if anchor in indices else next(iter(indices), anchor)
    return {
        index: anchor_log + float(np.median([row[index] - row[reference] for row in rows]))
        for index in indices
    }


def _next_batch(
    places: np.ndarray, logs: Mapping[int, float], count: int, best: int, generator: np.random.Generator
) -> list[int]:
    """Neighbours of the best, and those that the model thinks are fastest."""
    timed = [index for index in logs if logs[index] < _FAILED]
    if not timed:
        fresh = [index for index in range(len(places)) if index not in logs]
        return [int(index) for index in generator.permutation(fresh)[:count]]
    order = sorted(timed, key=logs.__getitem__)
    predicted = _predict(places, timed, np.array([logs[index] for index in timed]))
    distance = np.abs(places[:, None, :] - places[None, order[:best], :])
    near = (distance.sum(axis=2) == 1).any(axis=1)
    unseen = [int(index) for index in np.argsort(predicted) if int(index) not in logs]
    neighbours = [index for index in unseen if near[index]][: (count + 1) // 2]
    others = [index for index in unseen if index not in neighbours]
    return neighbours + others[: count - len(neighbours)]


def _predict(places: np.ndarray, timed: Sequence[int], logs: np.ndarray) -> np.ndarray:
    """(configs,) log times by ridge regression on a quadratic."""
    scaled = places / np.maximum(places.max(axis=0), 1) * 2 - 1
    i, j = np.triu_indices(scaled.shape[1])
    features = np.hstack([scaled, scaled[:, i] * scaled[:, j]])
    middle, mean = features[list(timed)].mean(axis=0), logs.mean()
    x = features[list(timed)] - middle
    weights = np.linalg.solve(x.T @ x + _RIDGE * len(timed) * np.eye(x.shape[1]), x.T @ (logs - mean))
    predicted: np.ndarray = (features - middle) @ weights + mean
    return predicted
