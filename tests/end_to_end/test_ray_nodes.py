"""Nodes of a real cluster that differ from the driver: each is refused in one sentence, before anything is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.conftest import ROOT, Done
from tests.ray_cluster import RayCluster

SPEC = """\
name: nodes
data:   {name: npz, path: mine.npz, validation: 20}
model:  {name: linear}
train:  {optimizer: sgd, base_lr: 0.1, batch_size: 20, epochs: 1}
threads: 1
device: cpu
resources: {gpus: 1}
"""
# Imported by every Python process that finds it on its path. PRETEND says in what the process differs.
PRETENDING = """\
import builtins, io, json, os, sys
from importlib import metadata

told = json.loads(os.environ.get("PRETEND", "{}"))
versions, real = told.get("versions", {}), metadata.version


def version(name):
    if name not in versions:
        return real(name)
    if versions[name] is None:
        raise metadata.PackageNotFoundError(name)
    return versions[name]


metadata.version = version
if versions.get("fusetune", "") is None:
    sys.path[:] = [each for each in sys.path if not os.path.isdir(os.path.join(each, "fusetune"))]
if "file" in told:
    stat, opened = os.stat, io.open

    def own(path):
        return told["file"] + "-of-node" if str(path) == told["file"] else path

    os.stat = lambda path, *more, **options: stat(own(path), *more, **options)
    io.open = builtins.open = lambda path, *more, **options: opened(own(path), *more, **options)
if "python" in told:
    import ray._private.utils as of_ray

    of_ray.compute_version_info = lambda: (of_ray.ray.__version__, told["python"])
"""


def other_source(folder: Path) -> Path:
    """Return a folder with this project and one file more."""
    package = folder / "fusetune"
    package.mkdir(parents=True)
    for entry in (ROOT / "src" / "fusetune").iterdir():
        (package / entry.name).symlink_to(entry)
    (package / "one_more.py").write_text("")
    return folder


def pretending(folder: Path, *others: Path, **told: object) -> dict[str, str]:
    """Return the variables of a process that differs."""
    path = [str(folder), *map(str, others), str(ROOT / "src")]
    return {"PYTHONPATH": ":".join(path), "PRETEND": json.dumps(told)}


@pytest.mark.slow
def test_nodes_that_differ_are_refused_and_nothing_is_written(
    bench: Callable[..., Done], tmp_path: Path
) -> None:
    rows = np.random.default_rng(0).normal(size=(100, 4)).astype("float32")
    labels = rows[:, 0] > 0
    data = tmp_path / "mine.npz"
    np.savez(data, x_train=rows, y_train=labels, x_test=rows, y_test=labels)
    with (tmp_path / "mine.npz-of-node").open("wb") as file:
        np.savez(file, x_train=rows, y_train=labels, x_test=rows + 1, y_test=labels)
    (tmp_path / "nodes.yaml").write_text(SPEC)
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(PRETENDING)
    variables = {
        "n1": pretending(site),
        "n2": pretending(site, versions={"fusetune": None}),
        "n3": pretending(site, versions={"torch": "9.9.0"}),
        "n4": pretending(site, other_source(tmp_path / "other")),
        "n5": pretending(site, file=str(data)),
    }

    def refused(*, without: str = "", **driver: str) -> str:
        """Return the sentence of a run that is refused, and take a node away then."""
        done = bench("run", "nodes.yaml", "--executor", f"ray={cluster.address}", **driver)
        assert done.code == 2, done.err
        assert "Traceback" not in done.err
        assert not list(tmp_path.glob("results/*"))
        if without:
            cluster.remove(without)
        return " ".join(done.err.split())

    with RayCluster(nodes=5, variables=variables) as cluster:
        said = refused(**pretending(site, python="3.9.1"))
        assert f"--executor ray: {cluster.address}: the cluster runs another version" in said
        assert "3.9.1" in said
        assert "--executor ray: node n2 lacks fusetune; this driver has fusetune " in refused(without="n2")
        assert "--executor ray: node n3 has torch 9.9.0; this driver has torch " in refused(without="n3")
        said = refused(without="n4")
        assert "--executor ray: node n4 has another fusetune of the same version" in said
        said = refused()
        assert "--executor ray: data: nodes have not the data of this run: n5: mine.npz: " in said
        assert said.endswith(
            "Put the same files at the same path on every node, e.g. on a shared file system."
        )
