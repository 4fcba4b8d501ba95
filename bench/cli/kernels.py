"""`bench kernels`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusetune.bench.cli.console import make_console
from fusetune.bench.cli.exit_codes import FAILED, INTERRUPTED, exit_code
from fusetune.bench.cli.options import device_at_hand, overrides_option, report_to_option, results_option
from fusetune.bench.cli.output_files import STDOUT, check_outputs, write_output
from fusetune.bench.cli.page_file import add_page
from fusetune.bench.cli.report import print_report
from fusetune.bench.errors import InputError
from fusetune.bench.interrupts import ignore_interrupts, terminate_as_interrupt
from fusetune.bench.path_checks import is_file
from fusetune.bench.terminal import say

if TYPE_CHECKING:
    from fusetune.bench.kernels import KernelsStudy, LoadedKernels
    from fusetune.bench.tracking import Destination

_FILE = click.Path(path_type=Path, dir_okay=False, allow_dash=True)


@click.command()
@click.argument("kernel", nargs=-1)
@overrides_option
@click.option(
    "--static",
    "static",
    metavar="TARGETS",
    help="Compile for GPUs that are not here too, e.g. sm_90,gfx942, and forecast what limits the kernels there.",
)
@click.option(
    "--budget",
    metavar="TIME",
    help="The longest that all rows may take together, e.g. 90s. The same as --set budget.total=TIME.",
)
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    type=_FILE,
    help="Write the rows as JSON too; - is standard output.",
)
@click.option(
    "--csv", "csv_file", metavar="FILE", type=_FILE, help="Write them as CSV too; - is standard output."
)
@click.option(
    "--markdown",
    "markdown_file",
    metavar="FILE",
    type=_FILE,
    help="Write them as Markdown too; - is standard output.",
)
@click.option(
    "--record",
    is_flag=True,
    help="Add the run to the history of its spec, a line in RESULTS/history/. See `bench history`.",
)
@report_to_option
@results_option
def kernels(
    kernel: tuple[str, ...],
    overrides: tuple[str, ...],
    static: str | None,
    budget: str | None,
    json_file: Path | None,
    csv_file: Path | None,
    markdown_file: Path | None,
    record: bool,
    report_to: tuple[Destination, ...],
    results: Path,
) -> None:
    """Verify kernels, and time them beside other ways to do the same work.

    Each KERNEL is a spec, the name of one of fusetune's kernels, package.module:KERNEL or FILE.py. Default:
    specs/kernels.yaml. A spec's settings count for the kernels that are named beside it.

    A kernel is built, verified against float64, and timed beside its competitors in turn. What is not right has no
    time. Each row is written to RESULTS/<spec name>/<run id>/ when it is finished.

    Exit codes: 0 every row has a time, 1 a row has none, 2 bad input, 130 interrupted.
    """
    from fusetune.bench.kernels import describe_run, measure_planned, plan_cases, run_rows, static_facts
    from fusetune.bench.report import Progress, banner
    from fusetune.bench.results import RunDirectory
    from fusetune.bench.tracking import Reporting

    outputs = {"--json": json_file, "--csv": csv_file, "--markdown": markdown_file}
    check_outputs(outputs)
    given = [*overrides]
    if static is not None:
        given.append(f"static=[{static}]")
    if budget is not None:
        given.append(f"budget.total={budget}")
    to_stdout = STDOUT in outputs.values()
    console = make_console(stderr=to_stdout)
    display = Progress(console, noun="row")
    with terminate_as_interrupt():
        loaded = _load(kernel, given)
        planned = plan_cases(loaded)
        run = describe_run(loaded, planned, ["bench", *sys.argv[1:]])
        recorder = _recorder(loaded, results) if record else None
        facts = static_facts(planned, loaded.spec.static, display.message)
        with (
            RunDirectory.create(results, loaded.spec.name, run) as directory,
            Reporting(report_to, directory, display.message, live=False),
        ):
            interrupted = False
            try:
                for line in banner(run):
                    display.message(line)
                run_rows(loaded, planned, directory, display, facts, measure_planned)
            except KeyboardInterrupt:
                interrupted = True
                ignore_interrupts()
            finally:
                display.stop()
            records, _ = directory.records()
            if not records:
                directory.remove()
                if interrupted:
                    say("interrupted; no row was finished.", err=True)
                    sys.exit(INTERRUPTED)
            study = print_report(directory, records, console)
            _write(study, outputs)
            if interrupted:
                say(f"interrupted; finished rows are kept in {directory.path}", err=True)
            elif recorder is not None:
                say(f"recorded in {recorder.append(directory.run, records)}", err=True)
            if records:
                add_page(directory, records, study, console)
            if interrupted:
                sys.exit(INTERRUPTED)
    sys.exit(FAILED if len(records) < len(planned) else exit_code(records))


def _load(given: Sequence[str], overrides: Sequence[str]) -> LoadedKernels:
    """Read what is asked for: a spec, names, or names by the settings of a spec.

    Raises:
        InputError: two specs, or none and no names.
    """
    from fusetune.bench.kernels import DEFAULT_SPEC, load_kernels

    specs = [Path(each) for each in given if each.endswith((".yaml", ".yml"))]
    names = [each for each in given if not each.endswith((".yaml", ".yml"))]
    if len(specs) > 1:
        raise InputError(str(specs[1]), "is a second spec", to_do="Give one, and names beside it")
    path = specs[0] if specs else DEFAULT_SPEC if is_file(DEFAULT_SPEC) else None
    if path is None and not names:
        raise InputError(
            DEFAULT_SPEC, "no such file", to_do="Name a spec, a kernel such as gelu, or a FILE.py with one"
        )
    return load_kernels(path, names=names, overrides=overrides, device=device_at_hand())


def _write(study: KernelsStudy, outputs: dict[str, Path | None]) -> None:
    """Write the outputs that were asked for.

    Raises:
        RunDirectoryError: a file cannot be written.
    """
    from fusetune.bench.kernels import as_csv, as_json, as_markdown

    forms = {"--json": as_json, "--csv": as_csv, "--markdown": as_markdown}
    for option, file in outputs.items():
        if file is not None:
            write_output(file, forms[option](study))


def _recorder(loaded: LoadedKernels, results: Path) -> Any:
    """Take down what is measured, before it is.

    Raises:
        InputError: there is no spec, which a history is of.
    """
    from fusetune.bench.history import RunRecorder

    if loaded.path is None:
        raise InputError("--record", "has no spec", "a history is one of a spec", "Write a spec")
    return RunRecorder(loaded.path, results)
