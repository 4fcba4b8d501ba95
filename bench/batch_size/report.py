"""The report of `bench batch-size`: a recommendation with reasons, and the memory and speed of each size."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from fusetune.bench.batch_size.character_plots import memory_plot, throughput_plot
from fusetune.bench.batch_size.measurements import MeasuredStudy, Measurements
from fusetune.bench.batch_size.plot import draw_batch_size, relative_times
from fusetune.bench.batch_size.study import BatchSizeStudy, ConfigurationStudy, SizeRow
from fusetune.bench.batch_size.wording import (
    STATUS,
    answer,
    bytes_text,
    device_rate,
    devices_result,
    devices_sentences,
    error_text,
    memory_text,
    notes,
    recommendation,
    short_number,
    verdict,
)
from fusetune.bench.report import caveat_lines
from fusetune.bench.results import EarlierTrainings, Pictures
from fusetune.bench.units import format_bytes, format_count, format_seconds
from fusetune.tuner.batch_size import Throughput

_DIM = "dim"
_GAP = (0, 1, 0, 0)  # one space, and one that the box draws between columns
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
            answer(configuration, study),
            *recommendation(configuration, measured, study.run),
            *devices_sentences(measured),
        ]:
            console.print(Text(line, style="bold"))
        if configuration.rows:
            console.print()
            console.print(_sizes(configuration, measured))
        for plot in (throughput_plot(measured), memory_plot(configuration, measured)):
            if plot is not None:
                console.print()
                console.print(plot, highlight=False)
        if configuration.probes:
            console.print()
            console.print(_predictions(configuration))
        if measured.devices:
            console.print()
            console.print(_devices(measured))
        if any(row.runs for row in measured.devices):
            console.print()
            console.print(_shared_runs(measured))
        if measured.runs is not None and measured.runs.rows:
            console.print()
            console.print(_trainings(measured.runs))
        console.print()
        for line in notes(configuration, measured):
            console.print(Text(line, style=_DIM))
    if study.directory:
        console.print(Text(f"records: {study.directory}", style=_DIM))
    if pictures is not None:
        for path in pictures.paths:
            console.print(Text(f"picture: {path}", style=_DIM))
        if pictures.note:
            console.print(Text(f"note: {pictures.note}", style="yellow"))


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
        cells = [format_count(size), memory_text(row), _bar(row, configuration)]
        if rates:
            cells += _rate(rates.get(size))
        if critical is not None:
            cells.append(short_number(critical / (size * measured.accumulation_steps)))
        if times:
            cells.append(f"{times[size]:.2f}x" if size in times else "-")
        said = verdict(row, configuration) if row else ""
        table.add_row(
            *cells,
            "recommended" if size == recommended else said,
            style="bold" if size in (recommended, configuration.batch_size) else None,
        )
    return table


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
    interval = f"{short_number(rate.low)}-{short_number(rate.high)}"
    return [format_seconds(rate.step_time_s), short_number(rate.samples_per_s), interval]


def _devices(measured: Measurements) -> Table:
    """Return the table of the largest batch by number of devices, and of the memory of each."""
    choice = measured.device_choice
    table = _empty_table("devices", "each", "batch", "memory of each", f"at batch {measured.wanted:,}")
    timed = bool(measured.device_rates)
    if timed:
        table.add_column("samples/s", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in measured.devices:
        rate = device_rate(measured, row.devices)
        is_chosen = choice is not None and choice.devices == row.devices
        table.add_row(
            format_count(row.devices),
            format_count(row.share) if row.share else "none fits",
            format_count(row.batch_size) if row.share else "-",
            f"{'' if row.ran else '~'}{format_bytes(row.expected_bytes)}",
            f"~{format_bytes(row.wanted_bytes)}",
            *([short_number(rate) if rate else "-"] if timed else []),
            devices_result(row, choice),
            style="bold" if is_chosen else None,
        )
    return table


def _shared_runs(measured: Measurements) -> Table:
    """Return the table of the batches that several devices ran together. Its memory is that of one device."""
    table = _empty_table(
        "devices", "run", "batch", "each", "tensors", "expected", "measured", "error", "step"
    )
    table.add_column("", no_wrap=True)
    for devices in measured.devices:
        for row in devices.runs:
            table.add_row(
                format_count(devices.devices),
                str(row.probe),
                format_count(devices.devices * row.batch_size),
                format_count(row.batch_size),
                bytes_text(row.predicted_bytes),
                bytes_text(row.expected_bytes),
                memory_text(row) if row.needed_bytes is not None else "-",
                error_text(row),
                format_seconds(row.step_time_s) if row.step_time_s else "-",
                STATUS[row.status],
            )
    return table


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
            bytes_text(row.predicted_bytes),
            bytes_text(row.expected_bytes),
            memory_text(row) if row.needed_bytes is not None else "-",
            error_text(row),
            bytes_text(row.peak_bytes),
            STATUS[row.status],
        )
    return table


def _empty_table(*titles: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style=_DIM, padding=_GAP)
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    return table
