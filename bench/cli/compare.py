"""`bench compare`: two stored results, or one and the baseline of its kind of machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fusetune.bench.cli.console import make_console
from fusetune.bench.cli.gate_page import add_comparison_page
from fusetune.bench.cli.verdict_output import (
    check_outputs,
    json_option,
    junit_option,
    markdown_option,
    page_option,
    strict_option,
    write_outputs,
)
from fusetune.bench.errors import InputError

if TYPE_CHECKING:
    from fusetune.bench.gate import Rules


@click.command()
@click.argument("base", required=False)
@click.argument("head", required=False)
@click.option(
    "--baseline",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Compare HEAD with the baseline of its spec and its kind of machine in DIR, e.g. results/baselines.",
)
@click.option(
    "--spec",
    metavar="SPEC",
    type=click.Path(path_type=Path),
    help="Take thresholds and directions from the gate: section of SPEC.",
)
@strict_option
@json_option
@markdown_option
@junit_option
@page_option
def compare(
    base: str | None,
    head: str | None,
    baseline: Path | None,
    spec: Path | None,
    strict: bool,
    json_file: Path | None,
    markdown_file: Path | None,
    junit_file: Path | None,
    html_file: Path | None,
) -> None:
    """Compare two stored results, BASE and HEAD: the same table and verdicts as of bench gate.

    Each is a run's directory of any kind, a JSON file of pytest-benchmark (since 3.0), a .benchmarks/ folder (its
    newest file) or a baseline. A timing is judged from 5 processes a side on, so a side may be several results: a
    folder of JSON files, paths separated by commas, or a pattern in quotes such as 'results/digits/*'.

    Exit codes: 0 pass or improved, 1 regressed or missing, 2 bad input, 3 can't tell with --strict.
    """
    from fusetune.bench.compare import compare_stored, compare_with_baseline
    from fusetune.bench.gate import exit_code, show_gate

    check_outputs(json_file, markdown_file, junit_file, html_file)
    rules = _rules(spec)
    if baseline is not None:
        if head is not None:
            raise click.UsageError("with --baseline give HEAD alone: bench compare --baseline DIR HEAD")
        result = compare_with_baseline(baseline, _newest_run() if base is None else base, rules=rules)
    elif base is None or head is None:
        raise click.UsageError("name BASE and HEAD, or --baseline DIR and HEAD")
    else:
        result = compare_stored(base, head, rules=rules)
    console = make_console()
    show_gate(result, console)
    write_outputs(result, json_file, markdown_file, junit_file)
    if html_file is not None:
        add_comparison_page(result, html_file, console)
    sys.exit(exit_code(result, strict))


def _rules(path: Path | None) -> Rules | None:
    """Read the `gate:` section of a spec."""
    if path is None:
        return None
    from fusetune.bench.gate import Rules
    from fusetune.bench.spec import load_spec

    return Rules.of_section(load_spec(path).spec.gate, f"{path}: gate")


def _newest_run() -> str:
    """Return the newest run of any spec in results/."""
    results = Path("results")
    runs = [file.parent for file in results.glob("*/*/run.json")]
    if not runs:
        raise InputError("--baseline", "no run is in results/", to_do="Give HEAD, or run a spec first")
    return str(max(runs, key=lambda run: run.name))
