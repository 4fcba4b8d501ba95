"""What of a person's folder travels to the nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusetune.bench.cluster.person_code import gather_code
from fusetune.bench.errors import InputError


def test_code_travels_and_data_results_and_environments_stay(tmp_path: Path) -> None:
    here, target = tmp_path / "here", tmp_path / "target"
    kept = ["spec.yaml", "net.py", "parts/__init__.py", "parts/block.py", "parts/sizes.json"]
    left = ["data.npz", "weights.pt", "results/a.json", ".hidden/a.py", "__pycache__/a.py"]
    left += ["own/pyvenv.cfg", "own/lib.py"]
    for name in kept + left:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(name)
    (here / "loop").symlink_to(here)
    names = gather_code([str(here), str(here / "parts")], target)
    assert len(names) == 2
    copied = {
        str(path.relative_to(target / names[0])) for path in (target / names[0]).rglob("*") if path.is_file()
    }
    assert copied == set(kept)
    assert (target / names[1] / "block.py").read_text() == "parts/block.py"


def test_a_folder_of_everything_is_refused(tmp_path: Path) -> None:
    for number in range(2001):
        (tmp_path / f"{number}.py").touch()
    with pytest.raises(InputError, match="has too much code to send to the nodes"):
        gather_code([str(tmp_path)], tmp_path / "target")
