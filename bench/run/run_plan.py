"""Everything that is decided before the first trial of a run."""

from __future__ import annotations

from dataclasses import dataclass

from fusetune.bench.results import RunInfo, ThreadsChoice
from fusetune.bench.run.place import Place
from fusetune.bench.spec import Trial
from fusetune.bench.workers import WorkerSetup


@dataclass(frozen=True)
class RunPlan:
    """Everything that is decided before the first trial.

    Args:
        trials: in the order in which they run, their data sources filled in.
        run: what run.json says.
        setup: what a worker is started with.
        hard_timeout_s: a trial that takes longer is given up. None: no such limit.
        place: where the trials run.
        threads: how the number of threads was chosen. None: it was not yet, or torch's own number stays.
    """

    trials: list[Trial]
    run: RunInfo
    setup: WorkerSetup
    hard_timeout_s: float | None
    place: Place
    threads: ThreadsChoice | None = None

    @property
    def jobs(self) -> int:
        """Trials at once."""
        return self.place.trials_at_once
