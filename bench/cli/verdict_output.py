"""The outputs of commands that compare two sides: files besides the table, and the summary of a CI job."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusetune.bench.errors import InputError, unusable
from fusetune.bench.path_checks import is_folder

if TYPE_CHECKING:
    from fusetune.bench.gate import GateResult

_FILE = click.Path(path_type=Path, dir_okay=False)

strict_option = click.option("--strict", is_flag=True, help="Exit with 3 where a verdict is CAN'T TELL.")
json_option = click.option(
    "--json", "json_file", metavar="FILE", type=_FILE, help="Write the result as JSON too."
)
markdown_option = click.option(
    "--markdown", "markdown_file", metavar="FILE", type=_FILE, help="Write it as Markdown too."
)
junit_option = click.option(
    "--junit", "junit_file", metavar="FILE", type=_FILE, help="Write it as JUnit XML too."
)

page_option = click.option("--html", "html_file", metavar="FILE", type=_FILE, help="Write it as a page too.")


def check_outputs(
    json_file: Path | None,
    markdown_file: Path | None,
    junit_file: Path | None,
    html_file: Path | None = None,
) -> None:
    """Refuse files whose folder is missing, before anything is measured.

    Raises:
        InputError: names the option.
    """
    files = {
        "--json": json_file,
        "--markdown": markdown_file,
        "--junit": junit_file,
        "--html": html_file,
    }
    for option, file in files.items():
        if file is not None and not is_folder(file.parent):
            raise InputError(f"{option} {file}", "its folder is not there", to_do="Make it first.")


def write_outputs(
    result: GateResult, json_file: Path | None, markdown_file: Path | None, junit_file: Path | None
) -> None:
    """Write the outputs that were asked for. Under GitHub Actions the step's summary is one of them.

    Raises:
        RunDirectoryError: a file cannot be written.
    """
    from fusetune.bench.gate import as_json, as_junit, as_markdown

    if json_file is not None:
        write_json(as_json(result), json_file)
    if markdown_file is not None:
        _to_file(markdown_file, as_markdown(result))
    if junit_file is not None:
        _to_file(junit_file, as_junit(result))
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary and os.environ.get("GITHUB_ACTIONS") == "true":
        _to_file(Path(summary), as_markdown(result) + "\n", mode="a")


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """Write a JSON object to a file.

    Raises:
        RunDirectoryError: the file cannot be written.
    """
    _to_file(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def _to_file(path: Path, text: str, mode: str = "w") -> None:
    try:
        with path.open(mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise unusable(path, error) from error
