"""Two names of one field are told to be one: against the field that a trial with such a factor has changed."""

from __future__ import annotations

from typing import Any

import pytest

from fusetune.bench.batch_size.earlier_runs import rows_by_size
from fusetune.bench.results.records import Record
from fusetune.bench.spec.design import make_trial
from fusetune.bench.spec.factor_names import VARIED_SECTIONS, by_field, field_of, name_of, owners
from fusetune.bench.spec.spec import Spec
from fusetune.bench.stats.effects import same_work

SPEC = Spec.model_validate(
    {
        "name": "a",
        "data": {"name": "spirals"},
        "model": {"name": "mlp"},
        "train": {"base_lr": 0.1, "batch_size": 8, "epochs": 1},
    }
)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 16),
        ("train.batch_size", 16),
        ("width", 7),
        ("model.width", 7),
        ("limit", 50),
        ("schedule.name", "cosine"),
        ("augment.flip", True),
    ],
)
def test_a_name_means_the_field_that_its_trial_changes(name: str, value: Any) -> None:
    section, *path = field_of(name).split(".")
    found: Any = getattr(make_trial(SPEC, {name: value}, 0).spec, section)
    for part in path:
        found = getattr(found, part)
    assert found == value


def test_every_field_of_one_section_has_two_names() -> None:
    fields = {field for section in VARIED_SECTIONS.values() for field in section.model_fields}
    unique = {field for field in fields if len(owners(field)) == 1}
    assert {"batch_size", "width", "validation"} <= unique
    assert {"name", "factory"}.isdisjoint(unique)
    for field in unique:
        assert field_of(field) == field_of(f"{owners(field)[0]}.{field}") == f"{owners(field)[0]}.{field}"


def test_the_name_that_a_person_wrote_is_found() -> None:
    assert name_of("train.batch_size", ["optimizer", "train.batch_size"]) == "train.batch_size"
    assert name_of("train.batch_size", ["batch_size"]) == "batch_size"
    assert by_field({"limit": 5, "data.validation": 6}) == {"data.limit": 5, "data.validation": 6}


@pytest.mark.parametrize(
    ("name", "value", "other", "same"),
    [
        ("base_lr", 0.1, 0.2, True),
        ("dropout", 0.1, 0.2, True),
        ("dropout", 0.0, 0.2, False),
        ("limit", 5, 6, True),
    ],
)
def test_reports_judge_both_names_alike(name: str, value: Any, other: Any, same: bool) -> None:
    assert same_work(name, value, other) is same
    assert same_work(field_of(name), value, other) is same


@pytest.mark.parametrize("prefix", ["", "train."])
def test_trainings_are_gathered_by_either_name(prefix: str) -> None:
    records = [
        Record(
            f"{size},{lr}",
            {f"{prefix}batch_size": size, f"{prefix}base_lr": lr, f"{prefix}accumulation_steps": 2},
            0,
            "ok",
            values={"steps_to_target": steps, "time_to_target_s": 1.0},
        )
        for size, lr, steps in ((16, 0.1, 50.0), (16, 0.2, 40.0), (32, 0.1, 30.0))
    ]
    rows = rows_by_size(records)
    assert [(row.batch_size, row.samples_per_step, row.steps) for row in rows] == [
        (16, 32, (40.0,)),
        (32, 64, (30.0,)),
    ]
