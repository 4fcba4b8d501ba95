"""The message of a search without a finite value: how its trainings ended, and what to try."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from fusetune.tuner.search.space import Space


class Ended(Protocol):
    """The fields of a trial that the message uses."""

    @property
    def status(self) -> str:
        """How it ended."""

    @property
    def reason(self) -> str:
        """Why it ended so."""


def nothing_found(trials: Sequence[Ended], space: Space) -> str:
    """Return one line: how the trainings ended, why the last did, and which range to give in decades.

    Args:
        trials: all of the search, none of which reported a finite value.
        space: what was searched.
    """
    if not trials:
        return "no training was begun"
    counts = Counter(trial.status.replace("_", " ") for trial in trials)
    ways = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    line = f"no training reported a finite value: {ways}"
    if last := next((trial.reason for trial in reversed(trials) if trial.reason), ""):
        line += f"; the last: {last}"
    return f"{line}. {hint(space)}"


def hint(space: Space) -> str:
    """Return which linear ranges need `log: true`, or else the advice to search another space.

    Example:
        >>> hint(Space({"lr": {"low": 0.001, "high": 10.0}}))
        'lr: 90 % of a linear range from 0.001 to 10.0 lie above 1. Give it log: true'
    """
    sentences = []
    for factor in space.factors:
        if factor.holds_decades():
            span = f"a linear range from {factor.low} to {factor.high} lie above {factor.high / 10:g}"
            low = "" if factor.low > 0 else "a low above 0 and "
            sentences.append(f"{factor.name}: 90 % of {span}. Give it {low}log: true")
    return "; ".join(sentences) or "Search elsewhere, or let one training run by itself to see what is wrong"
