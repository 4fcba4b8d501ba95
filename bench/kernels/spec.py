"""The spec of `bench kernels`: which kernels, on what shapes and dtypes, against whom, and how they are timed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from fusetune.bench.errors import InputError
from fusetune.bench.kernels.competitors import BUILT_IN
from fusetune.bench.kernels.model_shapes import MODELS
from fusetune.bench.spec import (
    DEVICES,
    DIALECT,
    PROFILES,
    Document,
    Form,
    Gate,
    GateMetric,
    OneOf,
    Seconds,
    Section,
    finding,
    parse_yaml,
    read_yaml,
    resolve,
)

DEFAULT_SPEC = Path("specs/kernels.yaml")
DTYPES = ("float32", "bfloat16", "float16", "float64")
DIRECTIONS = ("forward", "backward")
_MOST_ELEMENTS = 2**40
# What a spec is called that no file holds.
_UNNAMED = "kernels"

Shape = int | str


def _as_list(value: Any) -> Any:
    """Turn a single value into a list of it, and refuse one that is named twice."""
    values = value if isinstance(value, list) else [value]
    if len({str(each) for each in values}) != len(values):
        raise finding("names a value twice")
    return values


def _shape(value: Any) -> Any:
    """Read a number of elements, which may be written as 1e6, or a model's name."""
    if isinstance(value, str):
        if value not in MODELS:
            raise finding(
                str(InputError.unknown("", value, MODELS, otherwise="Or give a number of elements."))
            )
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        raise finding(f"must be a whole number of elements or the name of a model, is {value!r}")
    if not 1 <= value <= _MOST_ELEMENTS:
        raise finding(f"must be 1 to {_MOST_ELEMENTS:,} elements, is {value!r}")
    return int(value)


_ONE_SHAPE: list[dict[str, Any]] = [{"type": "number", "minimum": 1}, {"enum": list(MODELS)}]
Shapes = Annotated[
    list[Annotated[Shape, BeforeValidator(_shape)]],
    BeforeValidator(_as_list),
    Field(min_length=1),
    WithJsonSchema(
        {"anyOf": [{"type": "array", "items": {"anyOf": _ONE_SHAPE}, "minItems": 1}, *_ONE_SHAPE]}
    ),
]
Dtypes = Annotated[list[Annotated[str, OneOf(DTYPES)]], BeforeValidator(_as_list), Field(min_length=1)]
Directions = Annotated[
    list[Annotated[str, OneOf(DIRECTIONS)]], BeforeValidator(_as_list), Field(min_length=1)
]
Competitors = Annotated[list[str], BeforeValidator(_as_list)]


class KernelSection(Section):
    """One kernel: what differs from the top of the spec."""

    shapes: Shapes | None = Field(
        None, description="numbers of elements, of which several are a size sweep, or names of models"
    )
    dtypes: Dtypes | None = Field(None, description="dtypes of the inputs")
    directions: Directions | None = Field(
        None, description="forward, or backward for the gradient by autograd"
    )
    competitors: Competitors | None = Field(None, description="the other ways to do the same work")
    make_inputs: str | None = Field(
        None, description="for a plain function: what makes its inputs, as FILE.py:NAME"
    )
    reference: str | None = Field(
        None, description="for a plain function: what defines its results, likewise"
    )


class TimingPolicy(Section):
    """What is on the clock."""

    cache: Annotated[str, OneOf(("cold", "warm"))] = Field(
        "cold", description="cold: the last-level cache is flushed before each call, off the clock"
    )


class Budget(Section):
    """How long may be measured."""

    row: Seconds = Field(4.0, description="the longest that the rounds of one row may take")
    total: Seconds | None = Field(
        None, description="about the longest that the command may take, with building and verifying"
    )


class KernelsSpec(Section):
    """Kernels to verify and time beside their competitors."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")] = _UNNAMED
    description: str = ""
    device: Annotated[str, OneOf(DEVICES)] = "auto"
    threads: Annotated[int, Field(ge=1, le=1024)] = Field(1, description="torch's threads on a CPU")
    kernels: Annotated[dict[str, KernelSection | None], Field(min_length=1)] = Field(
        description="a kernel's name, package.module:KERNEL or FILE.py -> what differs from the keys below, or nothing"
    )
    shapes: Shapes = Field([2**20], description="of kernels that name none, and have none of their own")
    dtypes: Dtypes = Field(["float32"], description="of kernels that name none")
    directions: Directions = Field(["forward"], description="of kernels that name none")
    competitors: Competitors = Field(
        list(BUILT_IN),
        description="of kernels that name none. Those that a kernel does not have are left out",
    )
    policy: TimingPolicy = TimingPolicy()
    budget: Budget = Budget()
    static: list[str] = Field([], description="GPUs to compile for without one, e.g. sm_90 or gfx942")
    gate: Gate | None = Field(None, description="for bench gate: how strictly rows are compared")
    profiles: dict[Annotated[str, OneOf(PROFILES)], dict[str, Any]] = Field(
        {}, description="merged over the spec for the device type in use"
    )

    def resolved(self) -> dict[str, Any]:
        """Return what is measured as plain data with every default filled in. `profiles` and `gate` are left out."""
        data = self.model_dump(mode="json", exclude={"profiles", "gate"}, exclude_none=True)
        data["kernels"] = {name: data["kernels"].get(name) or {} for name in self.kernels}
        return data


FORM: Form[KernelsSpec] = Form(
    KernelsSpec,
    {
        "kernels": KernelSection,
        "policy": TimingPolicy,
        "budget": Budget,
        "gate": Gate,
        "metrics": GateMetric,
        "benchmarks": GateMetric,
    },
    belong=("", "policy", "budget", "gate"),
    command="kernels",
)


@dataclass(frozen=True)
class LoadedKernels:
    """A validated spec of kernels, and where its values came from.

    Args:
        spec: as merged.
        document: what it was read from.
        device: `cpu` or `cuda`.
        path: of the file; None: it was made of names alone.
        overrides: `key.path=value` texts.
        profile: the profile that was merged, or None.
        changes: what the profile changed, a sentence each.
    """

    spec: KernelsSpec
    document: Document
    device: str
    path: Path | None = None
    overrides: tuple[str, ...] = ()
    profile: str | None = None
    changes: tuple[str, ...] = ()

    def asked_for(self, key: str) -> bool:
        """Whether a key at the top was given on the command line, so that it counts for every kernel."""
        return self.document.where((key,)) == "--set"


def load_kernels(
    path: Path | None, *, names: Sequence[str] = (), overrides: Sequence[str] = (), device: str = "cpu"
) -> LoadedKernels:
    """Read, merge and validate a spec of kernels.

    Args:
        path: the YAML file. None: the settings that every key has by default.
        names: kernels to measure in place of those of the file. One that the file names keeps its keys.
        overrides: `key.path=value` texts, merged over everything else.
        device: the device type in use. The spec's own `device` overrides it.

    Raises:
        InputError: with one sentence for each of the first findings, each with file, line and key path.

    Example:
        >>> load_kernels(None, names=["gelu"], overrides=["shapes=[1e3, 1e6]"]).spec.shapes
        [1000, 1000000]
    """
    document = parse_yaml("{}", "kernels") if path is None else read_yaml(path)
    if names:
        given = document.data.get("kernels")
        given = given if isinstance(given, dict) else {}
        data = {**document.data, "kernels": {name: given.get(name) for name in names}}
        document = Document(document.name, data, dict(document.places))
    found = resolve(document, FORM, overrides=overrides, device=device)
    return LoadedKernels(
        found.spec, found.document, found.device, path, tuple(overrides), found.profile, found.changes
    )


def is_kernel_spec(path: Path) -> bool:
    """Whether a YAML file is a spec of kernels. One that cannot be read is none.

    Example:
        >>> is_kernel_spec(Path("nowhere.yaml"))
        False
    """
    try:
        return "kernels" in read_yaml(path).data
    except InputError:
        return False


def kernels_schema() -> dict[str, Any]:
    """Return the JSON Schema that editors complete and check such specs with."""
    schema = KernelsSpec.model_json_schema(ref_template="#/definitions/{model}")
    definitions: dict[str, Any] = schema.pop("$defs")
    section = definitions["KernelSection"]["properties"]
    for where in (schema["properties"], section):
        for key in ("dtypes", "directions", "competitors"):
            _accept_one(where[key])
    profile = {key: value for key, value in schema["properties"].items() if key != "profiles"}
    definitions["Profile"] = {"type": "object", "properties": profile, "additionalProperties": False}
    one = {"$ref": "#/definitions/Profile"}
    schema["properties"]["profiles"] = {
        "type": "object",
        "description": KernelsSpec.model_fields["profiles"].description,
        "properties": dict.fromkeys(PROFILES, one),
        "additionalProperties": False,
    }
    return {"$schema": DIALECT, **schema, "definitions": definitions}


def kernels_schema_text() -> str:
    """Return the schema as it stands in `specs/kernels.schema.json`."""
    return json.dumps(kernels_schema(), indent=2) + "\n"


def _accept_one(field: dict[str, Any]) -> None:
    """Accept a single value where a list of them may stand."""
    lists: list[dict[str, Any]] = field.get("anyOf") or [dict(field)]
    array = next(each for each in lists if each.get("type") == "array")
    kept: dict[str, Any] = {key: field[key] for key in ("description", "default", "title") if key in field}
    of_array = {key: value for key, value in array.items() if key not in kept}
    either = [of_array, array["items"]]
    if any(each.get("type") == "null" for each in lists):
        either.append({"type": "null"})
    field.clear()
    field.update({**kept, "anyOf": either})


def sections_of(spec: KernelsSpec) -> Mapping[str, KernelSection]:
    """Return kernel -> its keys, in the order of the spec."""
    return {name: section or KernelSection() for name, section in spec.kernels.items()}
