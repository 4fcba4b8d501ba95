"""How commands that compare two sides are told to print their verdicts, and do so."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from fusetune.bench.cli.console import make_console
from fusetune.bench.errors import InputError

if TYPE_CHECKING:
    from fusetune.bench.gate import GateResult

_Command = TypeVar("_Command", bound=Callable[..., Any])


def verdict_options(command: _Command) -> _Command:
    """Add --json, --markdown, --junit and --strict to a command."""
    for option in (
        click.option("--strict", is_flag=True, help="Exit with 3 where the outcome is can't tell."),
        click.option(
            "--junit",
            metavar="FILE",
            type=click.Path(path_type=Path),
            help="Write the verdicts to FILE as JUnit XML, which CI systems show.",
        ),
        click.option(
            "--markdown",
            "as_text",
            flag_value="markdown",
            help="Print Markdown, for a comment on a pull request. $GITHUB_STEP_SUMMARY gets it by itself.",
        ),
        click.option("--json", "as_text", flag_value="json", help="Print one JSON object."),
    ):
        command = option(command)
    return command


def end_with_verdict(result: GateResult, as_text: str | None, junit: Path | None, strict: bool) -> NoReturn:
    """Print a result as the options ask for, and exit with its code.

    Under GitHub Actions the Markdown goes to the job's summary too.

    Args:
        result: of a gate or a comparison.
        as_text: `json`, `markdown`, or None for tables.
        junit: a file for JUnit XML; None: none is written.
        strict: whether `can't tell` is an error.

    Raises:
        InputError: a file cannot be written. The result has been printed by then.
    """
    from fusetune.bench.gate import as_json, as_junit, as_markdown, exit_code, show_gate

    if as_text == "json":
        click.echo(json.dumps(as_json(result), indent=2, allow_nan=False))
    elif as_text == "markdown":
        click.echo(as_markdown(result), nl=False)
    else:
        show_gate(result, make_console())
    summary = os.environ.get("GITHUB_STEP_SUMMARY") if os.environ.get("GITHUB_ACTIONS") == "true" else None
    if summary:
        _write(Path(summary), as_markdown(result), "a", "$GITHUB_STEP_SUMMARY")
    if junit is not None:
        _write(junit, as_junit(result), "w", "--junit")
    sys.exit(exit_code(result, strict))


def _write(path: Path, text: str, mode: str, where: str) -> None:
    try:
        with path.open(mode, encoding="utf-8") as file:
            file.write(text)
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{where}: {path}", "cannot be written", said, "Give another path") from error
