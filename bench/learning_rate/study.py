"""LR range tests of a spec's configurations (`bench lr-range`), and the rate's scaling with the batch size."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fusetune.bench.results import RangeTestOptions, RangeTestOutcome, Record, RunInfo
from fusetune.bench.spec import (
    LoadedSpec,
    Trial,
    field_of,
    key_id,
    name_of,
    value_label,
    varied,
    without_factors,
)
from fusetune.bench.stats import Caveat, caveats_of, counted
from fusetune.tuner.learning_rate import LEAST_SIZES, LRScaling, fit_lr_scaling

if TYPE_CHECKING:
    from fusetune.bench.run import Workload
    from fusetune.bench.workers import OnProgress, WorkerContext
    from fusetune.tuner.learning_rate import Confirmation, LRRange

# A range test sets the rate itself, so the base rate and the schedule are not factors of it.
_NO_FACTORS = (("train", "base_lr"), ("train", "schedule"))
_SIZE = "train.batch_size"
# Largest ratio of an interval's ends for a suggestion that enters the power-law fit.
MOST_SPREAD = 30.0
_LEAST_CONFIRM_STEPS, _MOST_CONFIRM_STEPS = 100, 300


def with_swept_factors(loaded: LoadedSpec, *, all_seeds: bool) -> tuple[LoadedSpec, list[str]]:
    """Remove the factors that a range test does not vary, and by default all seeds but the first.

    Returns:
        The reduced spec, and a note on each removal.
    """
    spec = loaded.spec
    dropped = [key for key in varied(spec) if tuple(field_of(key).split(".")[:2]) in _NO_FACTORS]
    spec = without_factors(spec, dropped.__contains__)
    seeds = spec.seeds if all_seeds else spec.seeds[:1]
    notes = []
    if dropped:
        notes.append(f"not varied, because the test sweeps the rate itself: {', '.join(dropped)}")
    if len(seeds) < len(spec.seeds):
        notes.append(f"seed {seeds[0]} alone of {len(spec.seeds)}; --all-seeds uses all of them")
    reduced = spec.model_copy(update={"seeds": seeds})
    return dataclasses.replace(loaded, spec=reduced), notes


def run_lr_range(trial: Trial, context: WorkerContext, on_progress: OnProgress) -> Record:
    """Test one configuration with one seed. See `bench.run.trial.run_trial` for the arguments.

    The options of the trial are `bench.results.RangeTestOptions`.
    """
    from fusetune.bench.run import build_workload, find_learning_rate, rehearse_trial

    if trial.rehearsal:
        return rehearse_trial(trial, context)
    started_s = time.perf_counter()
    options = RangeTestOptions.from_dict(trial.options)
    on_progress({"phase": "data"})
    workload = build_workload(trial, context)
    workload.place()
    on_progress({"phase": f"sweeping the rate, {options.repeats} x {options.steps} steps"})
    found = find_learning_rate(
        workload,
        validation=workload.data.validation if options.validation else None,
        lr_min=options.lr_min,
        lr_max=options.lr_max,
        steps=options.steps,
        repeats=options.repeats,
        mode=options.mode,
    )
    confirmation = None
    if options.confirm and found.suggestion is not None:
        on_progress({"phase": f"training briefly around {found.suggestion:.3g}"})
        confirmation = _confirm(workload, found)
    return _record(trial, context, found, confirmation, time.perf_counter() - started_s)


def _confirm(workload: Workload, found: LRRange) -> Confirmation:
    """Train for about an epoch at each of several rates around the suggestion."""
    from fusetune.tuner.learning_rate import StepSettings, candidates_around, confirm
    from fusetune.tuner.training import resolve_precision

    section, data = workload.spec.train, workload.data
    epoch = len(data.training) // section.accumulation_steps
    precision = resolve_precision(section.precision, data.training.device)
    return confirm(
        workload.model,
        workload.make_optimizer.at,
        workload.loss_fn,
        data.training,
        data.validation,
        candidates_around(found),
        steps=min(max(epoch, _LEAST_CONFIRM_STEPS), _MOST_CONFIRM_STEPS),
        seed=workload.seed,
        settings=StepSettings(section.accumulation_steps, section.grad_clip, precision),
    )


def _record(
    trial: Trial, context: WorkerContext, found: LRRange, confirmation: Confirmation | None, seconds: float
) -> Record:
    """Return the record: results as values, sweeps as the curve, confirmation losses as samples."""
    import torch

    from fusetune.tuner.training import resolve_precision

    values: dict[str, float] = {"steps": found.steps_used, "setup_s": seconds}
    optional = {
        "range_lr": found.suggestion,
        "suggested_lr": confirmation.lr if confirmation else found.suggestion,
        "lr_low": found.low,
        "lr_high": found.high,
        "lr_interval_low": found.interval[0] if found.interval else None,
        "lr_interval_high": found.interval[1] if found.interval else None,
        "divergence_lr": found.divergence_lr,
    }
    values |= {name: value for name, value in optional.items() if value is not None}
    samples = {}
    if confirmation:
        tried = [
            pair for pair in zip(confirmation.lrs, confirmation.losses, strict=True) if math.isfinite(pair[1])
        ]
        samples = {"confirm_lr": [lr for lr, _ in tried], "confirm_val_loss": [loss for _, loss in tried]}
    provenance = {
        "precision": resolve_precision(trial.spec.train.precision, context.device),
        "threads": torch.get_num_threads(),
    }
    confirm_lrs = tuple(confirmation.lrs) if confirmation else None
    outcome = RangeTestOutcome(found.reason, tuple(found.warnings), confirm_lrs)
    reason = "" if found.suggestion is not None else f"no suggestion: {found.reason}"
    return Record(
        trial.id,
        trial.factors,
        trial.seed,
        "ok",
        reason,
        values,
        samples,
        _curve(found),
        provenance,
        outcome=outcome,
    )


def _curve(found: LRRange) -> list[dict[str, float | None]]:
    """Return an entry per rate, with lr, smoothed mean and each repeat's loss.

    A loss is None after the end of its repeat, and where it is not finite.
    """
    longest = max(found.sweeps, key=lambda sweep: len(sweep.lrs))
    smoothed = found.smoothed
    curve: list[dict[str, float | None]] = []
    for index, lr in enumerate(longest.lrs):
        entry: dict[str, float | None] = {
            "lr": lr,
            "smoothed": smoothed[index] if index < len(smoothed) else None,
        }
        for number, sweep in enumerate(found.sweeps, start=1):
            loss = sweep.losses[index] if index < len(sweep.losses) else math.nan
            entry[f"loss_{number}"] = loss if math.isfinite(loss) else None
        curve.append(entry)
    return curve


@dataclass(frozen=True)
class Tested:
    """The data of one range test's record, for report and picture. `_record` defines the values."""

    record: Record
    label: str
    lrs: list[float]
    repeats: list[list[float | None]]
    smoothed: list[float | None]

    @property
    def values(self) -> Mapping[str, float]:
        """The record's values."""
        return self.record.values

    @property
    def outcome(self) -> RangeTestOutcome:
        """The test's outcome. A failed test has an empty one."""
        found = self.record.outcome
        return found if isinstance(found, RangeTestOutcome) else RangeTestOutcome()

    @property
    def advice(self) -> str:
        """The reason for the suggestion, and the rate to use. Empty without a suggestion.

        Example:
            >>> record = Record("t", {}, 0, "ok", values={"suggested_lr": 0.05}, outcome=RangeTestOutcome("it falls"))
            >>> Tested(record, "train", [], [], []).advice
            'it falls. Use 0.05'
        """
        lr = self.values.get("suggested_lr")
        if lr is None:
            return ""
        outcome = self.outcome
        tried = ", the best of the short trainings around it" if outcome.confirm_lrs is not None else ""
        why = outcome.reason
        return f"{why + '. ' if why else ''}Use {lr:.3g}{tried}"

    @property
    def notes(self) -> list[str]:
        """Why there is no suggestion, or warnings about it."""
        reasons = [self.record.reason] if self.record.reason else []
        if "range_lr" in self.values and "suggested_lr" not in self.values:
            reasons.append("no rate to use: every short training around the suggestion diverged")
        return [*reasons, *self.outcome.warnings]


@dataclass(frozen=True)
class LRStudy:
    """The results of a run of `bench lr-range`.

    Args:
        run: the run.
        tested: the tests, in the order of the records.
        scalings: power-law fit of each group of other factors (`optimizer=adam`), or why there is none.
        directory: the run's directory.
        caveats: warnings for the top of the report.
    """

    run: RunInfo
    tested: tuple[Tested, ...]
    scalings: dict[str, LRScaling | str] = field(default_factory=dict)
    directory: str = ""
    caveats: tuple[Caveat, ...] = ()


def study_learning_rates(run: RunInfo, records: Sequence[Record], directory: str = "") -> LRStudy:
    """Return the tests of a run's records, with a power-law fit where the batch size is a factor."""
    from fusetune.bench.stats import configuration_label

    many_seeds = len({record.seed for record in records}) > 1
    tested = []
    for record in records:
        label = configuration_label(record.factors) if record.factors else "train"
        curve = record.curve
        names = sorted(name for name in (curve[0] if curve else {}) if name.startswith("loss_"))
        tested.append(
            Tested(
                record,
                f"{label}, seed {record.seed}" if many_seeds else label,
                [float(entry["lr"] or 0) for entry in curve],
                [[entry[name] for entry in curve] for name in names],
                [entry["smoothed"] for entry in curve],
            )
        )
    return LRStudy(run, tuple(tested), _scalings(run, records), directory, caveats_of(run, records))


def _scalings(run: RunInfo, records: Iterable[Record]) -> dict[str, LRScaling | str]:
    """Fit a power law for each combination of the other factors."""
    key = name_of(_SIZE, run.spec.levels)
    if key is None:
        return {}
    groups = _by_other_factors(key, records)
    return {name: _scaling(key, group) for name, group in groups.items()}


def by_batch_size(study: LRStudy) -> dict[str, list[tuple[int, Record]]]:
    """Return the batch size of each record that has a suggestion, by the groups of `LRStudy.scalings`."""
    key = name_of(_SIZE, study.run.spec.levels)
    if key is None:
        return {}
    groups = _by_other_factors(key, [test.record for test in study.tested])
    return {
        name: [(int(record.factors[key]), record) for record in group if "range_lr" in record.values]
        for name, group in groups.items()
    }


def _by_other_factors(key: str, records: Iterable[Record]) -> dict[str, list[Record]]:
    """Return the records of each combination of the factors besides the batch size."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        rest = ", ".join(
            f"{key_id(name)}={value_label(value)}" for name, value in record.factors.items() if name != key
        )
        groups.setdefault(rest or "all", []).append(record)
    return groups


def _scaling(key: str, records: Sequence[Record]) -> LRScaling | str:
    """Return the fit of one group, or why there is none."""
    # The fit uses unconfirmed rates, because confirmed rates are a factor of 2 apart.
    suggested = [record for record in records if "range_lr" in record.values]
    points = [
        (int(record.factors[key]), record.values["range_lr"]) for record in suggested if is_narrow(record)
    ]
    left_out = len(suggested) - len(points)
    if len({size for size, _ in points}) < LEAST_SIZES:
        sizes = len({record.factors[key] for record in suggested})
        wide = (
            f", {counted(left_out, 'test')} left out with an interval wider than a factor of {MOST_SPREAD:g}"
        )
        known = wide if left_out else ""
        return (
            f"{sizes} batch sizes with a suggestion{known}; an exponent with an interval needs {LEAST_SIZES}"
        )
    scaling = fit_lr_scaling([size for size, _ in points], [lr for _, lr in points])
    return dataclasses.replace(scaling, left_out=left_out)


def is_narrow(record: Record) -> bool:
    """Whether the ratio of the interval's ends is small enough for the fit. True without an interval."""
    low, high = (record.values.get(f"lr_interval_{end}") for end in ("low", "high"))
    return low is None or high is None or high <= MOST_SPREAD * low
