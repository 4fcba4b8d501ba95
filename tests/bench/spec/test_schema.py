"""Editors check specs with the JSON Schema: it must agree with what the suite accepts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from fusetune.bench.spec.schema import schema_text, spec_schema
from tests.bench.spec_text import SPEC

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft7Validator:
    schema = spec_schema()
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


def test_the_shipped_schema_is_the_current_one() -> None:
    assert (ROOT / "specs" / "spec.schema.json").read_text() == schema_text(), "run `make schema`"


def test_shipped_specs_name_the_schema_and_pass_it(validator: jsonschema.Draft7Validator) -> None:
    of_kernels = {ROOT / "specs" / name for name in ("kernels.yaml", "optimizers.yaml")}
    for path in set((ROOT / "specs").glob("*.yaml")) - of_kernels:
        text = path.read_text()
        assert text.startswith("# yaml-language-server: $schema=spec.schema.json\n"), path
        validator.validate(yaml.safe_load(text))


def test_the_schema_accepts_the_ways_to_write_a_spec(validator: jsonschema.Draft7Validator) -> None:
    plain = yaml.safe_load(SPEC)
    validator.validate(plain)
    validator.validate({**plain, "design": {"random": 3}, "seeds": [1, 2]})
    listed = [
        {"batch_size": [8, 16], "schedule": "cosine", "betas": [[0.9, 0.99]]},
        {"model.heads": 4, "norm": None},
    ]
    validator.validate({**plain, "factors": {}, "configurations": listed})
    validator.validate({**plain, "model": {"factory": "mine:build", "heads": 4}})
    validator.validate({**plain, "train": {**plain["train"], "schedule": "cosine"}})
    folder = {"name": "folder", "path": "x"}
    for data in (
        folder,
        {**folder, "labels": "l.csv", "size": 8},
        {"factory": "mine:load", "labels": [1, 2]},
    ):
        validator.validate({**plain, "data": data})
    for own in ("mine:Lion", {"factory": "mine:Lion", "beta": 0.9}):
        validator.validate(
            {**plain, "train": {**plain["train"], "optimizer": own}, "factors": {"optimizer": ["adam", own]}}
        )
    rule = {"threshold": 0.05, "better": "lower"}
    gate = {
        "budget": "10min",
        "metrics": {"step_time_s": rule},
        "benchmarks": {"small": {"step_time_s": rule}},
    }
    validator.validate({**plain, "gate": {**gate, "configurations": [{"optimizer": "adam"}]}})
    validator.validate({**plain, "profiles": {"cpu": {"gate": {"budget": 60}}}})
    validator.validate({**plain, "profiles": {"cpu": {"factors": {"schedule": None}, "data": {"limit": 10}}}})


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"name": "mlp", "heads": 4}},
        {"model": {"name": "mpl"}},
        {"data": {"name": "folder", "path": "x", "size": "big"}},
        {"train": {"base_lr": 0.1, "batch_size": 1, "epochs": 1, "optimizer": "adom"}},
        {"train": {"base_lr": 0.1, "batch_size": 1, "epochs": 1, "schedule": {"name": "cosine", "gamma": 1}}},
        {"train": {"base_lr": 0.1, "batch_size": 1, "epochs": 1, "optimizer": {"beta": 1}}},
        {"train": {"base_lr": 0.1, "batch_size": 1}},
        {"factors": {"batch_size": ["x"]}},
        {"configurations": [{"batch_size": "x"}]},
        {"configurations": [{"batch_size": [8, "x"]}]},
        {"configurations": []},
        {"profiles": {"cpu": {"train": {"epoch": 3}}}},
        {"profiles": {"gpu": {}}},
        {"desing": "grid"},
        {"gate": {"treshold": 1}},
        {"gate": {"metrics": {"step_time_s": {"threshold": -1}}}},
        {"gate": {"benchmarks": {"small": {"step_time_s": {"better": "more"}}}}},
        {"gate": {"configurations": [{"optimizer": "adom"}]}},
    ],
    ids=str,
)
def test_the_schema_refuses_what_the_suite_refuses(
    validator: jsonschema.Draft7Validator, change: dict[str, Any]
) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({**yaml.safe_load(SPEC), **change})
