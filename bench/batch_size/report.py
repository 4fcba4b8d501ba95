"""The report of `bench batch-size`: a recommendation with reasons, and the memory and speed of each size."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from fusetune.bench.batch_size.accelerators import ACCELERATORS
from fusetune.bench.batch_size.measurements import MeasuredStudy, Measurements
from fusetune.bench.batch_size.plot import draw_batch_size, relative_times
from fusetune.bench.batch_size.study import BatchSizeStudy, ConfigurationStudy, SizeRow
from fusetune.bench.report import caveat_lines
from fusetune.bench.results import EarlierTrainings, Pictures, RunInfo
from fusetune.bench.stats import configuration_label, counted, percent
from fusetune.bench.terminal import invocation
from fusetune.bench.units import format_bytes, format_count, format_seconds
from fusetune.tuner.batch_size import Throughput
from fusetune.tuner.measure import is_contended

_DIM = "dim"
_GAP = (0, 1, 0, 0)  # one space, and one that the box draws between columns
_STATUS = {"ok": "fits", "out_of_memory": "does not fit", "failed": "failed", "predicted": "not run"}
_LEAST_SHARE, _LARGEST_SHARE = -0.5, 1.0
# Characters of a bar up to the limit, and beyond it.
_UP_TO_LIMIT, _BEYOND = 12, 3


def show_batch_sizes(found: MeasuredStudy, console: Console, pictures: Pictures) -> None:
    """Draw the pictures, then print the report, which names their files."""
    draw_batch_size(found.study, found.measurements, pictures)
    render_batch_size(found.study, found.measurements, console, pictures)


def render_batch_size(
    study: BatchSizeStudy,
    measurements: Sequence[Measurements],
    console: Console,
    pictures: Pictures | None = None,
) -> None:
    """Print the recommendation, the table of sizes and their explanation for each configuration.

    Args:
        study: from `bench.batch_size.study.study_batch_sizes`.
        measurements: from `bench.batch_size.measurements.study_measurements`, one for each configuration.
        console: rich console of 100 columns or more.
        pictures: the pictures that were drawn.
    """
    for caveat in caveat_lines(study.caveats):
        console.print(caveat)
    console.print(Rule(Text(f"{study.run.spec.name}: batch size", style="bold"), align="left", style=_DIM))
    for position, (configuration, measured) in enumerate(
        zip(study.configurations, measurements, strict=True)
    ):
        if position:
            console.print()
        for line in [
            answer(configuration, study.accelerator),
            *recommendation(configuration, measured, study.run),
        ]:
            console.print(Text(line, style="bold"))
        if configuration.rows:
            console.print()
            console.print(_sizes(configuration, measured))
        if configuration.probes:
            console.print()
            console.print(_predictions(configuration))
        if measured.runs is not None and measured.runs.rows:
            console.print()
            console.print(_trainings(measured.runs))
        console.print()
        for line in _notes(configuration, measured):
            console.print(Text(line, style=_DIM))
    if study.directory:
        console.print(Text(f"records: {study.directory}", style=_DIM))
    if pictures is not None:
        for path in pictures.paths:
            console.print(Text(f"picture: {path}", style=_DIM))
        if pictures.note:
            console.print(Text(f"note: {pictures.note}", style="yellow"))


def answer(configuration: ConfigurationStudy, accelerator: str | None) -> str:
    """Return a sentence on the largest batch of a configuration."""
    name = configuration_label(configuration.factors)
    if configuration.batch_size is None:
        return f"{name}: no largest batch was found. {_capitalized(configuration.failure)}."
    limit = f"{format_bytes(configuration.limit_bytes or 0)} ({configuration.limit_source})"
    size = format_count(configuration.batch_size)
    if accelerator is not None:
        return (
            f"{name}: {size} is predicted to be the largest batch in {limit}. Nothing was run, "
            f"because this machine has no {ACCELERATORS[accelerator].title}."
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
    lines = [f"{lead}: batch_size {found.batch_size}. {_capitalized(found.reason)}."]
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


def _sizes(configuration: ConfigurationStudy, measured: Measurements) -> Table:
    """Return the table of memory, step time, throughput, noise and expected time by batch size."""
    rates = {rate.batch_size: rate for rate in measured.throughputs}
    table = _empty_table("batch", "memory", f"of {format_bytes(configuration.limit_bytes or 0)}")
    table.columns[2].justify = "left"
    if rates:
        for title in ("step", "samples/s", "interval"):
            table.add_column(title, justify="right", no_wrap=True)
    critical, _ = measured.critical_batch
    if critical is not None:
        table.add_column("noise", justify="right", no_wrap=True)
    times = relative_times(measured)
    if times:
        table.add_column("time", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    rows = {row.batch_size: row for row in configuration.rows}
    recommended = measured.recommendation.batch_size if measured.recommendation else None
    for size in sorted(rows.keys() | rates.keys()):
        row = rows.get(size)
        cells = [format_count(size), _memory(row), _bar(row, configuration)]
        if rates:
            cells += _rate(rates.get(size))
        if critical is not None:
            cells.append(_short(critical / (size * measured.accumulation_steps)))
        if times:
            cells.append(f"{times[size]:.2f}x" if size in times else "-")
        verdict = _verdict(row, configuration) if row else ""
        table.add_row(
            *cells,
            "recommended" if size == recommended else verdict,
            style="bold" if size in (recommended, configuration.batch_size) else None,
        )
    return table


def _memory(row: SizeRow | None) -> str:
    """Return the memory of a size, measured or expected (~)."""
    if row is None:
        return "-"
    if row.needed_bytes is not None:
        return f"{'>= ' if row.status == 'out_of_memory' else ''}{format_bytes(row.needed_bytes)}"
    return f"~{format_bytes(row.expected_bytes or row.predicted_bytes)}"


def _bar(row: SizeRow | None, configuration: ConfigurationStudy) -> str:
    """Return a bar of a size's memory. The vertical line is the limit."""
    if row is None or not configuration.limit_bytes:
        return ""
    need = row.needed_bytes or row.expected_bytes or row.predicted_bytes
    length = round(_UP_TO_LIMIT * need / configuration.limit_bytes)
    if row.status == "out_of_memory" or (need > configuration.limit_bytes and length == _UP_TO_LIMIT):
        length = max(length, _UP_TO_LIMIT + 1)
    inside, outside = min(length, _UP_TO_LIMIT), min(length - _UP_TO_LIMIT, _BEYOND)
    return f"{'█' * inside:{_UP_TO_LIMIT}}│{'█' * max(0, outside)}"


def _rate(rate: Throughput | None) -> list[str]:
    if rate is None:
        return ["-", "-", "-"]
    interval = f"{_short(rate.low)}-{_short(rate.high)}"
    return [format_seconds(rate.step_time_s), _short(rate.samples_per_s), interval]


def _short(value: float) -> str:
    """Return a number with about three digits, which is the precision of these measurements."""
    if value >= 1e6:
        return f"{value / 1e6:.3g}M"
    if value >= 9995:
        return f"{value / 1e3:.3g}k" if value < 999_500 else "1M"
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _trainings(runs: EarlierTrainings) -> Table:
    table = _empty_table("batch", "trainings", "reached", "steps to target", "time to target")
    for row in runs.rows:
        table.add_row(
            format_count(row.batch_size),
            str(row.n),
            str(len(row.steps)),
            format_count(row.median_steps),
            format_seconds(row.median_time_s),
        )
    return table


def _predictions(configuration: ConfigurationStudy) -> Table:
    table = _empty_table("run", "batch", "tensors", "expected", "measured", "error", "resident")
    table.add_column("", no_wrap=True)
    for row in sorted(configuration.rows, key=lambda row: row.probe or 0):
        if row.probe is None:
            continue
        table.add_row(
            str(row.probe),
            format_count(row.batch_size),
            _bytes(row.predicted_bytes),
            _bytes(row.expected_bytes),
            _memory(row) if row.needed_bytes is not None else "-",
            _error(row),
            _bytes(row.peak_bytes),
            _STATUS[row.status],
        )
    return table


def _error(row: SizeRow) -> str:
    """Return the error of the expected memory, in percent or bytes.

    Libraries take some MiB at any size. For a small model a percentage would be in the thousands.
    """
    if row.error is None or row.expected_bytes is None or row.needed_bytes is None:
        return "-"
    if _LEAST_SHARE <= row.error <= _LARGEST_SHARE:
        return f"{row.error:+.1%}"
    difference = row.expected_bytes - row.needed_bytes
    return f"{'+' if difference > 0 else '-'}{format_bytes(abs(difference))}"


def _empty_table(*titles: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style=_DIM, padding=_GAP)
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _verdict(row: SizeRow, configuration: ConfigurationStudy) -> str:
    """Return a word or two on the result of a size, or on its expected result."""
    if row.batch_size == configuration.batch_size:
        return "largest"
    if row.status != "predicted" or configuration.limit_bytes is None:
        return _STATUS[row.status]
    if row.batch_size < (configuration.batch_size or 0):
        return ""
    if (row.expected_bytes or row.predicted_bytes) > configuration.limit_bytes:
        return "too large"
    run = [other for other in configuration.rows if other.status in ("out_of_memory", "failed")]
    smaller = [other.batch_size for other in run if other.batch_size < row.batch_size]
    return f"not run: {format_count(min(smaller))} failed" if smaller else ""


def _notes(configuration: ConfigurationStudy, measured: Measurements) -> list[str]:
    """Return notes on the columns and the origin of the numbers."""
    return [*_memory_notes(configuration), *_speed_notes(measured)]


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
        notes.append(f"Prediction method: {configuration.method}. {_capitalized(configuration.note)}.")
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
    notes += [_noise(measured, position) for position in range(len(measured.noise))]
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
        notes.append(f"steps to target: from {measured.runs.directory}. {_capitalized(fit)}.")
    notes += [f"Not measured: {failure}." for failure in measured.failures]
    return notes


def _noise(measured: Measurements, position: int) -> str:
    point = measured.noise[position]
    when = "before training" if point.epoch == 0 else f"after {counted(point.epoch, 'epoch')}"
    scale = point.scale
    if scale.value is None:
        return f"Noise scale {when}: {scale.reason}."
    return (
        f"Noise scale {when}: {_short(scale.value)} samples "
        f"({100 * scale.confidence:g} % interval {_short(scale.low)} to {_short(scale.high)})."
    )


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


def _bytes(value: float | None) -> str:
    return "-" if value is None else format_bytes(value)
