"""`--executor`: where the trials of a run run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from fusetune.bench.errors import InputError
from fusetune.bench.kinds import Kind
from fusetune.closest_name import closest

if TYPE_CHECKING:
    from fusetune.bench.results import RunDirectory
    from fusetune.bench.run import RunPlan, Workers
    from fusetune.bench.spec import Executor, LoadedSpec
    from fusetune.bench.status import Display

_OPTION = "--executor"
MakeWorkers = Callable[["RunPlan", "RunDirectory", "Display"], "Workers | None"]


def plan_run(
    load: Callable[..., LoadedSpec],
    loaded: LoadedSpec,
    option: str | None,
    jobs: int | None,
    stack: ExitStack,
    *,
    command: Sequence[str],
    announce: Callable[[str], None],
    kind: Kind,
) -> tuple[LoadedSpec, RunPlan, MakeWorkers]:
    """Plan a run where it is to run: here, or on a cluster, to which a connection is made.

    Args:
        load: `load(device=...)` reads the spec for a device type.
        loaded: the spec, for the device at hand.
        option: what --executor says, or None.
        jobs: what --jobs says, or None.
        stack: closes the connection at the end.
        command, announce, kind: as for `bench.run.make_plan`.

    Returns:
        The spec for the device type in use, its plan, and what makes the workers. They are None for this machine's.

    Raises:
        InputError: an executor nobody knows, no cluster, or none that can run a trial.
    """
    from fusetune.bench.run import folders_of_factories, make_plan
    from fusetune.bench.spec import lay_out

    executor = with_option(loaded.spec.executor, option)
    if executor.name == "local":
        _check_no_keys_of_ray(executor)
        loaded = on_executor(loaded, executor)
        plan = make_plan(loaded, jobs=jobs, command=command, announce=announce, kind=kind)
        return loaded, plan, lambda plan, directory, display: None
    if jobs is not None:
        raise InputError("--jobs", "is for --executor local", to_do="On a cluster, set resources in the spec")
    from fusetune.bench.cluster import RayRun

    loaded = on_executor(loaded, executor)
    trials = lay_out(loaded.spec, loaded.device).trials
    folders = folders_of_factories(trials, loaded.document.name)
    devices = max(trial.spec.train.devices for trial in trials)
    ray_run = stack.enter_context(RayRun(loaded, folders, devices, announce))
    if ray_run.device != loaded.device:
        loaded = on_executor(load(device=ray_run.device), executor)
    plan = make_plan(loaded, jobs=None, command=command, announce=announce, kind=kind, place=ray_run.place())
    return loaded, plan, ray_run.workers


def with_option(executor: Executor, option: str | None) -> Executor:
    """Return a spec's executor as --executor changes it.

    Raises:
        InputError: `option` is neither local nor ray[=ADDRESS].

    Example:
        >>> from fusetune.bench.spec import Executor
        >>> with_option(Executor(), "ray=head:6379").address
        'head:6379'
    """
    from fusetune.bench.spec import EXECUTORS, Executor

    if option is None:
        return executor
    name, equals, address = option.partition("=")
    if name not in EXECUTORS:
        near = closest(name, EXECUTORS)
        raise InputError(
            _OPTION,
            f"unknown '{name}'",
            f"known: {', '.join(EXECUTORS)}",
            f"Did you mean '{near}'?" if near else "Use one of these",
        )
    if name == "local":
        if equals:
            raise InputError(_OPTION, "local has no address", to_do="Write --executor local")
        return Executor()
    if equals and not address:
        raise InputError(
            _OPTION, "the address is empty", to_do="Write --executor ray=HOST:6379, or ray alone"
        )
    return executor.model_copy(update={"name": "ray", **({"address": address} if address else {})})


def _check_no_keys_of_ray(executor: Executor) -> None:
    """Refuse keys that would have no effect."""
    if executor.keys_of_ray:
        raise InputError(
            f"executor.{executor.keys_of_ray[0]}",
            "is for a Ray cluster, and this run is local",
            to_do="Remove it, or give --executor ray",
        )


def on_executor(loaded: LoadedSpec, executor: Executor) -> LoadedSpec:
    """Return a loaded spec with the executor that is used."""
    from dataclasses import replace

    return replace(loaded, spec=loaded.spec.model_copy(update={"executor": executor}))
