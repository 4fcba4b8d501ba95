"""The spec: what to train, what to vary, when to stop.

Strict: every key is known, every value has its type and range. These classes are the contract; `bench.spec.load` reads
a file into them and `bench.spec.design` expands them into trials.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    PlainValidator,
    Tag,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, PydanticKnownError, core_schema

from fusetune.bench.catalog import (
    ACTIVATIONS,
    DATASETS,
    GENERATED,
    IMPLEMENTATIONS,
    METRICS_TO_REACH,
    MODELS,
    NORMS,
    OPTIMIZERS,
    PRECISIONS,
)
from fusetune.bench.errors import InputError
from fusetune.bench.units import MOST_BYTES, parse_bytes, parse_seconds
from fusetune.errors import InvalidValueError
from fusetune.tuner.schedules import SCHEDULES, check_schedule

DEVICES = ("auto", "cpu", "cuda")
PROFILES = ("cpu", "cuda")
AUTO = "auto"
_MOST_SECONDS = 10**9  # some thirty years


class OneOf:
    """Annotation of a str field: it must be one of `names`, and the JSON Schema says which."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = list(names)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "string", "enum": self.names}

    def _check(self, value: str) -> str:
        if value not in self.names:
            raise PydanticCustomError("unknown_name", "unknown name", {"known": self.names})
        return value


def _wrong(message: str) -> PydanticCustomError:
    """Make a finding whose text is shown as it is."""
    return PydanticCustomError("said", "{text}", {"text": message})


def _bytes(value: Any) -> Any:
    """Read `8GiB`; a value of another type is left to pydantic."""
    if not isinstance(value, str):
        return value
    try:
        return parse_bytes(value)
    except ValueError as error:
        raise _wrong(str(error)) from None


def _seconds(value: Any) -> Any:
    """Read `10min`; a value of another type is left to pydantic."""
    if not isinstance(value, str):
        return value
    try:
        return parse_seconds(value)
    except ValueError as error:
        raise _wrong(str(error)) from None


def _seeds(value: Any) -> Any:
    """Turn a number of seeds into the seeds 0 .. n-1."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= 1000:
            raise _wrong(f"must be 1 to 1000 seeds, is {value}")
        return list(range(value))
    if not isinstance(value, list):
        raise _wrong(f"must be a number of seeds or a list of them, is {value!r}")
    if len(set(map(str, value))) != len(value):
        raise _wrong("names a seed twice")
    return value


def _named(value: Any) -> Any:
    """Let a bare name stand for a mapping with that name."""
    return {"name": value} if isinstance(value, str) else value


def _optimizer(value: Any) -> Any:
    """Let a bare reference stand for a mapping with that factory."""
    if isinstance(value, str) and ":" in value:
        return {"factory": value}
    if isinstance(value, dict) and "name" in value and "factory" not in value:
        raise _wrong(
            f"a mapping is for a factory; a known optimizer is its name alone, and its parameters stand in train. "
            f"Write optimizer: {value['name']}"
        )
    return value


def _optimizer_kind(value: Any) -> str:
    """Tell a named optimizer from one of the user's own."""
    return "OptimizerFactory" if isinstance(value, (dict, OptimizerFactory)) else "OptimizerName"


def _values(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """Read a factor's values: a list, null, or the range of a search, which stays a mapping."""
    if not isinstance(value, dict):
        return handler(value)
    if not {"low", "high"} <= set(value) <= {"low", "high", "log"}:
        raise _wrong(f"must be a list of values, or a range {{low, high, log}}, is {value!r}")
    low, high, log = value["low"], value["high"], value.get("log", False)
    if not isinstance(log, bool):
        raise _wrong(f"log must be true or false, is {log!r}")
    if not all(isinstance(end, (int, float)) and not isinstance(end, bool) for end in (low, high)):
        raise _wrong(f"low and high must be numbers, are {low!r} and {high!r}")
    if not low < high:
        raise _wrong(f"low {low!r} must be below high {high!r}")
    if log and low <= 0:
        raise _wrong(f"low is {low!r}, which has no logarithm. Give a low above 0, or leave out log")
    return value


def _as_given(value: Any) -> Any:
    """Write a value out as it is: pydantic's own way warns where it is not of the field's first type."""
    return value


def _design_kind(value: Any) -> str:
    """Tell the designs that are mappings apart."""
    return "SearchDesign" if isinstance(value, SearchDesign) or "search" in value else "RandomDesign"


def _design(value: Any) -> Any:
    """Check the shape of a design; `random` alone lacks its number of trials."""
    if isinstance(value, dict):
        return value
    if value == "random":
        raise _wrong("'random' needs a number of configurations. Write it like {random: 20}")
    if value not in ("grid", "one-at-a-time"):
        raise PydanticCustomError("unknown_name", "", {"known": ["grid", "one-at-a-time", "{random: N}"]})
    return value


def _learning_rate(value: Any) -> Any:
    """Take a number above 0, or `auto`."""
    if value == AUTO:
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _wrong(f"must be a number or {AUTO}, is {value!r}")
    if not math.isfinite(value):
        raise PydanticKnownError("finite_number")
    if value <= 0:
        raise PydanticKnownError("greater_than", {"gt": 0})
    return float(value)


def _threads(value: Any) -> Any:
    """Take a number of threads, or `auto`."""
    if value == AUTO:
        return value
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1024:
        raise _wrong(f"must be a number of threads from 1 to 1024, or {AUTO}, is {value!r}")
    return value


Bytes = Annotated[
    int,
    BeforeValidator(_bytes),
    Field(gt=0, le=MOST_BYTES),
    WithJsonSchema({"type": ["string", "integer"], "examples": ["8GiB"]}),
]
Seconds = Annotated[
    float,
    BeforeValidator(_seconds),
    Field(gt=0, le=_MOST_SECONDS),
    WithJsonSchema({"type": ["string", "number"], "examples": ["10min"]}),
]
LearningRate = Annotated[
    float | Literal["auto"],
    PlainValidator(_learning_rate),
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"const": "auto"}]}),
]
Threads = Annotated[
    int | Literal["auto"],
    PlainValidator(_threads),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1, "maximum": 1024}, {"const": "auto"}]}),
]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1, lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Reference = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
Betas = Annotated[list[Fraction], Field(min_length=2, max_length=2)]


class Section(BaseModel):
    """A mapping of the spec: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class OwnCode(Section):
    """A mapping that either names something known or a factory of the user's, which may have keys of its own."""

    model_config = ConfigDict(extra="allow")

    factory: Reference | None = Field(None, description="package.module:function of your own")

    @property
    def extras(self) -> dict[str, Any]:
        """The keys that go to the factory as keyword arguments."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _one_source(self) -> OwnCode:
        """Ask for a name or a factory, and allow own keys beside a factory alone."""
        name = getattr(self, "name", None)
        if (name is None) == (self.factory is None):
            raise _wrong(
                "needs either a name or a factory" if name is None else "has both a name and a factory"
            )
        if self.model_extra and self.factory is None:
            keys = list(self.model_extra)
            raise PydanticCustomError("own_keys", "", {"keys": keys, "known": list(type(self).model_fields)})
        return self


def _unless_factory(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    """Check a key of a folder. A factory may mean something else by it."""
    return value if info.data.get("factory") is not None else handler(value)


def _two_sides(value: Any) -> Any:
    """Let one number stand for both sides of an image."""
    if isinstance(value, int) and not isinstance(value, bool):
        return [value, value]
    if not isinstance(value, list) or len(value) != 2:
        raise _wrong(f"must be one number or [height, width], is {value!r}")
    return value


Size = Annotated[
    list[Count],
    BeforeValidator(_two_sides),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "array", "items": {"type": "integer"}}]}
    ),
]
_Value = TypeVar("_Value")
ForFolder = Annotated[_Value | None, WrapValidator(_unless_factory), PlainSerializer(_as_given)]
_KEYS_OF_FILES = ("path", "labels", "size")


class OptimizerFactory(OwnCode):
    """An optimizer of the user's own: a class or function that is called as f(parameters, lr=..., **other keys)."""

    factory: Reference = Field(description="package.module:Class of your own, a class or a function")

    @model_validator(mode="after")
    def _no_rate(self) -> OptimizerFactory:
        """The rate is base_lr's, which schedules and range tests move."""
        if "lr" in self.extras:
            raise _wrong("lr is train.base_lr, which the schedule moves. Remove it here, and set base_lr")
        return self


class Augment(Section):
    """Changes drawn anew for each training batch; images only."""

    flip: bool = Field(False, description="mirror each image left to right with probability 1/2")
    translate: int = Field(0, ge=0, lt=2**31, description="shift each image by up to so many pixels")
    cutout: int = Field(0, ge=0, lt=2**31, description="blank a square of so many pixels in each image")


class Data(OwnCode):
    """The data set and how it is split; validation samples are held out of its training set."""

    name: Annotated[str, OneOf(DATASETS)] | None = None
    path: str | None = Field(
        None, description="the .npz file (name: npz), or the folder of images (name: folder)"
    )
    labels: ForFolder[str] = Field(None, description="CSV file: file, label[, split]; else class folders")
    size: ForFolder[Size] = Field(
        None, description="height and width to resize images to, or one number for both"
    )
    stand_in: Annotated[str, OneOf(GENERATED)] | None = Field(
        None,
        description="generated data to use, and to say so everywhere, where the real set is not to be had",
    )
    validation: Count | None = Field(
        None,
        description="training samples held out, stratified; they steer everything. Default: a tenth of limit or of all",
    )
    limit: Count | None = Field(
        None, description="use at most so many training samples, and as many test samples"
    )
    seed: Seed = Field(0, description="of the split and of generated data; the same for all trials")
    augment: Augment = Augment()

    @property
    def of_files(self) -> dict[str, Any]:
        """The keys that a file or a folder takes, as far as they are given."""
        return {key: value for key in _KEYS_OF_FILES if (value := getattr(self, key)) is not None}

    @property
    def factory_options(self) -> dict[str, Any]:
        """What a factory is called with: its own keys, and those of files where it has them too."""
        return {**self.of_files, **self.extras}

    @model_validator(mode="after")
    def _keys_of_its_own(self) -> Data:
        """`path` belongs to npz and folder, which need it. `labels` and `size` to folder."""
        for key in _KEYS_OF_FILES if self.factory is None else ():
            takers = [name for name, entry in DATASETS.items() if key in entry.parameters]
            if getattr(self, key) is not None and self.name not in takers:
                raise _wrong(f"{key} is for name: {' or '.join(takers)}")
            if key == "path" and self.path is None and self.name in takers:
                raise _wrong(f"{self.name} needs a path")
        if self.stand_in is not None and self.name != "cifar10":
            raise _wrong("stand_in is for a set that may be missing: name: cifar10")
        return self


class Model(OwnCode):
    """The network; parameters left out have the model's own defaults."""

    name: Annotated[str, OneOf(MODELS)] | None = None
    width: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        None, description="channels or hidden units of the first stage"
    )
    depth: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        None, description="hidden layers, stages or residual blocks"
    )
    activation: Annotated[str, OneOf(ACTIVATIONS)] | None = Field(
        None, description="between layers; default relu"
    )
    norm: Annotated[str, OneOf(NORMS)] | None = Field(None, description="default: batch (mlp: none)")
    dropout: Fraction | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """What a factory is called with: every key that stands in the spec, null included. Empty without a factory."""
        return (
            {} if self.factory is None else self.model_dump(exclude_unset=True, exclude={"name", "factory"})
        )


def _schedule_schema(schema: dict[str, Any]) -> None:
    """Tell editors which keys belong to which schedule."""
    schema["allOf"] = [
        {
            "if": {"properties": {"name": {"const": name}}, "required": ["name"]},
            "then": {"propertyNames": {"enum": ["name", *schedule.parameters]}},
        }
        for name, schedule in SCHEDULES.items()
    ]


class Schedule(Section):
    """How the learning rate moves; base_lr is its highest value. Other keys are the named schedule's parameters."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_schedule_schema)

    name: Annotated[str, OneOf(SCHEDULES)]

    @property
    def parameters(self) -> dict[str, Any]:
        """The named schedule's own parameters, as given."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _known_parameters(self) -> Schedule:
        """Check the parameters against the named schedule's."""
        known = SCHEDULES[self.name].parameters
        for key in self.parameters:
            if key not in known:
                raise _wrong(str(InputError.unknown(f"schedule {self.name}", key, known)))
        try:
            check_schedule(self.name, self.parameters)
        except ValueError as error:
            raise _wrong(str(error)) from None
        return self


NamedSchedule = Annotated[Schedule, BeforeValidator(_named)]


Optimizer = Annotated[
    Annotated[Annotated[str, OneOf(OPTIMIZERS)], Tag("OptimizerName")]
    | Annotated[OptimizerFactory, Tag("OptimizerFactory")],
    Discriminator(_optimizer_kind),
    BeforeValidator(_optimizer),
]


class Train(Section):
    """How to train. Optimizer parameters have PyTorch's names and, where left out, PyTorch's defaults."""

    optimizer: Optimizer = Field(
        "momentum",
        description="a name, or a class or function of your own: package.module:Class or {factory: ...}",
    )
    base_lr: LearningRate = Field(
        description="a number, or auto: an LR range test before the training finds it"
    )
    batch_size: Count
    epochs: Annotated[int, Field(ge=1, le=100_000)]
    schedule: NamedSchedule = Schedule(name="constant")
    accumulation_steps: Count = Field(1, description="forwards per optimizer step")
    label_smoothing: Fraction = 0.0
    grad_clip: Positive | None = Field(None, description="clip the total gradient norm to this")
    precision: Annotated[str, OneOf(PRECISIONS)] = "auto"
    implementation: Annotated[str, OneOf(IMPLEMENTATIONS)] = Field(
        "torch", description="of optimizer and activations; fused ones are verified before they train"
    )
    compile: bool = Field(False, description="torch.compile the model; its time is reported apart")

    weight_decay: NonNegative | None = None
    momentum: Fraction | None = Field(None, description="momentum, nesterov (0.9), rmsprop (0)")
    dampening: Fraction | None = None
    nesterov: bool | None = None
    betas: Betas | None = None
    eps: Positive | None = None
    amsgrad: bool | None = None
    alpha: Fraction | None = Field(None, description="rmsprop's smoothing constant")
    centered: bool | None = None
    lr_decay: NonNegative | None = Field(None, description="adagrad's")
    initial_accumulator_value: NonNegative | None = Field(None, description="adagrad's")
    maximize: bool | None = None
    foreach: bool | None = None
    fused: bool | None = None

    @property
    def optimizer_name(self) -> str:
        """The optimizer's name, or the reference of its factory."""
        return self.optimizer if isinstance(self.optimizer, str) else self.optimizer.factory

    @property
    def lr(self) -> float:
        """`base_lr` as a number; ValueError where it is still to be found."""
        if isinstance(self.base_lr, str):
            raise InvalidValueError(
                "train.base_lr", "is auto", "a number is needed here", "Find one with bench lr-range"
            )
        return self.base_lr


OPTIMIZER_OPTIONS = tuple(dict.fromkeys(key for entry in OPTIMIZERS.values() for key in entry.parameters))


class Target(Section):
    """What a trial has to reach: a metric and its bound."""

    metric: Annotated[str, OneOf(METRICS_TO_REACH)] = "val_accuracy"
    at_least: Positive | None = Field(None, description="for accuracies, 0 to 1")
    at_most: Positive | None = Field(None, description="for losses")

    @model_validator(mode="after")
    def _one_bound(self) -> Target:
        """An accuracy has a lower bound, a loss an upper one."""
        accuracy = self.metric.endswith("accuracy")
        wanted, other = (self.at_least, self.at_most) if accuracy else (self.at_most, self.at_least)
        if wanted is None or other is not None:
            raise _wrong(f"{self.metric} needs {'at_least' if accuracy else 'at_most'}, and nothing else")
        if accuracy and wanted > 1:
            raise _wrong(
                f"at_least: an accuracy is a fraction of 1, is {wanted:g}. Did you mean {wanted / 100:g}?"
            )
        return self


class Limits(Section):
    """What one trial may use."""

    memory: Bytes | None = None
    trial_time: Seconds | None = None


class EarlyStop(Section):
    """Stop a trial whose validation no longer gets better."""

    metric: Annotated[str, OneOf(("val_accuracy", "val_loss"))] = "val_accuracy"
    patience: Count = Field(description="epochs without improvement")
    min_delta: NonNegative = 0.0


class RandomDesign(Section):
    """So many configurations drawn from the grid, without repetition."""

    random: Count


class SearchSettings(Section):
    """What a search may spend: configurations are trained an epoch at a time, the promising ones further."""

    budget_epochs: Count = Field(
        description="epochs of training in all, those of the winner's re-run not counted"
    )
    prior: bool = Field(True, description="begin with what earlier runs on other data say of known factors")
    fresh_seeds: Annotated[int, Field(ge=0, le=100)] = Field(
        3, description="seeds, none of them the search's, on which the winner is trained again"
    )


class SearchDesign(Section):
    """Search the factors' values, which may be ranges here, instead of training every configuration."""

    search: SearchSettings


class Spec(Section):
    """An experiment: one workload, the factors to vary, and what to reach."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
    description: str = ""
    device: Annotated[str, OneOf(DEVICES)] = "auto"
    threads: Threads = Field(
        "auto",
        description="of each worker on the CPU; auto: measured before the first trial, one unless more help",
    )
    data: Data
    model: Model
    train: Train
    factors: dict[
        str,
        Annotated[
            Annotated[list[Any], Field(min_length=1)] | None,
            WrapValidator(_values),
            PlainSerializer(_as_given),
        ],
    ] = Field({}, description="a field of train, model or data (dotted where unclear) -> the values to try")
    configurations: (
        Annotated[list[Annotated[dict[str, Any], PlainSerializer(_as_given)]], Field(min_length=1)] | None
    ) = Field(
        None,
        description="instead of factors: each configuration by name, factor -> its value, or a list of values of which "
        "each is one; what it leaves out is as in train, model and data",
    )
    design: Annotated[
        Literal["grid", "one-at-a-time"]
        | Annotated[
            Annotated[RandomDesign, Tag("RandomDesign")] | Annotated[SearchDesign, Tag("SearchDesign")],
            Discriminator(_design_kind),
        ],
        BeforeValidator(_design),
    ] = "grid"
    seeds: Annotated[
        list[Seed],
        BeforeValidator(_seeds),
        Field(min_length=1),
        WithJsonSchema(
            {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "array", "items": {"type": "integer"}}]}
        ),
    ] = [0]
    target: Target | None = None
    limits: Limits = Limits()
    early_stop: EarlyStop | None = None
    profiles: dict[Annotated[str, OneOf(PROFILES)], dict[str, Any]] = Field(
        {}, description="merged over the spec for the device type at hand"
    )

    def resolved(self) -> dict[str, Any]:
        """Return the spec as plain data with every default filled in and the profiles, already merged, left out.

        A null that only says "the default" is left out. One that is passed on to a person's own code stays.
        """
        data = _without_nulls(self, self.model_dump(mode="json", exclude={"profiles"}))
        data["factors"] = {key: values for key, values in data["factors"].items() if values is not None}
        return data


def _without_nulls(section: BaseModel, data: dict[str, Any]) -> dict[str, Any]:
    """Leave out the nulls that stand for a default, in a section's plain data."""
    kept = {}
    for key, value in data.items():
        if key in type(section).model_fields:
            own = getattr(section, key)
            if value is None and not (isinstance(section, Model) and key in section.arguments):
                continue
            if isinstance(own, BaseModel):
                value = _without_nulls(own, value)
        kept[key] = value
    return kept


# The mappings of a spec by the key that leads to them.
SECTIONS: dict[str, type[BaseModel]] = {
    "data": Data,
    "augment": Augment,
    "model": Model,
    "train": Train,
    "schedule": Schedule,
    "optimizer": OptimizerFactory,
    "target": Target,
    "limits": Limits,
    "early_stop": EarlyStop,
    "design": RandomDesign,
    "search": SearchSettings,
}
