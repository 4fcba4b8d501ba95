"""The files that `bench init` writes. None that is there is changed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from fusetune.bench.errors import InputError
from fusetune.bench.init.findings import Findings
from fusetune.bench.init.workflow import WORKFLOW, workflow

_SPEC = Path("specs", "gate.yaml")
_SPEC_TEMPLATE = """\
# What `bench gate` trains on both revisions of a pull request.
# Every key: @PAGE@
name: @NAME@
# Real handwritten digits that need no download. Put your own data and model here:
#   data:  {name: npz, path: mine.npz}
#   model: {factory: "@MODULE@.models:build"}
data:   {name: digits, validation: 300}
model:  {name: cnn, width: 8, depth: 2, activation: relu}
train:  {optimizer: adamw, base_lr: 0.005, batch_size: 64, epochs: 12, schedule: one-cycle}
target: {metric: val_accuracy, at_least: 0.9}
gate:
  metrics:
    step_time_s: {threshold: 0.02}  # a step that is more than 2 % slower, and surely so, is a regression
    peak_bytes: {threshold: 0.01}   # so is a peak of memory that is more than 1 % higher
"""
_PAGE = "https://github.com/fusetune/fusetune/blob/main/docs/spec.md"


@dataclass(frozen=True)
class Written:
    """What became of the files.

    Args:
        spec: the spec that is gated, relative to the repository's root; None: a command is gated.
        new: the files that were written, relative to the root.
        kept: those that were there already.
    """

    spec: Path | None
    new: tuple[Path, ...]
    kept: tuple[Path, ...]


def write_files(findings: Findings, command: str = "") -> Written:
    """Write a spec, if there is none and no command, and the workflow, if there is none.

    Args:
        findings: what is known of the repository.
        command: the command line to gate in place of a spec.

    Raises:
        InputError: something that is no spec has the new spec's name, or a file cannot be written.
    """
    root = findings.repository.root
    files: dict[Path, str] = {}
    spec: Path | None = None
    if not command:
        spec = findings.specs[0] if findings.specs else findings.project / _SPEC
        if not findings.specs:
            if (root / spec).exists():
                raise InputError(
                    spec,
                    "is there, but is no spec",
                    "a spec has data, model and train",
                    "Mend it, or rename it.",
                )
            files[spec] = _spec(findings)
    files[WORKFLOW] = workflow(findings, spec, command)
    new = [path for path, text in files.items() if write_new(root / path, text)]
    kept = [path for path in dict.fromkeys([*([spec] if spec else []), *files]) if path not in new]
    return Written(spec, tuple(new), tuple(kept))


def _spec(findings: Findings) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", findings.package).strip("._-")[:60]
    module = re.sub(r"\W+", "_", findings.package)
    parts = {"@NAME@": f"{name or 'project'}-gate", "@MODULE@": module, "@PAGE@": _PAGE}
    text = _SPEC_TEMPLATE
    for part, value in parts.items():
        text = text.replace(part, value)
    return text


def write_new(path: Path, text: str) -> bool:
    """Write a file where there is none, and return whether there was none."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        if isinstance(error, FileExistsError) and path.parent.is_dir():
            return False
        raise InputError(
            path, "cannot be written", str(error.strerror or error), "Make its folder writable."
        ) from error
    return True
