"""MLflow: a run for each trial, below one run for each of ours. By the client, which adds no user, host or code."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from fusetune.bench.tracking.tracker import Scalar, TrackedRun, TrackedTrial
from fusetune.bench.tracking.valid_names import valid_name

# Limits of MLflow's API for one call, and for a key and its value.
_METRICS, _PARAMS = 1000, 100
_LONGEST_KEY, _LONGEST_VALUE = 250, 5000
_KEY = r"\w. :/-"
_LONGEST_NAME = 200
_PARENT = "mlflow.parentRunId"
_RUN, _TRIAL = "fusetune.run", "fusetune.trial"


class ToMLflow:
    """Sends a run's trials to the server or store that MLflow is set to.

    Args:
        where: an experiment. Empty: the spec's name.
        run: the run's directory, which is not used.
    """

    def __init__(self, where: str, run: Path) -> None:
        from mlflow.tracking import MlflowClient

        self._where = where
        self._client = MlflowClient()

    def open(self, run: TrackedRun) -> None:
        """Find or make the experiment, and the run that the trials are below. Read which trials are there."""
        self._run = run
        client, name = self._client, self._where or run.spec_name
        found = client.get_experiment_by_name(name)
        self._experiment = found.experiment_id if found else client.create_experiment(name)
        self._kept: dict[str, str] = {}
        parent = None
        token = None
        while True:
            page = client.search_runs(
                [self._experiment], f"tags.`{_RUN}` = '{run.id}'", max_results=1000, page_token=token
            )
            for each in page:
                trial = each.data.tags.get(_TRIAL)
                if trial is None:
                    parent = each
                else:
                    self._kept[trial] = each.info.run_id
            token = page.token
            if not token:
                break
        self._parent = parent.info.run_id if parent else self._make_parent()

    def holds(self, trial: TrackedTrial) -> bool:
        """Tell whether MLflow has the trial."""
        return self._key(trial.id) in self._kept

    def log_trial(self, trial: TrackedTrial) -> None:
        """Send a trial. What was there of it is deleted, which MLflow can undo."""
        from mlflow.entities import Metric

        key = self._key(trial.id)
        if key in self._kept:
            self._client.delete_run(self._kept[key])
        start_ms = self._milliseconds()
        run = self._client.create_run(
            self._experiment,
            start_time=start_ms,
            run_name=valid_name(trial.id, allowed=r"\w=,. +@()-", longest=_LONGEST_NAME),
            tags={
                **self._tags(),
                _TRIAL: key,
                _PARENT: self._parent,
                "fusetune.status": trial.status,
                "fusetune.reason": trial.reason[:_LONGEST_VALUE],
                "fusetune.findings": "; ".join(trial.findings)[:_LONGEST_VALUE],
            },
        )
        number = run.info.run_id
        self._log_params(number, {**self._run.spec, **trial.config})
        points = [(point.values, point.time_s, point.step) for point in trial.curve]
        points.append((trial.results, trial.seconds, trial.last_step))
        metrics = iter(
            [
                Metric(_key(name), float(value), start_ms + round(1000 * time_s), step)
                for values, time_s, step in points
                for name, value in values.items()
            ]
        )
        while batch := list(islice(metrics, _METRICS)):
            self._client.log_batch(number, metrics=batch)
        end_ms = start_ms + round(1000 * trial.seconds)
        self._client.set_terminated(number, "FAILED" if trial.failed else "FINISHED", end_ms)
        self._kept[key] = number

    def close(self) -> None:
        """End the run that the trials are below."""
        self._client.set_terminated(self._parent, "FINISHED")

    def _make_parent(self) -> str:
        """Make the run that the trials are below, and return its id."""
        tags = self._tags()
        made = self._client.create_run(
            self._experiment, start_time=self._milliseconds(), run_name=self._run.id, tags=tags
        )
        number: str = made.info.run_id
        self._log_params(number, self._run.spec)
        return number

    def _tags(self) -> dict[str, str]:
        tags = {f"fusetune.{name}": text[:_LONGEST_VALUE] for name, text in self._run.tags.items()}
        return {**tags, _RUN: self._run.id}

    def _log_params(self, number: str, values: Mapping[str, Scalar]) -> None:
        from mlflow.entities import Param

        params = iter([Param(_key(name), _text(value)) for name, value in values.items()])
        while batch := list(islice(params, _PARAMS)):
            self._client.log_batch(number, params=batch)

    def _milliseconds(self) -> int:
        return round(1000 * self._run.started_s)

    def _key(self, trial: str) -> str:
        """Return what the trial is found by again."""
        return valid_name(trial, allowed=r"\w=,. +@()-", longest=_LONGEST_VALUE)


def _key(name: str) -> str:
    return valid_name(name, allowed=_KEY, longest=_LONGEST_KEY)


def _text(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"
