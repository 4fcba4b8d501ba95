"""Numbers of tables: worked out by hand."""

from __future__ import annotations

import math

import pytest

from fusetune.bench.paper import Column, Figure, PaperTable
from fusetune.bench.paper.digits import written_column
from fusetune.bench.units import METRICS, display_unit
from fusetune.errors import InvalidValueError


def written(unit: str, *figures: Figure) -> tuple[str, list[str]]:
    """The heading, and the cells with their intervals."""
    table = PaperTable("", "", (Column("x", "x", unit, ("low", "high")),), tuple((each,) for each in figures))
    column = written_column(table, 0)
    return column.heading, [f"{cell.value} {cell.interval}".rstrip() for cell in column.cells]


@pytest.mark.parametrize(
    ("figure", "expected"),
    [
        # The width 1.2 has two significant digits at one decimal.
        (Figure(12.34, 11.91, 13.11), "12.3 [11.9, 13.1]"),
        # The width 29 needs no decimals.
        (Figure(6.31, 5.52, 34.5), "6.3 [5.5, 34.5]"),
        # A width of 0.0002, and three digits where there is no interval.
        (Figure(0.12345, 0.1234, 0.1236), "0.12345 [0.12340, 0.12360]"),
        (Figure(0.12345), "0.123"),
        (Figure(123456.7), "123,457"),
        # No end of the interval loses all of its digits.
        (Figure(0.5, 0.4, 30.0), "0.50 [0.40, 30.00]"),
        # What prints as the value is left out.
        (Figure(2.0, 2.0, 2.0), "2.00"),
        (Figure(0.0, 0.0, 0.0), "0"),
        (Figure(-0.25, -0.5, 0.5), "-0.25 [-0.50, 0.50]"),
        (Figure(-0.001), "-0.00100"),
        # A missed target.
        (Figure(math.inf, 6.0, math.inf), "∞ [6.00, ∞]"),
        (Figure(6.3784, 6.289, math.inf), "6.38 [6.29, ∞]"),
        (Figure(math.inf, math.inf, math.inf), "∞"),
        (Figure(None), "–"),
        # A tiny number without an interval.
        (Figure(5.61217e-8), "5.61e-8"),
    ],
)
def test_digits_fit_the_interval(figure: Figure, expected: str) -> None:
    assert written("none", figure) == ("x", [expected])


@pytest.mark.parametrize(
    ("unit", "values", "heading", "cells"),
    [
        ("s", [0.0123, 0.5, 0.02], "x [ms]", ["12.3", "500", "20.0"]),
        ("s", [125.0, 0.5], "x [s]", ["125", "0.500"]),
        ("s", [3e-6, 2e-6], "x [µs]", ["3.00", "2.00"]),
        ("bytes", [1536.0, 2048.0], "x [KiB]", ["1.50", "2.00"]),
        ("bytes", [100.0], "x [B]", ["100"]),
        ("fraction", [0.912, 0.9], "x [%]", ["91.2", "90.0"]),
        ("nats", [0.5], "x [nats]", ["0.500"]),
        ("count", [1234, 80], "x", ["1,234", "80"]),
        # The median of an even number of counts. Python rounds a half to the even number.
        ("count", [1234.5, 80.5], "x", ["1,234", "80.5"]),
        ("", [3], "x", ["3"]),
    ],
)
def test_a_column_has_one_unit(unit: str, values: list[float], heading: str, cells: list[str]) -> None:
    assert written(unit, *map(Figure, values)) == (heading, cells)


def test_every_metric_has_a_unit_to_be_printed_in() -> None:
    for metric in METRICS.values():
        factor, _ = display_unit(metric.unit, [0.001, 10.0])
        assert factor > 0


@pytest.mark.parametrize("value", [1e-12, 1e-5, 0.3, 7.0, 59.99, 3600.0, 1e9])
@pytest.mark.parametrize("unit", ["s", "bytes", "fraction"])
def test_the_printed_number_is_the_number(unit: str, value: float) -> None:
    factor, _ = display_unit(unit, [value])
    _, (cell,) = written(unit, Figure(value))
    shown = float(cell.replace(",", "")) * factor
    assert math.isclose(shown, value, rel_tol=0.006) or (unit == "bytes" and value < 1)


def test_a_table_refuses_rows_that_do_not_fit() -> None:
    column = Column("x", "x")
    with pytest.raises(InvalidValueError, match="one has 2 cells of 1"):
        PaperTable("", "", (column,), (("a", "b"),))
    with pytest.raises(InvalidValueError, match="two have the same name"):
        PaperTable("", "", (column, column), ())
