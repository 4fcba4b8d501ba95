"""Plots of characters: points lie where the values say, and no value, name or console breaks one."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import unicodedata
from collections.abc import Sequence
from typing import Any

import plotext
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from fusetune.bench.terminal import Axis, Mark, PlotsBeside, SafeConsole, Series, TextPlot
from fusetune.errors import InvalidValueError

LEVELS = [0.0, 1.0, 2.0, 3.0, 4.0]


def one(
    at: Sequence[float | None], values: Sequence[float | None], *, joined: bool = False, **settings: Any
) -> TextPlot:
    return TextPlot("title", [Series("name", at, values, "o", joined)], **{"height": 5, **settings})


def canvas(plot: TextPlot, width: int = 60) -> list[str]:
    """The plot alone: what is right of the vertical axis, padded."""
    _title, *rows = plot.lines(width)
    left = rows[plot.height].index("└") + 1
    return [row[left:].ljust(width - left) for row in rows[: plot.height]]


def rows_of(plot: TextPlot, marker: str = "o") -> list[int]:
    """The row of each column that has the marker, from the top."""
    columns = zip(*canvas(plot), strict=True)
    return [column.index(marker) for column in columns if marker in column]


def test_points_lie_where_their_values_say() -> None:
    plot = one(LEVELS, [4.0, 3.0, 2.0, 1.0, 0.0])
    assert rows_of(plot) == [0, 1, 2, 3, 4]
    top = canvas(plot)[0]
    assert top.index("o") == 0
    assert canvas(plot)[4].rindex("o") == len(top) - 1


def test_equal_ratios_are_equally_far_apart_on_a_logarithmic_axis() -> None:
    decades = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    assert rows_of(one(LEVELS, decades, y=Axis(log=True))) == [4, 3, 2, 1, 0]
    places = [row.index("o") for row in canvas(one(decades, LEVELS, x=Axis(log=True)))]
    gaps = {before - after for before, after in itertools.pairwise(places)}
    assert max(gaps) - min(gaps) <= 1  # of whole columns


def test_a_value_that_cannot_be_drawn_is_a_gap_and_no_line_crosses_it() -> None:
    values = [1.0, 1.0, math.nan, 1.0, math.inf, None, 1.0, 1.0]
    row = canvas(one([0.0, 1, 2, 3, 4, 5, 6, 7], values, joined=True))[2]
    assert len(row.split()) == 3
    assert rows_of(one(LEVELS, [0.0, -1.0, 1.0, 10.0, 100.0], y=Axis(log=True))) == [4, 2, 0]


def test_what_is_outside_the_window_is_not_drawn_at_its_edge() -> None:
    plot = one(LEVELS, [1e9, 3.0, 2.0, 1.0, -1e9], y=Axis(low=1.0, high=3.0))
    assert rows_of(plot) == [0, 2, 4]


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([3.0], [7.0]),
        ([1.0, 1.0], [7.0, 7.0]),
        ([0.0], [0.0]),
        ([1e16, 1e16 + 2], [1.0, 1.0]),
        ([-1e308, 1e308], [0.0, 0.0]),
    ],
)
def test_one_value_and_equal_values_lie_in_the_middle_and_are_named(x: list[float], y: list[float]) -> None:
    plot = one(x, y)
    assert set(rows_of(plot)) == {2}
    assert plot.lines(60)[3].lstrip().startswith(f"{y[0]:g}┤")


@pytest.mark.parametrize("values", [[], [None], [math.nan, math.inf]])
def test_nothing_to_draw_gives_no_lines(values: list[float | None]) -> None:
    plot = one([1.0] * len(values), values)
    assert plot.lines() == []
    assert not plot
    assert one([1.0], [0.0])


@pytest.mark.parametrize(
    ("axis", "labels"),
    [
        (Axis(0, 1), ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (Axis(1, 3, whole=True), ["1", "2", "3"]),
        (Axis(1, 3), ["1", "1.5", "2", "2.5", "3"]),
        (Axis(1e-5, 10, log=True), ["1e-5", "0.001", "0.1", "10"]),
        (Axis(1, 30, log=True), ["1", "10"]),
        (Axis(2, 9, log=True), ["2", "5"]),
        (Axis(4, 64, log=True, ticks=[4, 16, 64]), ["4", "16", "64"]),
        (
            Axis(0, 0.5, text=lambda value: f"{100 * value:g} %"),
            ["0 %", "10 %", "20 %", "30 %", "40 %", "50 %"],
        ),
    ],
)
def test_ticks_are_round_numbers(axis: Axis, labels: list[str]) -> None:
    plot = one([axis.low, axis.high], [0.0, 1.0], x=axis)
    line = plot.lines(72)[plot.height + 2].replace(" %", "_")
    assert [label.replace("_", " %") for label in line.split()] == labels


def test_a_target_and_a_rate_are_lines_at_their_values_and_in_the_legend() -> None:
    marks = [
        Mark("target 3", 3.0, "y", "dotted"),
        Mark("suggestion", 1.0, "x"),
        Mark("unknown", None, "x"),
        Mark("far away", 99.0, "y"),
    ]
    plot = one(LEVELS, [0.0, 0.0, 0.0, 0.0, 4.0], marks=marks)
    rows = canvas(plot)
    assert "┈" * 10 in rows[1]
    column = rows[2].index("│")
    assert column == pytest.approx(len(rows[0]) / 4, abs=1)
    assert plot.lines(60)[-1].strip().split("   ") == ["o name", "┈ target 3", "│ suggestion"]


def test_the_first_series_is_drawn_over_the_others_and_each_has_its_marker() -> None:
    same = [
        Series(name, [0.0, 1.0], [1.0, 1.0], marker) for name, marker in (("first", "1"), ("second", "2"))
    ]
    other = Series("third", [0.0, 1.0], [2.0, 2.0], "3")
    text = "\n".join(TextPlot("t", [*same, other], height=4).lines(60))
    drawn, legend = text.rsplit("\n", 1)
    assert "1" * 40 in drawn
    assert "3" * 40 in drawn
    assert "2" * 5 not in drawn
    assert legend.strip().split("   ") == ["1 first", "2 second", "3 third"]


def test_long_names_are_cut_to_three_lines_of_legend_and_the_title_to_one() -> None:
    series = [Series("long name " * 30, [0.0, 1.0], [1.0, 2.0], str(number)) for number in range(5)]
    lines = TextPlot("title " * 60, series, height=4).lines(80)
    assert len(lines) == 1 + 4 + 2 + 3
    assert all(cell_len(line) <= 80 for line in lines)
    assert lines[0].endswith("…")
    assert sum(line.count("…") for line in lines[-3:]) == 5


def test_frame_and_lines_are_ascii_for_a_console_that_has_no_more() -> None:
    plot = one(LEVELS, LEVELS, marks=[Mark(s, 1.0, "x", s) for s in ("solid", "double", "dotted")])
    assert "\n".join(plot.lines(60, ascii_only=True)).isascii()
    with io.TextIOWrapper(io.BytesIO(), encoding="ascii") as stream:
        SafeConsole(file=stream, width=80).print(plot)


@pytest.mark.parametrize(("width", "expected"), [(80, 80), (100, 100), (200, 100)])
def test_a_console_prints_it_in_its_own_width_up_to_100_columns(width: int, expected: int) -> None:
    stream = io.StringIO()
    console = SafeConsole(file=stream, width=width, force_terminal=True, color_system="truecolor")
    console.print(one(LEVELS, LEVELS), highlight=False)
    text = stream.getvalue()
    assert "\x1b" not in text
    assert max(map(cell_len, text.splitlines())) == expected


@pytest.mark.parametrize(("width", "beside"), [(100, True), (82, True), (81, False)])
def test_plots_are_side_by_side_where_each_has_40_columns(width: int, beside: bool) -> None:
    plots = [one(LEVELS, LEVELS), one(LEVELS, LEVELS, marks=[Mark("more " * 20, 1.0, "x")], height=7)]
    stream = io.StringIO()
    SafeConsole(file=stream, width=width).print(PlotsBeside(plots), highlight=False)
    lines = stream.getvalue().splitlines()
    assert lines[0].split() == ["title"] * (1 + beside)
    assert max(map(cell_len, lines)) <= width
    room = (width - 2) // 2
    expected = [plot.lines(room if beside else width) for plot in plots]
    if beside:
        assert [line[: room + 2].rstrip() for line in lines if line[: room + 2].strip()] == expected[0]
        assert [line[room + 2 :] for line in lines] == expected[1]
    else:
        assert lines == [line for of_plot in expected for line in of_plot]


def test_two_plots_never_leak_into_each_other_and_nothing_is_printed() -> None:
    before = plotext.figure.build().string(colorless=True)
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        first = one(LEVELS, LEVELS, marks=[Mark("m", 1.0, "x")]).lines()
        one([1e16, 1e16 + 2], [-1e308, 1e308], x=Axis(log=True)).lines(40)
        assert one(LEVELS, LEVELS, marks=[Mark("m", 1.0, "x")]).lines() == first
    assert stdout.getvalue() == stderr.getvalue() == ""
    assert plotext.figure.build().string(colorless=True) == before


def test_a_curve_of_many_points_reaches_plotext_as_two_a_column(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    figure = type(plotext.figure)
    signal = figure.signal

    def counted(self: Any, x: Sequence[float], y: Sequence[float], **more: Any) -> Any:
        counts.append(len(x))
        return signal(self, x, y, **more)

    monkeypatch.setattr(figure, "signal", counted)
    count = 20_000
    values = [float(number % 1000 == 500) for number in range(count)]
    plot = one([float(number) for number in range(count)], values)
    assert len(rows_of(plot)) > 50
    assert all(count <= 2 * 61 for count in counts)
    assert canvas(plot)[0].strip()


@pytest.mark.parametrize(
    ("series", "width"),
    [
        (Series("a", [1.0], [1.0, 2.0], "o"), 80),
        (Series("a", [1.0], [1.0], "oo"), 80),
        (Series("a", [1.0], [1.0], "日"), 80),
        (Series("a", [1.0], [1.0], "o"), 39),
    ],
)
def test_what_cannot_be_a_plot_is_an_error(series: Series, width: int) -> None:
    with pytest.raises(InvalidValueError):
        TextPlot("t", [series]).lines(width)


_NUMBERS = st.none() | st.floats() | st.integers(-5, 5).map(float)


@settings(max_examples=40, deadline=None)
@given(
    points=st.lists(st.tuples(_NUMBERS, _NUMBERS), max_size=8),
    name=st.text(max_size=60),
    title=st.text(max_size=120),
    logs=st.tuples(st.booleans(), st.booleans()),
    mark=st.none() | st.floats(),
    width=st.integers(40, 100),
)
def test_whatever_the_data_every_line_is_printable_and_no_wider_than_the_console(
    points: list[tuple[float | None, float | None]],
    name: str,
    title: str,
    logs: tuple[bool, bool],
    mark: float | None,
    width: int,
) -> None:
    series = Series(name, [x for x, _ in points], [y for _, y in points], "o")
    plot = TextPlot(title, [series], Axis(log=logs[0]), Axis(log=logs[1]), [Mark(name, mark, "x")], height=4)
    lines = plot.lines(width)
    assert bool(lines) == bool(plot)
    for line in lines:
        assert cell_len(line) <= width
        assert not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in line)
