"""Weights & Biases: a run for each trial, in one group for each of our runs. Offline too, by WANDB_MODE=offline.

wandb would send more by itself: git state, packages, host, program, output and loads. All of that is switched off.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from fusetune.bench.tracking.destination import wandb_directory
from fusetune.bench.tracking.tracker import TrackedRun, TrackedTrial
from fusetune.bench.tracking.valid_names import valid_name
from fusetune.errors import StateError

_LONGEST, _LONGEST_TAG = 128, 64
_NAME = r"\w=,. +@()-"
_SETTINGS = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "host": "",
    "program": "",
    "save_code": False,
    "silent": True,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}


class ToWandb:
    """Sends a run's trials to Weights & Biases.

    Args:
        where: a project, or `entity/project`. Empty: the spec's name.
        run: the run's directory, in which wandb keeps its files where WANDB_DIR names no other.

    Raises:
        StateError: this wandb does not know a setting that keeps it from sending more.
    """

    def __init__(self, where: str, run: Path) -> None:
        import wandb

        self._wandb = wandb
        unknown = [name for name in _SETTINGS if name not in wandb.Settings.model_fields]
        if unknown:
            raise StateError(
                f"wandb {wandb.__version__}",
                f"has no setting {', '.join(unknown)}",
                "it would send more than it is given",
                to_do="Run pip install --upgrade wandb",
            )
        self._where, self._directory = where, wandb_directory(os.environ, run)

    def open(self, run: TrackedRun) -> None:
        """Nothing is made before the first trial."""
        self._run = run
        entity, _, project = self._where.rpartition("/")
        self._entity = entity or None
        self._project = project or valid_name(run.spec_name, allowed=r"\w.-", longest=_LONGEST)

    def holds(self, trial: TrackedTrial) -> bool:
        """True: wandb is not asked."""
        return True

    def log_trial(self, trial: TrackedTrial) -> None:
        """Send a trial. Its id is made of the run's and the trial's, so that wandb has it once."""
        name = hashlib.sha256(f"{self._run.id}\n{trial.id}".encode("utf-8", "surrogatepass")).hexdigest()[:16]
        for half in self._directory.glob(f"wandb/offline-run-*-{name}"):
            shutil.rmtree(half)
        self._directory.mkdir(parents=True, exist_ok=True)
        tags = [f"{name}: {text}" for name, text in self._run.tags.items() if name != "stand_in"]
        tags += ["stand-in"] if "stand_in" in self._run.tags else []
        run = self._wandb.init(
            project=self._project,
            entity=self._entity,
            id=name,
            name=valid_name(trial.id, allowed=_NAME, longest=_LONGEST),
            group=self._run.id,
            job_type=self._run.kind,
            tags=[text if len(text) <= _LONGEST_TAG else text[: _LONGEST_TAG - 1] + "…" for text in tags],
            config={**self._run.spec, **trial.config, "trial": trial.id},
            dir=str(self._directory),
            resume="allow",
            reinit="create_new",
            settings=self._wandb.Settings(**_SETTINGS),
        )
        for point in trial.curve:
            run.log(dict(point.values), step=point.step)
        run.summary.update(
            {
                **trial.results,
                "status": trial.status,
                "reason": trial.reason,
                "findings": "; ".join(trial.findings),
                **self._run.tags,
            }
        )
        run.finish(exit_code=int(trial.failed))

    def close(self) -> None:
        """Wait for what wandb still sends."""
        self._wandb.teardown()
