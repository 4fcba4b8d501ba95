"""docs/records.ipynb: its cells run in order in a fresh process without Jupyter, and give what the records hold."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

DOCS = Path(__file__).parents[3] / "docs"
NOTEBOOK = json.loads((DOCS / "records.ipynb").read_text(encoding="utf-8"))
CELLS = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
# What is looked at afterwards, in the notebook's own names.
LOOK = """
import json, sys
print(json.dumps({
    "trials": len(trials),
    "ranking": ranking.reset_index().astype(object).values.tolist(),
    "curves": [[line.get_xdata().tolist(), line.get_ydata().tolist()] for line in plt.figure(1).axes[0].lines],
    "bars": [bar.get_width() for bar in plt.figure(2).axes[0].patches],
    "labels": [axes.get_xlabel() for number in (1, 2) for axes in plt.figure(number).axes],
    "csv": table.getvalue(),
    "torch": "torch" in sys.modules,
}, default=str))
"""


def records() -> list[dict[str, Any]]:
    """The records of the run that the notebook loads, read by `json` alone."""
    (path,) = re.findall(r'fusetune\.load\("(.+?)"\)', CELLS[0])
    files = sorted((DOCS / path).rglob("records.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_the_notebook_is_stored_without_outputs() -> None:
    assert NOTEBOOK["nbformat"] == 4
    assert len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])
    for cell in NOTEBOOK["cells"]:
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)


def test_the_cells_run_and_give_what_the_records_hold() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join([*CELLS, LOOK])],
        cwd=DOCS,
        env={**os.environ, "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    lines = records()
    assert found["trials"] == len(lines)
    assert not found["torch"]
    assert len(found["csv"].splitlines()) == len(lines) + 1

    groups: dict[tuple[str, ...], list[float]] = {}
    for line in lines:
        time_s = line["values"].get("time_to_target_s", math.inf) if line["status"] == "ok" else math.inf
        groups.setdefault(tuple(map(str, line["factors"].values())), []).append(time_s)
    expected = sorted([median(times), min(times), max(times), len(times)] for times in groups.values())
    assert [row[-4:] for row in found["ranking"]] == expected
    assert sorted(found["bars"]) == [row[0] for row in expected if row[0] < math.inf]
    drawn = sorted(curve[0] for curve in found["curves"])
    assert drawn == sorted([entry["epoch"] for entry in line["curve"]] for line in lines)
    assert found["labels"] == ["epoch", "median time to target [s]"]
