"""Tables for papers: the options of `bench report`, and what they write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from fusetune.bench.cli.output_files import STDOUT, check_outputs, write_output
from fusetune.bench.errors import InputError
from fusetune.bench.kinds import KERNELS, KINDS, function
from fusetune.bench.path_checks import is_folder
from fusetune.bench.terminal import say

_Command = TypeVar("_Command", bound=Callable[..., Any])
# Option -> who writes it, from a table.
_FORMS = {
    "--latex": "fusetune.bench.paper:as_latex",
    "--markdown": "fusetune.bench.paper:as_markdown",
    "--csv": "fusetune.bench.paper:as_csv",
}
# What `bench kernels --csv` writes, with its names.
_OF_KERNELS = {"--csv": "fusetune.bench.kernels:as_csv"}
_HELP = {
    "--latex": "Write the ranking as a LaTeX table that needs booktabs.",
    "--markdown": "Write it as a Markdown table.",
    "--csv": "Write it as CSV, in SI base units with all digits.",
}
# A run's own files, which are never replaced.
_RECORDS = ("run.json", "records.jsonl", "search.jsonl", "gate.json", "pairs.jsonl", "result.json", "lock")


def table_options(command: _Command) -> _Command:
    """Add --latex, --markdown and --csv to a command. Each takes a file, or goes to standard output."""
    for option, text in reversed(_HELP.items()):
        command = click.option(
            option,
            metavar="[FILE]",
            is_flag=False,
            flag_value=str(STDOUT),
            is_eager=True,
            callback=_file,
            help=f"{text} Default FILE: -, standard output, and nothing else there.",
        )(command)
    return command


def write_tables(directories: Sequence[Path], outputs: Mapping[str, Path | None]) -> None:
    """Write the tables of a run that were asked for. Notes on its records go to standard error.

    Args:
        directories: as given to `bench report`, one.
        outputs: `latex`, `markdown` and `csv` -> file, where `-` is standard output. None: not asked for.

    Raises:
        InputError: several directories, or a file that cannot be written to.
        RunDirectoryError: there is no run, or it cannot be read.
    """
    from fusetune.bench.gate import is_gate
    from fusetune.bench.results import RunDirectory, find_run, study_run

    asked = {f"--{form}": file for form, file in outputs.items() if file is not None}
    if len(directories) > 1:
        option = next(iter(asked))
        raise InputError(
            option, "is a table of one run", f"{len(directories)} were given", "Give one DIRECTORY."
        )
    check_outputs(asked)
    found = find_run(directories[0], or_gate=True)
    if is_gate(found):
        raise InputError(
            f"{next(iter(asked))} {found}",
            "a gate ranks nothing",
            "a table is one of a run",
            "Use the option --markdown of `bench gate`.",
        )
    run = RunDirectory.open(found)
    records, notes = run.records(needed_by="report")
    for note in notes:
        say(f"note: {note}", err=True)
    study = study_run(run, records)
    kind = KINDS[run.run.kind]
    own = _OF_KERNELS if kind is KERNELS else {}
    for option, file in asked.items():
        table = study if option in own else function(kind.table)(study)
        write_output(file, function(own.get(option, _FORMS[option]))(table))


def _file(context: click.Context, parameter: click.Parameter, value: str | None) -> Path | None:
    """Read the file of an option.

    Raises:
        InputError: it is a folder, or a file that a run consists of.
    """
    if value is None:
        return None
    option = parameter.opts[0]
    path = Path(value)
    if is_folder(path):
        raise InputError(
            f"{option} {value}",
            "is a folder",
            f"what follows {option} is the file to write",
            f"Write {option} behind DIRECTORY, or {option}=-.",
        )
    if path.name in _RECORDS:
        raise InputError(f"{option} {value}", "is a file of a run", to_do="Give another file.")
    return path
