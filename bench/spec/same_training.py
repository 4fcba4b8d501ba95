"""Identity of a training: every default filled in, unused parameters left out. Equal identities train the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fusetune.bench.catalog import MODELS, OPTIMIZERS
from fusetune.bench.spec.spec import (
    ONE_DEVICE,
    OPTIMIZER_OPTIONS,
    Model,
    OptimizerFactory,
    Schedule,
    Spec,
    Train,
)
from fusetune.tuner.schedules import SCHEDULES


def identity(spec: Spec, *, device: str | None = None, built: Mapping[str, Any] | None = None) -> str:
    """Return a text that is equal for two specs exactly if they train the same with the same seed.

    Args:
        spec: with one value in each field. Factors, seeds, target and limits do not count.
        device: the device type, which decides the meaning of `precision: auto`. None: not known.
        built: findings of a rehearsal, see `bench.run.rehearsal`: the sizes of the splits, and the arguments of
            factories with their own defaults.

    Example:
        >>> base = {"name": "a", "data": {"name": "digits"}, "train": {"base_lr": 0.1, "batch_size": 8, "epochs": 1}}
        >>> plain = Spec.model_validate({**base, "model": {"name": "mlp"}})
        >>> wide = Spec.model_validate({**base, "model": {"name": "mlp", "width": 128}})
        >>> identity(plain) == identity(wide)
        True
    """
    found = {"data": spec.data.model_dump(), "model": _model(spec.model), "train": _train(spec.train, device)}
    if built is not None:
        found["data"] = {**found["data"], "validation": None, "limit": None}
        found["built"] = dict(built)
        if spec.model.factory is not None:
            found["model"] = {"factory": spec.model.factory}
        if isinstance(spec.train.optimizer, OptimizerFactory):
            found["train"] = {**found["train"], "optimizer": {"factory": spec.train.optimizer.factory}}
        if spec.data.factory is not None:
            found["data"] = {
                key: value for key, value in found["data"].items() if key not in spec.data.factory_options
            }
    return json.dumps(_plain(found), sort_keys=True, default=repr)


def _model(model: Model) -> dict[str, Any]:
    """Fill in a model's parameters. A factory's stay as they are, because only the factory knows what null means."""
    if model.factory is not None:
        return {"factory": model.factory, **model.arguments}
    assert model.name is not None
    return {"name": model.name, **_with_defaults(model.model_dump(), MODELS[model.name].parameters)}


def _train(train: Train, device: str | None) -> dict[str, Any]:
    given = train.model_dump()
    rest = {
        key: value for key, value in given.items() if key not in (*OPTIMIZER_OPTIONS, "optimizer", "schedule")
    }
    if rest["precision"] == "auto" and device is not None:
        rest["precision"] = "bf16" if device == "cuda" else "fp32"
    if train.devices == 1:
        rest |= ONE_DEVICE
    return {**rest, "optimizer": _optimizer(given["optimizer"], given), "schedule": _schedule(train.schedule)}


def _optimizer(name: Any, given: Mapping[str, Any]) -> Any:
    """Return the algorithm and all of its parameters, whatever its name in the spec."""
    if isinstance(name, dict):
        return name  # a factory with its keys as they are, because only the factory knows what null means
    options = _with_defaults(given, OPTIMIZERS[name].parameters)
    if name in ("sgd", "momentum", "nesterov"):
        plain = {"momentum": 0.0, "dampening": 0.0, "nesterov": name == "nesterov"}
        options = {**plain, **options}
        if not options["momentum"]:
            options |= plain  # without momentum there is nothing to dampen or to look ahead with
        return {"algorithm": "sgd", **options}
    if name == "adamw" and not options["weight_decay"]:
        name = "adam"  # they differ in where the decay enters
    return {"algorithm": name, **options}


def _schedule(schedule: Schedule) -> dict[str, Any]:
    known = {key: parameter.default for key, parameter in SCHEDULES[schedule.name].parameters.items()}
    return {"name": schedule.name, **_with_defaults(schedule.parameters, known)}


def _with_defaults(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that have a value. Null means the default."""
    return {key: default if given.get(key) is None else given[key] for key, default in defaults.items()}


def _plain(value: Any) -> Any:
    """Make numbers of the same value equal: 1 and 1.0."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
