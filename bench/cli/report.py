"""`bench report`, and the report at the end of other commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusetune.bench.cli.console import make_console
from fusetune.bench.cli.follow import follow_option, follow_run
from fusetune.bench.cli.page_file import html_option, output_option, page_path, part_of, write_page
from fusetune.bench.errors import InputError
from fusetune.bench.kinds import KINDS, function
from fusetune.bench.terminal import SafeConsole

if TYPE_CHECKING:
    from fusetune.bench.results import Record, RunDirectory


@click.command()
@click.argument(
    "directories", metavar="DIRECTORY...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@html_option
@output_option
@follow_option
def report(directories: Sequence[Path], html: bool, output: Path | None, follow: bool) -> None:
    """Print the report of the run in DIRECTORY, or of the newest run under results/<spec name>.

    Several are printed one after the other, or written to one page by --html.
    """
    from fusetune.bench.results import RunDirectory, find_run, study_run

    if output is not None and not html:
        raise InputError("--output", "names the file of the page, which is not asked for", to_do="Add --html")
    console = make_console()
    runs = [RunDirectory.open(find_run(directory)) for directory in directories]
    path = page_path(runs, output)
    if follow:
        follow_run(runs, path, console, html=html)
        return
    parts = []
    for place, run in enumerate(runs):
        if place and not html:
            console.print()
        records, notes = run.records()
        for note in notes:
            console.print(f"note: {note}", style="yellow", highlight=False)
        if html:
            parts.append(part_of(run, records, study_run(run, records)))
        else:
            print_report(run, records, console)
    if parts:
        write_page(path, parts)
        console.print(f"page: {path}", highlight=False, soft_wrap=True)


def print_report(directory: RunDirectory, records: Sequence[Record], console: SafeConsole) -> Any:
    """Print the report of a run, and return its study.

    Only a command that runs trials draws pictures. `bench report` lists those that exist.
    """
    from fusetune.bench.results import Pictures, study_run

    study = study_run(directory, records)
    pictures = Pictures(directory.path, drawing=directory.is_for_appending)
    function(KINDS[directory.run.kind].show)(study, console, pictures)
    return study
