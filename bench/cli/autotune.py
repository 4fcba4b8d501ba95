"""`bench autotune`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from fusetune.bench.cli.console import make_console
from fusetune.bench.cli.exit_codes import FAILED, INTERRUPTED
from fusetune.bench.cli.options import device_at_hand, report_to_option, results_option
from fusetune.bench.cli.page_file import add_page_so_far
from fusetune.bench.errors import InputError, unusable
from fusetune.bench.interrupts import ignore_interrupts, terminate_as_interrupt
from fusetune.bench.terminal import say
from fusetune.errors import FusetuneError

if TYPE_CHECKING:
    from fusetune.bench.autotune import Tuning
    from fusetune.bench.kernels import Case
    from fusetune.bench.tracking import Destination

# Those in which most of a training's time is spent. Each takes a few seconds on two idle cores.
_DEFAULT_KERNELS = (
    *("sgd", "momentum", "adam", "adamw"),
    *("gelu", "gelu_backward", "silu", "silu_backward", "swiglu", "swiglu_backward"),
)
_DEFAULT_SHAPE = 2**20
_DEFAULT_TOTAL_S, _DEFAULT_CASE_S = 270.0, 120.0


@click.command()
@click.argument("kernel", nargs=-1)
@click.option(
    "--budget",
    metavar="TIME",
    help="The longest that all cases may take together, e.g. 120s. Default: 120s a case, and 270s in all.",
)
@click.option(
    "--shape",
    "shapes",
    type=click.IntRange(min=1),
    multiple=True,
    help="Elements. May be given several times.",
)
@click.option("--dtype", "dtypes", multiple=True, help="E.g. float32. May be given several times.")
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="torch's threads on a CPU. A launch config counts for so many. Default: those that torch takes.",
)
@click.option("--warm", is_flag=True, help="Do not flush the last-level cache before each call.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, help="Of the order in which configs are timed."
)
@click.option("--list", "only_list", is_flag=True, help="List the configs that would be tried, and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list on stdout, and nothing else there.")
@click.option(
    "--export",
    "export_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write all entries of this user as one file, which can be committed, and stop unless KERNEL is given.",
)
@click.option(
    "--import",
    "import_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Take the entries of an exported file, and stop.",
)
@report_to_option
@results_option
def autotune(
    kernel: tuple[str, ...],
    budget: str | None,
    shapes: tuple[int, ...],
    dtypes: tuple[str, ...],
    threads: int | None,
    warm: bool,
    seed: int,
    only_list: bool,
    as_json: bool,
    export_file: Path | None,
    import_file: Path | None,
    report_to: tuple[Destination, ...],
    results: Path,
) -> None:
    """Find the fastest launch config of kernels, and keep it for all later launches.

    Each KERNEL is the name of one of fusetune's kernels, package.module:KERNEL or FILE.py. Default: the optimizers and
    the usual activations.

    Configs whose machine code is that of another, or cannot be good, are not timed. The others are verified and race in
    interleaved rounds. The fastest replaces the default only where it is faster by more than the noise. Ctrl-C keeps
    what is known.

    Exit codes: 0 done, also where a default stays, 1 a kernel is wrong or does not run, 2 bad input, 130 interrupted.
    """
    if import_file is not None:
        _import(import_file)
        sys.exit(0)
    if export_file is not None and not kernel:
        _export(export_file)
        sys.exit(0)
    budget_s = None if budget is None else _seconds(budget)
    with terminate_as_interrupt():
        cases = _cases(kernel or _DEFAULT_KERNELS, shapes, dtypes, threads)
        if only_list:
            _list(kernel or _DEFAULT_KERNELS, cases)
            sys.exit(0)
        tunings, interrupted = _tune_all(cases, budget_s, warm, seed, results, as_json, report_to)
    if as_json:
        from fusetune.bench.autotune import as_json as json_text

        say(json_text(tunings))
    if interrupted:
        sys.exit(INTERRUPTED)
    if export_file is not None:
        _export(export_file)
    sys.exit(FAILED if any(tuning.status != "ok" for tuning in tunings) else 0)


def _tune_all(
    cases: Sequence[Case],
    budget_s: float | None,
    warm: bool,
    seed: int,
    results: Path,
    quiet: bool,
    report_to: Sequence[Destination] = (),
) -> tuple[list[Tuning], bool]:
    """Tune one case after the other. Each is reported, and on disk, when it is finished."""
    from fusetune.bench.autotune import (
        LaneWorkbench,
        describe_tunings,
        draw_tuning,
        record_of_tuning,
        show_tuning,
        tune,
    )
    from fusetune.bench.results import Pictures, RecordKeeper, RunDirectory
    from fusetune.bench.stats import counted
    from fusetune.bench.tracking import Reporting

    console = make_console(stderr=quiet)
    if budget_s is None:
        budget_s = min(_DEFAULT_TOTAL_S, _DEFAULT_CASE_S * len(cases))
    run = describe_tunings(cases, ["bench", *sys.argv[1:]])
    start_s = time.monotonic()
    found: list[Tuning] = []
    interrupted = False
    with (
        RunDirectory.create(results, "autotune", run) as directory,
        Reporting(report_to, directory, partial(console.print, markup=False, highlight=False), live=False),
        _new_log(directory.path) as log,
        LaneWorkbench(cold=not warm, device=cases[0].device) as workbench,
    ):
        pictures = Pictures(directory.path, drawing=True)
        keeper = RecordKeeper(directory.run, directory)

        def tell(event: Mapping[str, Any]) -> None:
            log.write(json.dumps(dict(event)) + "\n")
            log.flush()

        try:
            for number, case in enumerate(cases):
                left_s = budget_s - (time.monotonic() - start_s)
                console.print(f"tuning {case.name}", markup=False, highlight=False, style="dim")
                tell({"case": case.name, "budget_s": left_s / (len(cases) - number)})
                tuning = tune(
                    case,
                    workbench,
                    budget_s=max(0.0, left_s / (len(cases) - number)),
                    clock=time.monotonic,
                    seed=seed,
                    tell=tell,
                )
                found.append(tuning)
                _finish(tuning, tell)
                keeper.keep(record_of_tuning(tuning), None)
                show_tuning(tuning, console)
                draw_tuning(tuning, pictures)
        except KeyboardInterrupt:
            interrupted = True
            ignore_interrupts()
            say(f"interrupted; {len(found)} of {len(cases)} cases are finished and kept.", err=True)
    if pictures.note:
        console.print(f"note: {pictures.note}", markup=False, highlight=False)
    replaced = sum(tuning.is_replaced for tuning in found)
    console.print(
        f"\n{counted(len(found), 'case')} in {time.monotonic() - start_s:.0f} s, {replaced} with a new launch config. "
        f"Everything that was timed is in {directory.path}",
        markup=False,
        highlight=False,
    )
    add_page_so_far(RunDirectory.open(directory.path), console)
    return found, interrupted


def _finish(tuning: Tuning, tell: Any) -> None:
    """Keep a finished case in the log."""
    from fusetune.bench.autotune import as_plain

    tell({"finished": as_plain(tuning)})


def _new_log(directory: Path) -> TextIO:
    """Open the log of this call."""
    path = directory / "autotune.jsonl"
    try:
        return path.open("x", encoding="utf-8")
    except OSError as error:
        raise unusable(path, error) from None


def _cases(
    names: Sequence[str], shapes: Sequence[int], dtypes: Sequence[str], threads: int | None
) -> list[Case]:
    """Find the kernels, and lay out their cases.

    Raises:
        InputError: an unknown kernel or dtype, or a kernel without launch configs.
    """
    import torch

    from fusetune.bench.kernels import Case, describe, kernel_source

    device = device_at_hand()
    for name in dtypes:
        if not isinstance(getattr(torch, name, None), torch.dtype):
            known = ("float32", "float16", "bfloat16", "float64")
            raise InputError.unknown("--dtype", name, known)
    count = threads or torch.get_num_threads()
    found = []
    for text in names:
        for kernel in describe(kernel_source(text), device=device):
            if len(kernel.configs) < 2:
                to_do = "Give its Kernel `configs`, see docs/autotune.md"
                raise InputError(text, f"{kernel.name} has no launch configs to choose from", to_do=to_do)
            sizes = tuple(shapes) or kernel.elements or (_DEFAULT_SHAPE,)
            for shape in sizes if kernel.sized else kernel.elements:
                found += [
                    Case(kernel.source, kernel.name, shape, dtype, "forward", device, count)
                    for dtype in dtypes or kernel.dtypes[:1]
                ]
    return found


def _list(names: Sequence[str], cases: Sequence[Case]) -> None:
    """Print what would be tried."""
    from fusetune.bench.autotune import config_text
    from fusetune.bench.kernels import describe, kernel_source

    for case in cases:
        say(case.name)
    for text in names:
        for kernel in describe(kernel_source(text), device=cases[0].device):
            say(f"{kernel.name}: {len(kernel.configs)} configs")
            for config in kernel.configs:
                say(f"  {config_text(config)}")


def _seconds(text: str) -> float:
    from fusetune.bench.units import parse_seconds

    try:
        return parse_seconds(text)
    except ValueError as error:
        raise InputError("--budget", str(error)) from None


def _export(path: Path) -> None:
    """Write all entries into one file."""
    from fusetune.kernels.autotune import export_entries

    with _as_input_error():
        say(f"{export_entries(path)} entries are in {path}", err=True)


def _import(path: Path) -> None:
    """Take the entries of a file."""
    from fusetune.kernels.autotune import import_entries

    with _as_input_error():
        found = import_entries(path)
    say(
        f"{len(found.added)} added, {len(found.replaced)} replaced, {len(found.kept)} kept as they were",
        err=True,
    )


@contextmanager
def _as_input_error() -> Iterator[None]:
    """Say what is wrong with a file of entries as bad input."""
    try:
        yield
    except FusetuneError as error:
        raise InputError(error.where, error.what, error.known, error.to_do) from None
