"""Trackio, wandb and MLflow themselves, without a network: what they give back is what the records say."""

from __future__ import annotations

import importlib
import json
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fusetune.bench.results import RunDirectory
from fusetune.bench.tracking import Destination
from fusetune.bench.tracking.sender import Sender, make_tracker
from tests.bench.tracking.sample_run import HOSTILE, RECORDS, make_run, record

pytestmark = [pytest.mark.trackers, pytest.mark.timeout(600)]

NAMES = ("trackio", "wandb", "mlflow")
ALL = {"done": True, "sent": 4, "before": 0, "failed": 0, "problem": ""}
PRINTED = HOSTILE.replace("\x1b", r"\x1b").replace("\x07", r"\x07")
_BLOCK = 32768
CONNECT = socket.socket.connect


def connect_here(self: socket.socket, address: Any) -> None:
    """Connect within this machine alone."""
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise AssertionError(f"a connection to {address}")
    CONNECT(self, address)


@dataclass(frozen=True)
class Sent:
    """A run that was sent to each tracker."""

    directory: RunDirectory
    results: dict[str, dict[str, Any]]
    place: Path


def send(directory: RunDirectory, name: str) -> dict[str, Any]:
    """Send a run, and return what came of it."""
    sender = Sender(directory.path, Destination(name), make_tracker, lambda news: None)
    sender.prepare()
    sender.send_new()
    return sender.close()


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sent]:
    """Send the sample run to each tracker."""
    place = tmp_path_factory.mktemp("trackers")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(socket.socket, "connect", connect_here)
        patch.setenv("HOME", str(place))
        patch.setenv("TRACKIO_DIR", str(place / "trackio"))
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place}/mlflow.db")
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.delenv("TRACKIO_SPACE_ID", raising=False)
        patch.delenv("TRACKIO_SERVER_URL", raising=False)
        patch.delenv("WANDB_DIR", raising=False)
        directory = make_run(place / "results")
        yield Sent(directory, {name: send(directory, name) for name in NAMES}, place)


@pytest.mark.parametrize("name", NAMES)
def test_everything_is_sent_and_nothing_twice(sent: Sent, name: str) -> None:
    assert sent.results[name] == ALL
    assert send(sent.directory, name) == {**ALL, "sent": 0, "before": 4}


def trackio_runs() -> dict[str, Any]:
    """Return trial -> run of Trackio."""
    trackio = importlib.import_module("trackio")
    return {run.config["trial"]: run for run in trackio.Api().runs("demo")}


def trackio_lines(run: Any) -> list[dict[str, Any]]:
    """Return what a run of Trackio has logged, by steps."""
    storage = importlib.import_module("trackio.sqlite_storage").SQLiteStorage
    lines = storage.get_logs("demo", run.name, run_id=run.id)
    return [{name: value for name, value in line.items() if name != "timestamp"} for line in lines]


def test_trackio_has_each_trial_once_with_its_curve(sent: Sent) -> None:
    runs = trackio_runs()
    assert {*runs} == {each.trial for each in RECORDS}
    run = runs["lr=0.1,seed=0"]
    assert run.name == f"lr=0.1,seed=0 @{sent.directory.path.name}"
    assert trackio_lines(run) == [
        {"step": 10, "curve/epoch": 1, "curve/time_s": 0.5, "curve/val_loss": 1.5},
        {"step": 20, "curve/epoch": 2, "curve/time_s": 1.25, "curve/val_loss": 1.1, "curve/grad_norm": 0.3},
        {
            "step": 20,
            "result/step_time_s": 1.2345678901,
            "result/peak_bytes": 16_777_217,
            "result/status": "ok",
        },
    ]
    config = run.config
    assert (config["lr"], config["seed"], config["spec.train.epochs"]) == (0.1, 0, 2)
    assert (config["_Group"], config["_Username"]) == (sent.directory.path.name, None)
    assert runs["lr=0.1,seed=1"].config["reason"] == "it broke"
    assert runs[HOSTILE].config["lr"] == PRINTED
    assert runs[HOSTILE].config["findings"] == "rate too high"
    assert len({each.name for each in runs.values()}) == 4


def test_trackio_replaces_a_trial_that_was_broken_off(sent: Sent) -> None:
    (sent.directory.path / "tracked-trackio.jsonl").unlink()
    assert send(sent.directory, "trackio") == ALL
    trackio = importlib.import_module("trackio")
    assert len(list(trackio.Api().runs("demo"))) == 4
    next(iter(trackio.Api().runs("demo"))).delete()
    assert send(sent.directory, "trackio")["sent"] == 1


def wandb_files(sent: Sent) -> list[Path]:
    """Return the files of wandb's offline runs."""
    return sorted(sent.directory.path.glob("wandb/offline-run-*/*.wandb"))


def wandb_records(path: Path) -> list[Any]:
    """Read an offline run: a log of LevelDB after seven bytes, of wandb's own messages."""
    messages = importlib.import_module("wandb.proto.wandb_internal_pb2")
    content = path.read_bytes()
    place, whole, found = 7, b"", []
    assert content.startswith(b":W&B")
    while place + 7 <= len(content):
        if _BLOCK - place % _BLOCK < 7:  # no header fits into the rest of a block
            place += _BLOCK - place % _BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            found.append(messages.Record.FromString(whole))
            whole = b""
    return found


def items(entries: Any) -> dict[str, Any]:
    """Return name -> value of wandb's items."""
    return {each.key or "/".join(each.nested_key): json.loads(each.value_json) for each in entries}


def test_wandb_has_each_trial_once_with_its_curve(sent: Sent) -> None:
    runs = {}
    for path in wandb_files(sent):
        records = wandb_records(path)
        begun = next(each.run for each in records if each.WhichOneof("record_type") == "run")
        runs[items(begun.config.update)["trial"]] = (begun, records)
    assert {*runs} == {each.trial for each in RECORDS}
    begun, records = runs["lr=0.1,seed=0"]
    config = items(begun.config.update)
    assert (config["lr"], config["seed"], config["spec.train.epochs"]) == (0.1, 0, 2)
    assert (begun.project, begun.run_group, begun.job_type) == ("demo", sent.directory.path.name, "run")
    assert begun.display_name == "lr=0.1,seed=0"
    assert {"spec: demo", "commit: 0123456789ab-dirty", "stand-in"} <= set(begun.tags)
    rows = [items(each.history.item) for each in records if each.WhichOneof("record_type") == "history"]
    assert [(row["_step"], row["curve/val_loss"]) for row in rows] == [(10, 1.5), (20, 1.1)]
    summary: dict[str, object] = {}
    for each in records:
        if each.WhichOneof("record_type") == "summary":
            summary |= items(each.summary.update)
    assert (summary["result/step_time_s"], summary["result/peak_bytes"]) == (1.2345678901, 16_777_217)
    assert summary["status"] == "ok"
    codes = {
        trial: next(each.exit.exit_code for each in found if each.WhichOneof("record_type") == "exit")
        for trial, (_, found) in runs.items()
    }
    assert codes == {each.trial: int(each.status == "failed") for each in RECORDS}


def test_wandb_sends_nothing_of_the_machine_or_the_code(sent: Sent) -> None:
    content = b"".join(path.read_bytes() for path in wandb_files(sent))
    for word in (socket.gethostname(), os.getcwd(), "test_trackers", "requirements.txt"):
        assert len(word) < 5 or word.encode() not in content
    kinds = {each.WhichOneof("record_type") for path in wandb_files(sent) for each in wandb_records(path)}
    assert not kinds & {"files", "stats", "output", "output_raw", "artifact", "environment"}


def test_wandb_replaces_a_trial_that_was_broken_off(sent: Sent) -> None:
    (sent.directory.path / "tracked-wandb.jsonl").unlink()
    assert send(sent.directory, "wandb") == ALL
    assert len(wandb_files(sent)) == 4


def mlflow_runs() -> tuple[Any, Any, dict[str, Any]]:
    """Return MLflow's client, the run of the whole, and trial -> run."""
    client = importlib.import_module("mlflow.tracking").MlflowClient()
    found = client.search_runs([client.get_experiment_by_name("demo").experiment_id])
    (parent,) = (run for run in found if "mlflow.parentRunId" not in run.data.tags)
    return client, parent, {run.data.tags["fusetune.trial"]: run for run in found if run is not parent}


def test_mlflow_has_each_trial_below_its_run(sent: Sent) -> None:
    client, parent, runs = mlflow_runs()
    assert len(runs) == 4
    assert (parent.info.run_name, parent.info.status) == (sent.directory.path.name, "FINISHED")
    run = runs["lr=0.1,seed=0"]
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    history = client.get_metric_history(run.info.run_id, "curve/val_loss")
    assert [(each.step, each.value, each.timestamp) for each in history] == [
        (10, 1.5, 1767323045500),
        (20, 1.1, 1767323046250),
    ]
    assert run.data.metrics["result/step_time_s"] == 1.2345678901
    assert run.data.metrics["result/peak_bytes"] == 16_777_217
    assert (run.data.params["lr"], run.data.params["seed"]) == ("0.1", "0")
    assert run.data.params["spec.train.epochs"] == "2"
    assert run.data.tags["fusetune.stand_in"] == "digits-like"
    failed = runs["lr=0.1,seed=1"]
    assert (failed.info.status, failed.data.tags["fusetune.reason"]) == ("FAILED", "it broke")
    hostile = [each for each in runs.values() if each.data.params["lr"] == PRINTED]
    assert len(hostile) == 1
    assert hostile[0].data.tags["fusetune.findings"] == "rate too high"
    theirs = {name for name in run.data.tags if name.startswith("mlflow.")}
    assert theirs == {"mlflow.parentRunId", "mlflow.runName"}


def test_mlflow_replaces_a_trial_that_was_broken_off(sent: Sent) -> None:
    (sent.directory.path / "tracked-mlflow.jsonl").unlink()
    assert send(sent.directory, "mlflow") == ALL
    client, _, runs = mlflow_runs()
    assert len(runs) == 4
    client.delete_run(runs["lr=0.1,seed=0"].info.run_id)
    assert send(sent.directory, "mlflow")["sent"] == 1


@pytest.mark.parametrize("name", NAMES)
def test_too_many_and_too_long_values_are_taken(sent: Sent, name: str) -> None:
    factors = {f"p{number}/{'é' * 300}": "x" * 9000 for number in range(250)}
    curve = [{"step": step, "val_loss": 1.0, "lr": 0.1, "grad_norm": 1.0} for step in range(1, 401)]
    many = record("many", curve=curve)
    many.factors.update(factors)
    directory = make_run(sent.place / "many" / name, (many,))
    assert send(directory, name) == {**ALL, "sent": 1}


@pytest.mark.parametrize("name", NAMES)
def test_many_trials_leave_no_files_open(sent: Sent, name: str) -> None:
    directory = make_run(sent.place / "files" / name, tuple(record(f"t{number}") for number in range(40)))
    before = len(os.listdir("/proc/self/fd"))
    assert send(directory, name) == {**ALL, "sent": 40}
    assert len(os.listdir("/proc/self/fd")) < before + 20
