"""`bench report`, and the report at the end of other commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusetune.bench.cli.console import make_console
from fusetune.bench.cli.exit_codes import FAILED
from fusetune.bench.cli.follow import follow_option, follow_run
from fusetune.bench.cli.gate_page import show_stored_gate
from fusetune.bench.cli.options import report_to_option
from fusetune.bench.cli.page_file import html_option, output_option, page_path, part_of, write_page
from fusetune.bench.cli.paper_file import table_options, write_tables
from fusetune.bench.errors import InputError
from fusetune.bench.kinds import KINDS, function
from fusetune.bench.terminal import SafeConsole

if TYPE_CHECKING:
    from fusetune.bench.gate import StoredGate
    from fusetune.bench.results import Record, RunDirectory
    from fusetune.bench.tracking import Destination


@click.command()
@click.argument(
    "directories", metavar="DIRECTORY...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@html_option
@output_option
@follow_option
@table_options
@report_to_option
def report(
    directories: Sequence[Path],
    html: bool,
    output: Path | None,
    follow: bool,
    report_to: tuple[Destination, ...],
    **tables: Path | None,
) -> None:
    """Print the report of the run or gate in DIRECTORY, or of the newest run under results/<spec name>.

    Several are printed one after the other, or written to one page by --html. With --report-to, they are sent.

    A table for a paper has medians with their ranges over seeds, and n. Its first place is in bold only where tests
    tell it from every other.
    """
    from fusetune.bench.gate import StoredGate, gate_part
    from fusetune.bench.results import is_being_written, study_run

    if output is not None and not html:
        raise InputError("--output", "names the file of the page, which is not asked for", to_do="Add --html")
    if follow and not html:
        raise InputError("--follow", "writes a page, which is not asked for", to_do="Add --html")
    if any(tables.values()):
        if html or report_to:
            raise InputError(
                "--html" if html else "--report-to",
                "goes with no table",
                to_do="Give it to a command of its own",
            )
        write_tables(directories, tables)
        return
    console = make_console()
    runs = [_opened(directory) for directory in directories]
    path = page_path(runs, output)
    if follow:
        if report_to:
            raise InputError(
                "--follow",
                "writes a page and sends nothing",
                to_do="Give --report-to to the command that runs",
            )
        follow_run(runs, path, console)
        return
    parts = []
    all_sent = True
    for place, run in enumerate(runs):
        if place and not html:
            console.print()
        if isinstance(run, StoredGate):
            if report_to:
                raise InputError(run.path, "a gate cannot be sent to a tracker", to_do="Name runs alone")
            if html:
                parts.append(gate_part(run, is_running=is_being_written(run.path)))
            else:
                show_stored_gate(run, console)
            continue
        records, notes = run.records(needed_by="page" if html else "report")
        for note in notes:
            console.print(f"note: {note}", style="yellow", highlight=False)
        if report_to:
            all_sent = _send(report_to, run, console) and all_sent
        if html:
            parts.append(part_of(run, records, study_run(run, records)))
        elif not report_to:
            print_report(run, records, console)
    if parts:
        write_page(path, parts)
        console.print(f"page: {path}", highlight=False, soft_wrap=True)
    if not all_sent:
        sys.exit(FAILED)


def _opened(directory: Path) -> RunDirectory | StoredGate:
    """Open a run or a gate for reading."""
    from fusetune.bench.gate import is_gate, read_stored_gate
    from fusetune.bench.results import RunDirectory, find_run

    found = find_run(directory, or_gate=True)
    return read_stored_gate(found) if is_gate(found) else RunDirectory.open(found)


def _send(report_to: Sequence[Destination], run: RunDirectory, console: SafeConsole) -> bool:
    """Send a run to trackers. Return whether they have all of it."""
    from fusetune.bench.tracking import send_run

    return send_run(report_to, run, lambda text: console.print(text, highlight=False, soft_wrap=True))


def print_report(directory: RunDirectory, records: Sequence[Record], console: SafeConsole) -> Any:
    """Print the report of a run, and return its study.

    Only a command that runs trials draws pictures. `bench report` lists those that exist.
    """
    from fusetune.bench.results import Pictures, study_run

    study = study_run(directory, records)
    pictures = Pictures(directory.path, drawing=directory.is_for_appending)
    function(KINDS[directory.run.kind].show)(study, console, pictures)
    return study
