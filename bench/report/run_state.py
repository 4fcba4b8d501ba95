"""Whether a run goes on, is whole, or ended before its time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fusetune.bench.kinds import AUTOTUNE, BATCH_SIZE, KERNELS, SEARCH, function
from fusetune.bench.results import Record, RunInfo
from fusetune.bench.stats import counted

# What a run of a kind counts. Of the others it is trials.
_NOUNS = {AUTOTUNE.name: "case", BATCH_SIZE.name: "configuration", KERNELS.name: "row"}


@dataclass(frozen=True)
class RunState:
    """How far a run has come.

    Args:
        words: what is recorded of what was planned, such as `3 of 8 trials`.
        missing: what is missing, in words. Empty: the run is whole, or a run of this kind does not say.
    """

    words: str
    missing: str = ""

    def status(self, *, is_running: bool, go_on: str | None = None, anew: str = "") -> str:
        """Return what a page says of it. Empty: the run is over and whole.

        Args:
            is_running: whether its process lives.
            go_on: the command that continues it. None: there is none.
            anew: the command that started it, for a run that cannot be continued. Empty: not known.

        Example:
            >>> state = RunState("3 of 8 trials", "5 are missing")
            >>> state.status(is_running=True)
            'Running: 3 of 8 trials.'
            >>> state.status(is_running=False, go_on="bench run --resume results/demo/1")
            'Interrupted: 3 of 8 trials, 5 are missing. Continue with `bench run --resume results/demo/1`.'
        """
        if is_running:
            return f"Running: {self.words}."
        if not self.missing:
            return ""
        then = f" It cannot be continued. Start it anew with `{anew}`." if anew else ""
        then = f" Continue with `{go_on}`." if go_on else then
        return f"Interrupted: {self.words}, {self.missing}.{then}"


def state_of(run: RunInfo, records: Sequence[Record], study: Any) -> RunState:
    """Return how far a run has come.

    Args:
        run: of run.json.
        records: its records.
        study: of the same records, by the function of its kind.
    """
    if run.kind == SEARCH.name:
        words = f"{study.epochs_used} of {study.plan.budget_epochs} epochs"
        if not study.is_over:
            return RunState(words, "and the search is not over")
        planned = len(study.plan.fresh_seeds) if study.winner is not None else 0
        return RunState(
            words, _missing(planned - len(function(str(SEARCH.judged))(run, records)), "fresh seed")
        )
    if not run.trials:
        return RunState(counted(len(records), "record"))
    # Of a configuration's records only the kind knows which is the last.
    done = study.finished if run.kind == BATCH_SIZE.name else len(records)
    words = f"{done} of {counted(run.trials, _NOUNS.get(run.kind, 'trial'))}"
    return RunState(words, _missing(run.trials - done))


def _missing(count: int, noun: str = "") -> str:
    """Write how many are missing. Empty: none is."""
    if count <= 0:
        return ""
    what = counted(count, noun) if noun else str(count)
    return f"{what} {'is' if count == 1 else 'are'} missing"
