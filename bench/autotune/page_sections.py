"""What a page says of launch configs: the landscape of each case, its race, and whether the default stays."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

from fusetune.bench.autotune.confirmation import Confirmation
from fusetune.bench.autotune.records import TuningsStudy
from fusetune.bench.autotune.report import cost_text, counts_text, outcome_text, varying, verdict_text
from fusetune.bench.autotune.run import config_text
from fusetune.bench.autotune.tuning import BOTH, CHOSEN, DEFAULT, OTHER, ROLES, Candidate, Tuning
from fusetune.bench.page import (
    Beside,
    Block,
    Cell,
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
    heat_map,
    high_colors,
    in_unit,
    layered,
    log_quantity,
    mark,
    point_series,
    quantity,
    ramp,
    ranges,
    rule,
    series,
    texts,
    titled,
)
from fusetune.bench.report import reproduce, run_facts
from fusetune.bench.results import Record
from fusetune.bench.stats import counted
from fusetune.bench.units import format_seconds

_MOST_DRAWN = 40
_MOST_OPEN = 3
_MOST_REASONS = 12
# From such a ratio of the slowest to the fastest on an axis is logarithmic.
_WIDE = 4.0
# Of log times, what rounding leaves where a parameter changes nothing.
_NO_EFFECT = 1e-12
_LEAD = (
    "Launch configs of a kernel raced each other in rounds. The fastest then met the default in fresh rounds, and "
    "replaces it only where an exact test says that it is faster."
)


def tunings_part(study: TuningsStudy, records: Sequence[Record]) -> Part:
    """Return what a page says of a run of `bench autotune`.

    Args:
        study: from `study_tunings`.
        records: the same tunings, which are not read again.
    """
    tunings = study.tunings
    clocks = ", ".join(dict.fromkeys(tuning.policy for tuning in tunings if tuning.policy))
    failed = tuple(
        f"{tuning.case.name}: {tuning.status}: {tuning.reason}."
        for tuning in tunings
        if tuning.status != "ok"
    )
    return Part(
        title=study.run.spec.name,
        asked="Which launch config of each kernel is fastest, and is it faster than the default?",
        answer=answer(tunings),
        facts=run_facts(study.run, study.directory or None, ("clock", clocks)),
        sections=(
            Section("tuning", tuple(_blocks([each for each in tunings if each.status == "ok"])), _LEAD),
            Section(
                "failures",
                (Prose("Cases whose default config does not run."), Items(failed)) if failed else (),
            ),
            reproduce(study.run),
        ),
    )


def answer(tunings: Sequence[Tuning]) -> str:
    """Say in one sentence what a run came to.

    Args:
        tunings: of the run.

    Example:
        >>> answer([])
        'No case is finished.'
    """
    if not tunings:
        return "No case is finished."
    if len(tunings) == 1:
        tuning = tunings[0]
        if tuning.status != "ok":
            return f"{tuning.case.name} cannot be tuned, {tuning.status}: {tuning.reason}."
        return f"{tuning.case.name}: {verdict_text(tuning)}"
    gains = [found.gain for each in tunings if each.is_replaced and (found := each.confirmation) is not None]
    known = [gain for gain in gains if math.isfinite(gain)]
    said = f"{len(gains)} of {counted(len(tunings), 'case')} got a new launch config"
    return f"{said}, up to {max(known):.3f} times as fast as the default." if known else f"{said}."


def _blocks(tunings: Sequence[Tuning]) -> Iterator[Block]:
    if len(tunings) > 1:
        yield _cases(tunings)
        if any(_confirmed(tuning) for tuning in tunings):
            yield _gains(tunings)
    if len(tunings) <= _MOST_OPEN:
        for tuning in tunings:
            if len(tunings) > 1:
                yield Prose(f"{tuning.case.name}: {verdict_text(tuning)}")
            yield from _case(tuning)
    else:
        for tuning in tunings:
            yield Fold(tuning.case.name, (Prose(verdict_text(tuning)), *_case(tuning)))


def _confirmed(tuning: Tuning) -> Confirmation | None:
    """Return the fresh rounds of a tuning, where there are any."""
    found = tuning.confirmation
    return found if found is not None and found.defaults_s else None


def _cases(tunings: Sequence[Tuning]) -> DataTable:
    columns = (
        Column("case"),
        Column("the default"),
        Column("gain", True, "Time of the default over that of the fastest, in fresh rounds."),
        Column("fresh rounds", True),
        Column("default config"),
        Column("fastest config"),
        Column("configs", True),
        Column("timings", True),
        Column("time", True, "Of the search."),
    )
    lines = []
    for tuning in tunings:
        found = _confirmed(tuning)
        fastest = next(
            (each.config for each in tuning.candidates if each.outcome == "fastest"), tuning.winner
        )
        lines.append(
            (
                Cell(tuning.case.name),
                Cell("is replaced", tone="good") if tuning.is_replaced else Cell("stays"),
                Cell("-") if found is None else _gain_cell(found),
                Cell("-") if found is None else Cell(str(len(found.defaults_s)), len(found.defaults_s)),
                Cell(config_text(varying(tuning.default, tuning))),
                Cell(config_text(varying(fastest, tuning))),
                Cell(str(len(tuning.candidates)), len(tuning.candidates)),
                Cell(str(tuning.timings), tuning.timings),
                Cell(format_seconds(tuning.seconds), tuning.seconds, f"of {format_seconds(tuning.budget_s)}"),
            )
        )
    note = "~ the fresh rounds cannot tell the two configs apart. Small: 95 % intervals, and the budget."
    return DataTable("Cases", columns, tuple(lines), note=note)


def _gain_cell(found: Confirmation) -> Cell:
    interval = "" if math.isnan(found.low) else f"{found.low:.3f} .. {found.high:.3f}"
    return Cell(f"{'' if found.replaces else '~'}{found.gain:.3f}x", found.gain, interval)


def _gains(tunings: Sequence[Tuning]) -> Plot:
    """Draw the gain of each case that was confirmed."""
    kept = [(tuning, found) for tuning in tunings if (found := _confirmed(tuning)) is not None]
    drawn = kept[:_MOST_DRAWN]
    data = by_column(
        ("case", "gain", "low", "high", "verdict", "shown"),
        [
            (
                tuning.case.name,
                found.gain,
                found.gain if math.isnan(found.low) else found.low,
                found.gain if math.isnan(found.high) else found.high,
                "replaced" if tuning.is_replaced else "stays ~",
                _gain_cell(found).text,
            )
            for tuning, found in drawn
        ],
    )
    y = category("case", order=data["case"])
    title = "time of the default over that of the fastest"
    x = log_quantity("gain", title, [1.0, *data["low"], *data["high"]])
    by = series("verdict", "the default", order=("replaced", "stays ~"))
    tips = texts({"case": "case", "shown": "gain", "verdict": "the default"})
    layers = [*ranges(y, x, low="low", high="high", by=by, tips=tips), *rule("x", 1.0, "", "other")]
    replaced = sum(tuning.is_replaced for tuning, _ in kept)
    left = f" The first {len(drawn)} of {len(kept)} cases." if len(drawn) < len(kept) else ""
    return Plot(
        "Gain of the fastest config over the default",
        f"Of {counted(len(kept), 'case')} with fresh rounds the default is replaced in {replaced}.",
        layered(layers),
        {"gains": data},
        f"Line: 95 % interval by the signed-rank test. Where it stays, the two cannot be told apart.{left}",
        60 + 24 * len(drawn),
    )


def _case(tuning: Tuning) -> Iterator[Block]:
    """Yield the landscape of one case, and what became of its configs."""
    yield Items(
        (counts_text(tuning), *tuning.notes, f"The search took {cost_text(tuning)}", *_reasons(tuning))
    )
    landscape = _Landscape.of(tuning)
    if landscape is not None:
        yield Beside((landscape.latencies(), landscape.race()))
        if (map_ := landscape.heat_map()) is not None:
            yield map_
    if (found := _confirmed(tuning)) is not None:
        yield _fresh_rounds(tuning, found)
    table = _configs(tuning)
    yield table if len(table.rows) <= 2 * _MOST_REASONS else Fold("All configs", (table,))
    if tuning.entries:
        yield Items(tuple(f"entry: {path}" for path in tuning.entries))


def _reasons(tuning: Tuning) -> Iterator[str]:
    """Yield why configs were not timed, the most frequent reason first."""
    counts = Counter(
        f"{each.outcome}{': ' + each.status if each.status else ''}{', ' + each.reason if each.reason else ''}"
        for each in tuning.candidates
        if each.outcome in ("failed", "dropped")
    )
    for said, number in counts.most_common(_MOST_REASONS):
        yield f"{counted(number, 'config')} {said}."
    if len(counts) > _MOST_REASONS:
        yield f"And {len(counts) - _MOST_REASONS} more reasons, in the table."


def _configs(tuning: Tuning) -> DataTable:
    """Return every config of the space, the fastest first."""
    rows = sorted(tuning.candidates, key=lambda each: (each.latency_s is None, each.latency_s or 0.0))
    names = list(dict.fromkeys(name for each in rows for name in varying(each.config, tuning)))
    best = rows[0].latency_s if rows else None
    columns = (
        *(Column(name, True) for name in names),
        Column("median", True, "Of a call, over the rounds of the race."),
        Column("of the fastest", True),
        Column("rounds", True, "In which it was timed."),
        Column("outcome"),
    )
    lines = []
    for each in rows:
        latency = each.latency_s
        ratio = latency / best if latency is not None and best else None
        lines.append(
            (
                *(Cell(str(each.config.get(name, "-")), each.config.get(name)) for name in names),
                Cell("-") if latency is None else Cell(format_seconds(latency), latency),
                Cell("-") if ratio is None else Cell(f"{ratio:.3f}x", ratio),
                Cell(str(len(each.samples_s) or "-"), len(each.samples_s)),
                Cell(_and_chosen(each, tuning), tone="bad" if each.outcome == "failed" else "plain"),
            )
        )
    strong = frozenset(number for number, each in enumerate(rows) if dict(each.config) == dict(tuning.winner))
    note = "In bold: the config that launches take. Configs of the race are compared inside of its rounds."
    return DataTable("Configs", columns, tuple(lines), strong, note)


def _and_chosen(each: Candidate, tuning: Tuning) -> str:
    chosen = " (chosen)" if dict(each.config) == dict(tuning.winner) else ""
    return f"{outcome_text(each, tuning)}{chosen}"


@dataclass(frozen=True)
class _Landscape:
    """The configs of a case that were timed, the fastest first.

    Args:
        tuning: of the case.
        timed: with samples.
    """

    tuning: Tuning
    timed: tuple[Candidate, ...]

    @classmethod
    def of(cls, tuning: Tuning) -> _Landscape | None:
        return cls(tuning, tuning.timed) if tuning.timed else None

    @property
    def drawn(self) -> tuple[Candidate, ...]:
        """Those that a plot has room for, the default and the chosen one among them."""
        first = self.timed[:_MOST_DRAWN]
        return (*first, *(each for each in self.timed[_MOST_DRAWN:] if self.tuning.role(each) != OTHER))

    @property
    def left(self) -> str:
        """What to say of the others."""
        return (
            f" {len(self.timed) - len(self.drawn)} slower ones are left out."
            if len(self.timed) > len(self.drawn)
            else ""
        )

    def label(self, each: Candidate) -> str:
        return config_text(varying(each.config, self.tuning))

    def latencies(self) -> Plot:
        """Draw the median of each config with the middle of its samples."""
        ends = [each.middle_s for each in self.drawn]
        divisor, unit = axis_unit([high for _, high in ends], "s")
        data = by_column(
            ("config", "time", "low", "high", "role", "shown", "outcome"),
            [
                (
                    self.label(each),
                    *in_unit((each.latency_s, low, high), divisor),
                    self.tuning.role(each),
                    format_seconds(each.latency_s or 0.0),
                    _and_chosen(each, self.tuning),
                )
                for each, (low, high) in zip(self.drawn, ends, strict=True)
            ],
        )
        wide = max(data["high"]) > _WIDE * min(data["low"])
        title = titled("time of a call", unit)
        reach = [*data["low"], *data["high"]]
        x = log_quantity("time", title, reach) if wide else quantity("time", title)
        by = series("role", "config", order=[role for role in ROLES if role in data["role"]])
        tips = texts({"config": "config", "shown": "median", "outcome": "outcome"})
        layers = ranges(category("config", order=data["config"]), x, low="low", high="high", by=by, tips=tips)
        return Plot(
            f"Time by launch config, {self.tuning.case.name}",
            self._alt(),
            layered(layers),
            {"configs": data},
            f"Dot: median over the rounds. Line: 20 to 80 % of them.{self.left}",
            40 + 22 * len(self.drawn),
        )

    def _alt(self) -> str:
        first, last = self.timed[0], self.timed[-1]
        ratio = (last.latency_s or 0.0) / (first.latency_s or 1.0)
        said = f"{counted(len(self.timed), 'config')} from {format_seconds(first.latency_s or 0.0)}"
        said += f" ({self.label(first)}) to {format_seconds(last.latency_s or 0.0)} ({self.label(last)}), a ratio of"
        return f"{said} {ratio:.2f}. {verdict_text(self.tuning)}"

    def race(self) -> Plot:
        """Draw in how many rounds each config was timed, and what became of it."""
        data = by_column(
            ("config", "rounds", "outcome", "said"),
            [
                (self.label(each), len(each.samples_s), each.outcome, outcome_text(each, self.tuning))
                for each in self.drawn
            ],
        )
        y, x = (
            category("config", order=data["config"]),
            quantity("rounds", "rounds in which it was timed", zero=True),
        )
        order = list(dict.fromkeys(data["outcome"]))
        by = {**category("outcome", "left the race as", order=order), "legend": {"orient": "bottom"}}
        tips = texts({"config": "config", "rounds": "rounds", "said": "outcome"})
        layers: list[Layer] = [
            {"mark": mark("bar"), "encoding": {"y": y, "x": x, "color": by, "tooltip": tips}}
        ]
        longest = max(self.timed, key=lambda each: len(each.samples_s))
        return Plot(
            f"Rounds in the race, {self.tuning.case.name}",
            f"{self.label(longest)} was timed in {counted(len(longest.samples_s), 'round')}, the most. "
            f"{counts_text(self.tuning)}",
            layered(layers),
            {"race": data},
            f"A config leaves the race as soon as it cannot win.{self.left}",
            40 + 22 * len(self.drawn),
        )

    def _with_equal_code(self) -> tuple[Candidate, ...]:
        """Return the timed configs, and those of equal machine code with the samples of theirs."""
        by_text = {config_text(each.config): each for each in self.timed}
        twins = [
            replace(each, samples_s=by_text[told].samples_s)
            for each in self.tuning.candidates
            if each.outcome == "same code" and (told := each.reason.removeprefix("as ")) in by_text
        ]
        return (*self.timed, *twins)

    def heat_map(self) -> Plot | None:
        """Draw the two parameters that matter most. None: fewer than two vary among the configs that were timed."""
        alike = self._with_equal_code()
        names = main_parameters(alike)
        if len(names) < 2:
            return None
        best: dict[tuple[int, int], list[Candidate]] = {}
        # The parameter with more levels goes down the page, where a phone has room.
        down, across = sorted(names[:2], key=lambda name: -len({each.config[name] for each in alike}))
        for each in alike:
            best.setdefault((each.config[across], each.config[down]), []).append(each)
        cells = [
            (at, min(found, key=lambda each: each.latency_s or 0.0), len(found)) for at, found in best.items()
        ]
        times = [each.latency_s for _, each, _ in cells]
        divisor, unit = axis_unit(times, "s")
        shown = in_unit(times, divisor)
        log = max(filter(None, shown)) > _WIDE * min(filter(None, shown))
        data = by_column(
            ("across", "down", "time", "text", "is_high", "of", "role", "config"),
            [
                (
                    str(at[0]),
                    str(at[1]),
                    time,
                    f"{time or 0.0:.3g}",
                    high,
                    number,
                    self.tuning.role(found),
                    self.label(found),
                )
                for (at, found, number), time, high in zip(
                    cells, shown, high_colors(shown, log=log, reverse=True), strict=True
                )
            ],
        )
        x = category("across", across, order=[str(level) for level in sorted({at[0] for at in best})])
        y = category("down", down, order=[str(level) for level in sorted({at[1] for at in best})])
        colour = ramp("time", titled("time", unit), log=log, reverse=True)
        tips = texts(
            {
                "across": across,
                "down": down,
                "text": titled("best time", unit),
                "config": "config",
                "of": "of configs",
            }
        )
        layers = heat_map(x, y, colour, text="text", is_high="is_high", tips=tips)
        for role, style in ((CHOSEN, "suggestion"), (BOTH, "suggestion"), (DEFAULT, "target")):
            if role in data["role"]:
                outline = mark("rect", style, filled=False, strokeWidth=3)  # type: ignore[arg-type]
                keep = [{"filter": {"field": "role", "equal": role}}]
                layers.append({"transform": keep, "mark": outline, "encoding": {"x": x, "y": y}})
        (at, fastest, _) = min(cells, key=lambda cell: cell[1].latency_s or 0.0)
        rest = [name for name in varying(fastest.config, self.tuning) if name not in (across, down)]
        over = f" A cell has the fastest over {', '.join(rest)}." if rest else ""
        return Plot(
            f"Time by {down} and {across}, {self.tuning.case.name}",
            f"The fastest of {len(cells)} cells is {down} {at[1]} with {across} {at[0]}, "
            f"{format_seconds(fastest.latency_s or 0.0)}.",
            layered(layers),
            {"cells": data},
            f"Solid outline: the config that launches take. Dashed: the default.{over}",
            40 + 34 * len({at[1] for at in best}),
        )


def main_parameters(timed: Sequence[Candidate]) -> list[str]:
    """Return the parameters that change the time of configs, the one with the largest main effect first.

    The main effect of a parameter is the variance over its levels of the mean log latency, each config counted once:

        e = sum over levels of n_level (mean_level - mean)^2 / n

    Args:
        timed: with samples.

    Example:
        >>> grid = [({"BLOCK": b, "num_warps": w}, b * (1 + w / 100)) for b in (1, 2, 4) for w in (1, 2)]
        >>> main_parameters([Candidate(config, samples_s=(time,)) for config, time in grid])
        ['BLOCK', 'num_warps']
    """
    logs = [(each.config, math.log(each.latency_s)) for each in timed if each.latency_s]
    if not logs:
        return []
    middle = mean(log for _, log in logs)
    effects: dict[str, float] = {}
    for name in logs[0][0]:
        levels: dict[Any, list[float]] = {}
        for config, log in logs:
            levels.setdefault(config.get(name), []).append(log)
        if len(levels) > 1 and None not in levels:
            effects[name] = sum(len(each) * (mean(each) - middle) ** 2 for each in levels.values()) / len(
                logs
            )
    return sorted((name for name in effects if effects[name] > _NO_EFFECT), key=lambda name: -effects[name])


def _fresh_rounds(tuning: Tuning, found: Confirmation) -> Plot:
    """Draw the rounds in which the fastest met the default."""
    divisor, unit = axis_unit([*found.defaults_s, *found.challengers_s], "s")
    sides: Mapping[str, Sequence[float]] = {
        "the fastest": found.challengers_s,
        "the default": found.defaults_s,
    }
    data = by_column(
        ("round", "time", "side"),
        [
            (turn, time / divisor, side)
            for side, times in sides.items()
            for turn, time in enumerate(times, start=1)
        ],
    )
    x = quantity("round", "fresh round")
    y = quantity("time", titled("time of a call", unit))
    point = {"x": x, "y": y, **point_series("side", "config", order=list(sides))}
    pairs: Layer = {
        "mark": mark("line", "faint", strokeWidth=1),
        "encoding": {"x": x, "y": y, "detail": {"field": "round"}},
    }
    points: Layer = {
        "mark": mark("point", filled=True, size=50, opacity=1),
        "encoding": {
            **point,
            "tooltip": texts({"side": "config", "round": "round", "time": titled("time", unit)}),
        },
    }
    decided = "" if found.complete else " The budget ended before a decision."
    return Plot(
        f"The fastest against the default, {tuning.case.name}",
        verdict_text(tuning),
        layered([pairs, points]),
        {"rounds": data},
        f"{verdict_text(tuning)} One-sided p of the signed-rank test: {found.p:.2g}.{decided}",
        240,
    )
