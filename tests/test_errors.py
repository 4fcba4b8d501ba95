"""One tree of errors with one form of text, and one closest name, for the library and the commands."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import fusetune
from fusetune.bench.errors import BenchError, InputError, RunDirectoryError, SetupError
from fusetune.bench.workers.worker import describe_exception
from fusetune.bench.workloads.download import DownloadError
from fusetune.closest_name import closest
from fusetune.errors import FusetuneError, InvalidTypeError, InvalidValueError, StateError

ROOT = Path(__file__).parents[1]


def every_class(base: type[FusetuneError]) -> set[type[FusetuneError]]:
    return {base}.union(*(every_class(each) for each in base.__subclasses__()))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (("lr", "is -1", "known: above 0", "Give one"), "lr: is -1; known: above 0. Give one"),
        (("lr", "is -1", "", "Give one"), "lr: is -1. Give one"),
        (("lr", "is -1", "known: above 0"), "lr: is -1; known: above 0"),
        (("", "is -1", "", "Give one"), "is -1. Give one"),
        ((Path("a/b"), "is missing"), "a/b: is missing"),
    ],
)
def test_the_text_is_made_of_the_fields(fields: tuple[str, ...], text: str) -> None:
    error = FusetuneError(*fields)
    assert str(error) == text
    assert [error.where, error.what, error.known, error.to_do] == [
        *map(str, fields),
        *[""] * (4 - len(fields)),
    ]


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [(InvalidValueError, ValueError), (InvalidTypeError, TypeError), (StateError, RuntimeError)],
)
def test_a_library_user_may_catch_the_builtin_class(
    kind: type[FusetuneError], builtin: type[Exception]
) -> None:
    with pytest.raises(builtin, match=r"^x: is wrong$"):
        raise kind("x", "is wrong")


def test_each_class_has_a_code_of_its_own_and_the_commands_an_exit_code() -> None:
    # By name: a test that imports a module anew makes its classes once more.
    classes = {
        f"{each.__module__}.{each.__qualname__}": each
        for each in every_class(FusetuneError)
        if each.__module__.startswith("fusetune.") and not each.__name__.startswith("_")
    }
    for known in (FusetuneError, BenchError, InputError, RunDirectoryError, SetupError, DownloadError):
        assert f"{known.__module__}.{known.__qualname__}" in classes
    assert len({each.code for each in classes.values()}) == len(classes)
    assert (BenchError.exit_code, InputError.exit_code, RunDirectoryError.exit_code) == (1, 2, 2)
    assert SetupError.exit_code == 4


def test_an_error_survives_a_pickle_with_its_fields() -> None:
    error = InputError.unknown("spec.yaml:3: train.optimizer", "Adamwt", ["sgd", "adamw"])
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is InputError
    assert (
        str(copy)
        == "spec.yaml:3: train.optimizer: unknown 'Adamwt'; known: adamw, sgd. Did you mean 'adamw'?"
    )
    assert (copy.code, copy.where, copy.what, copy.closest) == (
        "unknown-name",
        "spec.yaml:3: train.optimizer",
        "unknown 'Adamwt'",
        "adamw",
    )


def test_a_key_error_keeps_its_text() -> None:
    class MissingError(FusetuneError, KeyError):
        pass

    assert str(MissingError("x", "is missing")) == "x: is missing"


@pytest.mark.parametrize(
    ("name", "known", "near"),
    [
        ("adamwt", ["sgd", "adam", "adamw"], "adamw"),
        ("FusedAdm", ["FusedSGD", "FusedAdam"], "FusedAdam"),  # likeness without case on both sides
        ("RELU", ["relu", "gelu"], "relu"),
        ("learning_rate", ["rate", "base_lr"], "base_lr"),  # what others call it goes before likeness
        ("OneCycleLR", ["cosine", "one-cycle"], "one-cycle"),
        (
            "learning_rate",
            ["learning_rates", "b"],
            "learning_rates",
        ),  # our own name for it is not among the known
        ("zebra", ["adam", "sgd"], None),
        (3, ["adam", "sgd"], None),
        ("x", [], None),
    ],
)
def test_the_closest_name(name: object, known: list[str], near: str | None) -> None:
    assert closest(name, known) == near


def test_the_closest_name_of_all_is_to_be_had() -> None:
    assert closest("zebra", ["adam", "beer"], cutoff=0.0) == "beer"


def test_the_library_hints_as_the_commands_do() -> None:
    with pytest.raises(FusetuneError, match=r"Did you mean 'one-cycle'\?$") as tuner:
        fusetune.build_schedule("OneCycleLR", total_steps=9, steps_per_epoch=3)
    with pytest.raises(FusetuneError, match=r"Did you mean 'silu'\?$") as kernels:
        fusetune.activation(None, "swish")
    assert tuner.value.code == kernels.value.code == "unknown-name"


def test_a_record_has_the_sentence_of_an_error_alone() -> None:
    assert (
        describe_exception(InvalidValueError("batch_size", "0 must be 1 or more"))
        == "batch_size: 0 must be 1 or more"
    )
    assert describe_exception(ValueError("of another")) == "ValueError: of another"


def test_errors_are_light() -> None:
    code = "import sys; import fusetune.errors; assert not {'torch', 'numpy', 'triton', 'pydantic'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "src", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
