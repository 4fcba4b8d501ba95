"""The spec: what to train, what to vary, when to stop.

Every key is known, and every value has its type and range. `bench.spec.load` reads a file into these classes, and
`bench.spec.design` expands them into trials.
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
EXECUTORS = ("local", "ray")
DIRECTIONS = ("lower", "higher", "neither")
AUTO = "auto"
PARALLEL = ("ddp", "fsdp")
MOST_DEVICES = 1024
_MOST_SECONDS = 10**9  # some thirty years


class OneOf:
    """Annotation of a str field: its value is one of `names`. The JSON Schema lists them."""

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


def finding(message: str) -> PydanticCustomError:
    """Return an exception for validators, whose text is shown unchanged.

    Args:
        message: what is wrong, without the place.
    """
    return PydanticCustomError("said", "{text}", {"text": message})


def _bytes(value: Any) -> Any:
    """Read `8GiB`. A value of another type is left to pydantic."""
    if not isinstance(value, str):
        return value
    try:
        return parse_bytes(value)
    except ValueError as error:
        raise finding(str(error)) from None


def _seconds(value: Any) -> Any:
    """Read `10min`. A value of another type is left to pydantic."""
    if not isinstance(value, str):
        return value
    try:
        return parse_seconds(value)
    except ValueError as error:
        raise finding(str(error)) from None


def _seeds(value: Any) -> Any:
    """Turn a number n of seeds into the seeds 0 .. n-1."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= 1000:
            raise finding(f"must be 1 to 1000 seeds, is {value}")
        return list(range(value))
    if not isinstance(value, list):
        raise finding(f"must be a number of seeds or a list of them, is {value!r}")
    if len(set(map(str, value))) != len(value):
        raise finding("names a seed twice")
    return value


def _named(value: Any) -> Any:
    """Turn a bare name into a mapping with that name."""
    return {"name": value} if isinstance(value, str) else value


def _optimizer(value: Any) -> Any:
    """Turn a bare reference into a mapping with that factory."""
    if isinstance(value, str) and ":" in value:
        return {"factory": value}
    if isinstance(value, dict) and "name" in value and "factory" not in value:
        raise finding(
            f"a mapping is for a factory; a known optimizer is its name alone, and its parameters are keys of train. "
            f"Write optimizer: {value['name']}"
        )
    return value


def _optimizer_kind(value: Any) -> str:
    return "OptimizerFactory" if isinstance(value, (dict, OptimizerFactory)) else "OptimizerName"


def _values(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """Read a factor's values: a list, null, or the range of a search, which stays a mapping."""
    if not isinstance(value, dict):
        return handler(value)
    if not {"low", "high"} <= set(value) <= {"low", "high", "log"}:
        raise finding(f"must be a list of values, or a range {{low, high, log}}, is {value!r}")
    low, high, log = value["low"], value["high"], value.get("log", False)
    if not isinstance(log, bool):
        raise finding(f"log must be true or false, is {log!r}")
    if not all(isinstance(end, (int, float)) and not isinstance(end, bool) for end in (low, high)):
        raise finding(f"low and high must be numbers, are {low!r} and {high!r}")
    if not low < high:
        raise finding(f"low {low!r} must be below high {high!r}")
    if log and low <= 0:
        raise finding(f"low is {low!r}, which has no logarithm. Give a low above 0, or leave out log")
    return value


def _as_given(value: Any) -> Any:
    """Serialise a value unchanged: pydantic's own way warns where it is not of the field's first type."""
    return value


def _design_kind(value: Any) -> str:
    return "SearchDesign" if isinstance(value, SearchDesign) or "search" in value else "RandomDesign"


def _design(value: Any) -> Any:
    """Check the form of a design. `random` alone has no number of trials."""
    if isinstance(value, dict):
        return value
    if value == "random":
        raise finding("'random' needs a number of configurations. Write it like {random: 20}")
    if value not in ("grid", "one-at-a-time"):
        raise PydanticCustomError("unknown_name", "", {"known": ["grid", "one-at-a-time", "{random: N}"]})
    return value


def _learning_rate(value: Any) -> Any:
    if value == AUTO:
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise finding(f"must be a number or {AUTO}, is {value!r}")
    if not math.isfinite(value):
        raise PydanticKnownError("finite_number")
    if value <= 0:
        raise PydanticKnownError("greater_than", {"gt": 0})
    return float(value)


def _threads(value: Any) -> Any:
    if value == AUTO:
        return value
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1024:
        raise finding(f"must be a number of threads from 1 to 1024, or {AUTO}, is {value!r}")
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
    """A mapping that has either a known name or a factory of the user's, which may have keys of its own."""

    model_config = ConfigDict(extra="allow")

    factory: Reference | None = Field(None, description="package.module:function of your own")

    @property
    def extras(self) -> dict[str, Any]:
        """The keys that go to the factory as keyword arguments."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _one_source(self) -> OwnCode:
        """Require a name or a factory, and allow other keys beside a factory alone."""
        name = getattr(self, "name", None)
        if (name is None) == (self.factory is None):
            raise finding(
                "needs either a name or a factory" if name is None else "has both a name and a factory"
            )
        if self.model_extra and self.factory is None:
            keys = list(self.model_extra)
            raise PydanticCustomError("own_keys", "", {"keys": keys, "known": list(type(self).model_fields)})
        return self


def _unless_factory(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    """Check a key of a folder. A factory may use it differently."""
    return value if info.data.get("factory") is not None else handler(value)


def _two_sides(value: Any) -> Any:
    """Turn one number into both sides of an image."""
    if isinstance(value, int) and not isinstance(value, bool):
        return [value, value]
    if not isinstance(value, list) or len(value) != 2:
        raise finding(f"must be one number or [height, width], is {value!r}")
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
    """An optimizer of the user's own: a class or function, called as f(parameters, lr=..., **other keys)."""

    factory: Reference = Field(description="package.module:Class of your own, a class or a function")

    @model_validator(mode="after")
    def _no_rate(self) -> OptimizerFactory:
        """Refuse `lr`: the rate is base_lr, which schedules and range tests change."""
        if "lr" in self.extras:
            raise finding("lr is train.base_lr, which the schedule moves. Remove it here, and set base_lr")
        return self


class Augment(Section):
    """Random changes of each training batch. Images only."""

    flip: bool = Field(False, description="mirror each image left to right with probability 1/2")
    translate: int = Field(0, ge=0, lt=2**31, description="shift each image by at most this many pixels")
    cutout: int = Field(
        0, ge=0, lt=2**31, description="blank a square with sides of this many pixels in each image"
    )


class Data(OwnCode):
    """The data set and its splits. Validation samples are held out of the training set."""

    name: Annotated[str, OneOf(DATASETS)] | None = None
    path: str | None = Field(
        None, description="the .npz file (name: npz), or the folder of images (name: folder)"
    )
    labels: ForFolder[str] = Field(
        None, description="CSV file: file, label[, split]. Default: one folder a class"
    )
    size: ForFolder[Size] = Field(
        None, description="height and width to resize images to, or one number for both"
    )
    stand_in: Annotated[str, OneOf(GENERATED)] | None = Field(
        None,
        description="generated data that replace the real set, with a banner, where it cannot be loaded",
    )
    validation: Count | None = Field(
        None,
        description="training samples held out, stratified. Every decision rests on them. Default: a tenth of limit or "
        "of all",
    )
    limit: Count | None = Field(
        None, description="use at most this many training samples, and as many test samples"
    )
    seed: Seed = Field(0, description="of the split and of generated data, the same for all trials")
    augment: Augment = Augment()

    @property
    def of_files(self) -> dict[str, Any]:
        """The given keys of a file or a folder."""
        return {key: value for key in _KEYS_OF_FILES if (value := getattr(self, key)) is not None}

    @property
    def factory_options(self) -> dict[str, Any]:
        """The keyword arguments of a factory: its own keys, and those of files where it has them too."""
        return {**self.of_files, **self.extras}

    @model_validator(mode="after")
    def _keys_of_its_own(self) -> Data:
        """Check that npz and folder have `path`, and that only folder has `labels` and `size`."""
        for key in _KEYS_OF_FILES if self.factory is None else ():
            takers = [name for name, entry in DATASETS.items() if key in entry.parameters]
            if getattr(self, key) is not None and self.name not in takers:
                raise finding(f"{key} is for name: {' or '.join(takers)}")
            if key == "path" and self.path is None and self.name in takers:
                raise finding(f"{self.name} needs a path")
        if self.stand_in is not None and self.name != "cifar10":
            raise finding("stand_in is for a set that may be missing: name: cifar10")
        return self


class Model(OwnCode):
    """The network. Parameters that are left out have the model's own defaults."""

    name: Annotated[str, OneOf(MODELS)] | None = None
    width: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        None, description="channels or hidden units of the first stage"
    )
    depth: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        None, description="hidden layers, stages or residual blocks"
    )
    activation: Annotated[str, OneOf(ACTIVATIONS)] | None = Field(
        None, description="between layers. Default: relu"
    )
    norm: Annotated[str, OneOf(NORMS)] | None = Field(None, description="default: batch (mlp: none)")
    dropout: Fraction | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of a factory: every key in the spec, null included. Empty without a factory."""
        return (
            {} if self.factory is None else self.model_dump(exclude_unset=True, exclude={"name", "factory"})
        )


def _schedule_schema(schema: dict[str, Any]) -> None:
    schema["allOf"] = [
        {
            "if": {"properties": {"name": {"const": name}}, "required": ["name"]},
            "then": {"propertyNames": {"enum": ["name", *schedule.parameters]}},
        }
        for name, schedule in SCHEDULES.items()
    ]


class Schedule(Section):
    """How the learning rate changes. base_lr is its highest value. Other keys are the named schedule's parameters."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_schedule_schema)

    name: Annotated[str, OneOf(SCHEDULES)]

    @property
    def parameters(self) -> dict[str, Any]:
        """The named schedule's own parameters, as given."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _known_parameters(self) -> Schedule:
        known = SCHEDULES[self.name].parameters
        for key in self.parameters:
            if key not in known:
                raise finding(str(InputError.unknown(f"schedule {self.name}", key, known)))
        try:
            check_schedule(self.name, self.parameters)
        except ValueError as error:
            raise finding(str(error)) from None
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
        description="a number, or auto: found by an LR range test before the training"
    )
    batch_size: Count
    epochs: Annotated[int, Field(ge=1, le=100_000)]
    schedule: NamedSchedule = Schedule(name="constant")
    accumulation_steps: Count = Field(1, description="forwards per optimizer step")
    label_smoothing: Fraction = 0.0
    grad_clip: Positive | None = Field(None, description="clip the total gradient norm to this")
    precision: Annotated[str, OneOf(PRECISIONS)] = "auto"
    implementation: Annotated[str, OneOf(IMPLEMENTATIONS)] = Field(
        "torch", description="of optimizer and activations. Fused ones are verified before they train"
    )
    compile: bool = Field(False, description="torch.compile the model. Its time is reported apart")
    devices: Annotated[int, Field(ge=1, le=MOST_DEVICES)] = Field(
        1, description="that share each batch, one process a device. batch_size stays that of all together"
    )
    parallel: Annotated[str, OneOf(PARALLEL)] = Field(
        "ddp", description="with several devices: ddp copies the model to each, fsdp splits its parameters"
    )
    sync_batchnorm: bool = Field(
        False,
        description="with several devices: batch normalisation over the whole batch, not a device's share",
    )

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
        """`base_lr` as a number. Raises ValueError while it is `auto`."""
        if isinstance(self.base_lr, str):
            raise InvalidValueError(
                "train.base_lr", "is auto", "a number is needed here", "Find one with bench lr-range"
            )
        return self.base_lr

    @model_validator(mode="after")
    def _can_be_shared(self) -> Train:
        """Refuse what several devices cannot do."""
        if self.devices > 1:
            if self.batch_size % self.devices:
                raise finding(
                    f"batch_size {self.batch_size} cannot be shared equally by {self.devices} devices. "
                    f"Use a batch_size of {shareable_sizes(self.batch_size, self.devices)}"
                )
            refused = _refused_by_fsdp(self) if self.parallel == "fsdp" else ""
            if refused:
                raise finding(f"parallel fsdp cannot train with {refused}. Use parallel: ddp, or change that")
        return self


def shareable_sizes(batch_size: int, devices: int) -> str:
    """Return the batch sizes nearest to one that the devices can share equally, in words.

    Args:
        batch_size: one that `devices` does not divide.
        devices: 2 or more.

    Example:
        >>> shareable_sizes(50, 4), shareable_sizes(3, 4)
        ('48 or 52', '4')
    """
    below = batch_size // devices * devices
    return f"{below} or {below + devices}" if below else str(devices)


def _refused_by_fsdp(train: Train) -> str:
    """Name a setting that sharded parameters do not allow. Empty: there is none."""
    if train.implementation == "fused":
        return "implementation: fused, whose kernels need whole parameters"
    if train.compile:
        return "compile: true, which is not supported here"
    if train.precision == "fp16":
        return "precision: fp16, whose gradient scaler needs whole gradients"
    return ""


# Keys of `train` that have no effect on one device -> their defaults there.
ONE_DEVICE: dict[str, Any] = {
    name: Train.model_fields[name].default for name in ("devices", "parallel", "sync_batchnorm")
}
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
            raise finding(f"{self.metric} needs {'at_least' if accuracy else 'at_most'}, and nothing else")
        if accuracy and wanted > 1:
            raise finding(
                f"at_least: an accuracy is a fraction of 1, is {wanted:g}. Did you mean {wanted / 100:g}?"
            )
        return self


class Limits(Section):
    """The most that one trial may use."""

    memory: Bytes | None = None
    trial_time: Seconds | None = None


class EarlyStop(Section):
    """Stop a trial whose validation metric no longer improves."""

    metric: Annotated[str, OneOf(("val_accuracy", "val_loss"))] = "val_accuracy"
    patience: Count = Field(description="epochs without improvement")
    min_delta: NonNegative = 0.0


class RandomDesign(Section):
    """A number of different configurations, drawn from the grid."""

    random: Count


class SearchSettings(Section):
    """The budget of a search. Configurations are trained an epoch at a time, the promising ones further."""

    budget_epochs: Count = Field(
        description="epochs of training in all, those of the winner's re-run not counted"
    )
    prior: bool = Field(True, description="use earlier runs on other data, for the factors that they know")
    fresh_seeds: Annotated[int, Field(ge=0, le=100)] = Field(
        3, description="seeds, none of them the search's, on which the winner is trained again"
    )


class SearchDesign(Section):
    """Search the factors' values, which may be ranges here, instead of training every configuration."""

    search: SearchSettings


class Executor(Section):
    """Where trials run: workers of this machine, or a Ray cluster. What is trained does not depend on it."""

    name: Annotated[str, OneOf(EXECUTORS)] = Field(
        "local", description="local: workers of this machine. ray: the devices of a Ray cluster"
    )
    address: str | None = Field(
        None, description="of the cluster, host:port. Default: RAY_ADDRESS, or the cluster of this machine"
    )
    kind: str | None = Field(
        None,
        description="name of the GPU or processor to run on, as only times of one kind are compared. Default: the kind "
        "with the most devices",
    )
    stage: str | None = Field(
        None, description="directory of each node that data files are copied to before they are read"
    )
    wait_for_devices: Seconds = Field(
        600.0, description="the longest that a run waits while the cluster has no device for it"
    )

    @property
    def keys_of_ray(self) -> list[str]:
        """The given keys that a cluster alone takes."""
        return sorted(self.model_fields_set - {"name"})


class Resources(Section):
    """What each trial has to itself."""

    gpus: Annotated[int, Field(ge=0, le=1024)] | None = Field(
        None, description="GPUs of a trial. Default: train.devices where there are GPUs, else 0"
    )
    cpus: Annotated[int, Field(ge=1, le=65536)] | None = Field(
        None, description="cores of a trial. Default: its share of the machine's"
    )


class GateMetric(Section):
    """How the gate judges one metric."""

    threshold: Annotated[float, Field(ge=0, le=10)] | None = Field(
        None, description="relative change from which on a difference counts: 0.05 is 5 %"
    )
    better: Annotated[str, OneOf(DIRECTIONS)] | None = Field(
        None, description="which direction is better. neither: shown, and never judged"
    )


class Gate(Section):
    """What `bench gate` compares and how strictly. A run ignores it."""

    budget: Seconds | None = Field(None, description="the longest that measuring may take. Default: 10min")
    configurations: (
        Annotated[list[Annotated[dict[str, Any], PlainSerializer(_as_given)]], Field(min_length=1)] | None
    ) = Field(
        None,
        description="the configurations to gate, each factor -> its value. Default: that of train, model and data",
    )
    metrics: dict[str, GateMetric] = Field({}, description="metric -> its threshold and direction")
    benchmarks: dict[str, dict[str, GateMetric]] = Field(
        {}, description="benchmark -> metric -> its threshold and direction there"
    )


# The keys of a spec that change no training, and that a resumed run may change.
NOT_TRAINED = {"profiles", "gate", "executor", "resources"}


class Spec(Section):
    """An experiment: one workload, the factors to vary, and what to reach."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
    description: str = ""
    device: Annotated[str, OneOf(DEVICES)] = "auto"
    threads: Threads = Field(
        "auto",
        description="of each worker on the CPU. auto: measured before the first trial, one unless more are faster",
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
    ] = Field({}, description="a field of train, model or data (dotted where ambiguous) -> the values to try")
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
    gate: Gate | None = Field(None, description="for bench gate: what to compare, and how strictly")
    executor: Annotated[Executor, BeforeValidator(_named)] = Field(
        Executor(), description="where trials run: local, ray, or a mapping"
    )
    resources: Resources = Resources()
    profiles: dict[Annotated[str, OneOf(PROFILES)], dict[str, Any]] = Field(
        {}, description="merged over the spec for the device type in use"
    )

    def resolved(self) -> dict[str, Any]:
        """Return what is trained as plain data with every default filled in.

        The profiles are left out, because they are merged. So are `gate`, `executor` and `resources`, which change no
        training: a run can be continued elsewhere. A null that means the default is left out too, and so are the keys
        for several devices at their defaults. A null for a person's own code stays.
        """
        data = _without_nulls(self, self.model_dump(mode="json", exclude=NOT_TRAINED))
        for key, default in ONE_DEVICE.items():
            if data["train"][key] == default:
                del data["train"][key]
        data["factors"] = {key: values for key, values in data["factors"].items() if values is not None}
        return data


def _without_nulls(section: BaseModel, data: dict[str, Any]) -> dict[str, Any]:
    """Leave out the nulls that mean a default, in a section's plain data."""
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
    "gate": Gate,
    "executor": Executor,
    "resources": Resources,
    "metrics": GateMetric,
    "benchmarks": GateMetric,
}
