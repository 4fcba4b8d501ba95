"""The command line. `run` reads like the flow in docs/design.md; torch is imported only where it is needed."""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click
from rich.console import Console

from bench import __version__
from bench.errors import BenchError, InputError, closest

if TYPE_CHECKING:
    from bench.records import Record
    from bench.run_directory import RunDirectory

FAILED, INTERRUPTED = 1, 130
WIDTH_WITHOUT_TERMINAL = 100


class Commands(click.Group):
    """The group of commands; for an unknown one it names the known and the closest."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that `args` begin with."""
        known = self.list_commands(ctx)
        if args[0] not in known:
            near = closest(args[0], known)
            hint = f" Did you mean '{near}'?" if near else ""
            ctx.fail(f"unknown command '{args[0]}'; known: {', '.join(known)}.{hint}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=Commands,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "terminal_width": WIDTH_WITHOUT_TERMINAL,
    },
)
@click.version_option(__version__, prog_name="fusetune")
def commands() -> None:
    """Which training configuration reaches the target first on this device, how sure that is, and why.

    time_to_target = steps_to_target x step_time, both measured on the same work.
    """


@commands.command()
@click.argument("spec", required=False, type=click.Path(path_type=Path))
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a value of the spec, e.g. train.base_lr=0.1. May be repeated.",
)
@click.option(
    "--jobs",
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Trials at once. They share the device, so their timings are marked.",
)
@click.option(
    "--resume",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Continue the run in DIR: what is missing is run, nothing twice.",
)
@click.option(
    "--results",
    metavar="DIR",
    default=Path("results"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where new runs are written.",
)
def run(spec: Path | None, overrides: tuple[str, ...], jobs: int, resume: Path | None, results: Path) -> None:
    """Train every configuration of SPEC and compare them.

    Records go to RESULTS/<spec name>/<run id>/ as they come; the report is printed at the end.

    Exit codes: 0 fine, 1 a trial failed, 2 bad input, 130 interrupted.
    """
    from bench.interrupts import terminate_as_interrupt
    from bench.load_spec import load_spec
    from bench.report.live import Progress
    from bench.runner import make_plan, open_directory, run_trials

    spec, overrides = _what_to_run(spec, overrides, resume)
    console = make_console()
    display = Progress(console)
    with terminate_as_interrupt():
        loaded = load_spec(spec, overrides=overrides, device=device_at_hand())
        plan = make_plan(loaded, jobs=jobs, command=["bench", *sys.argv[1:]], announce=display.message)
        with open_directory(plan, results, resume, display.message) as directory:
            try:
                records = run_trials(plan, directory, display)
            except KeyboardInterrupt:
                display.stop()
                _interrupted(directory)
            finally:
                display.stop()
            _print_report(directory, records, console)
    sys.exit(exit_code(records))


@commands.command()
@click.argument("directory", type=click.Path(path_type=Path))
def report(directory: Path) -> None:
    """Print the report of the run in DIRECTORY again (or of the newest run under results/<spec name>)."""
    from bench.run_directory import RunDirectory, find_run

    run_directory = RunDirectory.open(find_run(directory))
    console = make_console()
    records, notes = run_directory.records()
    for note in notes:
        console.print(f"note: {note}", style="yellow", highlight=False)
    _print_report(run_directory, records, console)


@commands.command("list")
def list_names() -> None:
    """Show every name that a spec can use."""
    from bench.report.names import render_names

    render_names(make_console())


@commands.command()
def doctor() -> None:
    """Say what this machine can do and what is missing."""
    from bench.doctor import diagnose, render_checks

    render_checks(diagnose(), make_console())


@commands.command()
def schema() -> None:
    """Print the JSON Schema of a spec, for editors."""
    from bench.schema import schema_text

    click.echo(schema_text(), nl=False)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; every expected error is one sentence on stderr and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # An ASCII terminal shows a question mark for a line of a table, and the report is still there.
            stream.reconfigure(errors="replace")
    try:
        commands.main(
            args=None if arguments is None else list(arguments), prog_name="bench", standalone_mode=False
        )
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BenchError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted; no trial had begun.", err=True)
        sys.exit(INTERRUPTED)
    sys.exit(0)


def make_console() -> Console:
    """Make the console to print to: as wide as the terminal, or 100 columns where there is none."""
    return Console() if sys.stdout.isatty() else Console(width=WIDTH_WITHOUT_TERMINAL)


def device_at_hand() -> str:
    """Return `cuda` where torch finds a CUDA device, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def exit_code(records: Sequence[Record]) -> int:
    """Return 1 when a trial failed; every other status is a finding."""
    return FAILED if any(record.status == "failed" for record in records) else 0


def _what_to_run(
    spec: Path | None, overrides: tuple[str, ...], resume: Path | None
) -> tuple[Path, tuple[str, ...]]:
    """Return spec and overrides; a run that is resumed knows its own."""
    from bench.run_directory import RunDirectory

    if resume is not None:
        earlier = RunDirectory.open(resume).run
        if spec is None:
            spec = Path(earlier["spec_path"])
            overrides = (*earlier["overrides"], *overrides)
            if not spec.exists():
                raise InputError(
                    f"--resume: the run's spec {spec} is not here. Give its path: bench run SPEC --resume DIR"
                )
    if spec is None:
        raise click.UsageError("name a SPEC, e.g. specs/cifar.yaml, or --resume DIR")
    return spec, overrides


def _print_report(directory: RunDirectory, records: Sequence[Record], console: Console) -> None:
    """Summarize and print, each kind of run in its own way."""
    kind = directory.run["kind"]
    if kind == "run":
        from bench.report.terminal import render
        from bench.stats import summarize

        render(summarize(directory.run, records, str(directory.path)), console)
    else:
        raise InputError(
            f"{directory.path}: a run of the kind '{kind}' is newer than this program. Update fusetune"
        )


def _interrupted(directory: RunDirectory) -> NoReturn:
    """Say how to go on, and end."""
    path = shlex.quote(str(directory.path))
    click.echo(
        f"interrupted; finished trials are kept. Continue with: python -m bench run --resume {path}", err=True
    )
    sys.exit(INTERRUPTED)
