"""`--executor`: what it changes, and what is refused before anything starts."""

from __future__ import annotations

import pytest

from fusetune.bench.cli.executor import with_option
from fusetune.bench.errors import InputError
from fusetune.bench.spec import Executor


def test_the_option_changes_the_specs_executor_and_keeps_its_other_keys() -> None:
    of_spec = Executor(name="ray", address="a:1", stage="/fast")
    assert with_option(of_spec, None) == of_spec
    assert with_option(of_spec, "local") == Executor()
    assert with_option(of_spec, "ray").address == "a:1"
    changed = with_option(of_spec, "ray=b:2")
    assert (changed.address, changed.stage) == ("b:2", "/fast")


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("slurm", "unknown 'slurm'; known: local, ray"),
        ("rai", "Did you mean 'ray'?"),
        ("local=2", "local has no address"),
        ("ray=", "the address is empty"),
    ],
)
def test_an_executor_that_nobody_knows_is_refused(option: str, told: str) -> None:
    with pytest.raises(InputError) as refused:
        with_option(Executor(), option)
    assert told in str(refused.value)
