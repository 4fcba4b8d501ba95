"""`--report-to`: bad input is one sentence before anything else, and what is said of a place has no password."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fusetune.bench.errors import InputError
from fusetune.bench.tracking import TRACKERS, Destination, destinations
from fusetune.bench.tracking.destination import is_installed


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have a package of the name of each tracker, none of which may be imported."""
    for kind in TRACKERS.values():
        (tmp_path / kind.module).mkdir()
        (tmp_path / kind.module / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_several_trackers_with_and_without_a_place(installed: Path) -> None:
    assert destinations(["trackio, wandb=team/cifar", "tensorboard=a=b"]) == (
        Destination("trackio"),
        Destination("wandb", "team/cifar"),
        Destination("tensorboard", "a=b"),
    )
    assert [each.asked for each in destinations(["mlflow", "wandb=x"])] == ["mlflow", "wandb=x"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "wanbd",
            "--report-to: unknown 'wanbd'; known: mlflow, tensorboard, trackio, wandb. Did you mean 'wandb'?",
        ),
        ("", "--report-to: unknown ''; known: mlflow, tensorboard, trackio, wandb."),
        ("mlflow,mlflow=x", "--report-to: mlflow is named twice. Name it once"),
    ],
)
def test_what_cannot_be_is_one_sentence(installed: Path, given: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        destinations([given])
    assert str(error.value).startswith(message)
    assert error.value.exit_code == 2


@pytest.mark.parametrize("name", TRACKERS)
def test_what_is_not_installed_names_the_command(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / name).mkdir()  # such as wandb makes where it runs
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, TRACKERS[name].module, raising=False)
    with pytest.raises(InputError, match=f"{name} is not installed. Run pip install {name}"):
        destinations([name])


def test_a_folder_is_no_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_a_folder").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not is_installed("only_a_folder")


@pytest.mark.parametrize(
    ("asked", "variables", "place"),
    [
        (Destination("tensorboard"), {}, "runs/1/tensorboard"),
        (Destination("tensorboard", "/logs"), {}, "/logs"),
        (Destination("trackio"), {"TRACKIO_DIR": "/t"}, "project demo, /t"),
        (Destination("trackio", "p"), {"TRACKIO_SPACE_ID": "me/s"}, "project p, the Space me/s"),
        (
            Destination("trackio"),
            {"TRACKIO_SERVER_URL": "https://host:1/?write_token=secret"},
            "project demo, https://host:1/",
        ),
        (Destination("wandb"), {"WANDB_MODE": "offline"}, "project demo, offline in runs/1"),
        (Destination("wandb"), {"WANDB_BASE_URL": "https://us:secret@w.org"}, "project demo, https://w.org"),
        (
            Destination("mlflow", "e"),
            {"MLFLOW_TRACKING_URI": "postgresql://me:secret@host/db"},
            "experiment e, postgresql://host/db",
        ),
    ],
)
def test_a_place_is_said_without_secrets(
    asked: Destination, variables: dict[str, str], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TRACKIO_DIR", "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert asked.place("demo", Path("runs/1")) == place
