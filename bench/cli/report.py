"""`bench report`, and the report at the end of other commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusetune.bench.cli.console import make_console
from fusetune.bench.cli.exit_codes import FAILED
from fusetune.bench.cli.options import report_to_option
from fusetune.bench.cli.page_file import PAGE, add_page, html_option, part_of, write_page
from fusetune.bench.errors import InputError
from fusetune.bench.kinds import Kind, function, kind_of
from fusetune.bench.terminal import SafeConsole

if TYPE_CHECKING:
    from fusetune.bench.results import Record, RunDirectory
    from fusetune.bench.tracking import Destination


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@html_option
@report_to_option
def report(directory: Path, html: bool, report_to: tuple[Destination, ...]) -> None:
    """Print the report of the run in DIRECTORY, or of the newest run under results/<spec name>."""
    from fusetune.bench.results import RunDirectory, find_run

    run_directory = RunDirectory.open(find_run(directory))
    console = make_console()
    records, notes = run_directory.records()
    for note in notes:
        console.print(f"note: {note}", style="yellow", highlight=False)
    if report_to:
        _send(report_to, run_directory, console)
    if html:
        write_page(
            run_directory.path / PAGE, (part_of(run_directory, records, study_run(run_directory, records)),)
        )
        console.print(f"page: {run_directory.path / PAGE}", highlight=False, soft_wrap=True)
    if html or report_to:
        return
    print_report(run_directory, records, console)


def _send(report_to: Sequence[Destination], directory: RunDirectory, console: SafeConsole) -> None:
    """Send a run to trackers. What they do not take is a failure here."""
    from fusetune.bench.tracking import send_run

    if not send_run(report_to, directory, lambda text: console.print(text, highlight=False, soft_wrap=True)):
        sys.exit(FAILED)


def study_run(directory: RunDirectory, records: Sequence[Record]) -> Any:
    """Study the records of a run with the function of its kind, and return its result.

    Raises:
        RunDirectoryError: run.json or a record lacks what the report needs.
        InputError: the run is of a kind that this version does not know.
    """
    from fusetune.bench.results import as_written

    path, kind = directory.path, _kind(directory)
    directory.check_reportable(records)
    checked = as_written(path, by_this_process=directory.is_for_appending)
    with checked if kind.has_free_records else nullcontext():
        return function(kind.study)(directory.run, records, str(path))


def print_report(directory: RunDirectory, records: Sequence[Record], console: SafeConsole) -> Any:
    """Print the report of a run, and return its study.

    Only a command that runs trials draws pictures. `bench report` lists those that exist.
    """
    from fusetune.bench.results import Pictures

    study = study_run(directory, records)
    pictures = Pictures(directory.path, drawing=directory.is_for_appending)
    function(_kind(directory).show)(study, console, pictures)
    if directory.is_for_appending:
        add_page(directory, records, study, console)
    return study


def _kind(directory: RunDirectory) -> Kind:
    kind = kind_of(directory.run.kind)
    if kind is None:
        raise InputError(
            directory.path,
            f"a run of the kind '{directory.run.kind}' is newer than this program",
            to_do="Update fusetune",
        )
    return kind
