"""What a page says of a gate: verdicts, effects with their intervals, and the pairs that they rest on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from statistics import median
from typing import Any

from fusetune.bench.gate.measured import Measured, Pair
from fusetune.bench.gate.result import GateResult, Row, Side
from fusetune.bench.gate.self_test import SelfTest, SelfTestRow
from fusetune.bench.gate.self_test_report import headline as self_test_headline
from fusetune.bench.gate.self_test_report import meanings, planted_text
from fusetune.bench.gate.stored_gate import StoredGate
from fusetune.bench.gate.verdict import Outcome
from fusetune.bench.gate.wording import (
    SIGNS,
    change_text,
    counted,
    counts_text,
    headline,
    interval_text,
    metric_title,
    p_text,
    pairs_text,
    percent_text,
    side_text,
    typical_text,
    value_text,
    verdict_text,
    worst_first,
)
from fusetune.bench.page import (
    Beside,
    Block,
    Cell,
    Column,
    Command,
    DataTable,
    Fold,
    Items,
    Layer,
    Part,
    Plot,
    Prose,
    Section,
    Style,
    Tone,
    axis_unit,
    by_column,
    category,
    in_unit,
    layered,
    mark,
    point_series,
    quantity,
    rule,
    texts,
    titled,
)
from fusetune.bench.stats import percent
from fusetune.bench.units import format_bytes, format_seconds

_STAND_IN = "STAND-IN DATA"
_TONES: dict[Outcome, Tone] = {
    "regressed": "bad",
    "missing": "bad",
    "can't tell": "note",
    "improved": "good",
    "pass": "plain",
}
_STYLES: dict[Tone, Style] = {"bad": "bad", "note": "target", "good": "good", "plain": "first"}
_MOST_DRAWN = 40
_MOST_OPEN = 6
# An axis of effects is bent where the largest is so many times the median, for the small ones would not be seen.
_BENT_FROM = 10.0
_TICKS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)


_ASKED_OF_SELF_TEST = "What is the gate worth here: how often does it err, and which slowdown does it find?"


def gate_part(stored: StoredGate, *, is_running: bool = False) -> Part:
    """Return what a page says of a gate or of a self-test.

    Args:
        stored: from `read_stored_gate`.
        is_running: whether its process lives. It is said of a gate without verdicts.
    """
    result = stored.result
    if isinstance(result, SelfTest):
        return _self_test_part(stored, result)
    asked, answer = "Is head slower, hungrier or worse at learning than base?", stored.unfinished
    if stored.is_self_test:
        asked = _ASKED_OF_SELF_TEST
    notes: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    blocks = tuple(_pair_blocks(stored.pairs, ()))
    if result is not None:
        asked = f"Is {result.head.name} slower, hungrier or worse at learning than {result.base.name}?"
        answer = f"{verdict_text(result.outcome)}: {headline(result)}"
        notes, facts = result.notes, _result_facts(result)
        blocks = tuple(_blocks(result, stored.pairs))
    return Part(
        title=stored.title,
        asked=asked,
        answer=answer,
        banners=tuple(note for note in notes if note.startswith(_STAND_IN)),
        facts=(*_gate_facts(stored), *facts),
        sections=(
            Section("gate", blocks, _LEAD if blocks else ""),
            Section("failures", tuple(_failures(stored.pairs))),
            _reproduce(stored, result),
        ),
        status=stored.status(is_running=is_running),
    )


def comparison_part(result: GateResult, command: str) -> Part:
    """Return what a page says of two stored results, as `bench compare` judges them.

    Args:
        result: of the kind `compare`.
        command: what makes it again, as it is pasted into a shell.
    """
    blocks = tuple(_blocks(result, ()))
    return Part(
        title=result.title,
        asked=f"Is {result.head.name} slower, hungrier or worse at learning than {result.base.name}?",
        answer=f"{verdict_text(result.outcome)}: {headline(result)}",
        banners=tuple(note for note in result.notes if note.startswith(_STAND_IN)),
        facts=_result_facts(result),
        sections=(
            Section("gate", blocks, _LEAD_OF_STORED if blocks else ""),
            Section("reproduce", (Command(command, "The command"),)),
        ),
    )


_LEAD_OF_STORED = (
    "Two stored results are compared. A timing is judged by processes, and what training came to by its seeds. A "
    "change that they cannot tell from none has a ~."
)
_LEAD = (
    "Fresh processes of both revisions ran in pairs, in random order. A verdict rests on the pairs, and a change that "
    "they cannot tell from none has a ~."
)


def _gate_facts(stored: StoredGate) -> tuple[tuple[str, str], ...]:
    pairs = (("gate", PurePath(stored.path).name), ("started", str(stored.content.get("started") or "")))
    return tuple((name, text) for name, text in pairs if text)


def _result_facts(result: GateResult) -> tuple[tuple[str, str], ...]:
    """Return both revisions, the time, and what of the environment both sides share."""
    machine, head = result.base.machine, result.head.machine
    device = [str(machine[key]) for key in ("device", "device_name") if machine.get(key)]
    software = [f"{name} {version}" for name, version in result.base.versions.items() if version]
    pairs = (
        ("base", side_text(result.base)),
        ("head", side_text(result.head)),
        ("pairs", pairs_text(result)),
        ("device", ", ".join(device) if machine == head else ""),
        ("software", ", ".join(software) if result.base.versions == result.head.versions else ""),
    )
    return tuple((name, text) for name, text in pairs if text)


def _blocks(result: GateResult, pairs: Sequence[Pair]) -> Iterator[Block]:
    rows = worst_first(result.rows)
    if rows:
        yield Prose(f"{counts_text(rows)}.")
        yield _verdicts(rows)
        if (effects := _effects(rows)) is not None:
            yield effects
    if unclear := tuple(
        f"{row.benchmark}, {metric_title(row.metric)}: {row.advice}" for row in rows if row.advice
    ):
        yield Prose("What would make an unclear verdict clear:")
        yield Items(unclear)
    yield from _pair_blocks(pairs, rows)
    if differences := _differences(result.base, result.head):
        yield _environment(differences)
    if notes := tuple(note for note in result.notes if not note.startswith(_STAND_IN)):
        yield Prose("Notes:")
        yield Items(notes)


def _verdicts(rows: Sequence[Row]) -> DataTable:
    columns = (
        Column("verdict"),
        Column("benchmark"),
        Column("metric"),
        Column("base", True),
        Column("head", True),
        Column("change", True, "Of head against base. Small: its 95 % interval."),
        Column("p", True, "One-sided."),
        Column("n", True, "Pairs that the verdict rests on."),
        Column("in a sentence"),
    )
    lines = []
    for row in rows:
        exact = row.comparison == "exact" and row.p is None and row.outcome != "missing"
        lines.append(
            (
                Cell(verdict_text(row.outcome), tone=_TONES[row.outcome]),
                Cell(row.benchmark),
                Cell(metric_title(row.metric)),
                Cell(typical_text(row, row.base), _order(row.base)),
                Cell(typical_text(row, row.head), _order(row.head)),
                Cell(change_text(row), _order(row.effect), "exact" if exact else interval_text(row)),
                Cell(p_text(row.p), row.p),
                Cell(str(row.n), row.n),
                Cell(row.sentence),
            )
        )
    note = "~ the pairs cannot tell the change from none. exact: the same in every process of a side."
    return DataTable("Verdicts", columns, tuple(lines), note=note)


def _order(value: float | None) -> float | None:
    """Return what a column is sorted by. A missed target comes last, as what is missing does."""
    return value if value is not None and math.isfinite(value) else None


def _name(row: Row) -> str:
    return f"{SIGNS[row.outcome]} {row.benchmark}: {metric_title(row.metric)}"


def _effects(rows: Sequence[Row]) -> Plot | None:
    """Draw each change with its interval and the threshold from which on it counts."""
    having = [row for row in rows if row.effect is not None and math.isfinite(row.effect)]
    if not having:
        return None
    drawn = having[:_MOST_DRAWN]
    data = by_column(
        ("row", "effect", "low", "high", "worse", "tone", "shown", "verdict", "sentence"),
        [
            (
                _name(row),
                *(None if each is None else 100 * each for each in (row.effect, row.low, row.high)),
                100 * (-row.threshold if row.better == "higher" else row.threshold)
                if row.threshold
                else None,
                _TONES[row.outcome],
                f"{change_text(row)} {interval_text(row)}".strip(),
                verdict_text(row.outcome),
                row.sentence,
            )
            for row in drawn
        ],
    )
    x = _effect_axis([value for name in ("effect", "low", "high", "worse") for value in data[name]])
    y = category("row", order=data["row"])
    tips = texts({"row": "metric", "shown": "change", "verdict": "verdict", "sentence": "in a sentence"})
    layers: list[Layer] = [*rule("x", 0.0, "", "other")]
    for tone, style in _STYLES.items():
        if tone in data["tone"]:
            keep = [{"filter": {"field": "tone", "equal": tone}}]
            ends = {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}}
            # Vega warns of a layer without a single line.
            if any(low is not None for low, of in zip(data["low"], data["tone"], strict=True) if of == tone):
                valid = {"filter": {"field": "low", "valid": True}}
                line = mark("rule", style, strokeWidth=2.5, strokeDash=[])
                layers.append({"transform": [*keep, valid], "mark": line, "encoding": ends})
            point = mark("point", style, filled=True, size=80, opacity=1, strokeDash=[])
            layers.append({"transform": keep, "mark": point, "encoding": {"y": y, "x": x, "tooltip": tips}})
    if any(value is not None for value in data["worse"]):
        layers.append(
            {
                "transform": [{"filter": {"field": "worse", "valid": True}}],
                "mark": mark("tick", "limit", thickness=2, size=16),
                "encoding": {"y": y, "x": {**x, "field": "worse"}},
            }
        )
    missed = [row for row in rows if row not in having and row.outcome != "pass"]
    left = f" The first {len(drawn)} of {len(having)}." if len(drawn) < len(having) else ""
    lost = f" Without a size, in the table: {', '.join(_name(row) for row in missed)}." if missed else ""
    worst = max(having, key=lambda row: abs(row.effect or 0.0))
    return Plot(
        "Change of head against base",
        f"Changes of {counted(len(having), 'metric')} in per cent, with their intervals. The largest is "
        f"{worst.benchmark}: {metric_title(worst.metric)}, {change_text(worst)}.",
        layered(layers),
        {"effects": data},
        "Dot: change. Line: 95 % interval. The upright bar is the threshold on the side that is worse. Signs before "
        f"the names are the verdicts.{lost}{left}",
        60 + 26 * len(drawn),
    )


def _effect_axis(values: Sequence[float | None]) -> dict[str, Any]:
    """Return an axis of per cent. It is bent, by a symmetric logarithm, where one change would hide all others."""
    sizes = [abs(value) for value in values if value]
    channel = quantity("effect", "change (%)", zero=True)
    if not sizes or max(sizes) <= _BENT_FROM * median(sizes):
        return channel
    ticks = [sign * tick for tick in _TICKS for sign in (-1, 1) if tick <= 1.2 * max(sizes)]
    scale = {"type": "symlog", "constant": max(0.1, min(sizes)), "nice": False}
    return {**channel, "scale": scale, "axis": {"values": sorted(set(ticks)), "labelOverlap": True}}


def _pair_blocks(pairs: Sequence[Pair], rows: Sequence[Row]) -> Iterator[Block]:
    """Yield the pairs of each metric that varies, in the order in which they ran, and a table of the processes."""
    if not pairs:
        return
    named = {(row.benchmark, row.metric): row for row in rows}
    keys = list(named) or list(
        dict.fromkeys((pair.benchmark, name) for pair in pairs for name in pair.base.metrics)
    )
    plots = []
    for benchmark, metric in keys:
        group = sorted(
            (pair for pair in pairs if pair.benchmark == benchmark),
            key=lambda pair: (pair.started, pair.index),
        )
        if (drawn := _pairs(group, metric, named.get((benchmark, metric)))) is not None:
            plots.append(drawn)
    yield from _two_by_two(plots[:_MOST_OPEN])
    if plots[_MOST_OPEN:]:
        yield Fold("Pairs of the other metrics", tuple(_two_by_two(plots[_MOST_OPEN:])))
    yield Fold("All pairs", (_processes(pairs),))


def _two_by_two(plots: Sequence[Plot]) -> Iterator[Block]:
    for first in range(0, len(plots), 2):
        both = tuple(plots[first : first + 2])
        yield Beside(both) if len(both) == 2 else both[0]


def _pairs(group: Sequence[Pair], metric: str, row: Row | None) -> Plot | None:
    """Draw a metric on both sides of each pair. None: it is the same everywhere, or nobody has it."""
    sides = ("base", "head")
    found: list[tuple[int, str, float]] = []
    unit, missed = "", dict.fromkeys(sides, 0)
    for number, pair in enumerate(group, start=1):
        for side in sides:
            measured: Measured = getattr(pair, side)
            if metric in measured.metrics:
                value, unit = median(measured.metrics[metric].values), measured.metrics[metric].unit
                if math.isfinite(value):
                    found.append((number, side, value))
                else:
                    missed[side] += 1
    if len({value for *_, value in found}) < 2:
        return None
    divisor, shown = axis_unit([value for *_, value in found], unit)
    shown = shown or ("" if unit in ("count", "none", "fraction") else unit)
    data = by_column(
        ("pair", "side", "value", "text"),
        [
            (number, side, in_unit((value,), divisor)[0], value_text(value, unit))
            for number, side, value in found
        ],
    )
    x = {
        **quantity("pair", "pair, in the order in which they ran"),
        "axis": {"tickMinStep": 1, "format": "d"},
    }
    y = quantity("value", titled(metric_title(metric), shown))
    layers: list[Layer] = [
        {
            "mark": mark("line", "faint", strokeWidth=1),
            "encoding": {"x": x, "y": y, "detail": {"field": "pair"}},
        },
        {
            "mark": mark("point", filled=True, size=60, opacity=1),
            "encoding": {
                "x": x,
                "y": y,
                **point_series("side", "side", order=sides),
                "tooltip": texts({"pair": "pair", "side": "side", "text": metric_title(metric)}),
            },
        },
    ]
    said = "" if row is None else f"{verdict_text(row.outcome)}: {row.sentence}"
    lost = [
        f"{number} missed target{'' if number == 1 else 's'} of {side}"
        for side, number in missed.items()
        if number
    ]
    left = f" {' and '.join(lost)} cannot be drawn." if lost else ""
    title = metric_title(metric)
    middles = [
        f"{side} {value_text(median(of_side), unit)}"
        for side in sides
        if (of_side := [value for _, which, value in found if which == side])
    ]
    return Plot(
        f"{group[0].benchmark}: {metric_title(metric)}",
        f"{title} in {counted(len(group), 'pair')}, medians {' and '.join(middles)}. {said}".strip(),
        layered(layers),
        {"pairs": data},
        f"{said}{left}".strip(),
        230,
    )


def _processes(pairs: Sequence[Pair]) -> DataTable:
    columns = (
        Column("#", True, "In the order in which they ran."),
        Column("benchmark"),
        Column("pair", True, "Of the benchmark. A training's seed."),
        Column("first"),
        Column("base took", True),
        Column("head took", True),
        Column("processor missing", True, "The larger share of both processes that others took."),
        Column("failure"),
    )
    lines = []
    for number, pair in enumerate(sorted(pairs, key=lambda pair: pair.started), start=1):
        contention = [each for each in (pair.base.contention, pair.head.contention) if each is not None]
        failed = [
            f"{side}: {what}"
            for side, what in (("base", pair.base.failure), ("head", pair.head.failure))
            if what
        ]
        lines.append(
            (
                Cell(str(number), number),
                Cell(pair.benchmark),
                Cell(str(pair.index), pair.index),
                Cell("head" if pair.head_first else "base"),
                Cell(format_seconds(pair.base.seconds), pair.base.seconds),
                Cell(format_seconds(pair.head.seconds), pair.head.seconds),
                Cell(percent(max(contention)), max(contention)) if contention else Cell("-"),
                Cell(". ".join(failed), tone="bad" if failed else "plain"),
            )
        )
    return DataTable("Pairs of processes", columns, tuple(lines))


def _failures(pairs: Sequence[Pair]) -> Iterator[Block]:
    """Yield how often each benchmark failed on each side, and why."""
    counts: dict[tuple[str, str, str], int] = {}
    for pair in pairs:
        for side, measured in (("base", pair.base), ("head", pair.head)):
            if measured.failure:
                key = (pair.benchmark, side, measured.failure)
                counts[key] = counts.get(key, 0) + 1
    if counts:
        yield Items(
            tuple(
                f"{benchmark}: {side} failed in {number} process{'' if number == 1 else 'es'}: {why}"
                for (benchmark, side, why), number in counts.items()
            )
        )


def _differences(base: Side, head: Side) -> list[tuple[str, str, str]]:
    """Return what differs between the environments of the sides."""
    found = []
    for first, second in ((base.machine, head.machine), (base.versions, head.versions)):
        names = [name for name in dict.fromkeys((*first, *second)) if first.get(name) != second.get(name)]
        found += [(name, _fact(name, first), _fact(name, second)) for name in names]
    if base.environment != head.environment:
        found.append(("environment", base.environment, head.environment))
    return found


def _fact(name: str, facts: Mapping[str, Any]) -> str:
    value = facts.get(name)
    if name.endswith("_bytes") and isinstance(value, int):
        return format_bytes(value)
    return "-" if value is None else str(value)


def _environment(differences: Sequence[tuple[str, str, str]]) -> DataTable:
    lines = tuple(tuple(map(Cell, line)) for line in differences)
    columns = (Column("what"), Column("base"), Column("head"))
    note = "A change of these is in the verdicts as well as that of the code."
    return DataTable("What differs besides the code", columns, lines, note=note)


def _reproduce(stored: StoredGate, result: GateResult | None) -> Section:
    blocks: list[Block] = [Command(stored.command, "The command")]
    if result is None:
        if stored.resume_command is not None:
            blocks.append(Command(stored.resume_command, "To go on with this one"))
        return Section("reproduce", tuple(blocks))
    for name, side in (("base", result.base), ("head", result.head)):
        if side.commit:
            dirty = ", with uncommitted changes" if side.dirty else ""
            blocks.append(Prose(f"{name.capitalize()} was {side.name} at commit {side.commit}{dirty}."))
    blocks.append(Prose(f"Raw pairs: {stored.path / 'pairs.jsonl'}", "note"))
    return Section("reproduce", tuple(blocks))


def _self_test_part(stored: StoredGate, found: SelfTest) -> Part:
    """Return what a page says of a self-test."""
    blocks: list[Block] = []
    if found.rows:
        blocks = [
            _self_test_table(found),
            Items(tuple(f"{each[0].upper()}{each[1:]}" for each in meanings(found.budget_s))),
        ]
        blocks.insert(1, _noise(found.rows, found.budget_s))
    blocks += _pair_blocks(stored.pairs, ())
    if notes := tuple(note for note in found.notes if not note.startswith(_STAND_IN)):
        blocks += [Prose("Notes:"), Items(notes)]
    return Part(
        title=stored.title,
        asked=_ASKED_OF_SELF_TEST,
        answer=self_test_headline(found.rows, found.budget_s),
        banners=tuple(note for note in found.notes if note.startswith(_STAND_IN)),
        facts=(
            *_gate_facts(stored),
            ("time", format_seconds(found.seconds)),
            ("budget", format_seconds(found.budget_s)),
        ),
        sections=(
            Section("gate", tuple(blocks), _SELF_TEST_LEAD),
            Section("reproduce", (Command(stored.command, "The command"),)),
        ),
    )


_SELF_TEST_LEAD = (
    "Both sides of each pair are the same code, so each difference that the gate sees is a false alarm."
)


def _self_test_name(row: SelfTestRow) -> str:
    return f"{row.benchmark}: {metric_title(row.metric)}"


def _self_test_table(found: SelfTest) -> DataTable:
    columns = (
        Column("benchmark"),
        Column("metric"),
        Column("pairs run", True),
        Column("noise", True),
        Column("false alarms", True),
        Column("pairs in budget", True),
        Column("finds slowdown", True),
        Column("planted: said"),
    )
    lines = tuple(
        (
            Cell(row.benchmark),
            Cell(metric_title(row.metric)),
            Cell(str(row.pairs), row.pairs),
            Cell(f"{100 * row.noise:.1f} %", row.noise),
            Cell(f"{row.alarms} of {row.relabellings}", row.alarm_rate),
            Cell(str(row.affordable), row.affordable),
            Cell("none")
            if row.detectable is None
            else Cell(percent_text(row.detectable, signed=False), row.detectable),
            Cell(planted_text(row)),
        )
        for row in found.rows
    )
    return DataTable("Timings", columns, lines)


def _noise(rows: Sequence[SelfTestRow], budget_s: float) -> Plot:
    """Draw the noise of each timing beside the slowdown that a gate finds."""
    drawn = rows[:_MOST_DRAWN]
    points = [
        (_self_test_name(row), 100 * value, what)
        for row in drawn
        for what, value in (
            ("noise between processes", row.noise),
            ("slowdown that is found", row.detectable),
        )
        if value is not None
    ]
    data = by_column(("row", "percent", "what"), points)
    order = [_self_test_name(row) for row in drawn]
    y, x = category("row", order=order), quantity("percent", "per cent", zero=True)
    point: Layer = {
        "mark": mark("point", filled=True, size=80, opacity=1),
        "encoding": {
            "y": y,
            "x": x,
            **point_series("what", order=("noise between processes", "slowdown that is found")),
            "tooltip": texts({"row": "timing", "what": "what", "percent": "%"}),
        },
    }
    blind = [name for name, row in zip(order, drawn, strict=True) if row.detectable is None]
    nothing = f" Of {', '.join(blind)} it finds none." if blind else ""
    return Plot(
        "Noise, and the slowdown that a gate finds",
        f"{self_test_headline(rows, budget_s)}{nothing}",
        layered([point]),
        {"noise": data},
        f"The slowdown that 90 of 100 gates of {format_seconds(budget_s)} find.{nothing}",
        60 + 26 * len(drawn),
    )
