"""Where the trials of a run are run, as far as its plan depends on it: device, machine, and how many share them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fusetune.bench.errors import InputError
from fusetune.bench.machine import describe_machine, usable_cores
from fusetune.bench.run.threads import most_threads
from fusetune.bench.spec import Spec
from fusetune.bench.workers import visible_gpus


@dataclass(frozen=True)
class Place:
    """Where trials run.

    Args:
        device: `cpu` or `cuda`.
        machine: from `bench.machine.describe_machine`, of a machine that runs them.
        trials_at_once: number of executors.
        sharing: trials at once that share a device and its memory.
        most_threads: torch's threads that each can use.
        gpus: of this machine, what `CUDA_VISIBLE_DEVICES` says in each worker. Empty: nothing is said.
        described: for a reader, as in run.json.
    """

    device: str
    machine: Mapping[str, Any]
    trials_at_once: int = 1
    sharing: int = 1
    most_threads: int = 1
    gpus: tuple[str, ...] = ()
    described: str = "local"


def local_place(spec: Spec, device: str, jobs: int | None, devices: int = 1) -> Place:
    """Return this machine as a place: on a GPU machine a worker for each GPU, unless `jobs` says otherwise.

    Args:
        spec: with the resources of a trial.
        device: `cpu` or `cuda`.
        jobs: trials at once. None: one for each set of GPUs that a trial needs, one on a CPU.
        devices: the most that a trial trains on.

    Raises:
        InputError: a device that is not there, or more resources for a trial than there are.
    """
    gpus = _gpus_of_workers(spec, device, jobs, devices)
    at_once = jobs or max(1, len(gpus))
    cores = usable_cores()
    if (spec.resources.cpus or 1) > cores:
        raise InputError(
            "resources.cpus",
            f"{spec.resources.cpus} are asked for each trial, and this machine has {cores}",
            to_do="Ask for fewer, or run on a machine that has them",
        )
    sharing = -(-at_once // len(gpus)) if gpus else at_once
    threads = min(most_threads(at_once), spec.resources.cpus or cores)
    described = f"local: {at_once} workers, each with GPUs of its own" if gpus and sharing == 1 else "local"
    return Place(device, describe_machine(device), at_once, sharing, threads, gpus, described)


def check_gpus(spec: Spec, devices: int) -> None:
    """Refuse trials on more devices than they have GPUs. Without GPUs, a device is a process.

    Raises:
        InputError: `resources.gpus` is below `devices`.
    """
    if 0 < (spec.resources.gpus or 0) < devices:
        raise InputError(
            "resources.gpus",
            f"{spec.resources.gpus} are asked for each trial, and train.devices is {devices}",
            to_do=f"Ask for {devices}, or leave resources.gpus out",
        )


def _gpus_of_workers(spec: Spec, device: str, jobs: int | None, devices: int) -> tuple[str, ...]:
    """Return the GPUs of each worker: none on a CPU, and none where a single worker sees the only GPU anyway."""
    visible = visible_gpus() if device == "cuda" else ()
    asked = spec.resources.gpus
    check_gpus(spec, devices)
    each = asked or devices
    if asked and len(visible) < asked:
        raise InputError(
            "resources.gpus",
            f"{asked} are asked for each trial, and this machine has {len(visible)}",
            to_do="Ask for fewer, or run on a machine that has them",
        )
    if len(visible) <= 1 or each == len(visible) or (jobs == 1 and asked is None):
        return ()
    sets = [",".join(visible[first : first + each]) for first in range(0, len(visible) - each + 1, each)]
    return tuple(sets[:jobs])
