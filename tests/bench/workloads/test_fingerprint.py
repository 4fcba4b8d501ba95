"""A run is not continued, and not read for another one, where its data are not the same any more."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fusetune.bench.batch_size.earlier_runs import find_rate_run, find_target_run
from fusetune.bench.cli import program as cli
from fusetune.bench.errors import InputError, RunDirectoryError
from fusetune.bench.results.directory import RunDirectory
from fusetune.bench.results.records import Record
from fusetune.bench.results.run_info import RunInfo
from fusetune.bench.results.written_spec import WrittenSpec
from fusetune.bench.run.plan import make_plan, open_directory
from fusetune.bench.run.run_plan import RunPlan
from fusetune.bench.spec.load import load_spec
from fusetune.bench.spec.source import Source
from fusetune.bench.workloads.datasets import DataRequest, locate
from fusetune.bench.workloads.fingerprint import MOST_LISTED, differences, fingerprint, fingerprint_all

SPEC = """\
name: small
data: {name: npz, path: mine.npz, validation: 20}
model: {name: mlp, width: 8}
train: {base_lr: 0.1, batch_size: 16, epochs: 1}
"""


def save(path: Path, samples: int = 60, seed: int = 0) -> None:
    """Save two classes of random points."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(samples, 2)).astype(np.float32)
    y = np.arange(samples) % 2
    np.savez(path, x_train=x, y_train=y, x_test=x[:10], y_test=y[:10])


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    save(tmp_path / "mine.npz")
    (tmp_path / "small.yaml").write_text(SPEC)
    return tmp_path / "small.yaml"


def plan_of(spec: Path) -> RunPlan:
    return make_plan(load_spec(spec), jobs=1, command=["bench"], announce=lambda text: None)


def begun(spec: Path) -> Path:
    """Begin a run and write one record."""
    run = plan_of(spec).run
    with RunDirectory.create(spec.parent / "results", "small", run) as directory:
        directory.append(Record("earlier", {}, 0, "ok"))
    return directory.path


def test_the_fingerprint_is_size_and_sha256_of_the_content(spec: Path) -> None:
    content = (spec.parent / "mine.npz").read_bytes()
    wanted = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    run = plan_of(spec).run
    assert run.fingerprint == {"npz mine.npz": {"mine.npz": wanted}}
    assert json.loads(json.dumps(run.fingerprint)) == run.fingerprint


def test_the_same_data_can_be_gone_on_with_wherever_they_lie(spec: Path, tmp_path: Path) -> None:
    path = begun(spec)
    (spec.parent / "mine.npz").touch()  # a new time is no new content
    with open_directory(plan_of(spec), tmp_path, path, lambda text: None) as directory:
        assert len(directory.records()[0]) == 1


@pytest.mark.parametrize(("samples", "seed"), [(62, 0), (60, 1)])
def test_changed_data_are_refused_with_size_and_hash_then_and_now(
    spec: Path, tmp_path: Path, samples: int, seed: int
) -> None:
    path = begun(spec)
    before = (spec.parent / "mine.npz").read_bytes()
    save(spec.parent / "mine.npz", samples, seed)
    after = (spec.parent / "mine.npz").read_bytes()
    with pytest.raises(RunDirectoryError) as refused:
        open_directory(plan_of(spec), tmp_path, path, lambda text: None)
    then, now = (
        f"{len(each)} bytes, sha256 {hashlib.sha256(each).hexdigest()[:12]}" for each in (before, after)
    )
    assert f"its data changed since it began:\n  mine.npz: {then} -> {now}\n" in str(refused.value)
    assert refused.value.exit_code == 2
    assert len(RunDirectory.open(path).records()[0]) == 1


def test_resuming_on_the_command_line_is_refused_too(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = begun(spec)
    save(spec.parent / "mine.npz", seed=5)
    with pytest.raises(SystemExit) as stop:
        cli.main(["run", "--resume", str(path)])
    out, err = capsys.readouterr()
    assert stop.value.code == 2
    assert "cannot be continued; its data changed since it began" in err
    assert not out


def test_a_run_from_before_there_were_fingerprints_goes_on_with_a_note(spec: Path, tmp_path: Path) -> None:
    path, said = begun(spec), []  # type: ignore[var-annotated]
    content = json.loads((path / "run.json").read_text())
    del content["fingerprint"]
    (path / "run.json").write_text(json.dumps(content))
    assert RunDirectory.open(path).run.fingerprint is None
    with open_directory(plan_of(spec), tmp_path, path, said.append):
        pass
    assert [text for text in said if "without a fingerprint" in text] == [
        "note: the run began without a fingerprint of its data, so nobody can tell whether they changed"
    ]


def folder(root: Path, files: dict[str, int]) -> Source:
    for name, value in files.items():
        (root / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 3), value).save(root / "pictures" / name)
    return locate(DataRequest("folder", path="pictures"), spec_dir=root)


def test_of_a_folder_every_file_counts_and_the_changed_one_is_named(tmp_path: Path) -> None:
    files = {"cat/1.png": 1, "cat/2.png": 2, "dog/1.png": 3}
    then = fingerprint_all([folder(tmp_path, files)], tmp_path)
    assert next(iter(then.values())).keys() == files.keys()
    assert differences(then, fingerprint_all([folder(tmp_path, files)], tmp_path)) == []
    changed = differences(then, fingerprint_all([folder(tmp_path, {"dog/1.png": 4})], tmp_path))
    assert len(changed) == 1
    assert changed[0].startswith("dog/1.png: ")
    folder(tmp_path, files)
    added = differences(then, fingerprint_all([folder(tmp_path, {"dog/2.png": 9})], tmp_path))
    assert len(added) == 1
    assert added[0].startswith("dog/2.png: (none) -> ")
    (tmp_path / "pictures/dog/2.png").rename(tmp_path / "pictures/cat/3.png")  # the label is another one
    moved = fingerprint_all([folder(tmp_path, {})], tmp_path)
    assert differences(then, moved)[0].startswith("cat/3.png: (none) -> ")


def test_the_labels_of_a_folder_count(tmp_path: Path) -> None:
    folder(tmp_path, {"a/1.png": 1, "b/2.png": 2, "b/3.png": 2})
    labels = tmp_path / "labels.csv"
    labels.write_text("file,label\na/1.png,x\nb/2.png,y\n")
    then = fingerprint_all(
        [locate(DataRequest("folder", path="pictures", labels="labels.csv"), spec_dir=tmp_path)], tmp_path
    )
    labels.write_text("file,label\na/1.png,y\nb/2.png,x\n")
    now = fingerprint_all(
        [locate(DataRequest("folder", path="pictures", labels="labels.csv"), spec_dir=tmp_path)], tmp_path
    )
    assert [line.split(":")[0] for line in differences(then, now)] == ["labels.csv"]


def test_many_files_are_summed_up_by_folder_and_a_change_is_still_seen(tmp_path: Path) -> None:
    source = folder(tmp_path, {"cat/1.png": 1, "dog/1.png": 2})
    content = (tmp_path / "pictures/cat/1.png").read_bytes()
    for number in range(2, MOST_LISTED + 1):
        (tmp_path / f"pictures/cat/{number}.png").write_bytes(content)
    then = fingerprint(source, tmp_path)
    assert then["cat/"]["files"] == MOST_LISTED
    assert then["cat/"]["bytes"] == MOST_LISTED * len(content)
    assert then.keys() == {"cat/", "dog/"}
    (tmp_path / "pictures/cat/77.png").write_bytes(content[:-1] + b"x")
    now = fingerprint(source, tmp_path)
    assert now["dog/"] == then["dog/"]
    assert [line.split(":")[0] for line in differences({"a": then}, {"a": now})] == ["cat/"]


def test_a_file_that_a_factory_is_given_counts(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("1")
    options = {"path": "points.csv", "scale": 2, "word": "x" * 5000, "none": "a\0b"}
    source = Source("mine:data", "mine:data", is_factory=True, options=options)
    then = fingerprint_all([source], tmp_path)
    (tmp_path / "points.csv").write_text("2")
    assert differences(then, fingerprint_all([source], tmp_path))[0].startswith("path=points.csv: 1 bytes")


def test_generated_data_are_what_their_parameters_say() -> None:
    then = fingerprint_all([locate(DataRequest("spirals", seed=0))], Path())
    assert differences(then, fingerprint_all([locate(DataRequest("spirals", seed=0))], Path())) == []
    assert differences(then, fingerprint_all([locate(DataRequest("spirals", seed=1))], Path())) == [
        "spirals seed=0: is gone",
        "spirals seed=1: is new",
    ]


def test_many_differences_are_counted() -> None:
    then = {"folder a": {f"{number}.png": {"bytes": 1, "sha256": "a"} for number in range(20)}}
    lines = differences(then, {"folder a": {}})
    assert lines[-1] == "... and 14 more"
    assert len(lines) == 7


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    source = Source("npz", "npz", path=str(tmp_path / "gone.npz"), where="a.yaml:2: data")
    with pytest.raises(InputError, match=r"a\.yaml:2: data: .*gone\.npz: cannot be read; "):
        fingerprint(source, tmp_path)


def test_an_earlier_run_on_other_data_says_nothing_of_batch_sizes(tmp_path: Path) -> None:
    spec = WrittenSpec(
        {
            "name": "demo",
            "target": {"metric": "val_accuracy", "at_least": 0.9},
            "factors": {"batch_size": [8, 16, 32]},
        }
    )
    data = {"npz a.npz": {"a.npz": {"bytes": 1, "sha256": "aa"}}}
    other = {"npz a.npz": {"a.npz": {"bytes": 2, "sha256": "bb"}}}
    for kind in ("run", "lr-range"):
        with RunDirectory.create(
            tmp_path, "demo", RunInfo(kind=kind, spec=spec, fingerprint=data)
        ) as directory:
            for size in (8, 16, 32):
                values = {"steps_to_target": 9.0, "time_to_target_s": 1.0, "range_lr": 0.1}
                directory.append(Record(f"{size}", {"batch_size": size}, 0, "ok", values=values))
        if kind == "run":
            trainings = directory.path
    for known in (None, data):
        assert find_target_run(tmp_path, spec, None, known) is not None
        assert find_rate_run(tmp_path, spec, known) is not None
    assert find_target_run(tmp_path, spec, None, other) is None
    assert find_rate_run(tmp_path, spec, other) is None
    with pytest.raises(
        InputError, match=r"was made on other data: a\.npz: 1 bytes, sha256 aa -> 2 bytes, sha256 bb"
    ):
        find_target_run(tmp_path, spec, trainings, other)


def test_names_are_relative_to_the_spec(tmp_path: Path) -> None:
    for place in ("one", "two"):
        (tmp_path / place / "data").mkdir(parents=True)
        save(tmp_path / place / "data/mine.npz")
    prints = [
        fingerprint_all(
            [locate(DataRequest("npz", path="data/mine.npz"), spec_dir=tmp_path / place)], tmp_path / place
        )
        for place in ("one", "two")
    ]
    assert prints[0] == prints[1]
    assert list(prints[0]) == [f"npz data{os.sep}mine.npz"]
