"""`bench lr-range`."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusetune.bench.cli.console import make_console
from fusetune.bench.cli.exit_codes import end_interrupted, exit_code
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
from fusetune.bench.kinds import LR_RANGE

if TYPE_CHECKING:
    from fusetune.bench.tracking import Destination


@click.command("lr-range")
@click.argument("spec", required=False, type=click.Path(path_type=Path))
@overrides_option
@click.option(
    "--min",
    "lr_min",
    default=1e-7,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Lowest learning rate.",
)
@click.option(
    "--max",
    "lr_max",
    default=10.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Highest learning rate.",
)
@click.option(
    "--steps",
    default=100,
    show_default=True,
    type=click.IntRange(10, 10_000),
    help="Learning rates in a sweep.",
)
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1, 100), help="Sweeps.")
@click.option(
    "--mode",
    default="exponential",
    show_default=True,
    type=click.Choice(["exponential", "linear"]),
    help="Spacing of the learning rates.",
)
@click.option(
    "--validation",
    is_flag=True,
    help="Use the validation loss after each step in place of the training loss.",
)
@click.option(
    "--confirm/--no-confirm",
    default=True,
    show_default=True,
    help="Train for about an epoch at the suggestion and at lower rates, and keep the best. Higher rates are tried "
    "where the sweep leaves them open.",
)
@click.option("--all-seeds", is_flag=True, help="Every seed of the spec, not only the first.")
@report_to_option
@resume_option
@results_option
def lr_range(
    spec: Path | None,
    overrides: tuple[str, ...],
    all_seeds: bool,
    report_to: tuple[Destination, ...],
    resume: Path | None,
    results: Path,
    **options: Any,
) -> None:
    """Find a learning rate for every configuration of SPEC, by LR range tests.

    Each test raises the learning rate until the loss diverges. It suggests one rate with its interval, and the bounds
    of a cycle. Over several batch sizes, the exponent of the rate's growth is fitted. Curves are drawn as PNG and SVG
    in the run's directory.

    Exit codes: 0 success (even where a test cannot suggest a rate), 1 a test failed, 2 bad input, 130 interrupted.
    """
    from fusetune.bench.learning_rate import with_swept_factors
    from fusetune.bench.report import Progress, banner
    from fusetune.bench.results import RangeTestOptions, RunDirectory
    from fusetune.bench.run import make_plan, open_directory, run_trials
    from fusetune.bench.spec import load_spec
    from fusetune.bench.tracking import Reporting

    if resume is not None:
        earlier = RunDirectory.open(resume).run.options
        all_seeds = bool(earlier.get("all_seeds"))
        options = {key: earlier.get(key, value) for key, value in options.items()}
    asked = RangeTestOptions.from_dict(options)
    for option, rate in (("--min", asked.lr_min), ("--max", asked.lr_max)):
        if not math.isfinite(rate):
            raise InputError(option, f"{rate:g} must be finite", to_do="Give a rate above 0")
    if asked.lr_min >= asked.lr_max:
        raise InputError("--min", f"{asked.lr_min:g} must be below --max, {asked.lr_max:g}")
    spec, overrides = what_to_run(spec, overrides, resume)
    console = make_console()
    display = Progress(console)
    with terminate_as_interrupt():
        loaded = load_spec(spec, overrides=overrides, device=device_at_hand())
        loaded, notes = with_swept_factors(loaded, all_seeds=all_seeds)
        plan = make_plan(
            loaded,
            jobs=1,
            command=["bench", *sys.argv[1:]],
            announce=display.message,
            kind=LR_RANGE,
            options={**options, "all_seeds": all_seeds},
        )
        for note in notes:
            display.message(f"note: {note}")
        with (
            open_directory(plan, results, resume, display.message) as directory,
            Reporting(report_to, directory, display.message),
        ):
            try:
                for line in banner(plan.run):
                    display.message(line)
                records = run_trials(plan, directory, display)
                display.stop()
                study = print_report(directory, records, console)
                add_page(directory, records, study, console)
            except KeyboardInterrupt:
                end_interrupted(directory, display)
            finally:
                display.stop()
    sys.exit(exit_code(records))
