"""Options that several commands share: the spec to run, its overrides, where results go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fusetune.bench.errors import InputError
from fusetune.bench.path_checks import is_file

if TYPE_CHECKING:
    from fusetune.bench.tracking import Destination

overrides_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a value of the spec, e.g. train.base_lr=0.1, or empty a section, e.g. factors={}. "
    "May be repeated.",
)
resume_option = click.option(
    "--resume",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Continue the run in DIR with its options. Only missing trials are run.",
)
results_option = click.option(
    "--results",
    metavar="DIR",
    default=Path("results"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Directory for new runs.",
)
report_to_option = click.option(
    "--report-to",
    "report_to",
    multiple=True,
    metavar="NAME[=WHERE],...",
    callback=lambda context, option, given: _destinations(given),
    help="Send the run to trackers, each trial when it ends: tensorboard, trackio, wandb or mlflow. WHERE is a "
    "directory, project or experiment.",
)


def _destinations(given: Sequence[str]) -> tuple[Destination, ...]:
    """Read --report-to."""
    if not given:
        return ()
    from fusetune.bench.tracking import destinations

    return destinations(given)


def device_at_hand() -> str:
    """Return `cuda` where torch finds a CUDA device, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def what_to_run(
    spec: Path | None, overrides: tuple[str, ...], resume: Path | None
) -> tuple[Path, tuple[str, ...]]:
    """Return spec and overrides. With --resume and no spec, they are those of the run.

    Raises:
        InputError: the spec of the run is not where it was.
        click.UsageError: there is neither a spec nor a run.
    """
    from fusetune.bench.results import RunDirectory

    if resume is not None:
        earlier = RunDirectory.open(resume).run
        if spec is None:
            spec = Path(earlier.spec_path)
            overrides = (*earlier.overrides, *overrides)
            if not is_file(spec):
                raise InputError(
                    "--resume",
                    f"the run's spec {spec} is not here",
                    to_do="Give its path: bench run SPEC --resume DIR",
                )
    if spec is None:
        raise click.UsageError("name a SPEC, e.g. specs/cifar.yaml, or --resume DIR")
    return spec, overrides
