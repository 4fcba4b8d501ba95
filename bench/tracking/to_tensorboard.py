"""TensorBoard: a folder with one file of events for each trial, and one of the run, for the table of hyperparameters.

    DIR/<trial>/events.out.tfevents.0.fusetune        in the run's own directory
    DIR/<spec>/<run id>/<trial>/events...             where a person named DIR

A file is written whole and replaced whole, so that a trial that is sent again is there once. Its name has no host's
name, as TensorBoard's own would.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_SCALAR, DATA_CLASS_TENSOR, Summary
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2, summary_v2
from tensorboard.plugins.scalar import metadata as scalar_metadata
from tensorboard.plugins.text import metadata as text_metadata
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util import tensor_util

from fusetune.bench.results import write_whole
from fusetune.bench.terminal import escaped
from fusetune.bench.tracking.tracker import Scalar, TrackedRun, TrackedTrial
from fusetune.bench.tracking.valid_names import valid_name

_FILE = "events.out.tfevents.0.fusetune"
_VERSION = "brain.Event:2"
_NAME = r"\w=,.+-"
_LONGEST = 120
# TensorBoard shows the first five columns of a table. The others can be ticked.
_FIRST = (
    *("result/time_to_target_s", "result/steps_to_target", "result/step_time_s"),
    *("result/best_val_accuracy", "result/best_val_loss", "result/suggested_lr", "result/latency_s"),
)
_ENDED = {False: api_pb2.STATUS_SUCCESS, True: api_pb2.STATUS_FAILURE}


class ToTensorBoard:
    """Writes the events of a run's trials.

    Args:
        where: a directory of a person. Empty: `tensorboard` in the run's.
        run: the run's directory.
    """

    def __init__(self, where: str, run: Path) -> None:
        self._where, self._run_directory = where, run

    def open(self, run: TrackedRun) -> None:
        """Decide where the run's folders are."""
        self._run = run
        inside = Path(self._where, valid_name(run.spec_name, allowed=_NAME, longest=_LONGEST), run.id)
        self._folder = inside if self._where else self._run_directory / "tensorboard"
        self._hparams: dict[str, Scalar] = {}
        self._metrics: dict[str, None] = {}

    def holds(self, trial: TrackedTrial) -> bool:
        """Tell whether the trial's file is there, and keep its columns of the table of hyperparameters."""
        self._add_columns(trial)
        return self._file(trial.id).exists()

    def log_trial(self, trial: TrackedTrial) -> None:
        """Write the trial's file, and that of the run."""
        start_s = self._run.started_s
        events = [_event(_VERSION, start_s), *_start(trial, start_s)]
        events += [
            _event(_scalars(point.values), start_s + point.time_s, point.step) for point in trial.curve
        ]
        end_s = start_s + trial.seconds
        events.append(_event(_scalars(trial.results), end_s, trial.last_step))
        about = {"status": trial.status, "reason": trial.reason, "findings": "; ".join(trial.findings)}
        events.append(_event(_text("trial", {**about, **self._run.tags}), end_s))
        end = plugin_data_pb2.SessionEndInfo(status=_ENDED[trial.failed], end_time_secs=end_s)
        events.append(_event(_hparams(metadata.SESSION_END_INFO_TAG, session_end_info=end), end_s))
        _write(self._file(trial.id), events)
        self._add_columns(trial)

    def close(self) -> None:
        """Write the columns of the table of hyperparameters, and the spec."""
        if not self._hparams:
            return
        columns = [summary_v2.HParam(name) for name in self._hparams]
        first = [name for name in _FIRST if name in self._metrics]
        names = dict.fromkeys([*first, *self._metrics])
        metrics = [summary_v2.Metric(name, display_name=name.partition("/")[2]) for name in names]
        table = summary_v2.hparams_config_pb(columns, metrics, self._run.started_s)
        events = [
            _event(_VERSION, self._run.started_s),
            _event(table, self._run.started_s),
            _event(_text("spec", self._run.spec), self._run.started_s),
        ]
        _write(self._folder / _FILE, events)

    def _add_columns(self, trial: TrackedTrial) -> None:
        self._hparams |= _columns(trial)
        self._metrics |= dict.fromkeys(trial.results)

    def _file(self, trial: str) -> Path:
        return self._folder / valid_name(trial, allowed=_NAME, longest=_LONGEST) / _FILE


def _columns(trial: TrackedTrial) -> dict[str, Scalar]:
    """Return the trial's columns in the table of hyperparameters: its factors and seed."""
    return {name: "none" if value is None else value for name, value in trial.config.items()}


def _start(trial: TrackedTrial, start_s: float) -> Iterator[Event]:
    started = summary_v2.hparams_pb(_columns(trial), trial_id=trial.id, start_time_secs=start_s)
    yield _event(started, start_s)


def _event(content: Any, time_s: float, step: int = 0) -> Event:
    if isinstance(content, str):
        return Event(wall_time=time_s, file_version=content)
    return Event(wall_time=time_s, step=step, summary=content)


def _scalars(values: Mapping[str, float]) -> Summary:
    """Return numbers in single precision: TensorBoard's server shows no others."""
    kind = scalar_metadata.create_summary_metadata(display_name="", description="")
    kind.data_class = DATA_CLASS_SCALAR
    summary = Summary()
    for name, value in values.items():
        number = tensor_util.make_tensor_proto(float(value), dtype="float32")
        summary.value.add(tag=name, tensor=number, metadata=kind)
    return summary


def _text(tag: str, content: Mapping[str, Scalar]) -> Summary:
    """Return a table of two columns, in Markdown."""
    rows = [f"| {_cell(name)} | {_cell(str(value))} |" for name, value in content.items() if value != ""]
    table = tensor_util.make_tensor_proto("\n".join(["| | |", "|---|---|", *rows]))
    kind = text_metadata.create_summary_metadata(display_name="", description="")
    kind.data_class = DATA_CLASS_TENSOR
    summary = Summary()
    summary.value.add(tag=tag, tensor=table, metadata=kind)
    return summary


def _cell(text: str) -> str:
    return escaped(re.sub(r"\s+", " ", text))


def _hparams(tag: str, **content: Any) -> Summary:
    """Return an event of the plugin for hyperparameters."""
    data = plugin_data_pb2.HParamsPluginData(**content)
    summary = Summary()
    summary.value.add(tag=tag, metadata=metadata.create_summary_metadata(data), tensor=metadata.NULL_TENSOR)
    return summary


def _write(path: Path, events: Iterable[Event]) -> None:
    content = io.BytesIO()
    writer = RecordWriter(content)
    for event in events:
        writer.write(event.SerializeToString())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content.getvalue())
