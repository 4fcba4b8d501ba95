"""What Triton tuned, as rows that JSON and messages hold, and as a table."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from fusetune.bench.kernels.search_table import search_table
from fusetune.kernels import TritonSearch

CONFIGS = tuple({"BLOCK": block, "num_warps": 4} for block in (64, 128, 256))
TIMES = ((3e-6, 2e-6, 4e-6), (1e-6, 1e-6, 2e-6), (math.inf, math.inf, math.inf))
SEARCH = TritonSearch("add", ("1000", "torch.float32"), CONFIGS, TIMES, CONFIGS[1], 0.5)


def test_a_row_survives_json() -> None:
    row = json.loads(json.dumps(SEARCH.as_row(), allow_nan=False))
    assert [each["latency_s"] for each in row["configs"]] == [3e-6, 1e-6, None]
    again = TritonSearch.from_row(row)
    assert (again.best, again.failed, again.configs) == (SEARCH.best, 1, SEARCH.configs)
    assert again.as_row() == row


@pytest.mark.parametrize(
    "row", [{}, {**SEARCH.as_row(), "configs": 3}, {**SEARCH.as_row(), "best": None}], ids=str
)
def test_what_is_no_row_is_refused(row: Any) -> None:
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        TritonSearch.from_row(row)


def test_the_table_has_the_fastest_first() -> None:
    table = search_table(SEARCH, most=2)
    columns = [[*column.cells] for column in table.columns]
    assert columns[0] == ["128", "64"]
    assert columns[-2] == ["1.00x", "3.00x"]
    assert columns[-1] == ["chosen", ""]
    assert table.caption == "and 1 more"
    assert [*search_table(SEARCH).columns[-1].cells] == ["chosen", "", "failed"]
