"""Thresholds and directions of the gate, from the spec's `gate:` section."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fusetune.bench.errors import InputError
from fusetune.bench.gate.measured import Better, Metric, Pair
from fusetune.bench.spec import Gate
from fusetune.bench.units import METRICS

TIMING_THRESHOLD = 0.02
# A count of steps moves by whole epochs, and seeds differ by more than timings do.
TO_TARGET_THRESHOLD = 0.05
QUALITY_THRESHOLD = 0.01


@dataclass(frozen=True)
class Rule:
    """What the spec says on one metric. None: nothing.

    Args:
        threshold: relative change from which on a difference counts.
        better: the direction that is better. `neither`: the metric is shown, and never judged.
    """

    threshold: float | None = None
    better: Better | None = None


@dataclass(frozen=True)
class Rules:
    """The thresholds and directions of a gate. Those of a benchmark go before those of a metric.

    Args:
        metrics: metric -> rule.
        benchmarks: benchmark -> metric -> rule.
        where: what an error names as the place, e.g. `specs/smoke.yaml: gate`.

    Example:
        >>> rules = Rules({"step_time_s": Rule(0.05)}, {"smoke": {"step_time_s": Rule(0.1)}})
        >>> timing = Metric((0.01,))
        >>> rules.threshold("smoke", "step_time_s", timing), rules.threshold("other", "step_time_s", timing)
        (0.1, 0.05)
        >>> rules.threshold("smoke", "peak_bytes", Metric((512.0,), "bytes", comparison="exact"))
        0.0
    """

    metrics: Mapping[str, Rule] = field(default_factory=dict)
    benchmarks: Mapping[str, Mapping[str, Rule]] = field(default_factory=dict)
    where: str = "gate"

    @classmethod
    def of_section(cls, section: Gate | None, where: str = "gate") -> Rules:
        """Read a spec's `gate:` section; None, where it has none.

        Args:
            section: of a validated spec.
            where: what an error names as the place.
        """
        if section is None:
            return cls(where=where)

        def read(metrics: Mapping[str, object]) -> dict[str, Rule]:
            return {
                name: Rule(getattr(entry, "threshold", None), getattr(entry, "better", None))
                for name, entry in metrics.items()
            }

        return cls(
            read(section.metrics),
            {benchmark: read(metrics) for benchmark, metrics in section.benchmarks.items()},
            where,
        )

    def given_threshold(self, benchmark: str, metric: str) -> float | None:
        """Return the threshold that the spec has for a metric, or None."""
        for rule in self._of(benchmark, metric):
            if rule.threshold is not None:
                return rule.threshold
        return None

    def threshold(self, benchmark: str, metric: str, measured: Metric) -> float:
        """Return the relative change from which on a difference of a metric counts."""
        given = self.given_threshold(benchmark, metric)
        return default_threshold(measured) if given is None else given

    def given_better(self, benchmark: str, metric: str) -> Better | None:
        """Return the direction that the spec has for a metric, or None."""
        for rule in self._of(benchmark, metric):
            if rule.better is not None:
                return rule.better
        return None

    def better(self, benchmark: str, metric: str) -> Better | None:
        """Return the direction that the spec has for a metric, else the one that its name tells, else None."""
        return self.given_better(benchmark, metric) or better_by_name(metric)

    def check(self, pairs: Iterable[Pair]) -> None:
        """Check the names of the section against what was measured.

        Names are not checked while a benchmark has measured nothing, because its metrics are not known then.

        Args:
            pairs: one finished pair of each benchmark, or more.

        Raises:
            InputError: a benchmark or a metric that was not measured, with the closest name, or a threshold of 0 for a
                timing.
        """
        measured: dict[str, dict[str, Metric]] = {}
        for pair in pairs:
            found = measured.setdefault(pair.benchmark, {})
            for side in (pair.base, pair.head):
                found.update(side.metrics)
        if not measured or not all(measured.values()):
            return
        everything = {name: metric for found in measured.values() for name, metric in found.items()}
        self._check_metrics(self.metrics, everything, f"{self.where}.metrics")
        for benchmark, metrics in self.benchmarks.items():
            if benchmark not in measured:
                raise InputError.unknown(f"{self.where}.benchmarks", benchmark, measured)
            self._check_metrics(metrics, measured[benchmark], f"{self.where}.benchmarks.{benchmark}")

    def _check_metrics(self, rules: Mapping[str, Rule], measured: Mapping[str, Metric], where: str) -> None:
        for name, rule in rules.items():
            if name not in measured:
                raise InputError.unknown(where, name, measured)
            if rule.threshold == 0 and measured[name].comparison != "exact":
                raise InputError(
                    f"{where}.{name}.threshold",
                    "is 0",
                    "two processes are never equally fast",
                    "Write a change that matters, such as 0.02",
                )

    def _of(self, benchmark: str, metric: str) -> Iterable[Rule]:
        for rules in (self.benchmarks.get(benchmark, {}), self.metrics):
            if metric in rules:
                yield rules[metric]


def default_threshold(measured: Metric) -> float:
    """Return the threshold of a metric on which the spec says nothing.

    Example:
        >>> default_threshold(Metric((0.1,))), default_threshold(Metric((64.0,), "count", comparison="exact"))
        (0.02, 0.0)
    """
    if measured.comparison == "exact":
        return 0.0
    if measured.comparison == "timing":
        return TIMING_THRESHOLD
    return TO_TARGET_THRESHOLD if measured.unit in ("count", "s") else QUALITY_THRESHOLD


def better_by_name(metric: str) -> Better | None:
    """Return the direction that a metric's name tells, or None.

    Args:
        metric: a metric of this project, or any name: `*_per_s` and `*accuracy*` are better when higher, `*_s`,
            `*_bytes` and `*loss*` when lower.

    Example:
        >>> better_by_name("tokens_per_s"), better_by_name("decode_s"), better_by_name("score")
        ('higher', 'lower', None)
    """
    if metric in METRICS:
        return METRICS[metric].better
    if metric.endswith("_per_s") or "accuracy" in metric:
        return "higher"
    if metric.endswith(("_s", "_bytes")) or "loss" in metric:
        return "lower"
    return None


def unknown_direction(where: str, metric: str) -> InputError:
    """Return the error for a metric of which nobody said whether more is better.

    Example:
        >>> unknown_direction("bench.py", "score").to_do
        'Write gate: {metrics: {score: {better: higher}}}'
    """
    return InputError(
        where,
        f"which direction of '{metric}' is better is not known",
        "known by name: *_s, *_bytes, *loss* lower, *_per_s, *accuracy* higher",
        f"Write gate: {{metrics: {{{metric}: {{better: higher}}}}}}",
    )
