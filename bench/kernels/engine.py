"""The engine of `bench kernels`: how the rows of a spec are verified and timed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from fusetune.bench.kernels.measurement import Settings, measure
from fusetune.bench.kernels.plan import Planned
from fusetune.bench.kernels.rounds import StopRule
from fusetune.bench.kernels.row import Cache
from fusetune.bench.kernels.run import Keeper
from fusetune.bench.kernels.spec import LoadedKernels


def measure_planned(loaded: LoadedKernels, planned: Sequence[Planned], keeper: Keeper) -> None:
    """Verify and time the rows of a spec, and tell the keeper of each.

    Args:
        loaded: the spec.
        planned: its rows.
        keeper: has every row when it is finished.

    Raises:
        KeyboardInterrupt: it was interrupted.
    """
    spec = loaded.spec
    settings = Settings(
        competitors={each.case.name: each.competitors for each in planned},
        cache=cast(Cache, spec.policy.cache),
        rule=StopRule(budget_s=spec.budget.row),
        total_s=spec.budget.total,
    )
    measure([each.case for each in planned], settings, keeper)
