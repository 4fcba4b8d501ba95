"""What a page says of kernels: each row against the copy of the same run, and beside its competitors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from fusetune.bench.kernels.plot import times_of
from fusetune.bench.kernels.row import SideResult, Verification
from fusetune.bench.kernels.study import (
    KernelsStudy,
    RowStudy,
    Sweep,
    lost,
    quantile,
    rates_of,
    sweeps_of,
)
from fusetune.bench.kernels.wording import (
    UNCLEAR,
    clocks_text,
    copies_text,
    error_text,
    has_unclear,
    no_time_text,
    notes_of,
    status_word,
    summary_lines,
    threads_text,
)
from fusetune.bench.page import (
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
    by_column,
    category,
    in_unit,
    layered,
    log_quantity,
    mark,
    quantity,
    ranges,
    rule,
    series,
    texts,
    titled,
    tooltip,
)
from fusetune.bench.report import banners_of, caveat_notes, reproduce, run_facts
from fusetune.bench.results import Record
from fusetune.bench.stats import Estimate, counted, estimate_text, percent, ratio_text
from fusetune.bench.units import format_bytes, format_rate, format_seconds
from fusetune.kernels import TritonSearch
from fusetune.tuner.measure import is_contended

_MOST_DRAWN = 40
_MOST_SIDES = 9
_MOST_SWEEPS = 3
_OTHERS = "others"
_GIGA = 1e9
_BAND = "20 to 80 %"
_ROW = "kernel/size/type"


def kernels_part(study: KernelsStudy, records: Sequence[Record]) -> Part:
    """Return what a page says of a run of `bench kernels`.

    Args:
        study: from `study_rows`.
        records: the same rows, which are not read again.
    """
    facts = (
        ("clock", clocks_text(study)),
        ("threads", threads_text(study)),
        ("best copy", copies_text(study)),
    )
    return Part(
        title=study.run.spec.name,
        asked="Is each kernel right, how fast is it beside its competitors, and how far from what memory allows?",
        answer=answer(study.rows),
        banners=banners_of(study.caveats),
        facts=run_facts(study.run, study.directory or None, *facts),
        sections=(
            Section("kernels", tuple(_blocks(study)), _LEAD if study.rows else ""),
            Section("failures", tuple(_failures(study.rows))),
            reproduce(study.run),
        ),
    )


_LEAD = (
    "Each kernel was first checked against float64. Then its calls were timed in turn with those of its "
    "competitors, and with copies of as many bytes."
)


def answer(rows: Sequence[RowStudy]) -> str:
    """Say in one sentence what a run came to.

    Args:
        rows: of the run.

    Example:
        >>> answer([])
        'No row is finished.'
    """
    if not rows:
        return "No row is finished."
    first = next(summary_lines(rows))
    said = f"{first[0].upper()}{first[1:]}"
    shares = [row.share_of_copy for row in rows if row.share_of_copy is not None]
    if not shares:
        return f"{said}."
    low, high = percent(min(shares)), percent(max(shares))
    rate = f"at {low if low == high else f'{low} to {high}'} of the copy's rate"
    moves = "and moves its bytes" if all(row.is_ok for row in rows) else "and the others move their bytes"
    return f"{said}, {moves} {rate}."


def _blocks(study: KernelsStudy) -> Iterator[Block]:
    rows = study.rows
    if not rows:
        return
    timed = [row for row in rows if row.is_ok]
    if len(rows) > 1:
        against = list(summary_lines(rows))[1:]
        if against:
            yield Items(tuple(f"{line[0].upper()}{line[1:]}." for line in against))
    yield _table(rows)
    if contended := [row for row in rows if is_contended(row.contention)]:
        worst = max(contended, key=lambda row: row.contention or 0.0)
        yield Prose(
            f"Others had more than 10 % of the processor in {len(contended)} of {counted(len(rows), 'row')}, the most "
            f"in {worst.row.case.name}: {percent(worst.contention or 0.0)} of it was missing.",
            "warning",
        )
    if any(row.row.bytes_moved and row.row.copy for row in timed):
        yield _roofline(timed)
        yield _bandwidths(timed)
    if any(row.speedups for row in timed):
        yield _speedups(timed)
    sweeps = [_sweep(sweep) for sweep in sweeps_of(rows)]
    yield from sweeps[:_MOST_SWEEPS]
    if sweeps[_MOST_SWEEPS:]:
        yield Fold("More kernels over their sizes", tuple(sweeps[_MOST_SWEEPS:]))
    if any(len(row.latencies) > 1 for row in timed):
        yield _policies(timed)
    if any(row.row.static for row in rows):
        yield _forecasts(rows)
    yield from _searches(rows)
    yield Fold("How the results were checked, and what else was counted", (_checks(rows), _counts(rows)))
    if notes := tuple(f"{row.row.case.name}: {note.rstrip('.')}." for row in rows for note in notes_of(row)):
        yield Fold("Notes on rows", (Items(notes),))
    yield from caveat_notes(study.caveats)


def _failures(rows: Sequence[RowStudy]) -> Iterator[Block]:
    """Yield why rows and competitors have no time."""
    missing = [f"{row.row.case.name}: {no_time_text(row)}." for row in rows if not row.is_ok]
    if missing:
        yield Prose("Rows without a time. What is not right is not timed.", "plain")
        yield Items(tuple(missing))
    lacking: dict[str, list[str]] = {}
    for row in rows:
        for side in row.row.sides[1:]:
            if side.status != "ok":
                lacking.setdefault(f"{side.name}: {lost(side)}", []).append(row.row.case.name)
    if lacking:
        listed = tuple(f"{why} ({', '.join(names)})." for why, names in lacking.items())
        yield Fold("Competitors without a time", (Items(listed),))


def _competitors(rows: Sequence[RowStudy]) -> list[str]:
    return list(dict.fromkeys(side.name for row in rows for side in row.row.sides[1:]))


def _table(rows: Sequence[RowStudy]) -> DataTable:
    """Return the table of the terminal's first and second lines."""
    names = [name for name in _competitors(rows) if any(name in (row.speedups or {}) for row in rows)]
    sheet = any(row.share_of_datasheet is not None for row in rows)
    columns = [
        Column(_ROW),
        Column("latency", True, f"Median of a call. Below it {_BAND} of the rounds."),
        Column("rounds", True),
        Column("bandwidth", True, "Bytes that must move, by second."),
        Column("of copy", True, "Of the best copy of as many bytes in the same run."),
        *([Column("of data sheet", True)] if sheet else []),
        *(Column(f"against {name}", True, "Its time over ours, with 95 % interval.") for name in names),
    ]
    cells = []
    for row in rows:
        latency, copy = row.latency, row.row.copy
        if latency is None:
            reason = no_time_text(row)
            line = [Cell(row.row.case.name, small=reason), Cell(f"none, {status_word(row)}", tone="bad")]
            cells.append((*line, *(Cell("-") for _ in columns[2:])))
            continue
        share = row.share_of_copy
        line = [
            Cell(row.row.case.name),
            Cell(
                format_seconds(latency.median_s),
                latency.median_s,
                f"{format_seconds(latency.p20_s)} .. {format_seconds(latency.p80_s)}",
            ),
            Cell(str(latency.n), latency.n),
            Cell("-" if row.bytes_per_s is None else format_rate(row.bytes_per_s), row.bytes_per_s),
            Cell("-" if share is None else percent(share), share, copy.level if share and copy else ""),
        ]
        if sheet:
            of_sheet = row.share_of_datasheet
            line.append(Cell("-" if of_sheet is None else percent(of_sheet), of_sheet))
        cells.append((*line, *(_speedup_cell(row, name) for name in names)))
    note = f"{UNCLEAR}. " if has_unclear(rows) else ""
    return DataTable(
        "Rows",
        tuple(columns),
        tuple(cells),
        note=f"{note}Above 1x ours is faster. Small: {_BAND} of the rounds, the level of memory, 95 % intervals.",
    )


def _speedup_cell(row: RowStudy, name: str) -> Cell:
    speedup = (row.speedups or {}).get(name)
    if speedup is None:
        side = next((side for side in row.row.sides[1:] if side.name == name), None)
        return Cell("-", small="" if side is None or side.status == "ok" else side.status)
    tone = "plain" if not speedup.can_tell else "good" if speedup.value > 1 else "bad"
    return Cell(estimate_text(speedup), speedup.value, _interval(speedup), tone)  # type: ignore[arg-type]


def _interval(speedup: Estimate) -> str:
    if speedup.low is None or speedup.high is None:
        return ""
    low, high = (ratio_text(end).removesuffix("x") for end in (speedup.low, speedup.high))
    return f"{low} .. {high}"


def _drawn(rows: Sequence[RowStudy]) -> tuple[Sequence[RowStudy], str]:
    """Return the rows that a plot has room for, and what to say of the others."""
    if len(rows) <= _MOST_DRAWN:
        return rows, ""
    return rows[:_MOST_DRAWN], f" The first {_MOST_DRAWN} of {len(rows)} rows. The table has all."


def _side_names(rows: Sequence[RowStudy]) -> dict[str, str]:
    """Return side -> what the legend calls it. Beyond nine, sides share a colour."""
    names = list(dict.fromkeys(side.name for row in rows for side in row.row.sides))
    return {name: name if number < _MOST_SIDES else _OTHERS for number, name in enumerate(names)}


def _timed_sides(row: RowStudy) -> Iterator[tuple[SideResult, tuple[float, ...]]]:
    """Yield each side of a row that has times, with those of the row's own policy."""
    for side in row.row.sides:
        if times := times_of(side, row):
            yield side, times


def _call(
    row: RowStudy, side: SideResult, times: Sequence[float], names: Mapping[str, str]
) -> tuple[Any, ...]:
    """Return a point of the roofline."""
    middle, moved = median(times), row.row.bytes_moved or 1
    share = moved / middle / row.row.copy.bytes_per_s if row.row.copy else None
    return (
        moved,
        middle,
        quantile(times, 0.2),
        quantile(times, 0.8),
        names[side.name],
        row.row.case.name,
        format_bytes(moved),
        format_seconds(middle),
        "-" if share is None else percent(share),
    )


def _roofline(timed: Sequence[RowStudy]) -> Plot:
    """Draw time over bytes on log axes, under the least time that the copy allows."""
    held = [row for row in timed if row.row.bytes_moved]
    names = _side_names(held)
    calls = by_column(
        ("bytes", "time", "low", "high", "side", "row", "moved", "shown", "share"),
        [_call(row, side, times, names) for row in held for side, times in _timed_sides(row)],
    )
    roofs = sorted(
        {
            (f"copy, {copy.level}", row.row.bytes_moved or 1, (row.row.bytes_moved or 1) / copy.bytes_per_s)
            for row in held
            if (copy := row.row.copy) is not None
        }
    )
    # Each line has its name at its lower end, where nothing lies below it.
    ends = {roof[0]: roof for roof in reversed(roofs)}
    at = ("copy", "bytes", "time")
    least = [roof[2] for roof in roofs]
    x = log_quantity("bytes", "bytes that must move", calls["bytes"], si_unit="B")
    y = log_quantity("time", "time of a call", [*calls["low"], *calls["high"], *least], si_unit="s")
    tips = texts({"row": _ROW, "side": "side", "moved": "bytes", "shown": "median", "share": "of copy"})
    layers: list[Layer] = [
        *_roof_line(x, y, ("copy", "held to")),
        {
            "data": {"name": "label"},
            "mark": mark("text", "target", align="left", baseline="top", dx=4, dy=5),
            "encoding": {"x": x, "y": y, "text": {"field": "copy"}},
        },
        {
            "data": {"name": "calls"},
            "mark": mark("rule", strokeWidth=1.5),
            "encoding": {
                "x": x,
                "y": {**y, "field": "low"},
                "y2": {"field": "high"},
                "color": _colour(names),
            },
        },
        {
            "data": {"name": "calls"},
            "mark": mark("point", filled=True, size=60, opacity=0.9),
            "encoding": {
                "x": x,
                "y": y,
                "color": _colour(names),
                "shape": {"field": "side", "type": "nominal", "sort": _legend(names), "legend": None},
                "tooltip": tips,
            },
        },
    ]
    return Plot(
        "Time of a call against the bytes that it must move",
        _share_alt("Time of a call over bytes, both on logarithmic axes", held),
        layered(layers),
        {
            "calls": calls,
            "roof": by_column(at, roofs),
            "label": by_column(at, list(ends.values())),
        },
        "The dashed line is the time of the best copy of as many bytes in the same run, in the level of memory that "
        f"it names. A point on it moves its bytes as fast as that copy. Bars: {_BAND} of the rounds.",
        380,
    )


def _roof_line(x: Channel, y: Channel, name: tuple[str, str]) -> list[Layer]:
    """Return the line of the copies, one for each value of a column, which a pointer shows by its title."""
    column, title = name
    tips = texts({column: title})
    encoding = {"x": x, "y": y, "detail": {"field": column}}
    return [
        {"data": {"name": "roof"}, "mark": mark("line", "target"), "encoding": encoding},
        {
            "data": {"name": "roof"},
            "mark": mark("point", "target", filled=True, size=30),
            "encoding": {**encoding, "tooltip": tips},
        },
    ]


def _legend(names: Mapping[str, str]) -> list[str]:
    return list(dict.fromkeys(names.values()))


def _colour(names: Mapping[str, str]) -> dict[str, Any]:
    return series("side", "side", order=_legend(names))


def _share_alt(what: str, rows: Sequence[RowStudy]) -> str:
    shares = [(row.share_of_copy, row.row.case.name) for row in rows if row.share_of_copy is not None]
    if not shares:
        return f"{what}. No copy was measured."
    (low, farthest), (high, nearest) = min(shares), max(shares)
    if len(shares) == 1:
        return f"{what}. {nearest} reaches {percent(high)} of the copy."
    said = f"The nearest to its copy is {nearest} with {percent(high)}, the farthest {farthest} with {percent(low)}."
    return f"{what}. {said}"


def _bandwidths(timed: Sequence[RowStudy]) -> Plot:
    """Draw each row's bandwidth with the copy and the data sheet that it is held to."""
    rows, left = _drawn([row for row in timed if row.row.bytes_moved])
    ours = [times_of(row.row.ours, row) for row in rows]
    moved = [row.row.bytes_moved or 1 for row in rows]
    rates = [row.bytes_per_s for row in rows]
    limits = [row.row.copy.bytes_per_s if row.row.copy else None for row in rows]
    sheets = [row.row.datasheet_bytes_per_s for row in rows]
    names = [row.row.case.name for row in rows]
    data: dict[str, list[Any]] = {
        "row": names,
        "rate": in_unit(rates, _GIGA),
        "low": in_unit([each / quantile(times, 0.8) for each, times in zip(moved, ours, strict=True)], _GIGA),
        "high": in_unit(
            [each / quantile(times, 0.2) for each, times in zip(moved, ours, strict=True)], _GIGA
        ),
        "copy": in_unit(limits, _GIGA),
        "sheet": in_unit(sheets, _GIGA),
        "level": [row.row.copy.level if row.row.copy else "-" for row in rows],
        "share": ["-" if row.share_of_copy is None else percent(row.share_of_copy) for row in rows],
    }
    y = category("row", order=names)
    shown = [value for column in ("low", "high", "copy", "sheet") for value in data[column]]
    x = log_quantity("rate", "bandwidth (GB/s)", shown)
    tips = [
        *texts({"row": _ROW, "level": "copy in", "share": "of copy"}),
        *tooltip({"rate": "GB/s", "copy": "copy, GB/s"}),
    ]
    layers = ranges(y, x, low="low", high="high", tips=tips)
    for column, style, size in (("copy", "limit", 18), ("sheet", "other", 9)):
        if any(value is not None for value in data[column]):
            layers.append(
                {
                    "transform": [{"filter": {"field": column, "valid": True}}],
                    "mark": mark("tick", style, thickness=3, size=size),  # type: ignore[arg-type]
                    "encoding": {"y": y, "x": {**x, "field": column}},
                }
            )
    sheet = ", the short one the data sheet's" if any(sheets) else ""
    return Plot(
        "Bandwidth of each row, and of the copy that it is held to",
        _share_alt(f"Bandwidth of {len(rows)} rows on a logarithmic axis", rows),
        layered(layers),
        {"rows": data},
        f"Dot: median. Line: {_BAND} of the rounds. The upright bar is the copy's rate{sheet}. A kernel that "
        f"mostly reads or works in place may pass the copy.{left}",
        60 + 22 * len(rows),
    )


def _speedups(timed: Sequence[RowStudy]) -> Plot:
    """Draw each competitor's time over ours, with its interval."""
    rows, left = _drawn([row for row in timed if row.speedups])
    sides = _side_names(rows)
    columns = by_column(
        ("row", "side", "ratio", "low", "high", "told", "text"),
        [
            (
                row.row.case.name,
                sides[name],
                found.value,
                found.value if found.low is None else found.low,
                found.value if found.high is None else found.high,
                "can tell" if found.can_tell else "~",
                f"{estimate_text(found)} {_interval(found)}".strip(),
            )
            for row in rows
            for name, found in (row.speedups or {}).items()
        ],
    )
    order = [name for name in _legend(sides) if name in columns["side"]]
    y = category("row", order=[row.row.case.name for row in rows], lines=True)
    offset = {"field": "side", "type": "nominal", "sort": order}
    x = log_quantity("ratio", "competitor's time over ours", [1.0, *columns["low"], *columns["high"]])
    colour = series("side", "competitor", order=order)
    faint = {"condition": {"test": "datum.told === '~'", "value": 0.4}, "value": 1.0}
    tips = texts({"row": _ROW, "side": "competitor", "text": "its time over ours"})
    layers: list[Layer] = [
        {
            "mark": mark("rule", strokeWidth=2),
            "encoding": {
                "y": y, "yOffset": offset, "x": {**x, "field": "low"}, "x2": {"field": "high"}, "color": colour,
                "opacity": faint,
            },
        },
        {
            "mark": mark("point", filled=True, size=55),
            "encoding": {
                "y": y, "yOffset": offset, "x": x, "color": colour, "opacity": faint, "tooltip": tips,
                "shape": {
                    "field": "told", "type": "nominal", "legend": None,
                    "scale": {"domain": ["can tell", "~"], "range": ["circle", "cross"]},
                },
            },
        },
        *rule("x", 1.0, "", "other"),
    ]  # fmt: skip
    all_of_them = [each for row in rows for each in (row.speedups or {}).values()]
    faster = sum(each.can_tell and each.value > 1 for each in all_of_them)
    slower = sum(each.can_tell and each.value < 1 for each in all_of_them)
    unclear = len(all_of_them) - faster - slower
    return Plot(
        "Speed against competitors",
        f"Of {len(all_of_them)} comparisons ours is faster in {faster}, slower in {slower}, and {unclear} cannot be "
        "told.",
        layered(layers),
        {"speedups": columns},
        "Right of 1 ours is faster. Line: 95 % interval over paired rounds. A faint cross is a ~: "
        f"{UNCLEAR[2:]}.{left}",
        50 + len(rows) * (10 + 13 * len(order)),
    )


def _sweep(sweep: Sweep) -> Plot:
    """Draw one kernel's bandwidth over its sizes, each side a line below the copy's."""
    rows = sweep.rows
    names = _side_names(rows)
    columns = by_column(
        ("bytes", "rate", "side", "moved"),
        [
            (row.row.bytes_moved, rate / _GIGA, names[name], format_bytes(row.row.bytes_moved or 0))
            for row in rows
            for name, rate in rates_of(row).items()
        ],
    )
    roof = by_column(
        ("bytes", "rate", "level"),
        [
            (row.row.bytes_moved, copy.bytes_per_s / _GIGA, copy.level)
            for row in rows
            if (copy := row.row.copy) is not None
        ],
    )
    x = log_quantity("bytes", "bytes that must move", columns["bytes"], si_unit="B")
    y = quantity("rate", "bandwidth (GB/s)", zero=True)
    colour = series("side", "side", order=_legend(names))
    layers: list[Layer] = [
        *_roof_line(x, y, ("level", "copy in")),
        {
            "data": {"name": "sides"},
            "mark": mark("line", point=True, strokeWidth=2),
            "encoding": {
                "x": x,
                "y": y,
                "color": colour,
                "tooltip": [*texts({"side": "side", "moved": "bytes"}), *tooltip({"rate": "GB/s"})],
            },
        },
    ]
    levels = ", ".join(dict.fromkeys(roof["level"]))
    return Plot(
        f"{sweep.name} over its sizes",
        _share_alt(f"Bandwidth of {sweep.name} over {len(rows)} sizes", rows),
        layered(layers),
        {"sides": columns, "roof": roof},
        f"Dashed: the best copy of as many bytes, in {levels}." if levels else "",
    )


def _policies(timed: Sequence[RowStudy]) -> Plot:
    """Draw each row's latency by every policy that it was timed by."""
    rows, left = _drawn([row for row in timed if len(row.latencies) > 1])
    columns = by_column(
        ("row", "policy", "time", "low", "high", "shown"),
        [
            (row.row.case.name, name, each.median_s, each.p20_s, each.p80_s, format_seconds(each.median_s))
            for row in rows
            for name, each in row.latencies.items()
        ],
    )
    divisor, unit = axis_unit(columns["time"], "s")
    columns.update({key: in_unit(columns[key], divisor) for key in ("time", "low", "high")})
    order = list(dict.fromkeys(columns["policy"]))
    y = category("row", order=[row.row.case.name for row in rows], lines=True)
    offset = {"field": "policy", "type": "nominal", "sort": order}
    x = log_quantity("time", titled("time of a call", unit), [*columns["low"], *columns["high"]])
    layers = ranges(
        y,
        x,
        low="low",
        high="high",
        by=series("policy", "on the clock", order=order),
        tips=texts({"row": _ROW, "policy": "on the clock", "shown": "median"}),
    )
    for layer in layers:
        layer["encoding"]["yOffset"] = offset
    widest = max(rows, key=_spread)
    times = [each.median_s for each in widest.latencies.values()]
    return Plot(
        "The same calls by other clocks",
        f"Latency of {len(rows)} rows by {len(order)} policies. The clocks differ most for {widest.row.case.name}: "
        f"{format_seconds(min(times))} to {format_seconds(max(times))}.",
        layered(layers),
        {"policies": columns},
        "wall: the host's clock around a call that is waited for. event: the device's events around it. graph: a "
        "replayed CUDA graph. kernel: the compiled function alone. cold: the caches are flushed before each call. "
        f"Line: {_BAND} of the rounds.{left}",
        50 + len(rows) * (10 + 13 * len(order)),
    )


def _spread(row: RowStudy) -> float:
    times = [each.median_s for each in row.latencies.values()]
    return max(times) / min(times)


def _forecasts(rows: Sequence[RowStudy]) -> DataTable:
    """Return what machine code says of GPUs that are not there."""
    columns = (
        Column(_ROW),
        Column("target"),
        Column("GPU"),
        Column("forecast"),
        Column("bandwidth", True, "What the model expects."),
        Column("registers", True),
        Column("spills", True, "Registers that lie in memory."),
        Column("occupancy", True),
        Column("instructions an element", True),
        Column(
            "issue / memory time", True, "Time to issue all instructions, over the time that memory takes."
        ),
    )
    lines = []
    for row in rows:
        for target, facts in row.row.static.items():
            rate = facts.get("bytes_per_s")
            lines.append(
                (
                    Cell(row.row.case.name),
                    Cell(target),
                    Cell(str(facts.get("gpu", "-"))),
                    Cell(str(facts.get("verdict", "-"))),
                    Cell(format_rate(rate), rate) if isinstance(rate, float | int) else Cell("-"),
                    *(
                        _number(facts.get(key))
                        for key in (
                            "registers",
                            "spills",
                            "occupancy",
                            "instructions_per_element",
                            "issue_share_of_memory_time",
                        )
                    ),
                )
            )
    return DataTable(
        "Forecasts for GPUs that are not there",
        columns,
        tuple(lines),
        note="Compiled for each target, never run there. The forecast is a model of the machine code and the data "
        "sheet, for tensors several times as large as the cache.",
    )


def _number(value: float | str | None) -> Cell:
    if isinstance(value, float | int):
        return Cell(f"{value:.3g}", float(value))
    return Cell("-" if value is None else value)


def _searches(rows: Sequence[RowStudy]) -> Iterator[Block]:
    """Yield what Triton's own autotuner searched, a table each."""
    for row in rows:
        for told in row.row.searches:
            search = TritonSearch.from_row(told)
            yield Fold(f"{row.row.case.name}: {search.sentence}", (search_of_triton(search),))


def search_of_triton(search: TritonSearch) -> DataTable:
    """Return the configs that Triton's own autotuner tried, the fastest first.

    Args:
        search: of `@triton.autotune`.

    Example:
        >>> search = TritonSearch("add", (), ({"B": 8}, {"B": 9}), ((2e-6, 1e-6, 3e-6), (1e-6,)), {"B": 9})
        >>> [row[0].text for row in search_of_triton(search).rows]
        ['9', '8']
    """
    names = list(dict.fromkeys(name for config in search.configs for name in config))
    pairs = sorted(zip(search.configs, search.latencies_s, strict=False), key=lambda pair: pair[1][:1])
    pairs += [(config, ()) for config in search.configs[len(pairs) :]]
    lines, strong = [], set()
    for number, (config, times) in enumerate(pairs):
        said = "failed" if times and math.isinf(times[0]) else "chosen" if config == search.best else ""
        strong |= {number} if said == "chosen" else set()
        cells = [Cell(str(config.get(name, "")), _order(config.get(name))) for name in names]
        for place in range(3):
            finite = place < len(times) and math.isfinite(times[place])
            cells.append(Cell(format_seconds(times[place]), times[place]) if finite else Cell("-"))
        lines.append((*cells, Cell(said)))
    columns = [
        *(Column(name, True) for name in names),
        *(Column(each, True) for each in ("median", "p20", "p80")),
    ]
    return DataTable(
        "Launch configs that Triton tried", (*columns, Column("outcome")), tuple(lines), frozenset(strong)
    )


def _order(value: int | str | None) -> float | str | None:
    return float(value) if isinstance(value, int) else value


def _checks(rows: Sequence[RowStudy]) -> DataTable:
    """Return how each kernel's results compare with float64."""
    columns = (
        Column(_ROW),
        Column("error", True, "Against float64, relative to the scale of the tensor."),
        Column("limit", True, "The largest error that passes there."),
        Column("error / limit", True),
        Column("error of eager", True, "That of the reference in the same type."),
        Column("inputs checked", True),
        Column("of timed calls", True),
        Column("same bits again", meaning="Two calls on the same values."),
    )
    lines = [(Cell(row.row.case.name), *_check(row.verification)) for row in rows]
    return DataTable(
        "Results against float64",
        columns,
        tuple(lines),
        note="Errors are relative to the scale of their tensor.",
    )


def _check(found: Verification | None) -> tuple[Cell, ...]:
    if found is None:
        return tuple(Cell("-") for _ in range(7))
    share = found.error / found.tolerance if found.tolerance else None
    return (
        _error(found.error, "bad" if found.error > found.tolerance else "plain"),
        _error(found.tolerance),
        Cell("-") if share is None or not math.isfinite(share) else Cell(f"{share:.2g}", share),
        _error(found.eager_error),
        Cell(str(found.checked), found.checked),
        Cell(str(found.timed), found.timed),
        Cell("yes" if found.repeatable else "no"),
    )


def _error(error: float, tone: Any = "plain") -> Cell:
    if not math.isfinite(error):
        return Cell("not finite", tone="bad")
    return Cell(error_text(error), error, tone=tone)


def _counts(rows: Sequence[RowStudy]) -> DataTable:
    """Return what was counted besides the time of a call."""
    columns = (
        Column(_ROW),
        Column("bytes", True, "That must cross memory once."),
        Column("launches", True, "Kernels launched by a call."),
        Column("host time", True, "Of a call, before the kernel runs."),
        Column("first call", True, "With compilation."),
        Column("extra memory", True, "Allocated by a call beside its results."),
        Column(
            "processor missing",
            True,
            "Median share of the processor that the rounds asked for and did not get.",
        ),
        Column("void rounds", True, "Left out, because the device was throttled."),
        Column("launch config"),
    )
    return DataTable("What else was counted", columns, tuple(map(_counted, rows)))


def _counted(row: RowStudy) -> tuple[Cell, ...]:
    ours, moved = row.row.ours, row.row.bytes_moved
    config = " ".join(f"{name}={value}" for name, value in (ours.config or {}).items())
    return (
        Cell(row.row.case.name),
        Cell("-") if moved is None else Cell(format_bytes(moved), moved),
        Cell("-") if ours.launches is None else Cell(str(ours.launches), ours.launches),
        Cell("-") if ours.host_s is None else Cell(format_seconds(ours.host_s), ours.host_s),
        Cell("-") if ours.compile_s is None else Cell(format_seconds(ours.compile_s), ours.compile_s),
        Cell("-") if ours.extra_bytes is None else Cell(format_bytes(ours.extra_bytes), ours.extra_bytes),
        Cell("-") if row.contention is None else Cell(percent(row.contention), row.contention),
        Cell(str(ours.void_rounds), ours.void_rounds),
        Cell(config or "-"),
    )
