"""Specs of kernels under the gate: the words of `bench kernels`, and what its records become."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from fusetune.bench.errors import InputError
from fusetune.bench.gate.kernel_runs import KernelRuns
from fusetune.bench.gate.measured import Measured
from fusetune.bench.gate.processes import Place
from fusetune.bench.gate.rules import Rules
from fusetune.bench.kernels import Row, load_kernels
from fusetune.bench.kernels.records import record_of_row
from tests.bench.gate.test_trainings import FAKE
from tests.bench.kernels.made_rows import failed_row, good_row

SPEC = """
name: mine
kernels: {gelu: {competitors: [eager]}, adam: }
gate: {metrics: {latency_s: {threshold: 0.2}}}
"""
RUN = {
    "schema_version": 2,
    "kind": "kernels",
    "spec": {"name": "mine"},
    "machine": {"device": "cpu"},
    "versions": {"torch": "9"},
}


class Side:
    """A checkout whose interpreter writes down its words and leaves a canned run."""

    def __init__(self, folder: Path) -> None:
        (folder / "k.yaml").write_text(SPEC)
        self.folder, self.said, self.content = folder, folder / "said.json", folder / "content.json"
        self.python = folder / "python"
        self.python.write_text(
            FAKE.format(python=sys.executable, said=str(self.said), content=str(self.content))
        )
        self.python.chmod(0o755)
        self.told: list[str] = []
        loaded = load_kernels(folder / "k.yaml", overrides=("shapes=8", "gate.budget=60"))
        overrides = ("shapes=8", "gate.budget=60")
        self.runs = KernelRuns(loaded, Path("k.yaml"), overrides, Rules(), self.told.append)

    def measure(self, row: Row | None, code: int = 0, err: str = "") -> dict[str, Measured]:
        record = row and record_of_row(row).as_dict()
        self.content.write_text(json.dumps({"run": RUN, "record": record, "code": code, "err": err}))
        place = Place("head", "head working tree", self.folder, str(self.python), {})
        return self.runs.measure("mine", 0, place, 60.0)

    @property
    def words(self) -> list[str]:
        words: list[str] = json.loads(self.said.read_text())["words"]
        return words


def test_a_process_measures_every_row_without_competitors(tmp_path: Path) -> None:
    side = Side(tmp_path)
    found = side.measure(good_row())
    (measured,) = found.values()
    assert list(found) == ["mine: kernel=gelu,shape=1048576,dtype=float32"]
    metrics = measured.metrics
    assert {name: each.comparison for name, each in metrics.items()} == {
        "latency_s": "timing",
        "launches": "exact",
        "moved_bytes": "exact",
        "extra_bytes": "exact",
    }
    assert len(metrics["latency_s"].values) == 20  # one a round
    assert metrics["launches"].values == (1.0,)
    words = side.words
    assert words[:4] == ["-m", "fusetune.bench", "kernels", "k.yaml"]
    given = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
    assert given == ["shapes=8", "competitors=[]", "static=[]", "kernels.gelu.competitors=[]"]
    assert side.runs.facts["head"]["versions"] == {"torch": "9"}


def test_a_row_that_is_wrong_is_a_failure(tmp_path: Path) -> None:
    side = Side(tmp_path)
    (measured,) = side.measure(failed_row(), code=1).values()
    assert measured.failure.startswith("the kernel failed: wrong: at 1,048,576 elements")
    assert not measured.metrics
    assert "gelu_tanh/1048576/bfloat16: the kernel failed" in side.told[0]


@pytest.mark.parametrize(
    ("err", "said"),
    [
        ("error: k.yaml:3: kernels.gelu.shape: unknown key", "`bench kernels` rejects the spec"),
        ("Error: unknown command 'kernels'; known: run.", "has no command `bench kernels`"),
    ],
)
def test_a_side_that_rejects_it_is_bad_input(tmp_path: Path, err: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Side(tmp_path).measure(None, code=2, err=err)


def test_an_older_revision_gets_the_spec_without_its_gate_section(tmp_path: Path) -> None:
    side = Side(tmp_path)
    checkout: Any = tmp_path / "checkout"
    checkout.mkdir()
    side.runs.prepare(checkout)
    assert "gate" not in json.loads((checkout / "k.yaml").read_text())
    assert side.runs.jobs == ("mine",)
