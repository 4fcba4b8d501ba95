"""A part with each kind of block, whose texts a test can choose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fusetune.bench.page import (
    Beside,
    Cell,
    Column,
    Command,
    DataTable,
    Facts,
    Fold,
    Items,
    Part,
    Plot,
    Prose,
    Section,
    banded_lines,
    category,
    heat_map,
    high_colors,
    layered,
    quantity,
    ramp,
    ranges,
    rule,
    series,
    texts,
    tooltip,
)

Say = Callable[[str], str]
Columns = dict[str, Sequence[Any]]


def every_block(say: Say = str, rows: int = 8, long: int = 210) -> Part:
    """Return a part with every block, plot and tone.

    Args:
        say: makes each text of each field from a short plain text.
        rows: of the first table.
        long: rows of a table that the page's script fills.
    """
    return Part(
        title=say("title"),
        asked=say("asked"),
        answer=say("answer"),
        more=say("more"),
        banners=(say("banner"), say("second banner")),
        facts=((say("fact"), say("value of the fact")),),
        sections=(
            Section("ranking", (table(say, rows), ranked(say), table(say, long)), say("lead of the ranking")),
            Section("curves", (Beside((lines(say), lines(say, log=True))),), say("lead of the curves")),
            Section("effects", (cells(say),)),
            Section(
                "diagnosis",
                (
                    Prose(say("plain prose")),
                    Prose(say("a note"), "note"),
                    Prose(say("a warning"), "warning"),
                    Prose(say("good prose"), "good"),
                    Prose(say("bad prose"), "bad"),
                    Items((say("first item"), say("second item"))),
                    Facts(((say("name"), say("text")),)),
                ),
            ),
            Section("failures", (Fold(say("fold"), (Prose(say("inside")), lines(say), table(say, 3))),)),
            Section("reproduce", (Command(say("make run 'a b' \\\n  --set x=$HOME"), say("command")),)),
        ),
    )


def table(say: Say, rows: int) -> DataTable:
    """Return a table of all tones with a missing number in its second row."""
    tones = ("plain", "note", "warning", "good", "bad")
    return DataTable(
        say("caption"),
        (
            Column(say("name"), meaning=say("meaning")),
            Column(say("seconds"), numeric=True),
            Column(say("accuracy"), numeric=True),
        ),
        tuple(
            (
                Cell(say(f"row {number}"), small=say("small"), tone=tones[number % 5]),  # type: ignore[arg-type]
                Cell("-") if number == 1 else Cell(f"{number} s", float(number)),
                Cell(f"{100 - number} %", 1 - number / 100, small=say("0.1 to 0.9")),
            )
            for number in range(rows)
        ),
        frozenset({0}),
        say("note of the table"),
    )


def lines(say: Say, *, log: bool = False) -> Plot:
    """Return three curves with bands and a target."""
    names = [say(name) for name in ("one", "two", "three")]
    columns: Columns = {
        "epoch": [epoch for _ in names for epoch in range(1, 11)],
        "name": [name for name in names for _ in range(10)],
        "low": [0.05 * epoch * (place + 1) - 0.02 for place in range(3) for epoch in range(1, 11)],
        "value": [0.05 * epoch * (place + 1) for place in range(3) for epoch in range(1, 11)],
        "high": [0.05 * epoch * (place + 1) + 0.02 for place in range(3) for epoch in range(1, 11)],
    }
    axes = quantity("epoch", say("epoch")), quantity("value", say("accuracy"), log=log)
    drawn = banded_lines(*axes, series("name", say("configuration")), low="low", high="high")
    return Plot(
        say("title of the curves"),
        say("alternative text of the curves"),
        layered([*drawn, *rule("y", 0.6, say("target"))]),
        {"curves": columns},
        say("caption of the curves"),
    )


def ranked(say: Say) -> Plot:
    """Return dots with intervals."""
    columns: Columns = {
        "name": [say("one"), say("two")],
        "low": [1.0, 2.0],
        "value": [2.0, 3.0],
        "high": [3.0, 5.0],
    }
    drawn = ranges(
        category("name"),
        quantity("value", say("time (s)"), zero=True),
        low="low",
        high="high",
        tips=[*texts({"name": say("configuration")}), *tooltip({"value": say("time")})],
    )
    title, alt = say("title of the ranking"), say("alternative text of the ranking")
    return Plot(title, alt, layered(drawn), {"ranking": columns}, height=140)


def cells(say: Say) -> Plot:
    """Return a heat map of two by two."""
    values = [0.1, 0.4, 0.7, 0.9]
    columns: Columns = {
        "rate": [say("0.1"), say("0.1"), say("1"), say("1")],
        "batch": [say("32"), say("64")] * 2,
        "value": values,
        "text": [say(str(value)) for value in values],
        "is_high": high_colors(values),
    }
    drawn = heat_map(
        category("rate", say("rate")),
        category("batch", say("batch")),
        ramp("value", say("accuracy")),
        text="text",
        is_high="is_high",
    )
    title, alt = say("title of the map"), say("alternative text of the map")
    return Plot(title, alt, layered(drawn), {"map": columns}, height=200)
