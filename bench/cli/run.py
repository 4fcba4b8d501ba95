"""`bench run`: the flow that docs/design.md draws."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fusetune.bench.cli.console import make_console
from fusetune.bench.cli.exit_codes import FAIL_ON, FAILED, end_interrupted, exit_code, failures
from fusetune.bench.cli.options import (
    device_at_hand,
    overrides_option,
    report_to_option,
    results_option,
    resume_option,
    what_to_run,
)
from fusetune.bench.cli.page_file import add_page
from fusetune.bench.cli.report import print_report
from fusetune.bench.errors import InputError
from fusetune.bench.interrupts import terminate_as_interrupt
from fusetune.bench.kinds import SEARCH, TRAINING
from fusetune.bench.terminal import say
from fusetune.closest_name import closest

if TYPE_CHECKING:
    from fusetune.bench.history import RunRecorder
    from fusetune.bench.results import Record, RunDirectory
    from fusetune.bench.tracking import Destination


def _fail_on(context: click.Context, option: click.Parameter, given: Sequence[str]) -> tuple[str, ...]:
    """Read --fail-on: names separated by commas. The option may be repeated."""
    names = [name.strip() for text in given for name in text.split(",")]
    for name in names:
        if name not in FAIL_ON:
            near = closest(name.replace("_", "-"), FAIL_ON)
            hint = f" Did you mean '{near}'?" if near else ""
            raise click.BadParameter(f"unknown '{name}'; known: {', '.join(FAIL_ON)}.{hint}", context, option)
    return tuple(dict.fromkeys(["failed", *names]))


@click.command()
@click.argument("spec", required=False, type=click.Path(path_type=Path))
@overrides_option
@click.option(
    "--executor",
    metavar="local|ray[=ADDRESS]",
    help="Where trials run: workers of this machine, or the devices of a Ray cluster. Default: the spec's, else local.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    help="Trials at once on this machine. Default: one for each GPU, one on a CPU. More than there are GPUs share "
    "them, so the report marks their timings.",
)
@click.option(
    "--fail-on",
    multiple=True,
    default=("failed",),
    show_default=True,
    metavar="OUTCOMES",
    callback=_fail_on,
    help="Exit with 1 if a trial has one of these outcomes: failed, missed (its training ended before the target), "
    "diverged, out-of-memory. Separate them by commas. A failed trial always counts. Of a search, only the winner's "
    "trainings on fresh seeds count.",
)
@click.option(
    "--record",
    is_flag=True,
    help="Add the run to the history of its spec, a line in RESULTS/history/. See `bench history`.",
)
@click.option(
    "--save-baseline",
    metavar="[DIR]",
    is_flag=False,
    flag_value="results/baselines",
    help="Keep the run as the baseline of this kind of machine in DIR, for bench compare --baseline. "
    "Default DIR: results/baselines. Runs of one clean commit add up.",
)
@report_to_option
@resume_option
@results_option
def run(
    spec: Path | None,
    overrides: tuple[str, ...],
    executor: str | None,
    jobs: int | None,
    fail_on: tuple[str, ...],
    record: bool,
    save_baseline: str | None,
    report_to: tuple[Destination, ...],
    resume: Path | None,
    results: Path,
) -> None:
    """Train every configuration of SPEC and compare them.

    Each record is written to RESULTS/<spec name>/<run id>/ when its trial ends. The report is printed at the end.

    Exit codes: 0 success, 1 a trial failed (or has an outcome that --fail-on names) or a search found nothing, 2 bad
    input, 130 interrupted.
    """
    from fusetune.bench.cli.executor import plan_run
    from fusetune.bench.report import Progress, banner
    from fusetune.bench.run import open_directory, run_trials
    from fusetune.bench.spec import SearchDesign, load_spec
    from fusetune.bench.tracking import Reporting

    if spec is None and save_baseline is not None and save_baseline.endswith((".yaml", ".yml")):
        raise click.UsageError(
            f"write SPEC before --save-baseline: bench run {save_baseline} --save-baseline"
        )
    spec, overrides = what_to_run(spec, overrides, resume)
    console = make_console()
    display = Progress(console)
    with terminate_as_interrupt(), ExitStack() as stack:
        load = partial(load_spec, spec, overrides=overrides)
        loaded = load(device=device_at_hand())
        searches = isinstance(loaded.spec.design, SearchDesign)
        if searches and record:
            raise InputError(
                "--record",
                "a search trains other configurations each time",
                "a history compares runs",
                "Record a spec that names its configurations.",
            )
        kind, command = SEARCH if searches else TRAINING, ["bench", *sys.argv[1:]]
        loaded, plan, make_workers = plan_run(
            load, loaded, executor, jobs, stack, command=command, announce=display.message, kind=kind
        )
        recorder = _recorder(spec, results) if record else None
        with (
            open_directory(plan, results, resume, display.message) as directory,
            Reporting(report_to, directory, display.message),
        ):
            try:
                for line in banner(plan.run):
                    display.message(line)
                workers = make_workers(plan, directory, display)
                if searches:
                    from fusetune.bench.search import run_search

                    records = run_search(loaded.spec, plan, directory, display, workers)
                else:
                    records = run_trials(plan, directory, display, workers)
                display.stop()
                study = print_report(directory, records, console)
            except KeyboardInterrupt:
                end_interrupted(directory, display)
            finally:
                display.stop()
            if recorder is not None:
                say(f"recorded in {recorder.append(directory.run, directory.records()[0])}", err=True)
            if save_baseline is not None:
                _save_baseline(
                    Path(save_baseline),
                    directory,
                    directory.records()[0],
                    nothing=searches and study.winner is None,
                )
            add_page(directory, records, study, console)
    nothing = searches and study.winner is None
    for name, count in failures(records, fail_on, directory.run).items():
        say(f"exit 1 by --fail-on: {count} trial{'' if count == 1 else 's'} {name}", err=True)
    lost = 0 if searches else len(plan.trials) - len(records)
    if lost:
        from fusetune.bench.stats import counted

        say(
            f"exit 1: {counted(lost, 'trial')} without a record, because devices were lost too often. "
            f"Continue with: {directory.resume_command}",
            err=True,
        )
    sys.exit(FAILED if nothing or lost else exit_code(records, fail_on, directory.run))


def _recorder(spec: Path, results: Path) -> RunRecorder:
    """Take down what is measured, before it is."""
    from fusetune.bench.history import RunRecorder

    return RunRecorder(spec, results)


def _save_baseline(
    folder: Path, directory: RunDirectory, records: Sequence[Record], *, nothing: bool
) -> None:
    """Keep the run as a baseline, and say where. One with failed trials is none."""
    if nothing or not records or any(record.status == "failed" for record in records):
        why = "a trial failed" if records and not nothing else "nothing was found"
        say(f"no baseline was saved, because {why}", err=True)
        return
    from fusetune.bench.compare import save_baseline, stored_run

    path, processes = save_baseline(folder, stored_run(directory, records))
    say(f"baseline: {path}, {processes} process{'' if processes == 1 else 'es'}")
    if directory.run.dirty is not False or directory.run.commit is None:
        say("note: the commit does not name what ran, so the next run replaces this baseline", err=True)
