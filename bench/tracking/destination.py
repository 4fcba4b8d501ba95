"""`--report-to`: which tracker, where to, and whether it is installed. No tracker is imported here."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from fusetune.bench.errors import InputError

OPTION = "--report-to"


@dataclass(frozen=True)
class TrackerKind:
    """One of the trackers.

    Args:
        title: its own name.
        module: what is imported of it.
        pip: what `pip install` takes.
        home: `module:class` of ours.
        place: says where trials go, from `where`, the environment, the spec's name and the run's directory.
        where: what a person can give after `=`.
        see: the command that shows what was sent, with `{place}`.
    """

    title: str
    module: str
    pip: str
    home: str
    place: Callable[[str, Mapping[str, str], str, Path], str]
    where: str
    see: str = ""


def _directory(where: str, environ: Mapping[str, str], spec_name: str, run: Path) -> str:
    return os.path.abspath(where) if where else os.path.join(run, "tensorboard")


def _trackio(where: str, environ: Mapping[str, str], spec_name: str, run: Path) -> str:
    if space := environ.get("TRACKIO_SPACE_ID"):
        there = f"the Space {space}"
    elif server := environ.get("TRACKIO_SERVER_URL"):
        there = without_secrets(server)
    else:
        there = environ.get("TRACKIO_DIR") or "Trackio's directory on this machine"
    return f"project {where or spec_name}, {there}"


def _wandb(where: str, environ: Mapping[str, str], spec_name: str, run: Path) -> str:
    if environ.get("WANDB_MODE") in ("offline", "dryrun"):
        there = f"offline in {wandb_directory(environ, run)}"
    else:
        there = without_secrets(environ.get("WANDB_BASE_URL") or "the server that wandb is set to")
    return f"project {where or spec_name}, {there}"


def _mlflow(where: str, environ: Mapping[str, str], spec_name: str, run: Path) -> str:
    there = without_secrets(environ.get("MLFLOW_TRACKING_URI") or f"MLflow's store in {os.getcwd()}")
    return f"experiment {where or spec_name}, {there}"


def wandb_directory(environ: Mapping[str, str], run: Path) -> Path:
    """Return the directory in which wandb makes its folder `wandb`."""
    return Path(environ.get("WANDB_DIR") or run)


TRACKERS = {
    "tensorboard": TrackerKind(
        "TensorBoard",
        "tensorboard",
        "tensorboard",
        "fusetune.bench.tracking.to_tensorboard:ToTensorBoard",
        _directory,
        "DIR",
        "tensorboard --logdir {place}",
    ),
    "trackio": TrackerKind(
        "Trackio", "trackio", "trackio", "fusetune.bench.tracking.to_trackio:ToTrackio", _trackio, "PROJECT"
    ),
    "wandb": TrackerKind(
        "Weights & Biases", "wandb", "wandb", "fusetune.bench.tracking.to_wandb:ToWandb", _wandb, "PROJECT"
    ),
    "mlflow": TrackerKind(
        "MLflow", "mlflow", "mlflow", "fusetune.bench.tracking.to_mlflow:ToMLflow", _mlflow, "EXPERIMENT"
    ),
}


@dataclass(frozen=True)
class Destination:
    """A tracker, and where a person wants the trials.

    Args:
        name: of `TRACKERS`.
        where: a directory, project or experiment. Empty: the tracker's default.
    """

    name: str
    where: str = ""

    @property
    def kind(self) -> TrackerKind:
        """What is known of the tracker."""
        return TRACKERS[self.name]

    @property
    def asked(self) -> str:
        """The value of `--report-to` that names this destination."""
        return f"{self.name}={self.where}" if self.where else self.name

    def place(self, spec_name: str, run: Path) -> str:
        """Say where the trials of a run go, without passwords."""
        return self.kind.place(self.where, os.environ, spec_name, run)

    def key(self, spec_name: str) -> str:
        """Name the place in the list of what was sent. One in the run's directory keeps its name when that moves."""
        return self.place(spec_name, Path())


def destinations(given: Sequence[str]) -> tuple[Destination, ...]:
    """Read `NAME[=WHERE],...`, and check that each tracker is installed.

    Args:
        given: the option's values, in their order.

    Raises:
        InputError: an unknown tracker, one that is named twice, or one that is not installed.

    Example:
        >>> destinations(["tensorboard=runs"])
        (Destination(name='tensorboard', where='runs'),)
    """
    found: dict[str, Destination] = {}
    for text in (each.strip() for value in given for each in value.split(",")):
        name, _, where = text.partition("=")
        if name not in TRACKERS:
            raise InputError.unknown(OPTION, name, tuple(TRACKERS))
        if name in found:
            raise InputError(OPTION, f"{name} is named twice", to_do="Name it once")
        found[name] = Destination(name, where)
    for name, destination in found.items():
        if not is_installed(destination.kind.module):
            raise InputError(
                OPTION, f"{name} is not installed", to_do=f"Run pip install {destination.kind.pip}"
            )
    return tuple(found.values())


def is_installed(module: str) -> bool:
    """Tell whether a module can be imported, without doing so. A folder of that name is no module.

    Example:
        >>> is_installed("json"), is_installed("no_such_tracker")
        (True, False)
    """
    spec: ModuleSpec | None = find_spec(module)
    return spec is not None and spec.origin is not None


def without_secrets(address: str) -> str:
    """Return an address without user, password and query. What is no address stays as it is.

    Example:
        >>> without_secrets("https://me:secret@host:5000/a?write_token=b"), without_secrets("mlruns")
        ('https://host:5000/a', 'mlruns')
    """
    parts = urlsplit(address)
    if not parts.netloc:
        return address.partition("?")[0]
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
