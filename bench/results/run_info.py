"""The content of run.json, as an object. Only this room reads or writes that file's JSON."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from typing import Any

from fusetune.bench.kinds import TRAINING
from fusetune.bench.results.records import SCHEMA_VERSION
from fusetune.bench.results.written_spec import WrittenSpec

# A resumed run must share these with the run that it continues.
FIXED_ON_RESUME = ("kind", "options", "spec", "data", "device")
# These may differ, but a reader should know, because the numbers depend on them.
NOTED_ON_RESUME = ("commit", "versions", "machine", "jobs", "executor")
LOCAL = "local"
_TEXTS = ("overrides", "profile_changes", "command", "same", "data")


@dataclass(frozen=True)
class Machine:
    """Where a run was made. What is not known is None.

    Args:
        device: `cpu` or `cuda`.
        device_name: of the processor or the GPU.
        cores: cores that the run could use.
        memory_bytes: memory that the run could use.
        details: all that `bench.machine.describe_machine` returned, these included.
    """

    device: str | None = None
    device_name: str | None = None
    cores: int | None = None
    memory_bytes: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, details: Mapping[str, Any]) -> Machine:
        """Read the JSON object."""
        return cls(
            details.get("device"),
            details.get("device_name"),
            details.get("cores"),
            details.get("memory_bytes"),
            details,
        )


@dataclass(frozen=True)
class RunInfo:
    """The content of run.json. docs/records.md describes each field.

    Args:
        kind: name of a `bench.kinds.Kind`.
        options: options of the command that the spec does not have. `run_options` has their types.
        spec: as resolved.
        spec_path: path of the spec as it was given.
        overrides: each `--set` as it was given.
        profile: name of the profile that was merged over the spec, or None.
        profile_changes: what the profile changed, a sentence each.
        command: the command line, word by word.
        baseline: factor -> value of the configuration that the spec's own `train`, `model` and `data` describe.
        trials: planned trials.
        same: configurations that train the same as another, a sentence each.
        jobs: trials at once that share a device.
        executor: where the trials ran, e.g. `local` or `ray: 8 devices on 2 nodes, NVIDIA H100`.
        device: `cpu` or `cuda`, empty where it is not known.
        data: names of the data sets that were loaded.
        classes: class names of each data set that has names.
        stand_in: which generated data stand in for which set, None where none do.
        fingerprint: data set -> file -> `bytes` and `sha256`. None: not known.
        machine: where it ran.
        versions: library -> version, None where it is not installed.
        commit: of the sources. None: not known.
        dirty: whether the sources had uncommitted changes. None: not known.
        started: ISO 8601 in UTC, empty where it is not known.
        run_id: name of the run's directory, empty before there is one.
        schema_version: of run.json.
    """

    kind: str = TRAINING.name
    options: Mapping[str, Any] = field(default_factory=dict)
    spec: WrittenSpec = field(default_factory=WrittenSpec)
    spec_path: str = ""
    overrides: tuple[str, ...] = ()
    profile: str | None = None
    profile_changes: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    baseline: Mapping[str, Any] = field(default_factory=dict)
    trials: int = 0
    same: tuple[str, ...] = ()
    jobs: int = 1
    executor: str = LOCAL
    device: str = ""
    data: tuple[str, ...] = ()
    classes: tuple[tuple[str, ...], ...] = ()
    stand_in: str | None = None
    fingerprint: Mapping[str, Any] | None = None
    machine: Machine = field(default_factory=Machine)
    versions: Mapping[str, str | None] = field(default_factory=dict)
    commit: str | None = None
    dirty: bool | None = None
    started: str = ""
    run_id: str = ""
    schema_version: int = SCHEMA_VERSION

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        content = asdict(self)
        content["spec"], content["machine"] = self.spec.content, self.machine.details
        if self.executor == LOCAL:  # as in files from before there were others
            del content["executor"]
        return {"schema_version": content.pop("schema_version"), "run_id": content.pop("run_id"), **content}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> RunInfo:
        """Read the JSON object. A field that is missing or null has its default. An unknown one is left out.

        Example:
            >>> run = RunInfo.from_dict({"spec": {"name": "demo"}, "machine": {"device": "cpu"}, "jobs": 2})
            >>> run.spec.name, run.kind, run.machine.device, run.jobs
            ('demo', 'run', 'cpu', 2)
        """
        given = {each.name: content[each.name] for each in fields(cls) if content.get(each.name) is not None}
        given |= {name: tuple(given[name]) for name in _TEXTS if name in given}
        given["classes"] = tuple(map(tuple, given.get("classes", ())))
        given["spec"] = WrittenSpec(given.get("spec", {}))
        given["machine"] = Machine.from_dict(given.get("machine", {}))
        return cls(**given)

    @property
    def executor_option(self) -> str:
        """The `--executor` of the command line, with a space before it. Empty: the spec alone decided.

        Example:
            >>> RunInfo(command=("bench", "run", "a.yaml", "--executor", "ray=head:6379")).executor_option
            ' --executor ray=head:6379'
            >>> RunInfo(command=("bench", "run", "a.yaml")).executor_option
            ''
        """
        given = ""
        for word, after in pairwise((*self.command, "")):
            if word == "--executor":
                given = after
            elif word.startswith("--executor="):
                given = word.partition("=")[2]
        return f" --executor {shlex.quote(given)}" if given else ""

    def changes(self, now: RunInfo) -> list[str]:
        """Return what is not as it was when the run began, of that which may change, a sentence each."""
        before, after = self.as_dict(), now.as_dict()
        return [
            f"{name} differs from the run's beginning: {before.get(name, LOCAL)} -> {after.get(name, LOCAL)}"
            for name in NOTED_ON_RESUME
            if before.get(name) != after.get(name)
        ]
