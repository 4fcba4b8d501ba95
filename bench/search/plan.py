"""The settings of a search, read from a spec (no torch)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fusetune.bench.results import Record, RunInfo, WrittenSpec
from fusetune.bench.spec import value_label
from fusetune.tuner.search import SearchTrial, Space, shipped_prior
from fusetune.tuner.training import higher_is_better

# Most trainings paused in the workers' memory. Each holds a model, optimizer state and, on a GPU, its data.
MOST_WAITING = 32
BUDGET_SPENT = "the search's budget was spent"


@dataclass(frozen=True)
class SearchPlan:
    """The settings of a search.

    Args:
        space: factor name -> list of choices, or {low, high, log}.
        max_epochs: epochs of one full training.
        seed: the seed of the search and of its trainings.
        metric: the objective: the target's metric, else validation accuracy.
        budget_epochs, prior: see `bench.spec.spec.SearchSettings`.
        fresh_seeds: seeds for the winner's re-runs. The spec's other seeds come first, then the numbers after them.
    """

    space: dict[str, Any]
    max_epochs: int
    seed: int
    metric: str
    budget_epochs: int
    prior: bool
    fresh_seeds: tuple[int, ...]

    @property
    def maximize(self) -> bool:
        """Whether a larger value is better."""
        return higher_is_better(self.metric)


def plan_of(spec: WrittenSpec) -> SearchPlan:
    """Return the search's settings from a resolved spec."""
    settings, seeds = spec.search, spec.seeds
    following = range(max(seeds) + 1, max(seeds) + 1 + settings.fresh_seeds)
    return SearchPlan(
        space=spec.factors,
        max_epochs=spec.epochs,
        seed=seeds[0],
        metric=spec.target_metric or "val_accuracy",
        budget_epochs=settings.budget_epochs,
        prior=settings.prior,
        fresh_seeds=(*seeds[1:], *following)[: settings.fresh_seeds],
    )


def fresh_records(run: RunInfo, records: Sequence[Record]) -> list[Record]:
    """Return the records of the winner's re-runs. Other trainings of a search end early by design."""
    fresh = plan_of(run.spec).fresh_seeds
    return [record for record in records if record.seed in fresh]


def is_left(trial: SearchTrial) -> bool:
    """Whether a training was paused when the budget was spent. Its status is then `dropped`."""
    return trial.status == "dropped" and trial.reason == BUDGET_SPENT


def why_ended(trial: SearchTrial) -> str:
    """Return the reason for its record why a paused training ends."""
    return f"{'paused' if is_left(trial) else 'dropped'}: {trial.reason}"


def prior_words(plan: SearchPlan) -> str:
    """Return whether a search uses a prior, and the factors and values without curves in it."""
    if not plan.prior:
        return "without a prior"
    missing = shipped_prior().without_curves(Space(plan.space))
    parts = [f"{name} {', '.join(map(value_label, values))}".rstrip() for name, values in missing.items()]
    if len(missing) == len(plan.space) and not any(missing.values()):
        return f"without a prior, because earlier runs have no curves for {'; '.join(parts)}"
    lacks = f", which have no curves for {'; '.join(parts)}" if parts else ""
    return f"with a prior from earlier runs{lacks}"
