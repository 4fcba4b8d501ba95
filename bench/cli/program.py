"""The program `bench`: its commands, and the handling of errors, interrupts and failed output.

Each command is a file of its own. torch is imported only by commands that need it.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NoReturn

import click

from fusetune import __version__
from fusetune.bench.cli.autotune import autotune
from fusetune.bench.cli.batch_size import batch_size
from fusetune.bench.cli.compare import compare
from fusetune.bench.cli.console import WIDTH_WITHOUT_TERMINAL
from fusetune.bench.cli.doctor import doctor
from fusetune.bench.cli.exit_codes import BAD_INPUT, FAILED, INTERRUPTED
from fusetune.bench.cli.gate import gate
from fusetune.bench.cli.history import history
from fusetune.bench.cli.init import init
from fusetune.bench.cli.kernels import kernels
from fusetune.bench.cli.list import list_names
from fusetune.bench.cli.lr_range import lr_range
from fusetune.bench.cli.report import report
from fusetune.bench.cli.run import run
from fusetune.bench.cli.schema import schema
from fusetune.bench.cli.status import status
from fusetune.bench.errors import BenchError
from fusetune.bench.interrupts import handlers_restored, ignore_interrupts
from fusetune.bench.terminal import StandardStreams, say
from fusetune.closest_name import closest
from fusetune.errors import FusetuneError


class Commands(click.Group):
    """The group of commands. An unknown name is an error that lists the known ones and the closest."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the first argument names."""
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
    """Find the training configuration that reaches the target first on this device, how certain that is, and why.

    time_to_target = steps_to_target x step_time, both measured on the same work.
    """


for _command in (
    run,
    batch_size,
    lr_range,
    autotune,
    kernels,
    gate,
    compare,
    history,
    init,
    report,
    status,
    list_names,
    doctor,
    schema,
):
    commands.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit. Every expected error is one sentence on stderr and an exit code.

    Standard output that cannot be written stops no run. An exit code of 0 then becomes 1.

    Args:
        arguments: as on the command line, without the program's name. None: those of this process.
    """
    code: Any = 0
    # A program that was interrupted ignores further signals until it has exited. A caller of this function must not.
    lent = handlers_restored() if arguments is not None else nullcontext()
    with lent, StandardStreams() as streams:
        try:
            _run(arguments)
        except SystemExit as end:
            code = end.code
        failure = streams.output_failure()
        if failure is not None:
            say(
                f"error: standard output: cannot be written; {failure}. What was printed is not complete, "
                "what was recorded is",
                err=True,
            )
            code = code or FAILED
    sys.exit(code)


def _run(arguments: Sequence[str] | None) -> NoReturn:
    try:
        commands.main(
            args=None if arguments is None else list(arguments), prog_name="bench", standalone_mode=False
        )
    except click.ClickException as error:
        shown = _Unchanged()
        error.show(shown)
        say(shown.getvalue(), err=True, newline=False)
        sys.exit(error.exit_code)
    except FusetuneError as error:  # one of the library's is about a value or a state that a person gave
        say(f"error: {error}", err=True)
        sys.exit(error.exit_code if isinstance(error, BenchError) else BAD_INPUT)
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        needs = "needs Triton, which is not installed; it is published for Linux. Run pip install triton"
        say(f"error: this command {needs}", err=True)
        sys.exit(BAD_INPUT)
    except (KeyboardInterrupt, click.Abort):
        ignore_interrupts()
        say("interrupted.", err=True)
        sys.exit(INTERRUPTED)
    sys.exit(0)


class _Unchanged(io.StringIO):
    """Takes a message of click's unchanged. Without a terminal, click would strip some control characters itself."""

    def isatty(self) -> bool:
        return True
