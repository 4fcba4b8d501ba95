"""The spec of kernels: what it accepts, how it explains what it does not, and the schema that editors check it with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from fusetune.bench import catalog
from fusetune.bench.errors import InputError
from fusetune.bench.kernels import MODELS
from fusetune.bench.kernels.spec import is_kernel_spec, kernels_schema, kernels_schema_text, load_kernels
from fusetune.bench.spec import load_spec
from fusetune.kernels import KERNELS

ROOT = Path(__file__).parents[3]


def written(folder: Path, text: str) -> Path:
    path = folder / "k.yaml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft7Validator:
    schema = kernels_schema()
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


def test_the_shipped_schema_is_the_current_one() -> None:
    assert (ROOT / "specs" / "kernels.schema.json").read_text() == kernels_schema_text(), "run `make schema`"


@pytest.mark.parametrize("name", ["kernels.yaml", "optimizers.yaml"])
def test_a_shipped_spec_names_the_schema_and_passes_it(
    name: str, validator: jsonschema.Draft7Validator
) -> None:
    path = ROOT / "specs" / name
    assert path.read_text().startswith("# yaml-language-server: $schema=kernels.schema.json\n")
    validator.validate(yaml.safe_load(path.read_text()))
    load_kernels(path)
    assert is_kernel_spec(path)
    assert not is_kernel_spec(ROOT / "specs" / "smoke.yaml")


ACCEPTED: list[dict[str, Any]] = [
    {"kernels": {"gelu": None}},
    {"kernels": {"gelu": {"shapes": 1000, "dtypes": "float32", "directions": "backward"}}},
    {"kernels": {"mine.py:f": {"make_inputs": "inputs.py:make"}, "a.b:K": None}, "competitors": []},
    {"kernels": {"adam": {"shapes": [1e6, "resnet50"]}}, "static": ["sm_90"], "threads": 2},
    {"kernels": {"adam": None}, "policy": {"cache": "warm"}, "budget": {"row": "2s", "total": 60}},
    {"kernels": {"adam": None}, "gate": {"metrics": {"latency_s": {"threshold": 0.1}}}},
    {"kernels": {"adam": None}, "profiles": {"cuda": {"shapes": [2**26]}}},
]


@pytest.mark.parametrize("content", ACCEPTED, ids=str)
def test_program_and_schema_accept_it(
    content: dict[str, Any], validator: jsonschema.Draft7Validator, tmp_path: Path
) -> None:
    path = written(tmp_path, yaml.safe_dump(content))
    load_kernels(path)
    validator.validate(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "kernels: {gelu: {shape: 3}}",
            "k.yaml:1: kernels.gelu.shape: unknown key; known: competitors, directions",
        ),
        ("kernels: {gelu: }\n\ndtype: float32", "k.yaml:3: dtype: unknown key"),
        ("kernels: {gelu: {shapes: [3, resnet5]}}", "k.yaml:1: kernels.gelu.shapes[1]: unknown 'resnet5'"),
        (
            "kernels: {gelu: {shapes: 1.5}}",
            "must be a whole number of elements or the name of a model, is 1.5",
        ),
        ("kernels: {gelu: {shapes: 0}}", "must be 1 to"),
        ("kernels: {gelu: {shapes: [8, 8]}}", "kernels.gelu.shapes: names a value twice"),
        ("kernels: {gelu: {dtypes: [float33]}}", "dtypes[0]: unknown 'float33'; known: bfloat16, float16"),
        ("kernels: {gelu: {directions: up}}", "directions[0]: unknown 'up'; known: backward, forward"),
        ("kernels: {gelu: }\nbudget: {row: 3parsec}", "k.yaml:2: budget.row: '3parsec' is not a quantity"),
        ("kernels: {gelu: }\nthreads: 0", "threads: must be at least 1, is 0"),
        ("kernels: {gelu: }\npolicy: {cache: hot}", "policy.cache: unknown 'hot'; known: cold, warm"),
        ("kernels: {}", "kernels: must have at least 1 values"),
        ("shapes: 3", "kernels: is missing. Add it"),
    ],
)
def test_what_is_wrong_is_one_sentence_with_its_line(
    text: str, said: str, validator: jsonschema.Draft7Validator, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as raised:
        load_kernels(written(tmp_path, text))
    assert said in str(raised.value)
    content = yaml.safe_load(text)
    if "3parsec" not in text and "[8, 8]" not in text and "1.5" not in text:  # what a schema cannot say
        with pytest.raises(jsonschema.ValidationError):
            validator.validate(content)


def test_a_spec_for_the_other_command_is_sent_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a spec for `bench run`, because it has the key 'train'"):
        load_kernels(ROOT / "specs" / "smoke.yaml")
    with pytest.raises(InputError, match="is a spec for `bench kernels`, because it has the key 'kernels'"):
        load_spec(written(tmp_path, "kernels: {gelu: }"))


def test_names_replace_the_kernels_and_keep_their_keys(tmp_path: Path) -> None:
    path = written(tmp_path, "kernels: {gelu: {shapes: 8}, silu: }\nthreads: 2")
    spec = load_kernels(path, names=["gelu", "relu"], overrides=["shapes=[1e3]"]).spec
    assert list(spec.kernels) == ["gelu", "relu"]
    assert spec.kernels["gelu"] is not None
    assert (spec.kernels["gelu"].shapes, spec.shapes, spec.threads) == ([8], [1000], 2)


def test_bench_list_names_every_kernel_and_model() -> None:
    assert tuple(KERNELS) == catalog.KERNELS
    assert catalog.KERNEL_SHAPES[1:] == tuple(MODELS)


def test_a_profile_is_merged_for_its_device(tmp_path: Path) -> None:
    path = written(tmp_path, "kernels: {gelu: }\nshapes: 8\nprofiles: {cuda: {shapes: 1000000}}")
    assert load_kernels(path, device="cpu").spec.shapes == [8]
    found = load_kernels(path, device="cuda")
    assert found.spec.shapes == [1_000_000]
    assert found.changes == ("shapes: 8 -> 1000000",)
    assert "profiles" not in found.spec.resolved()
