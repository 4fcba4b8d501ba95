"""A search in progress, as all its parts see it (no torch)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fusetune.bench.results import Record
from fusetune.bench.search.step import with_epochs_made_again
from fusetune.bench.search.store import SearchPlan, SearchStore
from fusetune.bench.spec import Spec, Trial, make_trial
from fusetune.tuner.search import Searcher, SearchTrial


@dataclass
class SearchState:
    """A search in progress: its decisions, its study, and the configurations as trials of the spec."""

    spec: Spec
    plan: SearchPlan
    searcher: Searcher
    store: SearchStore

    def trial(self, config: Mapping[str, Any], seed: int, source: Trial) -> Trial:
        """Return a configuration as a trial of the spec, with the data of another."""
        made = make_trial(self.spec, dict(config), seed)
        return dataclasses.replace(made, source=source.source, options=source.options)

    def with_repeats(self, trial: SearchTrial, record: Record) -> Record:
        """Return a trial's record with how many of its epochs were made once more, in all workers together."""
        return with_epochs_made_again(record, self.store.repeats(trial))
