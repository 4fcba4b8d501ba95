"""TensorBoard's own reader finds what the records say, in files that are there once."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusetune.bench.results import RunDirectory
from fusetune.bench.tracking import Destination
from fusetune.bench.tracking.sender import Sender, make_tracker
from tests.bench.tracking.sample_run import HOSTILE, RECORDS, make_run, record

pytest.importorskip("tensorboard")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_SCALAR
from tensorboard.compat.proto.types_pb2 import DT_FLOAT
from tensorboard.plugins.hparams import metadata
from tensorboard.util.tensor_util import make_ndarray

FILE = "events.out.tfevents.0.fusetune"


def send(directory: RunDirectory, where: str = "") -> dict[str, Any]:
    """Send a run, and return what came of it."""
    sender = Sender(directory.path, Destination("tensorboard", where), make_tracker, lambda news: None)
    sender.prepare()
    sender.send_new()
    return sender.close()


def read(folder: Path) -> EventAccumulator:
    """Read the events of a folder."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def numbers(events: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    """Return step and value of a tag."""
    return [(each.step, make_ndarray(each.tensor_proto).item()) for each in events.Tensors(tag)]


def hparams(events: EventAccumulator, tag: str) -> Any:
    """Return what the plugin for hyperparameters reads under a tag."""
    content = events.SummaryMetadata(tag).plugin_data.content
    return metadata.parse_session_start_info_plugin_data(content)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Send the sample run, and return its folder."""
    directory = make_run(tmp_path)
    assert send(directory) == {"done": True, "sent": 4, "before": 0, "failed": 0, "problem": ""}
    return directory.path / "tensorboard"


def test_curves_and_results_are_by_steps(folder: Path) -> None:
    events = read(folder / "lr=0.1,seed=0")
    assert numbers(events, "curve/val_loss") == [(10, 1.5), (20, np.float32(1.1))]
    assert numbers(events, "curve/grad_norm") == [(20, np.float32(0.3))]
    assert numbers(events, "result/step_time_s") == [(20, np.float32(1.2345678901))]
    assert numbers(events, "result/peak_bytes") == [(20, np.float32(16_777_217))]


def test_numbers_are_of_the_class_and_type_that_the_server_shows(folder: Path) -> None:
    """TensorBoard's server passes over scalars in double precision, and those that do not say that they are scalars."""
    events = read(folder / "lr=0.1,seed=0")
    tags = [tag for tag in events.Tags()["tensors"] if tag.startswith(("curve/", "result/"))]
    assert len(tags) == 6
    for tag in tags:
        assert events.SummaryMetadata(tag).data_class == DATA_CLASS_SCALAR
        assert {each.tensor_proto.dtype for each in events.Tensors(tag)} == {DT_FLOAT}


def test_the_relative_axis_is_the_training_clock(folder: Path) -> None:
    events = read(folder / "lr=0.1,seed=0").Tensors("curve/val_loss")
    assert [each.wall_time - 1767323045 for each in events] == [0.5, 1.25]


def test_a_trial_has_its_hyperparameters_status_and_reason(folder: Path) -> None:
    events = read(folder / "lr=0.1,seed=1")
    started = hparams(events, metadata.SESSION_START_INFO_TAG)
    assert started.group_name == "lr=0.1,seed=1"
    assert {name: value.number_value for name, value in started.hparams.items()} == {"lr": 0.1, "seed": 1}
    content = events.SummaryMetadata(metadata.SESSION_END_INFO_TAG).plugin_data.content
    assert metadata.parse_session_end_info_plugin_data(content).status == 2  # STATUS_FAILURE
    text = events.Tensors("trial")[0].tensor_proto.string_val[0].decode()
    assert "| status | failed |\n| reason | it broke |" in text


def test_the_table_has_a_column_for_each_factor_and_result(folder: Path) -> None:
    events = read(folder)
    content = events.SummaryMetadata(metadata.EXPERIMENT_TAG).plugin_data.content
    table = metadata.parse_experiment_plugin_data(content)
    assert [each.name for each in table.hparam_infos] == ["lr", "seed"]
    assert [each.name.tag for each in table.metric_infos] == ["result/step_time_s", "result/peak_bytes"]


def test_the_table_keeps_its_columns_where_one_trial_is_sent_later(tmp_path: Path) -> None:
    directory = make_run(tmp_path, RECORDS[:1])
    send(directory)
    with RunDirectory.resume(directory.path) as more:
        more.append(record("later", values={"steps": 5}))
    send(directory)
    content = (
        read(directory.path / "tensorboard").SummaryMetadata(metadata.EXPERIMENT_TAG).plugin_data.content
    )
    table = metadata.parse_experiment_plugin_data(content)
    assert [each.name.tag for each in table.metric_infos] == [
        "result/step_time_s",
        "result/peak_bytes",
        "result/steps",
    ]


def test_hostile_names_are_folders_inside_and_apart(folder: Path) -> None:
    trials = sorted(path.parent.relative_to(folder) for path in folder.rglob(FILE))
    assert len(trials) == 5  # four trials, and the run
    assert all(len(path.parts) <= 1 and len(str(path)) <= 120 for path in trials)
    ends = {hashlib.sha256(name.encode()).hexdigest()[:8] for name in (HOSTILE, HOSTILE + "!")}
    assert ends <= {str(path)[-8:] for path in trials}
    named = next(
        path for path in trials if str(path).endswith(hashlib.sha256(HOSTILE.encode()).hexdigest()[:8])
    )
    value = hparams(read(folder / named), metadata.SESSION_START_INFO_TAG).hparams["lr"].string_value
    assert value == HOSTILE.replace("\x1b", r"\x1b").replace("\x07", r"\x07")


def test_texts_are_no_markup(folder: Path) -> None:
    events = [read(path.parent) for path in folder.rglob(FILE)]
    texts = [
        each.tensor_proto.string_val[0].decode()
        for event in events
        for tag in ("trial", "spec")
        if tag in event.Tags()["tensors"]
        for each in event.Tensors(tag)
    ]
    assert len(texts) == 5
    assert not any("<b>" in text for text in texts)


def test_a_trial_that_is_sent_again_is_there_once(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    directory = RunDirectory.open(folder.parent)
    assert send(directory)["before"] == 4
    (folder.parent / "tracked-tensorboard.jsonl").unlink()
    assert send(directory)["sent"] == 4
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_folder_that_was_removed_is_made_again(folder: Path) -> None:
    (folder / "lr=0.1,seed=0" / FILE).unlink()
    assert send(RunDirectory.open(folder.parent)) == {
        "done": True,
        "sent": 1,
        "before": 3,
        "failed": 0,
        "problem": "",
    }


def test_a_directory_of_a_persons_own_holds_several_runs(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    runs = [make_run(tmp_path / "results", RECORDS[:1]) for _ in range(2)]
    for each in runs:
        send(each, str(logs))
    found = {path.parent.relative_to(logs) for path in logs.rglob(FILE)}
    expected = {Path("demo", run.path.name) for run in runs}
    assert found == expected | {path / "lr=0.1,seed=0" for path in expected}
    assert not (runs[0].path / "tensorboard").exists()


def test_the_hosts_name_is_nowhere(folder: Path) -> None:
    import socket

    host = socket.gethostname().encode()
    names = [path.name for path in folder.rglob("*")]
    assert {name for name in names if "tfevents" in name} == {FILE}
    if len(host) > 4:
        assert not any(host in path.read_bytes() for path in folder.rglob(FILE))


def test_many_trials_leave_no_files_open(tmp_path: Path) -> None:
    directory = make_run(tmp_path, tuple(record(f"t{number}") for number in range(60)))
    before = len(os.listdir("/proc/self/fd"))
    assert send(directory)["sent"] == 60
    assert len(os.listdir("/proc/self/fd")) <= before
