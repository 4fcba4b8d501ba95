"""The command line. `run` reads like the flow in docs/design.md; torch is imported only where it is needed."""

from __future__ import annotations

import io
import json
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from fusetune import __version__
from fusetune.bench.errors import BenchError, InputError
from fusetune.bench.interrupts import handlers_restored, ignore_interrupts
from fusetune.bench.invocation import invocation
from fusetune.bench.path_checks import is_file
from fusetune.bench.terminal import SafeConsole, StandardStreams, say
from fusetune.closest_name import closest

if TYPE_CHECKING:
    from fusetune.bench.report import Progress
    from fusetune.bench.results import Record, RunDirectory

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
WIDTH_WITHOUT_TERMINAL = 100
_MOST_DIGITS = 10


# What `--fail-on` can name, by the statuses that each means. A failed trial is always a failure.
FAIL_ON = {
    "failed": ("failed",),
    "missed": ("missed_target", "stopped_early"),
    "diverged": ("diverged",),
    "out-of-memory": ("out_of_memory",),
}


def _fail_on(context: click.Context, option: click.Parameter, given: Sequence[str]) -> tuple[str, ...]:
    """Read --fail-on: names with commas between them, as often as one likes."""
    names = [name.strip() for text in given for name in text.split(",")]
    for name in names:
        if name not in FAIL_ON:
            near = closest(name.replace("_", "-"), FAIL_ON)
            hint = f" Did you mean '{near}'?" if near else ""
            raise click.BadParameter(f"unknown '{name}'; known: {', '.join(FAIL_ON)}.{hint}", context, option)
    return tuple(dict.fromkeys(["failed", *names]))


# Options that several commands have.
_overrides = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a value of the spec, e.g. train.base_lr=0.1, or empty a part of it, e.g. factors={}. "
    "May be repeated.",
)
_resume = click.option(
    "--resume",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Continue the run in DIR, with its options: what is missing is run, nothing twice.",
)
_results = click.option(
    "--results",
    metavar="DIR",
    default=Path("results"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where new runs are written.",
)


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
@_overrides
@click.option(
    "--jobs",
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Trials at once. They share the device, so their timings are marked.",
)
@click.option(
    "--fail-on",
    multiple=True,
    default=("failed",),
    show_default=True,
    metavar="OUTCOMES",
    callback=_fail_on,
    help="Exit with 1 where a trial has one of these outcomes: failed, missed (its training ended without the "
    "target), diverged, out-of-memory. Commas between them. A failed trial always counts; of a search, the winner's "
    "trainings on fresh seeds count.",
)
@_resume
@_results
def run(
    spec: Path | None,
    overrides: tuple[str, ...],
    jobs: int,
    fail_on: tuple[str, ...],
    resume: Path | None,
    results: Path,
) -> None:
    """Train every configuration of SPEC and compare them.

    Records go to RESULTS/<spec name>/<run id>/ as they come; the report is printed at the end.

    Exit codes: 0 fine, 1 a trial failed (or what --fail-on names) or a search found nothing, 2 bad input, 130
    interrupted.
    """
    from fusetune.bench.interrupts import terminate_as_interrupt
    from fusetune.bench.report import Progress
    from fusetune.bench.run import TRAINING, make_plan, open_directory, run_trials
    from fusetune.bench.search import SEARCH, found_nothing, run_search
    from fusetune.bench.spec import SearchDesign, load_spec

    spec, overrides = _what_to_run(spec, overrides, resume)
    console = make_console()
    display = Progress(console)
    with terminate_as_interrupt():
        loaded = load_spec(spec, overrides=overrides, device=device_at_hand())
        searches = isinstance(loaded.spec.design, SearchDesign)
        kind, command = SEARCH if searches else TRAINING, ["bench", *sys.argv[1:]]
        plan = make_plan(loaded, jobs=jobs, command=command, announce=display.message, kind=kind)
        with open_directory(plan, results, resume, display.message) as directory:
            try:
                if searches:
                    records = run_search(loaded.spec, plan, directory, display)
                else:
                    records = run_trials(plan, directory, display)
                display.stop()
                _print_report(directory, records, console)
            except KeyboardInterrupt:
                _interrupted(directory, display)
            finally:
                display.stop()
            nothing = searches and found_nothing(loaded.spec.resolved(), directory.path)
    for name, count in failures(records, fail_on, directory.run).items():
        say(f"exit 1 by --fail-on: {count} trial{'' if count == 1 else 's'} {name}", err=True)
    sys.exit(FAILED if nothing else exit_code(records, fail_on, directory.run))


@commands.command("batch-size")
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--memory", metavar="BYTES", help="The limit, e.g. 8GiB. Default: the spec's limits.memory.")
@click.option("--device", metavar="NAME", help="Predict for a device that is not there, e.g. a100-40.")
@click.option("--max", "max_batch", type=click.IntRange(min=1), help="The largest batch that makes sense.")
@click.option(
    "--grid", is_flag=True, help="Every configuration of the spec's other factors, not `train` alone."
)
@click.option("--memory-only", is_flag=True, help="Leave out throughput and noise scale.")
@click.option(
    "--noise-epochs",
    default="0,1,4",
    show_default=True,
    metavar="EPOCHS",
    help="When to measure the noise scale, 0 being before training.",
)
@click.option(
    "--runs",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Trainings that say how steps to the target depend on the batch size. Default: the newest run of SPEC "
    "that varied it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else on stdout.")
@_overrides
@_results
def batch_size(
    spec: Path,
    memory: str | None,
    device: str | None,
    max_batch: int | None,
    grid: bool,
    memory_only: bool,
    noise_epochs: str,
    runs: Path | None,
    as_json: bool,
    overrides: tuple[str, ...],
    results: Path,
) -> None:
    """Find the largest batch of SPEC's training that fits into a byte limit, and recommend one to train with.

    The largest is predicted from traces, then run under the limit in fresh processes, at most four sizes; what is
    printed has been run in full. Then samples/s are measured at all sizes up to it, and the noise of the gradient along
    a short training. The recommendation says which limit binds: memory, throughput or noise.

    Exit codes: 0 fine, 1 a run failed, 2 bad input, or no batch fits, 130 interrupted.
    """
    from fusetune.bench.batch_size import (
        BATCH_SIZE,
        accelerator,
        find_rate_run,
        find_target_run,
        measure_batch_sizes,
        search_batch_sizes,
        study_as_dict,
        study_batch_sizes,
        study_measurements,
        with_limits,
    )
    from fusetune.bench.interrupts import terminate_as_interrupt
    from fusetune.bench.report import draw_batch_size
    from fusetune.bench.results import Pictures
    from fusetune.bench.run import make_plan, open_directory
    from fusetune.bench.spec import load_spec

    if device is not None:
        accelerator(device)
    limit_bytes = _limit_bytes(memory)
    epochs = _epochs(noise_epochs)
    news = make_console(stderr=as_json)

    def announce(text: str) -> None:
        news.print(text, highlight=False)

    with terminate_as_interrupt():
        # A device that is not there is a CUDA one, so the spec's profile for CUDA counts.
        loaded = load_spec(spec, overrides=overrides, device="cuda" if device else device_at_hand())
        asked = loaded.spec.resolved()
        options = {
            "device": device,
            "max_batch": max_batch,
            "noise_epochs": epochs,
            "train_batch_size": loaded.spec.train.batch_size,
        }
        loaded = with_limits(loaded, limit_bytes, grid=grid, device=device)
        options["memory_bytes"] = loaded.spec.limits.memory
        options["memory_source"] = "the spec" if limit_bytes is None else "--memory"
        command = ["bench", *sys.argv[1:]]
        plan = make_plan(loaded, jobs=1, command=command, announce=announce, kind=BATCH_SIZE, options=options)
        target_run = find_target_run(results, asked, runs, plan.run["fingerprint"])
        rate_run = find_rate_run(results, asked, plan.run["fingerprint"])
        with open_directory(plan, results, None, announce) as directory:
            for line in plan.banner:
                announce(line)
            try:
                records = search_batch_sizes(plan, directory, announce)
                study = study_batch_sizes(directory.run, records, str(directory.path))
                if not memory_only:
                    records += measure_batch_sizes(plan, directory, study, announce, target_run, rate_run)
            except KeyboardInterrupt:
                _batch_size_interrupted(directory)
            if as_json:
                measurements = study_measurements(study, records)
                pictures = Pictures(directory.path, drawing=True)
                draw_batch_size(study, measurements, pictures)
                if pictures.note:
                    announce(f"note: {pictures.note}")
                content = study_as_dict(study, measurements)
                say(json.dumps(content, allow_nan=False))
            else:
                _print_report(directory, records, make_console())
    nothing_fits = not any(configuration.batch_size for configuration in study.configurations)
    sys.exit(exit_code(records) or (BAD_INPUT if nothing_fits else 0))


@commands.command("lr-range")
@click.argument("spec", required=False, type=click.Path(path_type=Path))
@_overrides
@click.option(
    "--min",
    "lr_min",
    default=1e-7,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="First rate.",
)
@click.option(
    "--max",
    "lr_max",
    default=10.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Last rate.",
)
@click.option(
    "--steps", default=100, show_default=True, type=click.IntRange(10, 10_000), help="Rates in a sweep."
)
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1, 100), help="Sweeps.")
@click.option(
    "--mode",
    default="exponential",
    show_default=True,
    type=click.Choice(["exponential", "linear"]),
    help="Distances between the rates.",
)
@click.option(
    "--validation", is_flag=True, help="Judge the validation loss after each step, not the training loss."
)
@click.option(
    "--confirm/--no-confirm",
    default=True,
    show_default=True,
    help="Train about an epoch at the suggestion, at lower rates and, where the sweep says too little, at higher ones, "
    "and keep the best.",
)
@click.option("--all-seeds", is_flag=True, help="Every seed of the spec, not the first alone.")
@_resume
@_results
def lr_range(
    spec: Path | None,
    overrides: tuple[str, ...],
    all_seeds: bool,
    resume: Path | None,
    results: Path,
    **options: Any,
) -> None:
    """Find a learning rate for every configuration of SPEC, by LR range tests.

    Each test sweeps the rate up until the loss diverges and suggests one rate with its interval, and the bounds of a
    cycle. Over several batch sizes, the exponent is fitted by which the rate grows. Curves are drawn into the run's
    directory as PNG and SVG.

    Exit codes: 0 fine (a test may find that it cannot tell), 1 a test failed, 2 bad input, 130 interrupted.
    """
    from fusetune.bench.interrupts import terminate_as_interrupt
    from fusetune.bench.learning_rate import LR_RANGE, with_swept_factors
    from fusetune.bench.report import Progress
    from fusetune.bench.results import RunDirectory
    from fusetune.bench.run import make_plan, open_directory, run_trials
    from fusetune.bench.spec import load_spec

    if resume is not None:
        earlier = RunDirectory.open(resume).run["options"]
        all_seeds = bool(earlier.get("all_seeds"))
        options = {key: earlier.get(key, value) for key, value in options.items()}
    for name in ("lr_min", "lr_max"):
        if not math.isfinite(options[name]):
            option = name.removeprefix("lr_")
            raise InputError(f"--{option}", f"{options[name]:g} must be finite", to_do="Give a rate above 0")
    if options["lr_min"] >= options["lr_max"]:
        raise InputError("--min", f"{options['lr_min']:g} must be below --max, {options['lr_max']:g}")
    spec, overrides = _what_to_run(spec, overrides, resume)
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
        with open_directory(plan, results, resume, display.message) as directory:
            try:
                records = run_trials(plan, directory, display)
                display.stop()
                _print_report(directory, records, console)
            except KeyboardInterrupt:
                _interrupted(directory, display)
            finally:
                display.stop()
    sys.exit(exit_code(records))


@commands.command()
@click.argument("directory", type=click.Path(path_type=Path))
def report(directory: Path) -> None:
    """Print the report of the run in DIRECTORY again (or of the newest run under results/<spec name>)."""
    from fusetune.bench.results import RunDirectory, find_run

    run_directory = RunDirectory.open(find_run(directory))
    console = make_console()
    records, notes = run_directory.records()
    for note in notes:
        console.print(f"note: {note}", style="yellow", highlight=False)
    _print_report(run_directory, records, console)


@commands.command("list")
def list_names() -> None:
    """Show every name that a spec can use."""
    from fusetune.bench.report import render_names

    render_names(make_console())


@commands.command()
def doctor() -> None:
    """Say what this machine can do and what is missing."""
    from fusetune.bench.doctor import diagnose, render_checks

    render_checks(diagnose(), make_console())


@commands.command()
def schema() -> None:
    """Print the JSON Schema of a spec, for editors."""
    from fusetune.bench.spec import schema_text

    say(schema_text(), newline=False)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line. Every expected error is one sentence on stderr and an exit code.

    Output that cannot be written ends nothing. It makes the exit code 1 where that would be 0.
    """
    code: Any = 0
    # A program that was interrupted passes over further signals until it is gone; a caller of this function does not.
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
    """Run a command and exit."""
    try:
        commands.main(
            args=None if arguments is None else list(arguments), prog_name="bench", standalone_mode=False
        )
    except click.ClickException as error:
        shown = _Unchanged()
        error.show(shown)
        say(shown.getvalue(), err=True, newline=False)
        sys.exit(error.exit_code)
    except BenchError as error:
        say(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        ignore_interrupts()
        say("interrupted.", err=True)
        sys.exit(INTERRUPTED)
    sys.exit(0)


class _Unchanged(io.StringIO):
    """Takes a message of click's as it is: where no terminal is, click takes out some of what a terminal obeys."""

    def isatty(self) -> bool:
        """Claim to be a terminal."""
        return True


def make_console(*, stderr: bool = False) -> SafeConsole:
    """Make the console to print to: as wide as the terminal, or 100 columns where there is none."""
    if (sys.stderr if stderr else sys.stdout).isatty():
        return SafeConsole(stderr=stderr)
    return SafeConsole(stderr=stderr, width=WIDTH_WITHOUT_TERMINAL)


def device_at_hand() -> str:
    """Return `cuda` where torch finds a CUDA device, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def exit_code(
    records: Sequence[Record], fail_on: Sequence[str] = ("failed",), run: Mapping[str, Any] | None = None
) -> int:
    """Return 1 when a trial failed, or has an outcome that is asked for. Every other status is a finding."""
    failed = any(record.status == "failed" for record in records)
    return FAILED if failed or failures(records, fail_on, run or {}) else 0


def failures(records: Sequence[Record], fail_on: Sequence[str], run: Mapping[str, Any]) -> dict[str, int]:
    """Count the trials with an outcome of `FAIL_ON` that is asked for, failed ones apart."""
    if run.get("kind") == "search":
        from fusetune.bench.search import plan_of

        # Trainings that a search ends early are how it searches.
        fresh = plan_of(run["spec"]).fresh_seeds
        records = [record for record in records if record.seed in fresh]
    counts = {
        name: sum(record.status in FAIL_ON[name] for record in records)
        for name in fail_on
        if name != "failed"
    }
    return {name: count for name, count in counts.items() if count}


def _epochs(text: str) -> list[int]:
    """Read --noise-epochs."""
    parts = text.replace(" ", "").split(",")
    if not all(part.isdecimal() and len(part) < _MOST_DIGITS for part in parts):
        raise InputError(
            "--noise-epochs", f"'{text}' is no list of whole numbers", to_do="Write it like 0,1,4"
        )
    return sorted({int(part) for part in parts})


def _limit_bytes(text: str | None) -> int | None:
    """Read --memory."""
    from fusetune.bench.units import parse_bytes

    try:
        return None if text is None else parse_bytes(text)
    except ValueError as error:
        raise InputError("--memory", str(error)) from None


def _what_to_run(
    spec: Path | None, overrides: tuple[str, ...], resume: Path | None
) -> tuple[Path, tuple[str, ...]]:
    """Return spec and overrides; a run that is resumed knows its own."""
    from fusetune.bench.results import RunDirectory

    if resume is not None:
        earlier = RunDirectory.open(resume).run
        if spec is None:
            spec = Path(earlier["spec_path"])
            overrides = (*earlier["overrides"], *overrides)
            if not is_file(spec):
                raise InputError(
                    "--resume",
                    f"the run's spec {spec} is not here",
                    to_do="Give its path: bench run SPEC --resume DIR",
                )
    if spec is None:
        raise click.UsageError("name a SPEC, e.g. specs/cifar.yaml, or --resume DIR")
    return spec, overrides


def _print_report(directory: RunDirectory, records: Sequence[Record], console: SafeConsole) -> None:
    """Summarize and print, each kind of run in its own way. Pictures are drawn by the command that runs alone."""
    from fusetune.bench.results import Pictures, as_written, check_records, check_reportable

    check_reportable(directory.run, directory.path)
    check_records(directory.run, records, directory.path)
    kind = directory.run["kind"]
    pictures = Pictures(directory.path, drawing=directory.is_for_appending)
    if kind == "run":
        from fusetune.bench.report import render_run
        from fusetune.bench.stats import summarize

        render_run(summarize(directory.run, records, str(directory.path)), console)
    elif kind == "batch-size":
        from fusetune.bench.batch_size import study_batch_sizes, study_measurements
        from fusetune.bench.report import draw_batch_size, render_batch_size

        with as_written(directory.path, by_this_process=directory.is_for_appending):
            study = study_batch_sizes(directory.run, records, str(directory.path))
            measurements = study_measurements(study, records)
        draw_batch_size(study, measurements, pictures)
        render_batch_size(study, measurements, console, pictures)
    elif kind == "search":
        from fusetune.bench.report import render_search
        from fusetune.bench.search import study_search

        render_search(study_search(directory.run, records, directory.path, pictures), console)
    elif kind == "lr-range":
        from fusetune.bench.learning_rate import study_learning_rates
        from fusetune.bench.report import draw_lr_range, render_lr_range, render_pictures

        found = study_learning_rates(directory.run, records, str(directory.path))
        render_lr_range(found, console)
        draw_lr_range(found.tested, pictures)
        render_pictures(pictures, console)
    else:
        raise InputError(
            directory.path, f"a run of the kind '{kind}' is newer than this program", to_do="Update fusetune"
        )


def _batch_size_interrupted(directory: RunDirectory) -> NoReturn:
    """Say what is known of the batch sizes by now and where it lies, and end."""
    from fusetune.bench.batch_size import study_batch_sizes
    from fusetune.bench.report import known_so_far

    ignore_interrupts()
    records, _ = directory.records()
    if not records:
        directory.remove()
        say("interrupted; no batch size had been run.", err=True)
        sys.exit(INTERRUPTED)
    path = shlex.quote(str(directory.path))
    known = known_so_far(study_batch_sizes(directory.run, records, str(directory.path)))
    say(f"interrupted; {known}. What was run is in {path}", err=True)
    say(f"See it with: {invocation()} report {path}", err=True)
    sys.exit(INTERRUPTED)


def _interrupted(directory: RunDirectory, display: Progress) -> NoReturn:
    """Say how to go on, and end."""
    ignore_interrupts()
    display.stop()
    say(f"interrupted; finished trials are kept. Continue with: {directory.resume_command}", err=True)
    sys.exit(INTERRUPTED)
