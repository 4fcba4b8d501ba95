"""`report.html` of one run or of several."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import fusetune
from fusetune.bench.errors import InputError, RunDirectoryError, unusable
from fusetune.bench.kinds import function, kind_of

if TYPE_CHECKING:
    from fusetune.bench.gate import StoredGate
    from fusetune.bench.page import Part
    from fusetune.bench.results import Record, RunDirectory

PAGE = "report.html"


def part_of(
    directory: RunDirectory, records: Sequence[Record], study: Any, *, is_running: bool | None = None
) -> Part:
    """Return what a page says of a run.

    Args:
        directory: the run.
        records: its records.
        study: of the same records.
        is_running: whether its process lives and goes on. None: asked of its lock, and a run that writes its own page
            is at its end.
    """
    from fusetune.bench.report import command_text, state_of
    from fusetune.bench.results import is_being_written

    if is_running is None:
        is_running = not directory.is_for_appending and is_being_written(directory.path)
    state = state_of(directory.run, records, study)
    status = state.status(
        is_running=is_running, go_on=directory.resume_command, anew=command_text(directory.run)
    )
    return dataclasses.replace(_part(directory, records, study), status=status)


def _part(directory: RunDirectory, records: Sequence[Record], study: Any) -> Part:
    """Return what the kind of the run says of it."""
    from fusetune.bench.page import Part
    from fusetune.bench.report import reproduce, run_facts

    kind, run = kind_of(directory.run.kind), directory.run
    if kind is not None and kind.part is not None:
        part: Part = function(kind.part)(study, records)
        return part
    asked = f"bench {run.kind}"
    answer = f"{len(records)} of {run.trials} records." if run.trials else f"{len(records)} records."
    facts = run_facts(run, str(directory.path))
    return Part(run.spec.name, asked, answer, facts=facts, sections=(reproduce(run),))


def write_page(path: Path, parts: Sequence[Part], *, refresh_s: int | None = None) -> None:
    """Write a page atomically.

    Args:
        path: the file, which is replaced.
        parts: at least one.
        refresh_s: seconds after which a browser loads the page again. None: never.

    Raises:
        RunDirectoryError: the file cannot be written.
    """
    from fusetune.bench.page import Page, render
    from fusetune.bench.results import write_whole

    when = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    title = ", ".join(dict.fromkeys(part.title for part in parts))
    page = Page(title, tuple(parts), refresh_s, f"Written {when} by fusetune {fusetune.__version__}.")
    try:
        write_whole(path, render(page).encode())
    except OSError as error:
        said = unusable(path, error)
        elsewhere = "Write the page elsewhere: `bench report DIRECTORY --html --output FILE`"
        raise RunDirectoryError(path, said.what, known=said.known, to_do=elsewhere) from error


def add_page(directory: RunDirectory, records: Sequence[Record], study: Any, console: Any) -> None:
    """Write a run's own page at its end, and print its path. A page that cannot be written fails no run."""
    with _harmless(console):
        _add(directory.path, part_of(directory, records, study), console)


def add_part(directory: Path, part: Part, console: Any) -> None:
    """Write a page into a directory and print its path, or a note where it cannot be written."""
    with _harmless(console):
        _add(directory, part, console)


def _add(directory: Path, part: Part, console: Any) -> None:
    path = directory / PAGE
    write_page(path, (part,))
    console.print(f"\npage: {path}", highlight=False, soft_wrap=True, style="bold")


@contextmanager
def _harmless(console: Any) -> Iterator[None]:
    """Turn what goes wrong with a page into a note, because the run is whole and its report is printed."""
    try:
        yield
    except Exception as error:  # optuna, scikit-learn, vl-convert, itables: a page is made by them
        console.print(f"note: there is no page; {error}", style="yellow", highlight=False, soft_wrap=True)


def add_page_so_far(directory: RunDirectory, console: Any) -> None:
    """Write the page of what is recorded, and print its path. Without a record there is none."""
    from fusetune.bench.results import study_run

    try:
        records, _ = directory.records(needed_by="page")
        if records:
            add_page(directory, records, study_run(directory, records), console)
    except RunDirectoryError as error:
        console.print(f"note: there is no page; {error}", style="yellow", highlight=False, soft_wrap=True)


def page_path(directories: Sequence[RunDirectory | StoredGate], output: Path | None) -> Path:
    """Return where the page of some runs is written: where it is asked for, in the run, or here if they are several.

    Raises:
        InputError: the path is a directory, or lies in none.
    """
    if output is None:
        return directories[0].path / PAGE if len(directories) == 1 else Path(PAGE)
    if output.is_dir():
        raise InputError("--output", f"{output} is a directory", to_do=f"Name a file in it: {output / PAGE}")
    if not output.parent.is_dir():
        raise InputError(
            "--output", f"there is no directory {output.parent}", to_do="Make it, or name another file"
        )
    return output


html_option = click.option(
    "--html", is_flag=True, help="Write a page: DIRECTORY/report.html, or ./report.html for several."
)
output_option = click.option(
    "--output", metavar="FILE", type=click.Path(path_type=Path), help="Where --html writes the page."
)
