"""The order in which nodes get trials: blocks of seeds, and within a block each configuration on another node."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from fusetune.bench.workers import LATER, NOTHING


class SpreadTrials:
    """The trials of a run, handed to nodes so that no configuration sits on one node alone.

    A block has the trials of one seed, in their order. A node gets, of the first block that has some for it, the trial
    whose configuration it has trained least often. The last trial of a configuration that only this node has trained is
    left to other nodes, while there are some. With one node, that is the order of the trials.

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
        self._left: Counter[str] = Counter()
        for trial in trials:
            configuration = _configuration(trial)
            self._blocks.setdefault(trial.seed, []).append((configuration, trial))
            self._left[configuration] += 1
        self._trained: dict[str, Counter[str]] = {configuration: Counter() for configuration in self._left}
        self._nodes: set[str] = set()

    def __len__(self) -> int:
        return sum(self._left.values())

    def take(self, node: str) -> Any:
        """Return the next trial for a node. NOTHING: no trial waits. LATER: those that wait are for other nodes."""
        self._nodes.add(node)
        for block in self._blocks.values():
            mine = [
                place
                for place, (configuration, _) in enumerate(block)
                if not self._is_for_others(configuration, node)
            ]
            if mine:
                chosen = min(mine, key=lambda place: self._trained[block[place][0]][node])
                configuration, trial = block.pop(chosen)
                self._trained[configuration][node] += 1
                self._left[configuration] -= 1
                return trial
        return LATER if any(self._blocks.values()) else NOTHING

    def put_back(self, trial: Any, node: str) -> None:
        """Take a trial back that was lost on a node. It comes before the others of its block."""
        configuration = _configuration(trial)
        self._trained[configuration][node] -= 1
        self._left[configuration] += 1
        self._blocks.setdefault(trial.seed, []).insert(0, (configuration, trial))

    def forget(self, node: str) -> None:
        """Take note that a node has no device any more, so that nothing waits for it."""
        self._nodes.discard(node)

    def _is_for_others(self, configuration: str, node: str) -> bool:
        """Whether a configuration has one trial left, this node alone has trained it, and there are other nodes."""
        if self._left[configuration] != 1 or len(self._nodes) < 2:
            return False
        trained = +self._trained[configuration]
        return set(trained) == {node}


def _configuration(trial: Any) -> str:
    return json.dumps(trial.factors, sort_keys=True, default=str)
