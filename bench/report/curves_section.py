"""Learning curves on a page: each configuration's median over its seeds, in a band from the least to the largest."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusetune.bench.page import (
    Beside,
    Layer,
    Plot,
    Section,
    axis_unit,
    banded_lines,
    layered,
    log_quantity,
    mark,
    quantity,
    rule,
    series,
    titled,
)
from fusetune.bench.report.short_names import distinct, listed, names_note, short_names
from fusetune.bench.results import Record, RunInfo, columns_of
from fusetune.bench.spec import freeze
from fusetune.bench.stats import Configuration, Summary, counted, undecided
from fusetune.bench.units import format_value

MOST_IN_COLOUR = 10
MOST_FAINT = 30
MOST_EPOCHS = 200
_POINTS_UP_TO = 30  # epochs

# Quantity of a curve -> its title and unit, in the order of the plots.
_QUANTITIES: dict[str, tuple[str, str]] = {
    "val_accuracy": ("validation accuracy", "fraction"),
    "test_accuracy": ("test accuracy", "fraction"),
    "train_accuracy": ("training accuracy", "fraction"),
    "train_loss": ("training loss", "nats"),
    "val_loss": ("validation loss", "nats"),
    "test_loss": ("test loss", "nats"),
    "lr": ("learning rate", "none"),
    "grad_norm": ("gradient norm", "none"),
}
_DECADE = 10.0
_CUT = 3.0  # an axis goes up to that many times the largest value of a configuration that did not diverge
_MOST_TICKS = 12
Columns = dict[str, list[Any]]


def curves(summary: Summary, records: Sequence[Record]) -> Section:
    """Return the learning curves: what the target measures by time, epoch and steps, losses, rate and gradient norm.

    Args:
        summary: from `bench.stats.summarize`.
        records: the same records.
    """
    by_configuration: dict[Hashable, list[Record]] = {}
    for record in records:
        by_configuration.setdefault(freeze(record.factors), []).append(record)
    able = [
        (c, seeds)
        for c in summary.configurations
        if (seeds := [r for r in by_configuration[freeze(c.factors)] if r.curve])
    ]
    if not able:
        return Section("curves", ())
    drawing = _Drawing.of(summary, able)
    main = summary.target.metric if summary.target else "val_accuracy"
    if not drawing.has(main):
        main = next((name for name in _QUANTITIES if drawing.has(name)), main)
    losses = [name for name in ("train_loss", "val_loss") if name != main and drawing.has(name)]
    below = [name for name in ("lr", "grad_norm") if drawing.has(name)]
    plots = [
        *(drawing.plot(main, by) for by in ("time", "epoch", "step")),
        *(drawing.plot(name, "epoch") for name in (*losses, *below)),
    ]
    return Section("curves", (Beside(tuple(plots)),), drawing.lead(len(able)))


def page_fields(run: RunInfo) -> tuple[str, ...]:
    """Return the fields of a curve's entry that the page of a run reads."""
    return ("epoch", "step", "time_s", *_QUANTITIES)


@dataclass(frozen=True)
class _Drawing:
    """What the plots of the section share.

    Args:
        summary: of the run.
        names: of the configurations in colour.
        coloured: a row per configuration and epoch, for configurations in colour.
        faint: the same without bands, for others.
        time_unit: divisor and name.
        calm: names of configurations of which no seed diverged.
        uneven: names of configurations of which some seeds have fewer epochs than others.
    """

    summary: Summary
    names: list[str]
    coloured: Columns
    faint: Columns
    time_unit: tuple[float, str]
    calm: set[str]
    uneven: list[str]
    faint_count: int

    @classmethod
    def of(cls, summary: Summary, able: Sequence[tuple[Configuration, list[Record]]]) -> _Drawing:
        """Compute the medians and bands once, for all plots."""
        shown, others = able[:MOST_IN_COLOUR], able[MOST_IN_COLOUR : MOST_IN_COLOUR + MOST_FAINT]
        names = distinct(short_names([c for c, _ in shown], undecided(summary)))
        (times_s,) = columns_of((r.curve for _, seeds in able for r in seeds), ("time_s",))
        unit = axis_unit([float(np.fmax.reduce(times_s, initial=0.0))], "s")
        coloured = _table(zip(names, (seeds for _, seeds in shown), strict=True), unit[0], with_bands=True)
        faint = _table(((str(c.rank), seeds) for c, seeds in others), unit[0], with_bands=False)
        lengths = {name: {_length(r) for r in seeds} for name, (_, seeds) in zip(names, shown, strict=True)}
        uneven = [name for name, found in lengths.items() if len(found) > 1]
        calm = {name for name, (c, _) in zip(names, shown, strict=True) if "diverged" not in c.statuses}
        return cls(summary, names, coloured, faint, unit, calm, uneven, len(others))

    def has(self, name: str) -> bool:
        """Whether any curve has the quantity."""
        return any(value is not None for value in self.coloured[name])

    def lead(self, count: int) -> str:
        """Say what lines and bands are, and what is left out."""
        seeds = max((c.n for c in self.summary.configurations), default=1)
        sentences = [
            "A line is the median over seeds and its band min..max." if seeds > 1 else "A line is one seed."
        ]
        sentences.append(names_note(self.summary))
        if self.faint_count:
            sentences.append(
                f"The first {len(self.names)} are in colour, and {self.faint_count} others are grey lines."
            )
        if (rest := count - len(self.names) - self.faint_count) > 0:
            sentences.append(f"{counted(rest, 'configuration')} of lower rank are left out.")
        if self.uneven:
            which = listed(self.uneven)
            sentences.append(
                f"Seeds of {which} ended at different epochs. A band is over the seeds that have the epoch, and a line "
                "ends where half of them or fewer do."
            )
        return " ".join(sentences)

    def plot(self, name: str, by: str) -> Plot:
        """Draw a quantity by `time`, `epoch` or `step`."""
        title, unit = _QUANTITIES[name]
        x_title = {"time": titled("training time", self.time_unit[1]), "epoch": "epoch", "step": "steps"}[by]
        least, largest, is_cut = self._ends(name)
        log = unit != "fraction" and least > 0 and largest > _DECADE * least
        words = titled(title, {"fraction": "%", "nats": "nats"}.get(unit, ""))
        domain = (least, largest) if is_cut else None
        up = log_quantity(name, words, [least, largest]) if log else quantity(name, words, domain=domain)
        across = quantity(by, x_title, zero=by != "epoch")
        if by == "epoch":
            across["axis"] = {"values": _ticks(self.coloured["epoch"]), "format": "d"}
        epochs = max(self.coloured["epoch"], default=0)
        lines = banded_lines(
            across,
            up,
            series("series", "configuration", order=self.names),
            low=f"{name}_low",
            high=f"{name}_high",
            points=epochs <= _POINTS_UP_TO,
        )
        for layer in lines:
            layer["mark"]["clip"] = is_cut
        layers: list[Layer] = []
        if self.faint_count:
            layers.append(
                {
                    "data": {"name": "others"},
                    "mark": mark("line", "faint", strokeWidth=1, opacity=0.3, clip=is_cut),
                    "encoding": {"x": across, "y": up, "detail": {"field": "series", "type": "nominal"}},
                }
            )
        layers += [{"data": {"name": "curves"}, **layer} for layer in lines]
        target = self.summary.target
        if target and target.metric == name:
            bound = target.at_least if target.at_least is not None else target.at_most
            assert bound is not None
            layers += rule("y", bound * _scale(name), f"target {format_value(bound, unit)}")
        return Plot(
            f"{title.capitalize()} by {'training time' if by == 'time' else by if by == 'epoch' else 'steps'}",
            self._alt(name, by),
            layered(layers),
            {"curves": self.coloured, **({"others": self.faint} if self.faint_count else {})},
            self._caption(by, largest if is_cut else None),
        )

    def _ends(self, name: str) -> tuple[float, float, bool]:
        """Return the ends of a quantity's axis, and whether a diverged configuration goes beyond them.

        Losses that diverged would leave no room for those that fell.
        """
        rows = [
            (series_name, value)
            for suffix in ("", "_low", "_high")
            for series_name, value in zip(
                self.coloured["series"], self.coloured[f"{name}{suffix}"], strict=True
            )
            if value is not None
        ]
        values = [value for _, value in rows] + [value for value in self.faint[name] if value is not None]
        largest = max(values)
        calm = [value for series_name, value in rows if series_name in self.calm]
        if name != "lr" and calm and 0 < _CUT * max(calm) < largest:
            return min(values), _CUT * max(calm), True
        return min(values), largest, False

    def _caption(self, by: str, cut: float | None) -> str:
        sentences = [
            "An epoch stands at the median training time of its seeds. The clock stands still during evaluation."
            if by == "time"
            else "",
            f"What diverged goes on above {cut:.3g}." if cut is not None else "",
        ]
        return " ".join(filter(None, sentences))

    def _alt(self, name: str, by: str) -> str:
        """Say where the first curves end."""
        title, unit = _QUANTITIES[name]
        ends = []
        for one in self.names[:3]:
            rows = [at for at, each in enumerate(self.coloured["series"]) if each == one]
            known = [at for at in rows if self.coloured[name][at] is not None]
            if known:
                value = format_value(self.coloured[name][known[-1]] / _scale(name), unit)
                ends.append(f"{one} at {value} after {counted(self.coloured['epoch'][known[-1]], 'epoch')}")
        how = {"time": "training time", "epoch": "epoch", "step": "steps"}[by]
        return f"Median {title} by {how}. It ends: {'; '.join(ends)}."


def _length(record: Record) -> int:
    """Return the last epoch of a curve that has a loss or a score."""
    known = [e for e in record.curve if any(_finite(e.get(name)) is not None for name in _QUANTITIES)]
    return int(known[-1]["epoch"] or 0) if known else 0


def _scale(name: str) -> float:
    """Return what turns a value of a curve into an axis's number."""
    return 100.0 if _QUANTITIES[name][1] == "fraction" else 1.0


def _finite(value: Any) -> float | None:
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _table(
    curves_: Iterable[tuple[str, Sequence[Record]]], per_second: float, *, with_bands: bool
) -> Columns:
    """Return a row per configuration and epoch: medians over the seeds that have the epoch, and their range."""
    from statistics import median

    suffixes = ("", "_low", "_high") if with_bands else ("",)
    table: Columns = {"series": [], "epoch": [], "step": [], "time": []}
    table |= {f"{name}{suffix}": [] for name in _QUANTITIES for suffix in suffixes}
    for series_name, seeds in curves_:
        entries: dict[int, list[Mapping[str, Any]]] = {}
        for record in seeds:
            for entry in record.curve:
                entries.setdefault(int(entry["epoch"] or 0), []).append(entry)
        for epoch in _thinned(sorted(entries)):
            here = entries[epoch]
            table["series"].append(series_name)
            table["epoch"].append(epoch)
            for column, key, divisor in (("step", "step", 1.0), ("time", "time_s", per_second)):
                known = [v for e in here if (v := _finite(e.get(key))) is not None]
                table[column].append(median(known) / divisor if known else None)
            for name in _QUANTITIES:
                known = [v * _scale(name) for e in here if (v := _finite(e.get(name))) is not None]
                # Later epochs would show the few slow seeds alone, as if all had become worse.
                is_most = 2 * len(known) > len(seeds)
                figures = (median(known), min(known), max(known)) if is_most else (None, None, None)
                for suffix, figure in zip(suffixes, figures, strict=False):
                    table[f"{name}{suffix}"].append(figure)
    return table


def _ticks(epochs: Sequence[int]) -> list[int]:
    """Return at most twelve epochs for an axis: 1, or multiples of a round number.

    Example:
        >>> _ticks([1, 2, 3]), _ticks(range(1, 31))
        ([1, 2, 3], [5, 10, 15, 20, 25, 30])
    """
    last = max(epochs)
    step = next(
        size
        for power in range(10)
        for size in (10**power, 2 * 10**power, 5 * 10**power)
        if last <= _MOST_TICKS * size
    )
    return list(range(max(step, min(epochs)), last + 1, step))


def _thinned(epochs: Sequence[int]) -> list[int]:
    """Return at most `MOST_EPOCHS` epochs, evenly, the first and the last among them.

    Example:
        >>> _thinned(range(1, 4)), len(_thinned(range(1000))), _thinned(range(1000))[-1]
        ([1, 2, 3], 200, 999)
    """
    if len(epochs) <= MOST_EPOCHS:
        return list(epochs)
    return [epochs[round(at * (len(epochs) - 1) / (MOST_EPOCHS - 1))] for at in range(MOST_EPOCHS)]
