"""`bench gate`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fusetune.bench.cli.console import make_console
from fusetune.bench.cli.exit_codes import INTERRUPTED
from fusetune.bench.cli.gate_page import add_gate_page
from fusetune.bench.cli.options import device_at_hand, overrides_option, results_option
from fusetune.bench.cli.verdict_output import (
    check_outputs,
    json_option,
    junit_option,
    markdown_option,
    strict_option,
    write_json,
    write_outputs,
)
from fusetune.bench.interrupts import ignore_interrupts, terminate_as_interrupt
from fusetune.bench.terminal import say
from fusetune.bench.units import parse_seconds

if TYPE_CHECKING:
    from fusetune.bench.gate import Request


def _seconds(context: click.Context, option: click.Parameter, given: str | None) -> float | None:
    """Read --budget."""
    if given is None:
        return None
    try:
        return parse_seconds(given)
    except ValueError as error:
        raise click.BadParameter(str(error), context, option) from None


@click.command()
@click.argument("spec", required=False, type=click.Path(path_type=Path))
@click.option(
    "--command",
    metavar="COMMAND",
    help="Gate a program of your own in place of a SPEC. It runs in each checkout, without a shell. Its last line of "
    'output is a JSON object: {"metric": number or [numbers]} or {"benchmark": {"metric": ...}}. It may take the '
    "variable BENCH_GATE_SEED as its seed. The word python stands for the interpreter of each side.",
)
@click.option(
    "--base",
    metavar="REV",
    help="The revision to compare with. Default: the merge base with the default branch.",
)
@click.option(
    "--head", metavar="REV", default="working tree", show_default=True, help="The revision to gate."
)
@click.option(
    "--budget",
    metavar="TIME",
    callback=_seconds,
    help="The longest that measuring may take, e.g. 20min. Default: the spec's gate.budget, else 10min.",
)
@click.option(
    "--configuration",
    "configurations",
    multiple=True,
    metavar="FACTOR=VALUE,...",
    help="Gate this configuration in place of the spec's. May be repeated.",
)
@overrides_option
@strict_option
@click.option(
    "--resume",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Continue the gate in DIR with its options. --budget may be another one.",
)
@click.option(
    "--self-test",
    is_flag=True,
    help="Run head against itself. Tells how often the gate errs on this machine, the noise between processes, and the "
    "slowdown that it finds within its budget.",
)
@click.option(
    "--minutes",
    default=10.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="How long a self-test measures.",
)
@click.option(
    "--record",
    is_flag=True,
    help="Add what was measured of head to its history, a line in RESULTS/history/. See `bench history`.",
)
@json_option
@markdown_option
@junit_option
@results_option
def gate(
    spec: Path | None,
    command: str | None,
    base: str | None,
    head: str,
    budget: float | None,
    configurations: tuple[str, ...],
    overrides: tuple[str, ...],
    strict: bool,
    resume: Path | None,
    self_test: bool,
    minutes: float,
    record: bool,
    json_file: Path | None,
    markdown_file: Path | None,
    junit_file: Path | None,
    results: Path,
) -> None:
    """Compare two revisions of SPEC or of a program: is head slower, hungrier or worse at learning than base?

    Both revisions are checked out beside each other. Fresh processes of both run in pairs, 5 to 20 of them, until each
    verdict is clear or the budget ends. Each finished pair is written to RESULTS/gate/<id>/ at once.

    Exit codes: 0 pass or improved, 1 regressed or missing, 2 bad input, 3 can't tell (with --strict), 4 a revision
    cannot be made to run, 130 interrupted.
    """
    from fusetune.bench.gate import exit_code, run_gate, show_gate

    if self_test and (base or resume or record or markdown_file or junit_file):
        raise click.UsageError(
            "--self-test has no base, and no outputs but --json; "
            "leave out --base, --resume, --record, --markdown and --junit"
        )
    check_outputs(json_file, markdown_file, junit_file)
    with terminate_as_interrupt():
        try:
            request = _request(
                spec,
                command,
                base,
                head,
                budget,
                configurations=configurations,
                overrides=overrides,
                resume=resume,
            )
            if self_test:
                _self_test(replace(request, self_test_s=60 * minutes), results, json_file)
                sys.exit(0)
            result = run_gate(
                request,
                results,
                device=device_at_hand(),
                news=lambda text: say(text, err=True),
                resume=resume,
                unfinished=_add_page_so_far,
            )
            console = make_console()
            show_gate(result, console)
            write_outputs(result, json_file, markdown_file, junit_file)
            add_gate_page(result.directory, console)
            if record:
                from fusetune.bench.history import record_gate

                say(f"recorded in {record_gate(results, result)}", err=True)
        except KeyboardInterrupt:
            ignore_interrupts()
            sys.exit(INTERRUPTED)
    sys.exit(exit_code(result, strict))


def _add_page_so_far(directory: Path) -> None:
    """Write the page of a gate that has no verdicts yet."""
    add_gate_page(str(directory), make_console(stderr=True))


def _self_test(request: Request, results: Path, json_file: Path | None) -> None:
    from fusetune.bench.gate import run_self_test, show_self_test

    found = run_self_test(
        request,
        results,
        device=device_at_hand(),
        news=lambda text: say(text, err=True),
        unfinished=_add_page_so_far,
    )
    console = make_console()
    show_self_test(found, console)
    if json_file is not None:
        write_json(found.as_dict(), json_file)
    add_gate_page(found.directory, console)


def _request(
    spec: Path | None,
    command: str | None,
    base: str | None,
    head: str,
    budget: float | None,
    *,
    configurations: tuple[str, ...],
    overrides: tuple[str, ...],
    resume: Path | None,
) -> Request:
    """Return what is asked for: by the options, or by an earlier gate.

    Raises:
        click.UsageError: options that do not go together.
        InputError: the spec lies in no repository, or no gate is in DIR.
    """
    from fusetune.bench.gate import Request, find_repository, resumed_request

    if resume is not None:
        if spec or command or base or configurations or overrides or head != "working tree":
            raise click.UsageError("--resume has the options of its gate; give --budget and outputs alone")
        return resumed_request(resume, budget)
    if (spec is None) == (command is None):
        raise click.UsageError("name either a SPEC, e.g. specs/digits.yaml, or a --command, or --resume DIR")
    repository = find_repository(Path.cwd())
    if spec is None:
        if configurations:
            raise click.UsageError("--configuration is for a SPEC; a command has none")
        folder = str(repository.relative(Path.cwd()))
        return Request(None, command or "", folder, base, head, (), overrides, budget)
    return Request(str(repository.relative(spec)), "", ".", base, head, configurations, overrides, budget)
