"""A training spec under the gate: `bench run` of one configuration with one seed, in a fresh process of a side.

The code that runs is that of the side's checkout where the repository is fusetune itself. Elsewhere the installed
fusetune trains, and the factories of the spec come from the checkout.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from fusetune.bench.errors import InputError, RunDirectoryError, SetupError
from fusetune.bench.gate.measured import Measured, Metric
from fusetune.bench.gate.processes import (
    Ended,
    News,
    Place,
    check_import,
    failure_of,
    no_news,
    run_process,
    show_failure,
)
from fusetune.bench.gate.record_metrics import failure_in, metrics_in
from fusetune.bench.gate.rules import Rules
from fusetune.bench.results import Record, RunDirectory, RunInfo
from fusetune.bench.spec import AUTO, LoadedSpec, key_id, text_without, value_id
from fusetune.tuner.measure import reference_rounds

_BAD_INPUT = 2
_INTERRUPTED = 130
_MODULE = "fusetune.bench"


@dataclass
class Trainings:
    """The trainings of a spec, one job for each configuration.

    Args:
        loaded: head's spec, with its `gate:` section and the overrides of the command line.
        path: of the spec, relative to the top of the repository.
        overrides: `key.path=value` texts for both sides.
        rules: name further metrics to compare.
        news: takes the last lines of a process that failed.
        facts: side -> what its run.json said of machine, versions and data, once it is known.
        threads: job -> threads of its processes, once the first of them has measured how many are fastest.
    """

    loaded: LoadedSpec
    path: Path
    overrides: tuple[str, ...]
    rules: Rules
    news: News = no_news
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    threads: dict[str, int] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What is gated."""
        return str(self.path)

    @property
    def configurations(self) -> dict[str, Mapping[str, Any]]:
        """The configurations by the names of their jobs. A list of values stands for one configuration each."""
        spec = self.loaded.spec
        entries = (spec.gate.configurations if spec.gate else None) or [{}]
        return {
            job_name(spec.name, configuration): configuration
            for entry in entries
            for configuration in _expanded(entry)
        }

    @property
    def jobs(self) -> tuple[str, ...]:
        """The names of the jobs."""
        return tuple(self.configurations)

    def prepare(self, folder: Path) -> None:
        """Write head's spec into a checkout, see `write_spec`. Mutates: the file in the checkout."""
        write_spec(Path(self.loaded.document.name), folder / self.path)

    def measure(self, job: str, index: int, place: Place, limit_s: float | None) -> dict[str, Measured]:
        """Train once in a fresh process.

        Args:
            job: names the configuration.
            index: of the pair, which is the seed.
            place: where the side runs.
            limit_s: the process is ended after so many seconds; None: never.

        Raises:
            InputError: the side rejects the spec, or has no `bench run`.
            SetupError: the side cannot be imported, or left no record.
        """
        with tempfile.TemporaryDirectory(prefix="gate-") as results:
            ended, ref = run_bench(self._arguments(job, index, results), place, limit_s, command="run")
            records = self._records(Path(results), place)
        if ended.timed_out or not records:
            failure = failure_of(ended, limit_s) or "it left no record"
            show_failure(self.news, place, failure, ended)
            return {job: Measured(ref=ref, seconds=ended.seconds, failure=failure)}
        measured = self._measured(job, records[-1], ref, ended.seconds)
        if measured.failure:
            # The reason of a worker that died ends with its last line.
            check_import(records[-1].reason.rpartition(" | ")[2], place)
            self.news(f"{place.name}: {measured.failure}")
        return {job: measured}

    def _records(self, results: Path, place: Place) -> list[Record]:
        """Return the records of the only run in a folder, and keep what its run.json says."""
        found, facts = read_records(results, place)
        if facts is not None:
            self.facts.setdefault(place.side, facts)
        return found

    def _measured(self, job: str, record: Record, ref: tuple[float, ...], seconds: float) -> Measured:
        """Return what a training's record says."""
        threads = record.provenance.get("threads")
        if self.loaded.spec.threads == AUTO and isinstance(threads, int):
            self.threads.setdefault(job, threads)
        contention = record.values.get("processor_missing")
        if failure := failure_in(record):
            return Measured(ref=ref, seconds=seconds, failure=failure, contention=contention)
        also = {*self.rules.metrics, *self.rules.benchmarks.get(job, {})}
        metrics: dict[str, Metric] = metrics_in(
            record, has_target=self.loaded.spec.target is not None, also=also
        )
        return Measured(metrics, ref, seconds, contention=contention)

    def _arguments(self, job: str, index: int, results: str) -> Iterator[str]:
        """Yield the words of `bench run` after the module."""
        yield from ("run", str(self.path))
        given = self.loaded.document.data
        overrides = [text for text in self.overrides if not _IS_NOT_OF_A_SIDE.match(text)]
        overrides += ["factors={}", f"seeds=[{index}]"]
        overrides += [f"{key}={value}" for key, value in _EMPTY.items() if key in given]
        if configuration := self.configurations[job]:
            # A factor with one value is the configuration in each version of `bench run`.
            overrides.append(f"factors={json.dumps({key: [value] for key, value in configuration.items()})}")
        if job in self.threads:
            overrides.append(f"threads={self.threads[job]}")
        for text in overrides:
            yield from ("--set", text)
        yield from ("--results", results)


# Rules are the gate's own. Both sides are measured on this machine, beside the reference loop.
_NOT_OF_A_SIDE = ("gate", "executor")
_IS_NOT_OF_A_SIDE = re.compile(rf"\s*({'|'.join(_NOT_OF_A_SIDE)})\s*[.=]")
# What a spec may have besides factors, so that one configuration alone is trained.
_EMPTY = {"configurations": "null", "design": "grid"}


def write_spec(spec: Path, path: Path) -> None:
    """Write head's spec into a checkout, without sections that a side does not use, and an older one may not know.

    Args:
        spec: head's.
        path: of the file in the checkout.

    Mutates: that file.

    Raises:
        SetupError: it cannot be written.
    """
    text = text_without(spec, *_NOT_OF_A_SIDE)
    try:
        path.write_bytes(text)
    except OSError as error:
        raise SetupError(path, "cannot be written", error.strerror or str(error)) from error


def run_bench(
    arguments: Iterable[str], place: Place, limit_s: float | None, *, command: str
) -> tuple[Ended, tuple[float, ...]]:
    """Run a command of `bench` in a fresh process of a side.

    Args:
        arguments: the words after `bench`.
        place: where the side runs.
        limit_s: the process is ended after so many seconds; None: never.
        command: its name, for errors.

    Returns:
        How it ended, and the rounds of the reference loop before and after it.

    Raises:
        InputError: the side rejects the spec, or has no such command.
        SetupError: the side cannot be imported.
        KeyboardInterrupt: it was interrupted.
    """
    words = [place.python, "-m", _module(place.folder), *arguments]
    before = reference_rounds()
    ended = run_process(words, place, limit_s=limit_s, environment=_environment(place))
    ref = (*before, *reference_rounds())
    _refuse(ended, place, command)
    return ended, ref


def read_records(results: Path, place: Place) -> tuple[list[Record], dict[str, Any] | None]:
    """Return the records of the only run in a folder, and what its run.json says of the side.

    Raises:
        SetupError: they cannot be read.
    """
    found: list[Record] = []
    facts = None
    for file in results.glob("*/*/run.json"):
        try:
            directory = RunDirectory.open(file.parent)
            found += directory.records()[0]
        except RunDirectoryError as error:
            raise SetupError(place.name, "wrote records that cannot be read", str(error)) from error
        facts = _facts(directory.run)
    return found, facts


def _facts(run: RunInfo) -> dict[str, Any]:
    """Return what a gate says of a side, as a JSON object."""
    return {
        "machine": dict(run.machine.details),
        "versions": dict(run.versions),
        "device": run.device,
        "stand_in": run.stand_in,
    }


def _expanded(entry: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the configurations of one entry, as of those at the top of a spec.

    Example:
        >>> list(_expanded({"optimizer": ["adam", "sgd"], "model.sizes": [[8, 4]]}))
        [{'optimizer': 'adam', 'model.sizes': [8, 4]}, {'optimizer': 'sgd', 'model.sizes': [8, 4]}]
    """
    values = (given if isinstance(given, list) else [given] for given in entry.values())
    for chosen in product(*values):
        yield dict(zip(entry, chosen, strict=True))


def is_fusetune(folder: Path) -> bool:
    """Whether a checkout is one of fusetune itself, in its present layout or the one before."""
    if (folder / "src/fusetune/__init__.py").is_file():
        return True
    return all((folder / part).is_file() for part in ("bench/__main__.py", "bench/spec/spec.py"))


def _module(folder: Path) -> str:
    """Return the module that a side runs."""
    before = is_fusetune(folder) and not (folder / "src/fusetune/__init__.py").is_file()
    return "bench" if before else _MODULE


def _environment(place: Place) -> dict[str, str]:
    """Return the variables of a training: the checkout's code before any that is installed."""
    if not is_fusetune(place.folder):
        return {}
    folder = place.folder / "src" if _module(place.folder) == _MODULE else place.folder
    given = place.environment.get("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(folder), given)))}


def job_name(spec: str, configuration: Mapping[str, Any]) -> str:
    """Name a configuration.

    Example:
        >>> job_name("smoke", {}), job_name("smoke", {"optimizer": "adam", "train.fused": True})
        ('smoke', 'smoke: optimizer=adam,train.fused=true')
    """
    values = ",".join(f"{key_id(key)}={value_id(value)}" for key, value in configuration.items())
    return f"{spec}: {values}" if values else spec


def _refuse(ended: Ended, place: Place, command: str) -> None:
    """Refuse a process that says nothing about the revision's speed.

    Raises:
        InputError: the side has no such command, or rejects the spec.
        SetupError: it cannot be imported.
        KeyboardInterrupt: it was interrupted.
    """
    if ended.timed_out:
        return
    if ended.code == _INTERRUPTED:
        raise KeyboardInterrupt
    lacks_command = "No module named" in ended.last_line and "Error" not in ended.last_line
    lacks_command |= f"unknown command '{command}'" in ended.last_line
    if ended.code and lacks_command:
        raise InputError(
            place.name,
            f"has no command `bench {command}`",
            ended.last_line,
            "Name a later revision, or use --command.",
        )
    if ended.code == _BAD_INPUT:
        said = [line.removeprefix("error: ") for line in ended.tail if not line.startswith("Usage:")]
        raise InputError(
            place.name,
            f"`bench {command}` rejects the spec",
            "it says:\n" + "\n".join(f"  {line}" for line in said),
        )
    if ended.code:
        check_import(ended.last_line, place)
