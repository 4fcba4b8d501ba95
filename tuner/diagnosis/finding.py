"""One thing that is wrong with a training, and the names there are."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Confidence = Literal["sure", "likely"]

FINDINGS: dict[str, str] = {
    "not_finite": "numbers that are not finite",
    "input_fault": "inputs not normalised",
    "label_fault": "labels do not fit the inputs",
    "dead_relus": "dead relus",
    "saturated_units": "saturated units",
    "exploding_gradients": "exploding gradients",
    "vanishing_gradients": "vanishing gradients",
    "learning_rate_too_high": "learning rate too high",
    "batch_too_small": "batch too small for its noise",
    "learning_rate_too_low": "learning rate too low",
    "plateau": "plateau or saddle",
    "too_few_epochs": "too few epochs",
    "underfitting": "underfitting",
    "overfitting": "overfitting",
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a training.

    Args:
        name: a key of `FINDINGS`.
        sentence: what is wrong, with the numbers that show it.
        evidence: name -> number.
        try_next: what to do about it.
        confidence: `sure` where nothing else explains the evidence, else `likely`.
    """

    name: str
    sentence: str
    evidence: dict[str, float] = field(default_factory=dict)
    try_next: str = ""
    confidence: Confidence = "likely"

    @property
    def title(self) -> str:
        """The finding in a few words."""
        return FINDINGS[self.name]

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object; evidence that is not finite is left out."""
        evidence = {name: number for name, number in self.evidence.items() if math.isfinite(number)}
        return {**asdict(self), "title": self.title, "evidence": evidence}
