"""`bench report`, and the report at the end of other commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusetune.bench.cli.console import make_console
from fusetune.bench.cli.page_file import PAGE, add_page, html_option, part_of, write_page
from fusetune.bench.cli.paper_file import table_options, write_tables
from fusetune.bench.errors import InputError
from fusetune.bench.kinds import KINDS, function
from fusetune.bench.terminal import SafeConsole

if TYPE_CHECKING:
    from fusetune.bench.results import Record, RunDirectory


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@html_option
@table_options
def report(directory: Path, html: bool, latex: Path | None, markdown: Path | None, csv: Path | None) -> None:
    """Print the report of the run in DIRECTORY, or of the newest run under results/<spec name>.

    A table for a paper has medians with their ranges over seeds, and n. Its first place is in bold only where tests
    tell it from every other.
    """
    from fusetune.bench.results import RunDirectory, find_run, study_run

    tables = {"--latex": latex, "--markdown": markdown, "--csv": csv}
    if any(tables.values()):
        if html:
            raise InputError("--html", "goes with no table", to_do="Write the page by a command of its own.")
        write_tables((directory,), tables)
        return
    run_directory = RunDirectory.open(find_run(directory))
    console = make_console()
    records, notes = run_directory.records()
    for note in notes:
        console.print(f"note: {note}", style="yellow", highlight=False)
    if html:
        write_page(
            run_directory.path / PAGE, (part_of(run_directory, records, study_run(run_directory, records)),)
        )
        console.print(f"page: {run_directory.path / PAGE}", highlight=False, soft_wrap=True)
        return
    print_report(run_directory, records, console)


def print_report(directory: RunDirectory, records: Sequence[Record], console: SafeConsole) -> Any:
    """Print the report of a run, and return its study.

    Only a command that runs trials draws pictures. `bench report` lists those that exist.
    """
    from fusetune.bench.results import Pictures, study_run

    study = study_run(directory, records)
    pictures = Pictures(directory.path, drawing=directory.is_for_appending)
    function(KINDS[directory.run.kind].show)(study, console, pictures)
    if directory.is_for_appending:
        add_page(directory, records, study, console)
    return study
