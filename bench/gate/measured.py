"""What one process measured, and what two processes side by side did."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Better = Literal["lower", "higher", "neither"]
# How a metric is compared: timings by `decide`, exact metrics without statistics, learning over paired seeds.
Comparison = Literal["timing", "exact", "learning"]


@dataclass(frozen=True)
class Metric:
    """One metric of one benchmark in one process.

    Args:
        values: raw values in SI base units, at least one. A timing has one per round. Infinite: a target was missed.
        unit: `s`, `bytes`, `count`, `fraction`, `samples/s`, `nats` or `none`.
        better: the direction that is better.
        comparison: how it is compared.
    """

    values: tuple[float, ...]
    unit: str = "s"
    better: Better = "lower"
    comparison: Comparison = "timing"


@dataclass(frozen=True)
class Measured:
    """What one fresh process did on one side.

    Args:
        metrics: name -> metric. Empty where the process failed.
        ref: seconds of each round of the reference loop, those before the process and those after it.
        seconds: how long the process took, all in all.
        failure: one sentence. Empty where nothing failed. The benchmark ran and was wrong, diverged, ran out of memory
            or ended with an error.
        contention: share of processor time that others took meanwhile; None: not known.
    """

    metrics: Mapping[str, Metric] = field(default_factory=dict)
    ref: tuple[float, ...] = ()
    seconds: float = 0.0
    failure: str = ""
    contention: float | None = None


@dataclass(frozen=True)
class Pair:
    """Two processes side by side, one on each side, of one benchmark.

    Args:
        benchmark: its name within the spec, e.g. `smoke` or `smoke: optimizer=adam`.
        index: counts the benchmark's pairs from 0. A training's seed.
        base, head: what they measured.
        head_first: which ran first. Drawn at random.
        started: seconds since the epoch at which the first process began.
    """

    benchmark: str
    index: int
    base: Measured
    head: Measured
    head_first: bool = False
    started: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object of one line of pairs.jsonl. An infinite value is written as null.

        Example:
            >>> import json
            >>> side = Measured({"steps_to_target": Metric((math.inf,), "count", comparison="learning")})
            >>> pair = Pair("digits", 0, base=side, head=side)
            >>> Pair.from_dict(json.loads(json.dumps(pair.as_dict()))) == pair
            True
        """
        return {
            "benchmark": self.benchmark,
            "index": self.index,
            "head_first": self.head_first,
            "started": self.started,
            "base": _as_dict(self.base),
            "head": _as_dict(self.head),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Pair:
        """Read the JSON object. Raises KeyError, TypeError or ValueError when it is none."""
        return cls(
            str(content["benchmark"]),
            int(content["index"]),
            _measured(content["base"]),
            _measured(content["head"]),
            bool(content["head_first"]),
            float(content["started"]),
        )


def _as_dict(measured: Measured) -> dict[str, Any]:
    content = asdict(measured)
    for metric in content["metrics"].values():
        metric["values"] = [value if math.isfinite(value) else None for value in metric["values"]]
    return content


def _measured(content: Mapping[str, Any]) -> Measured:
    metrics = {
        name: Metric(
            **{**metric, "values": tuple(math.inf if v is None else float(v) for v in metric["values"])}
        )
        for name, metric in content["metrics"].items()
    }
    return Measured(**{**content, "metrics": metrics, "ref": tuple(map(float, content["ref"]))})
