"""What `status.json` says of a run that goes on, as plain data.

The driver replaces the file as a whole and removes it at the end. So a run with this file goes on, or its driver was
killed. docs/records.md lists the fields.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from fusetune.bench.errors import RunDirectoryError, unusable
from fusetune.bench.path_checks import is_pipe
from fusetune.bench.results import finite_or_null, first_fault, write_whole

STATUS = "status.json"
STATUS_VERSION = 1
# What is counted: a search counts the epochs of its budget.
Unit = Literal["trial", "epoch"]


@dataclass(frozen=True)
class TrialNow:
    """A trial in flight.

    Args:
        trial: its id.
        index: its position in the run, from 1.
        since: when it began, in UTC.
        phase: what it does, such as `training`. None: it has not said.
        epoch: the epoch that it is in, from 1.
        epochs: epochs of the whole training.
        step: updates that are done.
        steps: updates of the whole training.
        samples_per_s: its speed since its last news.
    """

    trial: str
    index: int
    since: str
    phase: str | None = None
    epoch: int | None = None
    epochs: int | None = None
    step: int | None = None
    steps: int | None = None
    samples_per_s: float | None = None


@dataclass(frozen=True)
class DeviceNow:
    """A device that takes trials.

    Args:
        device: its name on its node.
        kind: name of the GPU or of the processor.
        done: trials that ended here.
        trials: those in flight.
        slots: how many devices have this name, as the parts of a processor do.
    """

    device: str
    kind: str
    done: int
    trials: tuple[TrialNow, ...] = ()
    slots: int = 1

    @property
    def busy(self) -> int:
        """How many of them have a trial."""
        return min(self.slots, len(self.trials))


@dataclass(frozen=True)
class NodeNow:
    """A node. One without devices has left the run.

    Args:
        node: its name. `local` without a cluster.
        devices: those that are there.
        done: trials that ended here, on devices that left too.
        lost: trials that were lost here.
        left: devices that left.
        reason: why the last one left.
    """

    node: str
    devices: tuple[DeviceNow, ...]
    done: int = 0
    lost: int = 0
    left: int = 0
    reason: str = ""

    @property
    def trials(self) -> tuple[TrialNow, ...]:
        """The trials in flight on all devices."""
        return tuple(trial for device in self.devices for trial in device.trials)

    @property
    def busy(self) -> int:
        """Devices with a trial."""
        return sum(device.busy for device in self.devices)

    @property
    def slots(self) -> int:
        """How many devices are there."""
        return sum(device.slots for device in self.devices)

    @property
    def samples_per_s(self) -> float:
        """The sum over the trials in flight whose speed is known."""
        return sum(trial.samples_per_s or 0.0 for trial in self.trials)


@dataclass(frozen=True)
class Loss:
    """A trial that was lost, or a device that left.

    Args:
        at: when, in UTC.
        node: where.
        reason: one sentence.
        trial: the trial that goes back into the queue. None: a device left.
        attempt: which attempt of the trial was lost, from 1.
        device: the device that left.
    """

    at: str
    node: str
    reason: str
    trial: str | None = None
    attempt: int | None = None
    device: str | None = None


@dataclass(frozen=True)
class RunStatus:
    """A run at one moment.

    Args:
        written: the moment, in UTC.
        started: when this part of the run began, in UTC. A resumed run has several parts.
        host: name of the machine of the driver.
        pid: process id of the driver.
        executor: `local` or `ray`.
        total: planned trials.
        done: recorded trials, those of earlier parts too.
        failed: recorded trials that failed.
        waiting: trials that have not begun, or are to begin again.
        lost: how often a trial was lost.
        ends: when the last trial is expected to end, in UTC. None: nothing is known yet.
        nodes: by name.
        starting: trials that have begun, and whose device is not known yet.
        losses: the last 50 losses, oldest first.
        message: what the run said last, such as that it checks its configurations.
        unit: what `total`, `done` and `waiting` count, and `done` of nodes and devices. A search counts epochs of its
            budget, and its `failed` counts trainings.
        schema_version: version of the file.
    """

    written: str
    started: str
    host: str
    pid: int
    executor: str
    total: int
    done: int
    failed: int
    waiting: int
    lost: int
    ends: str | None
    nodes: tuple[NodeNow, ...]
    starting: tuple[TrialNow, ...] = ()
    losses: tuple[Loss, ...] = ()
    message: str = ""
    unit: Unit = "trial"
    schema_version: int = STATUS_VERSION

    @property
    def in_flight(self) -> int:
        """How many trials are in flight."""
        return len(self.starting) + sum(len(node.trials) for node in self.nodes)

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object. A number that is not finite becomes null."""
        content: dict[str, Any] = finite_or_null(dataclasses.asdict(self))
        return content


_STATUS: TypeAdapter[RunStatus] = TypeAdapter(RunStatus)


def write_status(directory: Path, status: RunStatus) -> None:
    """Replace the status of a run as a whole.

    Raises:
        OSError: it cannot be written.
    """
    text = json.dumps(status.as_dict(), allow_nan=False, separators=(",", ":"))
    write_whole(directory / STATUS, f"{text}\n".encode())


def remove_status(directory: Path) -> None:
    """Remove the status of a run that has ended. One that is not there is none."""
    (directory / STATUS).unlink(missing_ok=True)


def read_status(directory: Path) -> RunStatus | None:
    """Return the status of a run, or None where the run has none.

    Raises:
        RunDirectoryError: the file cannot be read, is broken, or is of a later version.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     read_status(Path(folder))
    """
    path = directory / STATUS
    try:
        if is_pipe(path):  # reading it would never end
            raise RunDirectoryError(path, "is no file", "a driver writes it as one", "Remove it.")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unusable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise _broken(path, str(error)) from None
    version = content.get("schema_version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > STATUS_VERSION:
        raise RunDirectoryError(
            path,
            f"is of version {version}",
            f"this fusetune reads up to {STATUS_VERSION}",
            "Use the one that runs.",
        )
    try:
        status = _STATUS.validate_python(content)
        for moment in (status.written, status.started):
            datetime.fromisoformat(moment)
    except ValidationError as error:
        raise _broken(path, first_fault(error)) from None
    except ValueError as error:
        raise _broken(path, str(error)) from None
    return status


def _broken(path: Path, why: str) -> RunDirectoryError:
    return RunDirectoryError(path, "is broken", why, "Remove it, and the records tell how far the run is.")
