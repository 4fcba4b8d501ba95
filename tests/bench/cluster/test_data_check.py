"""A node's data against the fingerprint of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fusetune.bench.cluster.data_check import check_data
from fusetune.bench.spec import Source
from fusetune.bench.workloads import fingerprint_all


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    monkeypatch.chdir(tmp_path)  # a node's process goes where the driver is, and this one goes back
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    return Source("npz", "npz", path=str(tmp_path / "a.npz"))


def check(source: Source, fingerprint: dict, stage: str | None = None) -> tuple[list[str], dict[str, str]]:
    folder = str(Path(source.path).parent)
    return check_data([source], folder, fingerprint, stage, folder)


def test_the_same_data_are_taken_where_they_lie_and_other_or_none_are_named(source: Source) -> None:
    path = Path(source.path)
    fingerprint = fingerprint_all([source], path.parent)
    assert check(source, fingerprint) == ([], {})
    np.savez(path, x=np.ones(3))
    (changed,), _ = check(source, fingerprint)
    assert changed.startswith("a.npz: ")
    assert "sha256" in changed
    path.unlink()
    assert check(source, fingerprint) == ([f"{path}: is not there"], {})


def test_data_are_copied_once_a_node_and_again_when_they_change(source: Source, tmp_path: Path) -> None:
    path, stage = Path(source.path), tmp_path / "fast"
    fingerprint = fingerprint_all([source], path.parent)
    _, staged = check(source, fingerprint, str(stage))
    copy = Path(staged[source.path])
    assert copy.is_relative_to(stage)
    assert copy.read_bytes() == path.read_bytes()
    status = copy.stat()
    assert check(source, fingerprint, str(stage))[1] == staged
    assert copy.stat().st_ino == status.st_ino
    np.savez(path, x=np.ones(4))
    fingerprint = fingerprint_all([source], path.parent)
    _, again = check(source, fingerprint, str(stage))
    assert Path(again[source.path]).read_bytes() == path.read_bytes()
    assert again != staged
