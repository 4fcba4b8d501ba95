"""The check itself: it passes what is right, and refuses what is not."""

from __future__ import annotations

from typing import Any

import pytest

from fusetune.bench.page import Part, Plot, Section, layered, mark, quantity
from tests.bench.page.checked import checked_page
from tests.bench.page.every_block import every_block


def test_a_part_with_every_block_passes() -> None:
    titles = [plot.title for plot in checked_page(every_block())]
    assert titles == ["title of the ranking"[0:20]] + ["title of the curves"] * 2 + [
        "title of the map",
        "title of the curves",
    ]


@pytest.mark.parametrize(
    ("spec", "alt", "found"),
    [
        (
            {"mark": "bar", "encoding": {"x": quantity("y", "y")}},
            "one bar for each value",
            "no column has the name y",
        ),
        (
            layered([{"mark": mark("bar"), "data": {"name": "t"}}]),
            "one bar for each value",
            "there is no table t",
        ),
        (
            {
                "mark": "bar",
                "encoding": {"x": quantity("x", "x") | {"scale": {"type": "log", "zero": True}}},
            },
            "one bar for each value",
            "dropped",
        ),
        ({"mark": "bar", "encoding": {"x": quantity("x", "x")}}, "bars", "says nothing"),
    ],
)
def test_what_a_page_must_not_have_is_found(spec: dict[str, Any], alt: str, found: str) -> None:
    part = Part("t", "", "", sections=(Section("curves", (Plot("t", alt, spec, {"data": {"x": [1, 2]}}),)),))
    with pytest.raises(AssertionError, match=found):
        checked_page(part)
