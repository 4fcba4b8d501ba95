"""What a page says of batch sizes: memory against its limit, throughput, gradient noise, and the time to the target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fusetune.bench.batch_size.measurements import MeasuredStudy, Measurements
from fusetune.bench.batch_size.plot import relative_times
from fusetune.bench.batch_size.study import BatchSizeStudy, ConfigurationStudy, SizeRow
from fusetune.bench.batch_size.wording import (
    STATUS,
    answer,
    bytes_text,
    capitalized,
    device_rate,
    devices_result,
    devices_sentences,
    error_text,
    memory_text,
    noise_sentence,
    notes,
    recommendation,
    short_number,
    verdict,
)
from fusetune.bench.page import (
    Beside,
    Block,
    Cell,
    Channel,
    Column,
    DataTable,
    Fold,
    Items,
    Layer,
    Part,
    Plot,
    Prose,
    Section,
    axis_unit,
    category,
    in_unit,
    layered,
    log_quantity,
    mark,
    ranges,
    rule,
    texts,
    titled,
    tooltip,
)
from fusetune.bench.report import banners_of, caveat_notes, failed_trials, reproduce, run_facts
from fusetune.bench.results import EarlierTrainings, Record
from fusetune.bench.stats import configuration_label, counted, shorts
from fusetune.bench.units import format_bytes, format_count, format_seconds

_LEAD = (
    "A larger batch makes steps longer and fewer. It pays until memory is full, until samples/s no longer rises, "
    "or until the noise of the gradient is small."
)
_BINDS = {
    "memory": "memory binds",
    "samples": "the number of samples binds",
    "throughput plateau": "the throughput plateau binds",
    "noise scale": "the noise of the gradient binds",
}
# Of the terminal's bars alone.
_BAR = " │ is the limit."
_MOST_ANSWERED = 3
_MOST_OPEN = 2
_ON_THE_LINE = 33
_HEIGHT = 300


def batch_size_part(found: MeasuredStudy, records: Sequence[Record]) -> Part:
    """Return what a page says of a run of `bench batch-size`.

    Args:
        found: from `study_measured`.
        records: the same records.
    """
    study, run = found.study, found.study.run
    pairs = list(zip(study.configurations, found.measurements, strict=True))
    answered, more = _answer(found)
    said = shorts(each for each in study.caveats if each.name != "contended_timings")
    blocks: list[Block] = [*caveat_notes(study.caveats)]
    for number, (configuration, measured) in enumerate(pairs):
        shown = _configuration(configuration, measured, found)
        if number < _MOST_OPEN:
            blocks += shown
        else:
            blocks.append(Fold(configuration_label(configuration.factors), tuple(shown)))
    return Part(
        title=run.spec.name,
        asked="Which batch size, and what limits it?",
        answer=answered,
        more="\n\n".join(
            filter(
                None,
                (more, " ".join(said)),
            )
        ),
        banners=banners_of(study.caveats),
        facts=run_facts(run, study.directory, ("model", run.spec.model), *_limits(pairs)),
        sections=(
            Section("batch-size", tuple(blocks) if pairs else (), _LEAD),
            failed_trials(records, [_label(record) for record in records]),
            reproduce(run),
        ),
    )


def _limits(pairs: Sequence[tuple[ConfigurationStudy, Measurements]]) -> list[tuple[str, str]]:
    limits = {
        f"{format_bytes(configuration.limit_bytes)} ({configuration.limit_source})"
        for configuration, _ in pairs
        if configuration.limit_bytes
    }
    return [("limit", ", ".join(sorted(limits)))] if limits else []


def _label(record: Record) -> str:
    kind = record.outcome.kind.replace("_", " ") if record.outcome else "trial"
    return f"{kind}, {configuration_label(record.factors)}"


def _answer(found: MeasuredStudy) -> tuple[str, str]:
    """Return the sizes to use in one sentence, and what belongs to it."""
    study = found.study
    pairs = list(zip(study.configurations, found.measurements, strict=True))
    if not pairs:
        return "Nothing is recorded yet.", ""
    whole = [answer(configuration, study) for configuration, _ in pairs]
    if len(pairs) > 1:
        chosen = [
            f"{measured.recommendation.batch_size} for {configuration_label(configuration.factors)}"
            for configuration, measured in pairs
            if measured.recommendation
        ]
        if not chosen:
            return whole[0], " ".join(whole[1:_MOST_ANSWERED])
        left = f" and {len(chosen) - _MOST_ANSWERED} more below" if len(chosen) > _MOST_ANSWERED else ""
        return f"Use batch_size {'; '.join(chosen[:_MOST_ANSWERED])}{left}.", ""
    ((configuration, measured),) = pairs
    choice = measured.recommendation
    if choice is None:
        return whole[0], " ".join(devices_sentences(measured))
    known = choice.plateau is not None or measured.critical_batch[0] is not None
    alone = "" if known else ", by memory alone"
    said = recommendation(configuration, measured, study.run)
    reasons = " ".join([f"{capitalized(choice.reason)}.", *said[1:], *devices_sentences(measured)])
    return (
        f"Use batch_size {choice.batch_size}{alone}: {_BINDS[choice.binds]}.",
        f"{capitalized(whole[0])}\n\n{reasons}",
    )


def _configuration(
    configuration: ConfigurationStudy, measured: Measurements, found: MeasuredStudy
) -> list[Block]:
    """Return what is said of one configuration."""
    many = len(found.study.configurations) > 1
    name = f": {configuration_label(configuration.factors)}" if many else ""
    blocks: list[Block] = []
    if many:
        largest = answer(configuration, found.study)
        chosen = recommendation(configuration, measured, found.study.run)
        blocks.append(Prose(" ".join([largest, *chosen, *devices_sentences(measured)])))
    plots = [
        *_memory_plot(name, configuration, measured, found.study),
        *_throughput_plot(name, measured),
        *_time_plot(name, measured),
        *_noise_plot(name, measured),
        *_steps_plot(name, measured),
    ]
    blocks += [Beside(tuple(plots))] if len(plots) > 1 else plots
    if configuration.rows:
        blocks.append(_sizes(name, configuration, measured))
    if configuration.probes:
        blocks.append(_probes(name, configuration))
    if measured.devices:
        blocks.append(_devices(name, measured))
    if any(row.runs for row in measured.devices):
        blocks.append(_shared_runs(name, measured))
    if measured.runs is not None and measured.runs.rows:
        blocks.append(_trainings(name, measured.runs))
    if said_of := notes(configuration, measured):
        blocks.append(
            Fold(
                f"How these numbers came about{name}",
                (Items(tuple(line.removesuffix(_BAR) for line in said_of)),),
            )
        )
    return blocks


def _recommended(measured: Measurements) -> list[Layer]:
    """Return a line at the recommended size."""
    choice = measured.recommendation
    return rule("x", choice.batch_size, f"use {choice.batch_size}", "suggestion") if choice else []


def _size_axis(sizes: Sequence[float], title: str = "batch size") -> Channel:
    return log_quantity("size", title, sizes, base=2)


def _memory_plot(
    name: str, configuration: ConfigurationStudy, measured: Measurements, study: BatchSizeStudy
) -> list[Block]:
    """Return the memory of each size, expected and measured, with the limit."""
    rows = configuration.rows
    if not rows:
        return []
    fit = configuration.overhead
    expected = [fit.needed_at_least(row.predicted_bytes) if fit else row.predicted_bytes for row in rows]
    run = [row for row in rows if row.needed_bytes]
    seen = [*expected, *(row.needed_bytes for row in run), configuration.limit_bytes]
    divisor, unit = axis_unit([*expected, *(row.needed_bytes for row in run)], "bytes")
    sizes = [row.batch_size for row in rows]
    data: dict[str, dict[str, Sequence[Any]]] = {
        "expected": {"size": sizes, "memory": in_unit(expected, divisor)},
        "measured": {
            "size": [row.batch_size for row in run],
            "memory": in_unit([row.needed_bytes for row in run], divisor),
            "ended": [STATUS[row.status] for row in run],
            "fits": [row.status == "ok" for row in run],
        },
    }
    word = "expected" if fit else "tensors alone"
    x, y = _size_axis(sizes), log_quantity("memory", titled("memory", unit), in_unit(seen, divisor), base=2)
    layers: list[Layer] = [
        {
            "data": {"name": "expected"},
            "mark": mark("line", "other", strokeWidth=2),
            "encoding": {"x": x, "y": y, "tooltip": tooltip({"size": "batch size", "memory": word})},
        }
    ]
    for fits, style, shape in ((True, "first", "circle"), (False, "bad", "cross")):
        tips = [*tooltip({"size": "batch size", "memory": "measured"}), *texts({"ended": "ended"})]
        layers.append(
            {
                "data": {"name": "measured"},
                "transform": [{"filter": {"field": "fits", "equal": fits}}],
                "mark": {"type": "point", "style": style, "shape": shape, "size": 110, "opacity": 1},
                "encoding": {"x": x, "y": y, "tooltip": tips},
            }
        )
    if configuration.limit_bytes:
        limit = f"limit {format_bytes(configuration.limit_bytes)}"
        layers += rule("y", configuration.limit_bytes / divisor, limit, "limit")
    layers += _recommended(measured)
    alt = answer(configuration, study)
    whose = "by the fit of the runs" if configuration.probes else "with the overhead that is usual"
    caption = f"Line: {f'memory {whose}' if fit else 'memory of the tensors alone, predicted'}."
    if run:
        caption += " Dots: measured runs that fit."
    if any(row.status != "ok" for row in run):
        caption += " Crosses: at least this much was wanted, and did not fit."
    return [Plot(f"Memory{name}", alt, layered(layers), data, caption, _HEIGHT)]


def _throughput_plot(name: str, measured: Measurements) -> list[Block]:
    """Return samples/s of each size with intervals, and the plateau."""
    rates = measured.throughputs
    if not rates:
        return []
    sizes = [rate.batch_size for rate in rates]
    data: dict[str, dict[str, Sequence[Any]]] = {
        "rates": {
            "size": sizes,
            "rate": [rate.samples_per_s for rate in rates],
            "low": [rate.low for rate in rates],
            "high": [rate.high for rate in rates],
            "step": [1e3 * rate.step_time_s for rate in rates],
        }
    }
    columns = data["rates"]
    x = _size_axis(sizes)
    y = log_quantity("rate", "samples/s", [*columns["rate"], *columns["low"], *columns["high"]])
    tips = tooltip(
        {"size": "batch size", "rate": "samples/s", "low": "from", "high": "to", "step": "step (ms)"}
    )
    plateau = measured.recommendation.plateau if measured.recommendation else None
    layers: list[Layer] = []
    best = max(rates, key=lambda rate: rate.samples_per_s)
    alt = (
        f"Throughput is highest at batch size {format_count(best.batch_size)}, with {short_number(best.samples_per_s)} "
        f"samples/s, 95 % interval {short_number(best.low)} to {short_number(best.high)}."
    )
    caption = f"Median of {len(rates[0].step_times_s)} interleaved rounds. Vertical lines are 95 % intervals."
    if plateau is not None:
        top = next(rate.samples_per_s for rate in rates if rate.batch_size == plateau.best)
        band = {"data": {"values": [{"from": 0.95 * top, "to": top}]}, "mark": mark("rect", "band")}
        edge = {"field": "from", "type": "quantitative"}
        layers.append({**band, "encoding": {"y": edge, "y2": {"field": "to"}}})
        where = f"starts at batch size {plateau.start}" if plateau.reached else "is not reached"
        caption += f" Band: within 5 % of batch size {plateau.best}. The plateau {where}."
    layers += [
        {
            "mark": mark("rule", "other", strokeWidth=2),
            "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
        },
        {"mark": mark("line", "first", strokeWidth=1.5), "encoding": {"x": x, "y": y}},
        {"mark": mark("point", "first", size=60, opacity=1), "encoding": {"x": x, "y": y, "tooltip": tips}},
    ]
    layers = [layer if "data" in layer else {"data": {"name": "rates"}, **layer} for layer in layers]
    spec = layered([*layers, *_recommended(measured)])
    return [Plot(f"Throughput{name}", alt, spec, data, caption, _HEIGHT)]


def _time_plot(name: str, measured: Measurements) -> list[Block]:
    """Return the expected time to the target by batch size, beside that of trainings, each relative to its least."""
    times = relative_times(measured)
    if not times:
        return []
    _, source = measured.critical_batch
    trained = [
        row for row in (measured.runs.rows if measured.runs else ()) if math.isfinite(row.median_time_s)
    ]
    if len({row.batch_size for row in trained}) < 2:
        trained = []  # a single size is the least of itself
    least = min((row.median_time_s for row in trained), default=1.0)
    data: dict[str, dict[str, Sequence[Any]]] = {
        "expected": {"size": list(times), "time": list(times.values())},
        "trained": {
            "size": [row.batch_size for row in trained],
            "time": [row.median_time_s / least for row in trained],
            "n": [len(row.times_s) for row in trained],
        },
    }
    x = _size_axis([*times, *data["trained"]["size"]])
    y = log_quantity("time", "time to the target / least", [*times.values(), *data["trained"]["time"]])
    line: Layer = {"data": {"name": "expected"}, "encoding": {"x": x, "y": y}}
    layers: list[Layer] = [
        {**line, "mark": mark("line", "other", strokeWidth=2)},
        {
            **line,
            "mark": mark("point", "other", size=50, opacity=1),
            "encoding": {"x": x, "y": y, "tooltip": tooltip({"size": "batch size", "time": "expected"})},
        },
    ]
    caption = f"Expected by throughput and {source}: (1 + batch / {source[4:]}) / (samples/s)."
    if trained:
        tips = tooltip({"size": "batch size", "time": "of trainings", "n": "trainings"})
        layers.append(
            {
                "data": {"name": "trained"},
                "mark": mark("point", "first", shape="square", size=90, opacity=1),
                "encoding": {"x": x, "y": y, "tooltip": tips},
            }
        )
        caption += " Squares: medians of earlier trainings that reached the target."
    best = min(times, key=lambda size: times[size])
    alt = f"The least time to the target is expected at batch size {format_count(best)}."
    title = f"Expected time to the target{name}"
    return [Plot(title, alt, layered([*layers, *_recommended(measured)]), data, caption, _HEIGHT)]


def _noise_plot(name: str, measured: Measurements) -> list[Block]:
    """Return the gradient noise scale along training, with its interval. What is not known is said below."""
    known = [point for point in measured.noise if point.scale.value is not None]
    sentences = [noise_sentence(measured, position) for position in range(len(measured.noise))]
    if not known:
        return [Prose(" ".join(sentences), "note")] if sentences else []
    scales = [point.scale for point in known]
    when = ["before training" if p.epoch == 0 else f"after {counted(p.epoch, 'epoch')}" for p in known]
    ends = [scale.high if math.isfinite(scale.high) else None for scale in scales]
    values, lows = [scale.value for scale in scales], [scale.low for scale in scales]
    data: dict[str, dict[str, Sequence[Any]]] = {
        "noise": {
            "when": when,
            "value": values,
            "low": [low if end is not None else None for low, end in zip(lows, ends, strict=True)],
            "high": ends,
        }
    }
    x = log_quantity("value", "gradient noise scale (samples)", [*values, *lows, *ends])
    tips = [*texts({"when": "when"}), *tooltip({"value": "samples", "low": "from", "high": "to"})]
    layers = ranges(category("when"), x, low="low", high="high", tips=tips)
    choice = measured.recommendation
    if choice is not None:
        step = choice.batch_size * measured.accumulation_steps
        low, high = x["scale"]["domain"]
        if low <= step <= high:
            at_right = step > math.sqrt(low * high)
            layers += rule("x", step, f"step of {format_count(step)}", "suggestion", before=at_right)
    confidence = f"{100 * scales[0].confidence:g} %"
    caption = f"Lines are {confidence} intervals. A batch of that many samples has as much noise as gradient."
    if None in ends:
        caption += " An interval without an upper end is not drawn."
    height = 90 + 40 * len(known)
    return [Plot(f"Gradient noise{name}", " ".join(sentences), layered(layers), data, caption, height)]


def _steps_plot(name: str, measured: Measurements) -> list[Block]:
    """Return steps to the target against the samples of a step, from earlier trainings, with the fitted trade-off."""
    rows = measured.runs.rows if measured.runs else ()
    pairs = [(row.samples_per_step, steps) for row in rows for steps in row.steps]
    if len({size for size, _ in pairs}) < 2:
        return []
    sizes, steps = [size for size, _ in pairs], [count for _, count in pairs]
    data: dict[str, dict[str, Sequence[Any]]] = {"trainings": {"size": sizes, "steps": steps}}
    critical = measured.critical
    if critical is not None and critical.value is not None and critical.min_steps is not None:
        at = [float(size) for size in np.geomspace(min(sizes), max(sizes), _ON_THE_LINE)]
        fitted = [critical.min_steps * (1 + critical.value / size) for size in at]
        data["fit"] = {"size": at, "steps": fitted}
    x = _size_axis(sizes, "samples in a step")
    y = log_quantity("steps", "steps to the target", [*steps, *data.get("fit", {}).get("steps", [])])
    layers: list[Layer] = [
        {
            "data": {"name": "trainings"},
            "mark": mark("point", "first", size=60, opacity=0.8),
            "encoding": {
                "x": x,
                "y": y,
                "tooltip": tooltip({"size": "samples in a step", "steps": "steps"}),
            },
        }
    ]
    if "fit" in data:
        curve = {"data": {"name": "fit"}, "mark": mark("line", "suggestion"), "encoding": {"x": x, "y": y}}
        layers.insert(0, curve)
    fit = critical.reason if critical else "too few batch sizes to fit a critical one"
    reason = f"{capitalized(fit)}."
    caption = f"Each dot is an earlier training that reached the target. {reason}"
    if "fit" in data:
        caption += " Line: steps = least steps x (1 + critical batch size / samples in a step)."
    missed = [row for row in rows if len(row.steps) < row.n]
    if missed:
        named = ", ".join(
            f"{row.n - len(row.steps)} of {row.n} at {format_count(row.batch_size)}" for row in missed
        )
        caption += f" Missed the target: {named}."
    alt = f"{counted(len(pairs), 'training')} reached the target at {len(set(sizes))} batch sizes. {reason}"
    return [Plot(f"Steps to the target{name}", alt, layered(layers), data, caption, _HEIGHT)]


def _sizes(name: str, configuration: ConfigurationStudy, measured: Measurements) -> DataTable:
    """Return memory, step time, throughput, noise and expected time by batch size."""
    rates = {rate.batch_size: rate for rate in measured.throughputs}
    times = relative_times(measured)
    critical, source = measured.critical_batch
    columns = [
        Column("batch size", numeric=True),
        Column("memory", numeric=True, meaning="~ marks what is expected of a size that was not run"),
        Column("of the limit", numeric=True),
    ]
    if rates:
        columns += [Column("step", numeric=True), Column("samples/s", numeric=True)]
    if critical is not None:
        columns.append(Column("noise", numeric=True, meaning=f"{source} / samples per step"))
    if times:
        columns.append(
            Column("time", numeric=True, meaning="expected time to the target, relative to the least")
        )
    columns.append(Column("outcome", meaning="what became of it"))
    sized = {row.batch_size: row for row in configuration.rows}
    recommended = measured.recommendation.batch_size if measured.recommendation else None
    rows: list[tuple[Cell, ...]] = []
    strong = set()
    for size in sorted(sized.keys() | rates.keys()):
        row = sized.get(size)
        cells = [Cell(format_count(size), size), *_memory_cells(row, configuration)]
        if rates:
            cells += _rate_cells(size, rates)
        if critical is not None:
            noise = critical / (size * measured.accumulation_steps)
            cells.append(Cell(short_number(noise), noise))
        if times:
            cells.append(Cell(f"{times[size]:.2f}x", times[size]) if size in times else Cell("-"))
        said = "recommended" if size == recommended else verdict(row, configuration) if row else ""
        cells.append(Cell(said, tone="bad" if row and row.status == "failed" else "plain"))
        if size == recommended:
            strong.add(len(rows))
        rows.append(tuple(cells))
    return DataTable(f"Batch sizes{name}", tuple(columns), tuple(rows), frozenset(strong))


def _memory_cells(row: SizeRow | None, configuration: ConfigurationStudy) -> list[Cell]:
    if row is None:
        return [Cell("-"), Cell("-")]
    need = row.needed_bytes or row.expected_bytes or row.predicted_bytes
    share = need / configuration.limit_bytes if configuration.limit_bytes else None
    bound = ">= " if row.status == "out_of_memory" else ""
    return [Cell(memory_text(row), need), Cell("-") if share is None else Cell(f"{bound}{share:.0%}", share)]


def _rate_cells(size: int, rates: Mapping[int, Any]) -> list[Cell]:
    rate = rates.get(size)
    if rate is None:
        return [Cell("-"), Cell("-")]
    interval = f"{short_number(rate.low)} to {short_number(rate.high)}"
    return [
        Cell(format_seconds(rate.step_time_s), rate.step_time_s),
        Cell(short_number(rate.samples_per_s), rate.samples_per_s, small=interval),
    ]


def _probes(name: str, configuration: ConfigurationStudy) -> DataTable:
    """Return the sizes that were run, killed ones too, with the memory that was expected of them."""
    columns = (
        Column("run", numeric=True),
        Column("batch size", numeric=True),
        Column("tensors", numeric=True, meaning="predicted from traces"),
        Column("expected", numeric=True, meaning="with libraries and allocator, by the runs before"),
        Column("measured", numeric=True, meaning="least limit under which it runs"),
        Column("error", numeric=True, meaning="expected against measured"),
        Column("ended"),
    )
    run = sorted((row for row in configuration.rows if row.probe is not None), key=lambda row: row.probe or 0)
    rows = tuple(
        (
            Cell(str(row.probe), row.probe),
            Cell(format_count(row.batch_size), row.batch_size),
            *_need_cells(row),
        )
        for row in run
    )
    return DataTable(f"Sizes that were run{name}", columns, rows)


def _need_cells(row: SizeRow) -> tuple[Cell, ...]:
    """Return what a size that was run was expected to need, what it needed, and how it ended."""
    return (
        Cell(bytes_text(row.predicted_bytes), row.predicted_bytes),
        Cell(bytes_text(row.expected_bytes), row.expected_bytes),
        Cell(memory_text(row), row.needed_bytes) if row.needed_bytes is not None else Cell("-"),
        Cell(error_text(row), row.error),
        Cell(STATUS[row.status], small=row.reason, tone="plain" if row.status == "ok" else "bad"),
    )


def _shared_runs(name: str, measured: Measurements) -> DataTable:
    """Return the batches that several devices ran together, each under the limit."""
    columns = (
        Column("devices", numeric=True, meaning="that shared the batch"),
        Column("run", numeric=True),
        Column("batch size", numeric=True, meaning="of all devices together"),
        Column("samples on each", numeric=True),
        Column("step", numeric=True, meaning="of all devices together, median"),
        Column("tensors", numeric=True, meaning="of one device, predicted from a trace"),
        Column("expected", numeric=True, meaning="with libraries and allocator, by the runs before"),
        Column("measured", numeric=True, meaning="least limit of the device that needed most"),
        Column("error", numeric=True, meaning="expected against measured"),
        Column("ended"),
    )
    rows = tuple(
        (
            Cell(f"{devices.devices:,}", devices.devices),
            Cell(str(row.probe), row.probe),
            Cell(format_count(devices.devices * row.batch_size), devices.devices * row.batch_size),
            Cell(format_count(row.batch_size), row.batch_size),
            Cell(format_seconds(row.step_time_s), row.step_time_s) if row.step_time_s else Cell("-"),
            *_need_cells(row),
        )
        for devices in measured.devices
        for row in devices.runs
    )
    return DataTable(f"Batches that several devices ran{name}", columns, rows)


def _devices(name: str, measured: Measurements) -> DataTable:
    """Return the largest batch by number of devices, and the memory of each."""
    chosen = measured.device_choice.devices if measured.device_choice else None
    wanted = f"{measured.wanted:,}"
    columns = (
        Column("devices", numeric=True, meaning="that share each batch"),
        Column("samples on each", numeric=True, meaning="the most that one device holds in a forward"),
        Column("batch size", numeric=True, meaning="the largest of all devices together"),
        Column("memory of each", numeric=True, meaning="with these samples"),
        Column(
            f"memory at batch {wanted}",
            numeric=True,
            meaning="of a device, with its share of the spec's batch",
        ),
        Column("samples/s", numeric=True, meaning="of all devices together, the most that was measured"),
        Column("result"),
    )
    rates = {row.devices: device_rate(measured, row.devices) for row in measured.devices}
    rows = [
        (
            Cell(f"{row.devices:,}", row.devices),
            Cell(f"{row.share:,}" if row.share else "none fits", row.share),
            Cell(f"{row.batch_size:,}" if row.share else "-", row.batch_size or None),
            Cell(f"{'' if row.ran else '~'}{format_bytes(row.expected_bytes)}", row.expected_bytes),
            Cell(f"~{format_bytes(row.wanted_bytes)}", row.wanted_bytes),
            Cell(short_number(rates[row.devices] or 0) if rates[row.devices] else "-", rates[row.devices]),
            Cell(devices_result(row, measured.device_choice)),
        )
        for row in measured.devices
    ]
    strong = frozenset(place for place, row in enumerate(measured.devices) if row.devices == chosen)
    return DataTable(f"Devices{name}", columns, tuple(rows), strong, "~ marks predicted memory.")


def _trainings(name: str, runs: EarlierTrainings) -> DataTable:
    """Return earlier trainings by batch size. A target that was missed has no number."""
    columns = (
        Column("batch size", numeric=True),
        Column("trainings", numeric=True),
        Column("reached the target", numeric=True),
        Column("steps to target", numeric=True, meaning="median"),
        Column("time to target", numeric=True, meaning="median"),
    )
    rows = []
    for row in runs.rows:
        steps, time_s = row.median_steps, row.median_time_s
        rows.append(
            (
                Cell(format_count(row.batch_size), row.batch_size),
                Cell(str(row.n), row.n),
                Cell(str(len(row.steps)), len(row.steps)),
                Cell(format_count(steps), steps) if math.isfinite(steps) else Cell("missed"),
                Cell(format_seconds(time_s), time_s) if math.isfinite(time_s) else Cell("missed"),
            )
        )
    return DataTable(f"Earlier trainings{name}", columns, tuple(rows), note=f"From {runs.directory}.")
