"""A comparison of finders as JSON: every test, training and size, the machine, and how long it took."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fusetune.bench.finder_bench.batches import FoundBatch
from fusetune.bench.finder_bench.rates import Entry, RateResult, Suggested


@dataclass(frozen=True)
class FinderRecord:
    """All that a comparison came to.

    Args:
        rates: of learning rates, or None.
        batches: of batch sizes, empty where there were none.
        versions: library -> version.
        machine: as `bench.machine` describes it.
        load: the system's load average over a minute, at the start and at the end.
        seconds: part -> how long it took.
    """

    rates: RateResult | None = None
    batches: tuple[FoundBatch, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    load: tuple[float, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write the record as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> FinderRecord:
        """Read a record that `write` wrote."""
        stored = json.loads(path.read_text())
        rates = stored["rates"]
        if rates is not None:
            suggested = [
                Suggested(**{**each, "entry": Entry(**each["entry"])}) for each in rates["suggested"]
            ]
            rates = RateResult(tuple(suggested), rates["best_lr"], rates["best"])
        batches = tuple(FoundBatch(**each) for each in stored["batches"])
        return cls(**{**stored, "rates": rates, "batches": batches, "load": tuple(stored["load"])})
