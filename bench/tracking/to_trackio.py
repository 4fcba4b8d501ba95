"""Trackio: a run for each trial, in one group for each of our runs. On this machine, or on a Space or server.

Trackio has no final values beside the curves. They are one entry more, at the last step.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from fusetune.bench.tracking.tracker import Scalar, TrackedRun, TrackedTrial
from fusetune.bench.tracking.valid_names import valid_name
from fusetune.errors import StateError

_LONGEST = 200
_NAME = r"\w=,. +@()-"


class ToTrackio:
    """Sends a run's trials to Trackio.

    Args:
        where: a project. Empty: the spec's name.
        run: the run's directory, which is not used.
    """

    def __init__(self, where: str, run: Path) -> None:
        self._where = where
        self._is_local = not (os.environ.get("TRACKIO_SPACE_ID") or os.environ.get("TRACKIO_SERVER_URL"))
        if self._is_local:
            # Trackio would ask Hugging Face for the user's name.
            os.environ.setdefault("HF_HUB_OFFLINE", "1")
        import trackio

        self._trackio = trackio

    def open(self, run: TrackedRun) -> None:
        """Find what Trackio has of the project."""
        self._run = run
        self._project = self._where or valid_name(run.spec_name, allowed=r"\w.-", longest=_LONGEST)

    def holds(self, trial: TrackedTrial) -> bool:
        """Tell whether Trackio on this machine has the trial. True where it is elsewhere."""
        return not self._is_local or any(True for _ in self._kept(trial.id))

    def log_trial(self, trial: TrackedTrial) -> None:
        """Send a trial. On this machine, what was there of it is replaced."""
        with _quiet():
            for kept in self._kept(trial.id) if self._is_local else ():
                kept.delete()
            run = self._trackio.init(
                project=self._project,
                name=self._name(trial.id),
                group=self._run.id,
                config=self._config(trial),
                resume="never",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
            for point in trial.curve:
                run.log(dict(point.values), step=point.step)
            run.log({**trial.results, "result/status": trial.status}, step=trial.last_step)
            run.finish()

    def close(self) -> None:
        """Each trial was finished."""

    def _name(self, trial: str) -> str:
        """Return a name that is the trial's alone in the project: Trackio's tables do not show groups."""
        return valid_name(f"{trial} @{self._run.id}", allowed=_NAME, longest=_LONGEST)

    def _config(self, trial: TrackedTrial) -> dict[str, Scalar]:
        about = {
            "trial": trial.id,
            "status": trial.status,
            "reason": trial.reason,
            "findings": "; ".join(trial.findings),
        }
        config = {**self._run.spec, **about, **self._run.tags, **trial.config}
        return {name.lstrip("_") or "_": value for name, value in config.items()}

    def _kept(self, trial: str) -> Iterator[Any]:
        try:
            runs = list(self._trackio.Api().runs(self._project))
        except ValueError:  # there is no such project yet
            return
        yield from (run for run in runs if run.name == self._name(trial))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Trackio from printing. It says what goes wrong as a warning, which is an error here."""
    with warnings.catch_warnings(record=True) as said, redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        yield
    if said:
        raise StateError("trackio", str(said[0].message))
