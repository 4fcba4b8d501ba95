"""A JSON file of pytest-benchmark as a stored result, of any release since 3.0.

What the releases differ in, as files written by them show: 3.0 has no `params` and no `cpu`. Up to 3.2 the processor's
name is `cpu.brand`, then `cpu.brand_raw`. 3.2.0 writes its version as a line of Python. From 5.0 on `datetime` has a
time zone. `stats.data`, the raw samples, is there in files of `--benchmark-json`, and in saved ones with
`--benchmark-save-data`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fusetune.bench.compare.stored import PYTEST_METRIC, Stored, metric
from fusetune.bench.errors import InputError
from fusetune.bench.gate import Measured
from fusetune.bench.results import first_fault

FIRST = 3
_VERSION = re.compile(r"(\d+)\.\d+[\w.]*")
# Options that change what a round is. The number of rounds and iterations is calibrated anew each time.
_SETTINGS = ("disable_gc", "warmup")
_UNKNOWN = ("", "unknown", None)


class _Open(BaseModel):
    """A mapping of which these keys are known."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class _Stats(_Open):
    """A benchmark's statistics, in seconds."""

    median: float = Field(ge=0)
    data: list[float] | None = None


class _Benchmark(_Open):
    """One benchmark."""

    name: str
    fullname: str | None = None
    stats: _Stats
    options: dict[str, Any] = {}


class _File(_Open):
    """What a file holds."""

    version: str
    datetime: str = ""
    machine_info: dict[str, Any]
    commit_info: dict[str, Any] = {}
    benchmarks: list[_Benchmark]


def is_pytest_json(content: Any) -> bool:
    """Whether a JSON value is a file of pytest-benchmark.

    Example:
        >>> is_pytest_json({"benchmarks": [], "machine_info": {}, "version": "4.0.0"}), is_pytest_json([])
        (True, False)
    """
    return isinstance(content, Mapping) and {"benchmarks", "machine_info", "version"} <= content.keys()


def stored_pytest(content: Any, path: Path) -> Stored:
    """Return the content of a file as a stored result: one process, with a benchmark for each of the file's.

    Args:
        content: of the file, see `is_pytest_json`.
        path: of the file.

    Raises:
        InputError: a field is missing or of a wrong type, or the release is older than 3.0.
    """
    try:
        file = _File.model_validate(content)
    except ValidationError as error:
        raise InputError(path, "is broken", first_fault(error), "Save the benchmarks again") from None
    match = _VERSION.search(file.version)
    if match is None or int(match.group(1)) < FIRST:
        what = f"was written by pytest-benchmark {file.version}"
        raise InputError(path, what, f"known: since {FIRST}.0.0", "Save it with a newer release")
    if not file.benchmarks:
        raise InputError(path, "holds no benchmark", to_do="Save the benchmarks again")
    benchmarks: dict[str, dict[int, Measured]] = {}
    summaries = set()
    for found in file.benchmarks:
        name = _free_name(found.fullname or found.name, benchmarks)
        samples = tuple(found.stats.data or ())
        if not samples:
            summaries.add(name)
        values = samples or (found.stats.median,)
        if not all(0 < value < math.inf for value in values):
            raise InputError(path, f"a time of {name} is not above 0", to_do="Save the benchmarks again")
        benchmarks[name] = {0: Measured({PYTEST_METRIC: metric(PYTEST_METRIC, "pytest-benchmark", values)})}
    info, commit = file.machine_info, file.commit_info
    commit_id = commit.get("id")
    return Stored(
        path,
        "pytest-benchmark",
        "pytest-benchmark",
        benchmarks,
        machine=_machine(info),
        versions={
            _text(info.get("python_implementation")) or "python": _text(info.get("python_version")),
            "pytest-benchmark": match.group(),
        },
        commit=commit_id if isinstance(commit_id, str) and commit_id != "unversioned" else None,
        dirty=commit.get("dirty")
        if isinstance(commit.get("dirty"), bool) and commit_id != "unversioned"
        else None,
        settings={"options": _settings(file)},
        clock=tuple(
            sorted({str(each.options["timer"]) for each in file.benchmarks if each.options.get("timer")})
        ),
        clock_hz=_clock_hz(info),
        summaries=frozenset(summaries),
        started=file.datetime,
    )


def _free_name(name: str, taken: Mapping[str, Any]) -> str:
    """Return a benchmark's name. Repeated ones, as of pytest-repeat, are numbered."""
    names = (name, *(f"{name} ({number})" for number in range(2, len(taken) + 3)))
    return next(each for each in names if each not in taken)


def _settings(file: _File) -> dict[str, Any]:
    return {
        each.fullname or each.name: {key: each.options[key] for key in _SETTINGS if key in each.options}
        for each in file.benchmarks
    }


def _machine(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the machine as `bench.machine.describe_machine` has it, as far as the file says."""
    cpu = info.get("cpu") if isinstance(info.get("cpu"), Mapping) else {}
    assert isinstance(cpu, Mapping)
    named = (cpu.get("brand_raw"), cpu.get("brand"), info.get("processor"))
    system = (info.get("system"), info.get("release"), info.get("machine"))
    machine: dict[str, Any] = {
        "device": "cpu",
        "device_name": next((text for text in map(_text, named) if text), None),
        "cores": cpu.get("count") if isinstance(cpu.get("count"), int) else None,
        "os": " ".join(filter(None, map(_text, system))),
        "architecture": _text(info.get("machine")),
    }
    return {key: value for key, value in machine.items() if value}


def _clock_hz(info: Mapping[str, Any]) -> float | None:
    """Return the processor's clock, which is `hz_actual: [hertz, power of ten]`."""
    cpu = info.get("cpu")
    clock = cpu.get("hz_actual") if isinstance(cpu, Mapping) else None
    if isinstance(clock, list) and clock and isinstance(clock[0], int) and clock[0] > 0:
        return float(clock[0])
    return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value.lower() not in _UNKNOWN else None
