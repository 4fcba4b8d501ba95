"""The table of kinds: what it names exists, is called as it says, and is known to the format on disk."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from fusetune.bench.kinds import KINDS, Kind, function, kind_of
from fusetune.bench.results import schema
from fusetune.bench.results.run_info import RunInfo

ROOT = Path(__file__).parents[2]
# The field of `Kind` -> how many arguments its function is called with.
ARGUMENTS = {"run_trial": 3, "study": 3, "show": 3, "judged": 2, "part": 2}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("field", ARGUMENTS)
def test_a_kind_names_functions_of_faces_that_can_be_called(kind: Kind, field: str) -> None:
    reference = getattr(kind, field)
    if reference is None:
        assert field in ("judged", "part", "run_trial")
        return
    package, _, name = reference.partition(":")
    assert name in import_module(package).__all__
    inspect.signature(function(reference)).bind(*range(ARGUMENTS[field]))


def test_every_kind_has_its_form_of_run_json() -> None:
    assert set(schema._KINDS) == set(KINDS)


def test_a_run_without_a_kind_is_one_of_trainings_and_an_unknown_kind_is_none() -> None:
    assert kind_of(RunInfo.from_dict({}).kind) is KINDS["run"]
    assert kind_of(RunInfo.from_dict({"kind": "gate"}).kind) is None


def test_the_table_imports_nothing_of_ours() -> None:
    code = (
        "import sys, fusetune.bench.kinds; print(*sorted(m for m in sys.modules if m.startswith('fusetune')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "src", capture_output=True, text=True)
    assert done.stdout.split() == [
        "fusetune",
        "fusetune.bench",
        "fusetune.bench.kinds",
        "fusetune.exports",
    ], done.stderr
