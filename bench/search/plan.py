"""What a spec asks of a search (no torch)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fusetune.bench.results import Record, RunInfo, WrittenSpec
from fusetune.bench.spec import value_label
from fusetune.tuner.search import SearchTrial, Space, shipped_prior
from fusetune.tuner.training import higher_is_better

# Most trainings that wait in the workers' memory; each holds a model, an optimizer's state and, on a GPU, its data.
MOST_WAITING = 32
BUDGET_SPENT = "the search's budget was spent"


@dataclass(frozen=True)
class SearchPlan:
    """What a spec asks of a search.

    Args:
        space: factor name -> list of choices, or {low, high, log}.
        max_epochs: of one training.
        seed: of the search and its trainings.
        metric: what is searched for: the target's, else validation accuracy.
        budget_epochs, prior: see `bench.spec.spec.SearchSettings`.
        fresh_seeds: on which the winner is trained again: the spec's other seeds first, then the next numbers.
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
    """Read the search from a resolved spec."""
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
    """Return the records of the winner's trainings on fresh seeds. That others end early is how a search works."""
    fresh = plan_of(run.spec).fresh_seeds
    return [record for record in records if record.seed in fresh]


def is_left(trial: SearchTrial) -> bool:
    """Whether a training only waited when the budget was spent. Its status is then `dropped`."""
    return trial.status == "dropped" and trial.reason == BUDGET_SPENT


def why_ended(trial: SearchTrial) -> str:
    """Return why a training that waited is ended, as its record has it."""
    return f"{'paused' if is_left(trial) else 'dropped'}: {trial.reason}"


def prior_words(plan: SearchPlan) -> str:
    """Return whether a search has a prior, and which factors and values it has no curves for."""
    if not plan.prior:
        return "without a prior"
    missing = shipped_prior().without_curves(Space(plan.space))
    parts = [f"{name} {', '.join(map(value_label, values))}".rstrip() for name, values in missing.items()]
    if len(missing) == len(plan.space) and not any(missing.values()):
        return f"without a prior, because earlier runs have no curves for {'; '.join(parts)}"
    lacks = f", which have no curves for {'; '.join(parts)}" if parts else ""
    return f"with a prior from earlier runs{lacks}"
