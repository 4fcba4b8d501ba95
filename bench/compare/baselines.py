"""Baselines: what `bench run --save-baseline` keeps of runs, for people to commit.

DIR/<kind of machine>/<spec name>.json holds the processes of one commit on one kind of machine. The file is JSON with
sorted keys and one value a line. Numbers are rounded to what is significant, so a difference shows in a review.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fusetune.bench.compare.stored import COMPARED, Form, Stored, condensed, metric
from fusetune.bench.errors import InputError, unusable
from fusetune.bench.gate import Measured
from fusetune.bench.machine import machine_kind
from fusetune.bench.path_checks import entries, is_file, is_folder
from fusetune.bench.results import first_fault, write_whole

BASELINES = Path("results/baselines")
VERSION = 1
# More processes than a comparison needs. The oldest are dropped.
MOST_PROCESSES = 20
_RUN_FORMS = ("run", "search", "lr-range", "batch-size", "kernels")


class _Strict(BaseModel):
    """A mapping of which these keys are known."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


_Number = Annotated[int, Field(ge=0, lt=2**63)] | Annotated[float, Field(ge=0)] | None


class _Seed(_Strict):
    """What one seed of a benchmark measured. null: the target was missed."""

    contention: float | None = None
    failure: str = ""
    metrics: dict[str, _Number | Annotated[list[_Number], Field(min_length=1)]] = {}


class _Process(_Strict):
    """What one process measured: benchmark -> seed -> its numbers."""

    benchmarks: dict[str, dict[Annotated[str, Field(pattern=r"^\d{1,18}$")], _Seed]]
    intervals: dict[str, Annotated[list[float], Field(min_length=2, max_length=2)]] = {}
    started: str = ""


class Baseline(_Strict):
    """The content of a baseline, see docs/records.md."""

    baseline_version: int
    commit: str | None = None
    data: dict[str, Any] = {}
    dirty: bool | None = None
    jobs: int = 1
    kind: str
    machine: dict[str, Any]
    options: dict[str, Any] = {}
    peak_bytes_of: list[str] = []
    processes: Annotated[list[_Process], Field(min_length=1)]
    spec: dict[str, Any]
    spec_name: str
    stand_in: str | None = None
    threads: list[int] = []
    versions: dict[str, str | None] = {}


def is_baseline(content: Any) -> bool:
    """Whether a JSON value is a baseline.

    Example:
        >>> is_baseline({"baseline_version": 1}), is_baseline([])
        (True, False)
    """
    return isinstance(content, Mapping) and "baseline_version" in content


def stored_baseline(content: Any, path: Path) -> tuple[Stored, ...]:
    """Return the processes of a baseline as stored results.

    Args:
        content: of the file, see `is_baseline`.
        path: of the file.

    Raises:
        InputError: a field is missing or wrong, or a newer version of this program wrote the file.
    """
    version = content["baseline_version"]
    if isinstance(version, int) and version > VERSION:
        what = f"baseline_version {version} is newer than this program"
        raise InputError(path, what, f"known: up to {VERSION}", "Update fusetune")
    try:
        baseline = Baseline.model_validate(content)
        if baseline.kind not in _RUN_FORMS:
            raise InputError.unknown(f"{path}: kind", baseline.kind, _RUN_FORMS)
        return tuple(_stored(baseline, process, path) for process in baseline.processes)
    except ValidationError as error:
        fault = first_fault(error)
    except KeyError as error:
        fault = f"{error.args[0]} is no metric of a {baseline.kind}"
    raise InputError(path, "is broken", fault, "Save the baseline again")


def _stored(baseline: Baseline, process: _Process, path: Path) -> Stored:
    form: Form = baseline.kind  # type: ignore[assignment]

    def measured(seed: _Seed) -> Measured:
        given = {name: found if isinstance(found, list) else [found] for name, found in seed.metrics.items()}
        known = [name for name in COMPARED[form] if name in given]
        return Measured(
            {
                name: metric(
                    name, form, tuple(math.inf if value is None else float(value) for value in given[name])
                )
                for name in (*known, *(given.keys() - known))
            },
            failure=seed.failure,
            contention=seed.contention,
        )

    return Stored(
        path,
        form,
        baseline.spec_name,
        {
            name: {int(seed): measured(found) for seed, found in seeds.items()}
            for name, seeds in process.benchmarks.items()
        },
        machine=baseline.machine,
        versions=baseline.versions,
        commit=baseline.commit,
        dirty=baseline.dirty,
        settings={"spec": baseline.spec, "options": baseline.options},
        data=baseline.data,
        stand_in=baseline.stand_in,
        jobs=baseline.jobs,
        threads=tuple(baseline.threads),
        peak_bytes_of=tuple(baseline.peak_bytes_of),
        intervals={name: (low, high) for name, (low, high) in process.intervals.items()},
        started=process.started,
        condensed=True,
    )


def baseline_path(folder: Path, machine: Mapping[str, Any], name: str) -> Path:
    """Return where the baseline of a spec on a kind of machine lies.

    Example:
        >>> machine = {"device_name": "NVIDIA H200", "cores": 16, "os": "Linux 6.1 x86_64"}
        >>> str(baseline_path(BASELINES, machine, "digits"))
        'results/baselines/nvidia-h200-16-cores-linux-x86_64/digits.json'
    """
    return folder / machine_kind(machine) / f"{name}.json"


def find_baseline(folder: Path, of: Stored) -> Path:
    """Return the baseline of the kind of machine and of the spec that a result has.

    Args:
        folder: where baselines lie.
        of: the result that is compared with it.

    Raises:
        InputError: there is none, with those that there are.
    """
    path = baseline_path(folder, of.machine, of.title)
    if is_file(path):
        return path
    if not is_folder(folder):
        raise InputError(folder, "no baselines are there", to_do="Save one: bench run SPEC --save-baseline")
    kinds = [child for child in entries(folder) if is_folder(child)]
    known = [f"{kind.name}/{file.stem}" for kind in kinds for file in entries(kind) if file.suffix == ".json"]
    raise InputError(
        folder,
        f"has no baseline {path.relative_to(folder).with_suffix('')}",
        f"known: {', '.join(known) or 'none'}",
        "Save one on such a machine: bench run SPEC --save-baseline",
    )


def save_baseline(folder: Path, stored: Stored) -> tuple[Path, int]:
    """Write a run into the baseline of its spec and its kind of machine.

    A run of the same clean commit, spec, data and versions joins the processes that are there. Any other replaces them.

    Args:
        folder: where baselines lie. Made if it is missing.
        stored: a run.

    Returns:
        The file, and the number of processes that it holds now.

    Raises:
        InputError: what is there is no baseline.
        RunDirectoryError: the file cannot be written.
    """
    path = baseline_path(folder, stored.machine, stored.title)
    new = condensed(stored)
    try:
        earlier = stored_baseline(read_json(path), path) if is_file(path) else ()
        kept = [each for each in earlier if _is_same(each, new) and each.started != new.started]
        processes = [*kept, new][-MOST_PROCESSES:]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, baseline_text(processes).encode())
    except OSError as error:
        raise unusable(path, error) from error
    return path, len(processes)


def _is_same(one: Stored, other: Stored) -> bool:
    """Whether two processes ran the same code on the same machine. Uncommitted changes can be any."""
    if one.commit is None or one.dirty is not False or other.dirty is not False:
        return False
    if machine_kind(one.machine) != machine_kind(other.machine):
        return False
    keys = ("form", "commit", "versions", "settings", "data", "stand_in", "jobs")
    # As JSON has them: a tuple in memory is a list on the disk.
    plain = [json.dumps([getattr(each, key) for key in keys], sort_keys=True) for each in (one, other)]
    return plain[0] == plain[1]


def baseline_text(processes: Sequence[Stored]) -> str:
    """Write processes of one commit as the content of a baseline.

    Args:
        processes: condensed ones, at least one. What they share is taken of the last.
    """
    last = processes[-1]
    baseline = Baseline(
        baseline_version=VERSION,
        commit=last.commit,
        data=dict(last.data),
        dirty=last.dirty,
        jobs=last.jobs,
        kind=last.form,
        machine=dict(last.machine),
        options=dict(last.settings.get("options") or {}),
        peak_bytes_of=list(last.peak_bytes_of),
        processes=[_process(each) for each in processes],
        spec=dict(last.settings.get("spec") or {}),
        spec_name=last.title,
        stand_in=last.stand_in,
        threads=list(last.threads),
        versions=dict(last.versions),
    )
    return (
        json.dumps(baseline.model_dump(exclude_defaults=True), indent=1, sort_keys=True, allow_nan=False)
        + "\n"
    )


def _process(stored: Stored) -> _Process:
    def seed(measured: Measured) -> _Seed:
        return _Seed(
            contention=measured.contention,
            failure=measured.failure,
            metrics={name: _numbers(found.values) for name, found in measured.metrics.items()},
        )

    return _Process(
        benchmarks={
            name: {str(number): seed(measured) for number, measured in seeds.items()}
            for name, seeds in stored.benchmarks.items()
        },
        intervals={name: list(interval) for name, interval in stored.intervals.items()},
        started=stored.started,
    )


def _numbers(values: Sequence[float]) -> _Number | list[_Number]:
    """Write values as short as JSON has them: whole ones without a point, a single one without brackets."""
    found: list[_Number] = [None if math.isinf(v) else int(v) if v == int(v) else v for v in values]
    return found if len(found) > 1 else found[0]


def read_json(path: Path) -> Any:
    """Read a JSON file. Numbers that are not finite are refused, because JSON has none.

    Raises:
        InputError: it cannot be read, or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refused)
    except OSError as error:
        raise InputError(path, "cannot be read", error.strerror or str(error), "Check the path") from error
    except NotFiniteError as error:
        what = f"holds {error.args[0]}, which is no finite number"
        raise InputError(path, what, to_do="Measure it again") from None
    except (ValueError, RecursionError) as error:
        raise InputError(path, "is no JSON", str(error), "Give a run's directory or a JSON file") from None


class NotFiniteError(Exception):
    """A JSON file holds NaN or Infinity."""


def _refused(name: str) -> float:
    raise NotFiniteError(name)
