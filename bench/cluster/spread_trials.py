"""The order in which nodes get trials: blocks of seeds, and within a block each configuration on another node."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from fusetune.bench.workers import NOTHING


class SpreadTrials:
    """The trials of a run, handed to nodes so that no configuration sits on one node alone.

    A block has the trials of one seed, in their order. A node gets, of the first block that has some left, the trial
    whose configuration it has trained least often. With one node, that is the order of the trials.

    Args:
        trials: with `factors` and `seed`, ordered by blocks.

    Example:
        >>> from types import SimpleNamespace
        >>> trials = [SimpleNamespace(factors={"lr": lr}, seed=seed) for seed in (0, 1) for lr in (1, 2)]
        >>> waiting = SpreadTrials(trials)
        >>> [(node, trial.seed, trial.factors["lr"]) for node in "abab" for trial in [waiting.take(node)]]
        [('a', 0, 1), ('b', 0, 2), ('a', 1, 2), ('b', 1, 1)]
    """

    def __init__(self, trials: Iterable[Any]) -> None:
        # Seed -> configuration and trial. A configuration is written once, for a node is asked for each trial.
        self._blocks: dict[int, list[tuple[str, Any]]] = {}
        for trial in trials:
            self._blocks.setdefault(trial.seed, []).append((_configuration(trial), trial))
        self._trained: Counter[tuple[str, str]] = Counter()

    def __len__(self) -> int:
        return sum(map(len, self._blocks.values()))

    def take(self, node: str) -> Any:
        """Return the next trial for a node, or NOTHING."""
        block = next((waiting for waiting in self._blocks.values() if waiting), None)
        if block is None:
            return NOTHING
        chosen = min(range(len(block)), key=lambda place: self._trained[node, block[place][0]])
        configuration, trial = block.pop(chosen)
        self._trained[node, configuration] += 1
        return trial

    def put_back(self, trial: Any, node: str) -> None:
        """Take a trial back that was lost on a node. It comes before the others of its block."""
        configuration = _configuration(trial)
        self._trained[node, configuration] -= 1
        self._blocks.setdefault(trial.seed, []).insert(0, (configuration, trial))


def _configuration(trial: Any) -> str:
    return json.dumps(trial.factors, sort_keys=True, default=str)
