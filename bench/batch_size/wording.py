"""Sentences and numbers of batch sizes, as the terminal's report and the page have them."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence

from fusetune.bench.batch_size.accelerators import ACCELERATORS
from fusetune.bench.batch_size.devices import DevicesRow
from fusetune.bench.batch_size.measurements import Measurements
from fusetune.bench.batch_size.study import BatchSizeStudy, ConfigurationStudy, SizeRow
from fusetune.bench.results import RunInfo
from fusetune.bench.stats import configuration_label, counted, percent
from fusetune.bench.terminal import invocation
from fusetune.bench.units import format_bytes, format_count
from fusetune.tuner.batch_size import DeviceChoice
from fusetune.tuner.measure import is_contended

STATUS = {"ok": "fits", "out_of_memory": "does not fit", "failed": "failed", "predicted": "not run"}
_LEAST_SHARE, _LARGEST_SHARE = -0.5, 1.0


def answer(configuration: ConfigurationStudy, study: BatchSizeStudy) -> str:
    """Return a sentence on the largest batch of a configuration."""
    name = configuration_label(configuration.factors)
    if configuration.batch_size is None:
        return f"{name}: no largest batch was found. {capitalized(configuration.failure)}."
    limit = f"{format_bytes(configuration.limit_bytes or 0)} ({configuration.limit_source})"
    size = format_count(configuration.batch_size)
    if study.predicted_only:
        device = study.accelerator
        why = f"this machine has no {ACCELERATORS[device].title}" if device else "--predict asks for that"
        return (
            f"{name}: {size} is predicted to be the largest batch in {limit}. Nothing was run, because {why}."
        )
    tail = " It is the largest that the data or --max allow." if configuration.bound == "samples" else ""
    runs = counted(configuration.probes, "run")
    return f"{name}: {size} is the largest batch that ran in full in {limit}, after {runs}.{tail}"


def known_so_far(study: BatchSizeStudy) -> str:
    """Return the sizes that have run in full, for a search that was interrupted."""
    known = [
        f"{configuration_label(configuration.factors)}: {format_count(configuration.batch_size)} is the largest batch "
        f"that has run in full in {format_bytes(configuration.limit_bytes or 0)}"
        for configuration in study.configurations
        if configuration.batch_size and configuration.probes
    ]
    return "; ".join(known) or "no batch size has run in full yet"


def recommendation(configuration: ConfigurationStudy, measured: Measurements, run: RunInfo) -> list[str]:
    """Return sentences on the batch size to use and what limits it, on accumulation, and on the learning rate."""
    found = measured.recommendation
    if found is None:
        return []
    known = found.plateau is not None or measured.critical_batch[0] is not None
    lead = "Recommended" if known else "By memory alone"
    lines = [f"{lead}: batch_size {found.batch_size}. {capitalized(found.reason)}."]
    if found.accumulation is not None:
        split = found.accumulation
        steps = split.steps * measured.accumulation_steps
        lines.append(
            f"The spec's batch_size {split.wanted} does not fit. batch_size {split.batch_size} with "
            f"accumulation_steps {steps} gives the same step"
            f"{'' if split.batch_size * split.steps == split.wanted else ', except for a few samples'}."
        )
    critical, source = measured.critical_batch
    in_step = found.batch_size * measured.accumulation_steps
    if found.binds == "memory" and critical is not None and critical >= 2 * in_step:
        steps = math.ceil(critical / found.batch_size)
        lines.append(
            f"With accumulation_steps {steps} a step would have as many samples as {source}. That takes fewer steps "
            "to the target, but no less time."
        )
    missing = measured.processor_missing
    if missing is not None and is_contended(missing):
        lines.append(
            f"Other processes used {percent(missing)} of the processor while steps were timed, so this size "
            f"rests on contended timings. Run again on a quiet machine. `{invocation()} doctor` lists these processes."
        )
    return [*lines, learning_rate(configuration, measured, run)]


def devices_sentences(measured: Measurements) -> list[str]:
    """Return what to train on, and with which batch, where several devices were considered."""
    if not measured.devices:
        return []
    choice = measured.device_choice
    if choice is None:
        most = max(row.devices for row in measured.devices)
        return [f"On several devices: no batch fits, not even one sample on each of {most:,}."]
    share = choice.batch_size // choice.devices
    each = f" ({share:,} on each)" if choice.devices > 1 else ""
    devices = counted(choice.devices, "device")
    said = f"On several devices: {devices} with batch_size {choice.batch_size}{each}. {capitalized(choice.reason)}."
    missing = measured.processor_missing
    said += f" {_how_known(measured.devices, choice)}"
    if choice.binds == "time" and missing is not None and is_contended(missing):
        said += " These timings are contended."
    return [said]


def _how_known(rows: Sequence[DevicesRow], choice: DeviceChoice) -> str:
    """Return whether a batch has run on the devices that are recommended for it."""
    row = next(row for row in rows if row.devices == choice.devices)
    share = choice.batch_size // choice.devices
    if not row.ran or share > row.share:
        return "This batch is predicted, and did not run."
    whole = share == row.share or any(run.batch_size == share and run.status == "ok" for run in row.runs)
    limit = "the limit" if choice.devices == 1 else "the limit of each device"
    return f"{'This batch' if whole else f'A larger batch, {row.batch_size:,},'} ran in full under {limit}."


def devices_result(row: DevicesRow, choice: DeviceChoice | None) -> str:
    """Return how the batch of a number of devices is known, and whether these are recommended."""
    known = "ran" if row.ran else "did not run" if row.runs else "predicted"
    return f"{known}, recommended" if choice is not None and choice.devices == row.devices else known


def device_rate(measured: Measurements, devices: int) -> float | None:
    """Return the most samples/s that were measured on so many devices. None: nothing was."""
    rates = measured.device_rates.get(devices, ())
    return max((rate.samples_per_s for rate in rates), default=None)


def learning_rate(configuration: ConfigurationStudy, measured: Measurements, run: RunInfo) -> str:
    """Return the learning rate for the recommended batch size, or the command that finds it."""
    assert measured.recommendation is not None
    size, scaling = measured.recommendation.batch_size, measured.scaling
    if scaling is not None and measured.lr is not None and measured.rates is not None:
        low, high = scaling.batch_sizes[0], scaling.batch_sizes[-1]
        beyond = "" if low <= size <= high else " This extrapolates beyond the tested sizes."
        return (
            f"Learning rate for it: {measured.lr:.3g}, by batch_size^{scaling.exponent:.2f} (95 % interval "
            f"{scaling.low:.2f} to {scaling.high:.2f}) from LR range tests at {low} to {high} "
            f"({measured.rates.directory}).{beyond}"
        )
    if size == measured.wanted:
        return "That is the spec's own batch_size, so its base_lr stays."
    sizes = sorted(
        {max(1, size // 4), max(1, size // 2), size, min(2 * size, configuration.batch_size or size)}
    )
    factor = shlex.quote(f"factors.batch_size=[{','.join(map(str, sizes[-3:]))}]")
    return (
        "Learning rate for it: unknown. To measure how it scales with the batch size, run "
        f"`{invocation()} lr-range {shlex.quote(run.spec_path)} --set {factor}`."
    )


def memory_text(row: SizeRow | None) -> str:
    """Return the memory of a size, measured or expected (~)."""
    if row is None:
        return "-"
    if row.needed_bytes is not None:
        return f"{'>= ' if row.status == 'out_of_memory' else ''}{format_bytes(row.needed_bytes)}"
    return f"~{format_bytes(row.expected_bytes or row.predicted_bytes)}"


def short_number(value: float) -> str:
    """Return a number with about three digits, which is the precision of these measurements."""
    if value >= 1e6:
        return f"{value / 1e6:.3g}M"
    if value >= 9995:
        return f"{value / 1e3:.3g}k" if value < 999_500 else "1M"
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def error_text(row: SizeRow) -> str:
    """Return the error of the expected memory, in percent or bytes.

    Libraries take some MiB at any size. For a small model a percentage would be in the thousands.
    """
    if row.error is None or row.expected_bytes is None or row.needed_bytes is None:
        return "-"
    if _LEAST_SHARE <= row.error <= _LARGEST_SHARE:
        return f"{row.error:+.1%}"
    difference = row.expected_bytes - row.needed_bytes
    return f"{'+' if difference > 0 else '-'}{format_bytes(abs(difference))}"


def verdict(row: SizeRow, configuration: ConfigurationStudy) -> str:
    """Return a word or two on the result of a size, or on its expected result."""
    if row.batch_size == configuration.batch_size:
        return "largest"
    if row.status != "predicted" or configuration.limit_bytes is None:
        return STATUS[row.status]
    if row.batch_size < (configuration.batch_size or 0):
        return ""
    if (row.expected_bytes or row.predicted_bytes) > configuration.limit_bytes:
        return "too large"
    run = [other for other in configuration.rows if other.status in ("out_of_memory", "failed")]
    smaller = [other.batch_size for other in run if other.batch_size < row.batch_size]
    return f"not run: {format_count(min(smaller))} failed" if smaller else ""


def notes(configuration: ConfigurationStudy, measured: Measurements) -> list[str]:
    """Return notes on the columns and the origin of the numbers."""
    return [*_memory_notes(configuration), *_speed_notes(measured), *_devices_notes(measured)]


def _devices_notes(measured: Measurements) -> list[str]:
    """Return notes on how the memory of several devices is known."""
    spread = [row for row in measured.devices if row.parallel]
    if not spread:
        return []
    first = spread[0]
    parts = ", ".join(
        f"{name} {format_bytes(size)}"
        for name, size in sorted(first.parts.items(), key=lambda item: -item[1])
        if size
    )
    notes = [
        f"devices: {first.parallel}. One of several devices is predicted from a trace in which the others are "
        "pretended. The limit holds for each, and ~ marks memory of what did not run.",
        f"On {first.devices:,} devices a device's tensors have their peak in the {first.phase} phase: {parts}.",
    ]
    if measured.device_rates:
        notes.append("devices: samples/s is the highest that was measured, of all devices together.")
    if any(row.runs for row in spread):
        notes.append(
            "devices: expected by the runs on one device with a slope that is 5 % steeper, then by those on several."
        )
    if first.note and first.note not in measured.failures:
        notes.append(f"Prediction method of several devices: {first.method}. {capitalized(first.note)}.")
    return notes


def _memory_notes(configuration: ConfigurationStudy) -> list[str]:
    """Return notes on the parts of the memory, and on its prediction."""
    notes = []
    if any(row.status == "predicted" for row in configuration.rows):
        what = "the tensors' memory" if configuration.overhead is None else "the expected memory"
        notes.append(f"memory: ~ marks {what} of a size that was not run. │ is the limit.")
    if configuration.parts:
        parts = sorted(configuration.parts.items(), key=lambda item: -item[1])
        held = ", ".join(f"{name} {format_bytes(size)}" for name, size in parts if size)
        whose = "The largest batch's" if configuration.batch_size else "One sample's"
        notes.append(f"{whose} tensors have their peak in the {configuration.phase} phase: {held}.")
    if configuration.overhead is not None and configuration.probes:
        overhead = configuration.overhead
        sign = "+" if overhead.offset_bytes >= 0 else "-"
        notes.append(
            f"Fit of the runs: needed = {overhead.slope:.2f} x tensors {sign} "
            f"{format_bytes(abs(overhead.offset_bytes))}{_curve(overhead.curve)} (libraries, allocator). Expected: "
            "by the fit of the runs before."
        )
    notes += [
        f"Batch size {format_count(row.batch_size)} failed: {row.reason}."
        for row in configuration.rows
        if row.status == "failed" and row.reason != configuration.failure
    ]
    if configuration.note:
        notes.append(f"Prediction method: {configuration.method}. {capitalized(configuration.note)}.")
    return notes


def _curve(curve: float) -> str:
    """Return the quadratic term of the fit. Empty if its coefficient is 0."""
    return f" + {curve * 2**20:.2g} x tensors x tensors / MiB" if curve else ""


def _speed_notes(measured: Measurements) -> list[str]:
    """Return notes on throughput, noise and earlier trainings."""
    notes = []
    if measured.throughputs:
        rounds = len(measured.throughputs[0].step_times_s)
        notes.append(f"samples/s: median of {rounds} interleaved rounds, with its 95 % interval.")
    if measured.recommendation and (plateau := measured.recommendation.plateau):
        reached = f"starts at batch size {plateau.start}" if plateau.reached else "is not reached"
        notes.append(f"The throughput plateau (within 5 % of the best, {plateau.best}) {reached}.")
    notes += [noise_sentence(measured, position) for position in range(len(measured.noise))]
    notes += [f"Noise {measured.noise_note}."] if measured.noise_note else []
    critical, source = measured.critical_batch
    if critical is not None:
        notes.append(f"noise: noise-to-gradient ratio of a step, {source} / samples per step.")
        if measured.throughputs:
            notes.append(
                f"time: expected time to the target, (1 + batch / {source[4:]}) / (samples/s), relative to the least."
            )
    if measured.runs and measured.runs.rows:
        fit = measured.critical.reason if measured.critical else "too few batch sizes to fit a critical one"
        notes.append(f"steps to target: from {measured.runs.directory}. {capitalized(fit)}.")
    notes += [f"Not measured: {failure}." for failure in measured.failures]
    return notes


def noise_sentence(measured: Measurements, position: int) -> str:
    point = measured.noise[position]
    when = "before training" if point.epoch == 0 else f"after {counted(point.epoch, 'epoch')}"
    scale = point.scale
    if scale.value is None:
        return f"Noise scale {when}: {scale.reason}."
    return (
        f"Noise scale {when}: {short_number(scale.value)} samples "
        f"({100 * scale.confidence:g} % interval {short_number(scale.low)} to {short_number(scale.high)})."
    )


def capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


def bytes_text(value: float | None) -> str:
    return "-" if value is None else format_bytes(value)
