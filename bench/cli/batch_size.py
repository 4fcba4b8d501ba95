"""`bench batch-size`."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from fusetune.bench.cli.console import make_console
from fusetune.bench.cli.exit_codes import BAD_INPUT, INTERRUPTED, exit_code
from fusetune.bench.cli.options import device_at_hand, overrides_option, report_to_option, results_option
from fusetune.bench.cli.page_file import add_page, add_page_so_far
from fusetune.bench.cli.report import print_report
from fusetune.bench.errors import InputError
from fusetune.bench.interrupts import ignore_interrupts, terminate_as_interrupt
from fusetune.bench.kinds import BATCH_SIZE
from fusetune.bench.terminal import invocation, say

if TYPE_CHECKING:
    from fusetune.bench.results import Record, RunDirectory
    from fusetune.bench.tracking import Destination

_MOST_DIGITS = 10


@click.command("batch-size")
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--memory", metavar="BYTES", help="The limit, e.g. 8GiB. Default: the spec's limits.memory.")
@click.option(
    "--device",
    metavar="NAME",
    help="Predict for an accelerator that this machine does not have, e.g. a100-40.",
)
@click.option(
    "--devices",
    metavar="NUMBERS",
    help="Numbers of devices that may share a batch, e.g. 1,2,8. None need be there, and the limit is that of each. "
    "Default: 1 and the spec's train.devices.",
)
@click.option("--predict", is_flag=True, help="Predict memory, and run nothing.")
@click.option("--max", "max_batch", type=click.IntRange(min=1), help="The largest batch size to consider.")
@click.option(
    "--grid", is_flag=True, help="Every configuration of the spec's other factors, not only `train`."
)
@click.option("--memory-only", is_flag=True, help="Measure neither throughput nor noise scale.")
@click.option(
    "--noise-epochs",
    default="0,1,4",
    show_default=True,
    metavar="EPOCHS",
    help="Epochs after which the noise scale is measured. 0 is before training.",
)
@click.option(
    "--runs",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="A run whose trainings show how the steps to the target depend on the batch size. Default: the newest run "
    "of SPEC that varied it.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on stdout, and nothing else there."
)
@overrides_option
@report_to_option
@results_option
def batch_size(
    spec: Path,
    memory: str | None,
    device: str | None,
    devices: str | None,
    predict: bool,
    max_batch: int | None,
    grid: bool,
    memory_only: bool,
    noise_epochs: str,
    runs: Path | None,
    as_json: bool,
    overrides: tuple[str, ...],
    report_to: tuple[Destination, ...],
    results: Path,
) -> None:
    """Find the largest batch of SPEC's training that fits into a byte limit, and recommend one to train with.

    The largest batch is predicted from traces. At most four sizes are then run under the limit, each in a fresh
    process, and the size that is printed has been run in full. Throughput is measured at all sizes up to it, and the
    gradient noise scale along a short training. The recommendation names the limit that binds: memory, throughput or
    noise. With several devices it also names how many to take, and the batch that they share.

    Exit codes: 0 success, 1 a run failed, 2 bad input or no batch fits, 130 interrupted.
    """
    from fusetune.bench.batch_size import (
        accelerator,
        devices_to_consider,
        find_rate_run,
        find_target_run,
        measure_batch_sizes,
        search_batch_sizes,
        search_on_devices,
        study_batch_sizes,
        with_limits,
    )
    from fusetune.bench.report import banner
    from fusetune.bench.results import WrittenSpec
    from fusetune.bench.run import make_plan, open_directory
    from fusetune.bench.spec import load_spec
    from fusetune.bench.tracking import Reporting

    if device is not None:
        accelerator(device)
    limit_bytes = _limit_bytes(memory)
    epochs = _whole_numbers("--noise-epochs", noise_epochs, "0,1,4")
    asked_devices = _numbers_of_devices(devices)
    news = make_console(stderr=as_json)

    def announce(text: str) -> None:
        news.print(text, highlight=False)

    with terminate_as_interrupt():
        # Every accelerator that can be predicted is a CUDA device, so the spec's profile for CUDA applies.
        loaded = load_spec(spec, overrides=overrides, device="cuda" if device else device_at_hand())
        asked = WrittenSpec(loaded.spec.resolved())
        options = {
            "device": device,
            "max_batch": max_batch,
            "noise_epochs": epochs,
            "train_batch_size": loaded.spec.train.batch_size,
            "devices": devices_to_consider(loaded.spec, asked_devices),
            "parallel": loaded.spec.train.parallel,
            "predict": predict,
        }
        loaded = with_limits(loaded, limit_bytes, grid=grid, device=device)
        options["memory_bytes"] = loaded.spec.limits.memory
        options["memory_source"] = "the spec" if limit_bytes is None else "--memory"
        command = ["bench", *sys.argv[1:]]
        plan = make_plan(loaded, jobs=1, command=command, announce=announce, kind=BATCH_SIZE, options=options)
        target_run = find_target_run(results, asked, runs, plan.run.fingerprint)
        rate_run = find_rate_run(results, asked, plan.run.fingerprint)
        with (
            open_directory(plan, results, None, announce) as directory,
            Reporting(report_to, directory, announce, live=False),
        ):
            for line in banner(plan.run):
                announce(line)
            try:
                records = search_batch_sizes(plan, directory, announce)
                study = study_batch_sizes(directory.run, records, str(directory.path))
                if not (memory_only or predict):
                    records += measure_batch_sizes(plan, directory, study, announce, target_run, rate_run)
                if not study.predicted_only:
                    records += search_on_devices(plan, directory, study, announce, timed=not memory_only)
            except KeyboardInterrupt:
                _interrupted(directory)
            found = (
                _print_json(directory, records, announce)
                if as_json
                else print_report(directory, records, news)
            )
            add_page(directory, records, found, news)
    sys.exit(exit_code(records) or (0 if found.anything_fits else BAD_INPUT))


def _whole_numbers(option: str, text: str, example: str) -> list[int]:
    parts = text.replace(" ", "").split(",")
    if not all(part.isdecimal() and len(part) < _MOST_DIGITS for part in parts):
        raise InputError(option, f"'{text}' is no list of whole numbers", to_do=f"Write it like {example}")
    return sorted({int(part) for part in parts})


def _numbers_of_devices(text: str | None) -> list[int]:
    """Return the numbers of devices that were asked for. Empty: none were."""
    from fusetune.bench.spec import MOST_DEVICES

    numbers = _whole_numbers("--devices", text, "1,2,8") if text is not None else []
    if numbers and not 1 <= numbers[0] <= numbers[-1] <= MOST_DEVICES:
        raise InputError("--devices", f"'{text}' has a number outside 1 to {MOST_DEVICES}")
    return numbers


def _limit_bytes(text: str | None) -> int | None:
    from fusetune.bench.units import parse_bytes

    try:
        return None if text is None else parse_bytes(text)
    except ValueError as error:
        raise InputError("--memory", str(error)) from None


def _print_json(directory: RunDirectory, records: Sequence[Record], announce: Callable[[str], None]) -> Any:
    """Draw the pictures, print the study of the records as one JSON object, and return it."""
    from fusetune.bench.batch_size import draw_batch_size
    from fusetune.bench.results import Pictures, study_run

    found = study_run(directory, records)
    pictures = Pictures(directory.path, drawing=True)
    draw_batch_size(found.study, found.measurements, pictures)
    if pictures.note:
        announce(f"note: {pictures.note}")
    say(json.dumps(found.as_dict(), allow_nan=False))
    return found


def _interrupted(directory: RunDirectory) -> NoReturn:
    """Print which batch sizes have run so far and where their records are, and exit."""
    from fusetune.bench.batch_size import known_so_far, study_batch_sizes

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
    add_page_so_far(directory, make_console(stderr=True))
    sys.exit(INTERRUPTED)
