"""From a loaded spec to records on disk: plan, open the directory, rehearse, run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fusetune.bench.errors import InputError, RunDirectoryError
from fusetune.bench.kinds import TRAINING, Kind
from fusetune.bench.machine import source_state, versions
from fusetune.bench.results import (
    Machine,
    Record,
    RecordKeeper,
    RehearsalOutcome,
    RunDirectory,
    RunInfo,
    ThreadsChoice,
    WrittenSpec,
)
from fusetune.bench.run.local_workers import LocalWorkers, Workers
from fusetune.bench.run.place import Place, local_place
from fusetune.bench.run.run_plan import RunPlan
from fusetune.bench.run.threads import measure_threads
from fusetune.bench.spec import AUTO, Data, LoadedSpec, OptimizerFactory, Source, Trial, identity, lay_out
from fusetune.bench.status import Board, Display, StatusKeeper, Unit
from fusetune.bench.units import format_bytes
from fusetune.bench.workers import Executor, ExecutorLostError, Progress, WorkerSetup
from fusetune.bench.workloads import DataRequest, differences, fingerprint_all, locate

# A trial ends by itself with the first step after `limits.trial_time`. A worker that has not answered after twice that
# time and this is killed: it loads the data before, and evaluates after.
HARD_TIMEOUT_FACTOR = 2.0
HARD_TIMEOUT_GRACE_S = 30.0
# Work without a clock of its own takes longer: compilation, finding a rate, and all that is no training.
LONG_GRACE_S = 120.0
# The processes of a trial on several devices import torch and find each other in this time.
START_GRACE_S = 300.0

Announce = Callable[[str], None]


def make_plan(
    loaded: LoadedSpec,
    *,
    jobs: int | None,
    command: Sequence[str],
    announce: Announce,
    kind: Kind = TRAINING,
    options: Mapping[str, Any] | None = None,
    place: Place | None = None,
) -> RunPlan:
    """Expand the spec, find its data, and describe the run.

    Args:
        loaded: the spec.
        jobs: trials at once on this machine. None: one for each GPU, one on a CPU.
        command: the command line, for run.json.
        announce: takes the lines on a download's progress, and a note on an executor that is not used.
        kind: what is done with each trial.
        options: further settings of that kind, JSON-able. Each trial has them.
        place: where trials run. None: on this machine.

    Raises:
        InputError: data that are not to be had, a device that is not there, a design without end.
    """
    spec, device = loaded.spec, loaded.device
    layout = lay_out(spec, device)
    trials = layout.trials
    if place is None:
        if spec.executor.name != "local":
            announce(
                f"note: the spec's executor {spec.executor.name} is not used. bench {kind.name} runs on this machine"
            )
        devices = max(trial.spec.train.devices for trial in trials)
        _check_device(device)
        _check_device_count(device, devices)
        place = local_place(spec, device, jobs, devices)
    spec_path = Path(loaded.document.name)
    data_section = loaded.document.where(("data",))
    sources = _locate_sources(trials, spec_path.parent, f"{data_section}: data", _DownloadNews(announce))
    stand_ins = dict.fromkeys(text for source in sources.values() if (text := source.announcement()))
    state = source_state()
    run = RunInfo(
        kind=kind.name,
        options=dict(options or {}),
        spec=WrittenSpec(spec.resolved()),
        spec_path=str(spec_path),
        overrides=tuple(loaded.overrides),
        profile=loaded.profile,
        profile_changes=tuple(loaded.changes),
        command=tuple(command),
        baseline=layout.baseline,
        trials=len(trials),
        same=tuple(layout.same),
        jobs=place.sharing,
        executor=place.described,
        device=device,
        data=tuple(sorted({source.name for source in sources.values()})),
        classes=tuple(
            names for names in dict.fromkeys(source.classes for source in sources.values()) if names
        ),
        stand_in=" ".join(stand_ins) or None,
        fingerprint=fingerprint_all(sources.values(), spec_path.parent),
        machine=Machine.from_dict(place.machine),
        versions=versions(),
        commit=state["commit"],
        dirty=state["dirty"],
        started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    assert kind.run_trial is not None
    setup = WorkerSetup(
        kind.run_trial,
        device=device,
        limit_bytes=spec.limits.memory,
        threads=_fixed_threads(spec.threads, place),
        jobs=place.sharing,
        import_paths=folders_of_factories(trials, spec_path),
        libraries=tuple(sorted({library for source in sources.values() for library in source.libraries})),
    )
    ready = [
        dataclasses.replace(trial, source=sources[_data_key(trial.spec.data)], options=dict(run.options))
        for trial in trials
    ]
    return RunPlan(ready, run, setup, hard_timeout(trials, spec.limits.trial_time, kind), place)


def hard_timeout(trials: Sequence[Trial], limit_s: float | None, kind: Kind = TRAINING) -> float | None:
    """Return the seconds after which a worker that does not answer is killed: 2 trial_time + 30 s.

    2 min are added where a trial compiles its model, finds its own rate, or is no training, and 5 min where it starts a
    process for each of several devices. None: there is no limit.

    Args:
        trials: of the run.
        limit_s: `limits.trial_time`.
        kind: what is done with each trial.

    Example:
        >>> hard_timeout([], 1.0), hard_timeout([], None)
        (32.0, None)
    """
    if limit_s is None:
        return None
    slow = any(trial.spec.train.compile or trial.spec.train.base_lr == AUTO for trial in trials)
    long_s = LONG_GRACE_S if slow or not kind.trains else 0.0
    if any(trial.spec.train.devices > 1 for trial in trials):
        long_s += START_GRACE_S
    return HARD_TIMEOUT_FACTOR * limit_s + HARD_TIMEOUT_GRACE_S + long_s


def open_directory(plan: RunPlan, results: Path, resume: Path | None, announce: Announce) -> RunDirectory:
    """Make a new directory for the run, or open the one that is to be continued.

    Raises:
        RunDirectoryError: it cannot be written, is in use, or belongs to a run of something else.
    """
    if resume is None:
        return RunDirectory.create(results, plan.run.spec.name, plan.run)
    _check_data(resume, plan, announce)
    directory = RunDirectory.resume(resume, plan.run)
    for note in (
        *directory.run.changes(plan.run),
        *directory.notes,
        *directory.records(needed_by="report")[1],
    ):
        announce(f"note: {note}")
    return directory


def _check_data(resume: Path, plan: RunPlan, announce: Announce) -> None:
    """Refuse to continue a run on data that are not those that it began with."""
    before, now = RunDirectory.open(resume).run.fingerprint, plan.run.fingerprint
    if before is None or now is None:
        announce(
            "note: the run began without a fingerprint of its data, so nobody can tell whether they changed"
        )
        return
    changes = differences(before, now)
    if changes:
        listed = "\n".join(f"  {change}" for change in changes)
        raise RunDirectoryError(
            resume,
            "cannot be continued",
            f"its data changed since it began:\n{listed}\nPut the data back, or start a new run.",
        )


def run_trials(
    plan: RunPlan, directory: RunDirectory, display: Display, workers: Workers | None = None
) -> list[Record]:
    """Rehearse and run what is missing. Each record is on disk before the next trial starts.

    Returns all records, with what a report and a page of the run read.

    Args:
        plan: what to run.
        directory: has the records of an earlier part of the run, if there was one, and takes the new ones.
        display: is shown what happens.
        workers: run the trials. None: processes of this machine.

    Raises:
        InputError: a configuration cannot be built as the spec asks. A run without records is then removed.
    """
    done, _ = directory.records(needed_by="report")
    failed = sum(record.status == "failed" for record in done)
    board = board_of(plan)
    try:
        with StatusKeeper(display, directory.path, board, failed=failed) as shown:
            return _run_missing(plan, directory, done, shown, workers)
    except InputError:
        if not directory.records(needed_by="report")[0]:
            directory.remove()  # after its status, which a thread may write
        raise


def board_of(plan: RunPlan, unit: Unit = "trial") -> Board:
    """Return what collects the events of a run.

    Args:
        plan: of the run.
        unit: what is counted.
    """
    return Board(
        plan.run.device,
        plan.run.machine.device_name or "",
        executor=(plan.run.executor or "local").partition(":")[0],
        unit=unit,
    )


def _run_missing(
    plan: RunPlan,
    directory: RunDirectory,
    done: Sequence[Record],
    display: Display,
    workers: Workers | None,
) -> list[Record]:
    """Run what has no record yet."""
    keeper = RecordKeeper(plan.run, directory, None)
    have = {record.trial for record in done}
    missing = [trial for trial in plan.trials if trial.id not in have]
    display.start(len(plan.trials), len(done))
    if not missing:
        return directory.records(needed_by="page")[0]
    workers = workers or LocalWorkers(plan, directory.path)
    try:
        _rehearse(plan, missing, workers.first(), display)
        plan = settle_threads(plan, workers.first(), display, done)
        missing = [trial for trial in plan.trials if trial.id not in have]
        keeper.add(plan.threads)
        workers.run(missing, _Recorder(plan, keeper, display))
    finally:
        workers.close()
    return directory.records(needed_by="page")[0]


def settle_threads(plan: RunPlan, worker: Executor, display: Display, done: Sequence[Record] = ()) -> RunPlan:
    """Return the plan with the number of threads of its workers: the spec's, that of earlier records, or measured.

    Args:
        plan: with `threads: auto` nothing is bound yet.
        worker: is used to measure.
        display: shows the choice and its reason.
        done: records of the earlier part of a run, whose number is kept, for their times are compared.
    """
    asked, threads = plan.run.spec.threads, plan.setup.threads
    reason, speedups = "the spec says so" if asked != AUTO else "one core a worker", None
    if threads is None:
        if plan.run.device != "cpu":
            return plan
        earlier = next((r.provenance["threads"] for r in done if "threads" in r.provenance), None)
        if earlier is not None:
            threads, reason = earlier, "as in the run's beginning"
        else:
            most = plan.place.most_threads
            display.message(f"timing steps with 1 to {most} threads")
            threads, reason, measured = measure_threads(plan.trials, worker, most, _ignore)
            speedups = {str(count): round(speedup, 4) for count, speedup in measured.items()}
        display.message(f"threads: {threads}; {reason}")
    return replace_threads(plan, ThreadsChoice(threads, asked, reason, speedups))


def replace_threads(plan: RunPlan, choice: ThreadsChoice) -> RunPlan:
    """Return the plan with a number of threads for its workers and its trials."""
    return dataclasses.replace(
        plan,
        trials=[dataclasses.replace(trial, threads=choice.threads) for trial in plan.trials],
        setup=dataclasses.replace(plan.setup, threads=choice.threads),
        threads=choice,
    )


def folders_of_factories(trials: Iterable[Trial], spec_path: Path | str) -> tuple[str, ...]:
    """Return where a person's own modules lie: beside the spec, then here. Nowhere, where no trial asks for any."""
    asked = any(
        trial.spec.data.factory
        or trial.spec.model.factory
        or isinstance(trial.spec.train.optimizer, OptimizerFactory)
        for trial in trials
    )
    return tuple(dict.fromkeys([str(Path(spec_path).parent.resolve()), str(Path.cwd())])) if asked else ()


def _fixed_threads(asked: int | str, place: Place) -> int | None:
    """Return the number of threads that needs no measurement. None where it does, or where torch's own will do."""
    if isinstance(asked, int):
        return asked
    if place.device == "cpu":
        return 1 if place.most_threads == 1 else None
    return place.most_threads if place.trials_at_once > 1 else None


def rehearse(
    plan: RunPlan, trials: Sequence[Trial], directory: RunDirectory, display: Display, workers: Workers
) -> RunPlan:
    """Build every configuration once, in the first worker, and return the plan with its number of threads.

    Raises:
        InputError: one cannot be built as the spec asks.
    """
    _rehearse(plan, trials, workers.first(), display)
    return settle_threads(plan, workers.first(), display, directory.records(needed_by="report")[0])


def _rehearse(plan: RunPlan, trials: Sequence[Trial], worker: Executor, display: Display) -> None:
    """Build every configuration once, training nothing: a wrong spec ends the run before it begins."""
    configurations = {json.dumps(trial.factors): trial for trial in trials}.values()
    count = f"{len(configurations)} configurations" if len(configurations) > 1 else "the configuration"
    display.message(f"loading the data and building {count} once, to check")
    seen: dict[str, Trial] = {}
    for trial in sorted(configurations, key=lambda trial: _data_key(trial.spec.data)):
        record = worker.run(dataclasses.replace(trial, rehearsal=True), _ignore)
        rehearsed = record.outcome if isinstance(record.outcome, RehearsalOutcome) else RehearsalOutcome()
        if rehearsed.bad_input:
            name = f" ({trial.id})" if trial.factors else ""
            raise InputError("", f"{named(plan.run.spec_path, record.reason)}{name}")
        built = rehearsed.built
        if built is not None:
            first = seen.setdefault(identity(trial.spec, device=plan.run.device, built=built), trial)
            if first is not trial:
                raise InputError(
                    f"{plan.run.spec_path}: factors",
                    f"{trial.id} gives the same training as {first.id}",
                    f"built were {', '.join((f'{key} {value}' for key, value in built.items()))}",
                    "Keep one of them",
                )


def named(spec_path: str, reason: str) -> str:
    """Put the spec's name before a reason that does not begin with it and a line.

    Example:
        >>> named("a.yaml", "model: no"), named("a.yaml", "a.yaml:3: data: no")
        ('a.yaml: model: no', 'a.yaml:3: data: no')
    """
    return reason if reason.startswith(f"{spec_path}:") else f"{spec_path}: {reason}"


class _Recorder:
    """Listens to the executors: keeps each record, shows it."""

    def __init__(self, plan: RunPlan, keeper: RecordKeeper, display: Display) -> None:
        self._keeper = keeper
        self._display = display
        self._index = {trial.id: index for index, trial in enumerate(plan.trials, start=1)}
        self._sources = {trial.id: trial.source for trial in plan.trials}

    def started(self, trial: Trial) -> None:
        self._display.trial_started(trial.id, self._index[trial.id])

    def progressed(self, trial: Trial, progress: Progress) -> None:
        self._display.trial_progress(trial.id, progress)

    def finished(self, trial: Trial, record: Record) -> None:
        self.finished_all([(trial, record)])

    def finished_all(self, finished: Sequence[tuple[Trial, Record]]) -> None:
        """Keep the records of several trials with one wait for the disk, and show them."""
        complete = self._keeper.keep_all((record, self._sources[trial.id]) for trial, record in finished)
        for record in complete:
            self._display.trial_finished(record, self._index[record.trial])

    def joined(self, node: str, device: str, kind: str) -> None:
        self._display.device_joined(node, device, kind)

    def left(self, node: str, device: str, reason: str) -> None:
        self._display.device_left(node, device, reason)

    def lost(self, trial: Trial, loss: ExecutorLostError, attempt: int, again: bool) -> None:
        self._display.trial_lost(trial.id, loss.node, loss.reason, attempt)
        if not again:
            self._display.message(
                f"note: {trial.id} has lost its device {attempt} times and has no record. --resume runs it again"
            )


def _check_device(device: str) -> None:
    """Refuse a device that is not there."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "device", "cuda is asked for, but torch finds no CUDA device", to_do="Use device: auto or cpu"
        )


def _check_device_count(device: str, asked: int) -> None:
    """Refuse more devices than there are. On a CPU a device is a process, of which there may be any number."""
    import torch

    there = torch.cuda.device_count() if device == "cuda" else asked
    if asked > there:
        raise InputError(
            "train.devices",
            f"{asked} devices are asked for",
            f"torch finds {there} CUDA {'device' if there == 1 else 'devices'}",
            f"Use at most {there}, or device: cpu",
        )


class _DownloadNews:
    """Announces a download at each tenth."""

    def __init__(self, announce: Announce) -> None:
        self._announce = announce
        self._said = -1

    def __call__(self, done_bytes: int, total_bytes: int | None) -> None:
        tenth = 10 * done_bytes // total_bytes if total_bytes else -1
        if tenth > self._said:
            self._said = tenth
            self._announce(f"downloading: {format_bytes(done_bytes)} of {format_bytes(total_bytes or 0)}")


def _locate_sources(
    trials: Iterable[Trial], spec_directory: Path, where: str, on_download: Callable[[int, int | None], None]
) -> dict[str, Source]:
    """Find the data of each trial, each set once."""
    sources: dict[str, Source] = {}
    for trial in trials:
        data = trial.spec.data
        key = _data_key(data)
        if key not in sources:
            request = DataRequest(
                data.name,
                stand_in=data.stand_in,
                **({"options": data.factory_options} if data.factory else data.of_files),
                factory=data.factory,
                seed=data.seed,
            )
            sources[key] = locate(request, spec_dir=spec_directory, on_progress=on_download, where=where)
    return sources


def _data_key(data: Data) -> str:
    """Tell data sections apart that need different data."""
    return json.dumps(data.model_dump(mode="json", exclude={"augment"}), sort_keys=True)


def _ignore(progress: Progress) -> None:
    """A rehearsal's progress is not shown."""
