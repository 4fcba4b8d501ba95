"""The `options` of run.json for each kind of run that has some: what its command was given besides the spec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RangeTestOptions:
    """Options of `bench lr-range`.

    Args:
        lr_min: lowest learning rate.
        lr_max: highest learning rate.
        steps: learning rates in a sweep.
        repeats: sweeps.
        mode: spacing of the rates, `exponential` or `linear`.
        validation: whether the validation loss is used in place of the training loss.
        confirm: whether short trainings around the suggestion follow.
        all_seeds: whether every seed of the spec is used.
    """

    lr_min: float
    lr_max: float
    steps: int
    repeats: int
    mode: str
    validation: bool
    confirm: bool = True
    all_seeds: bool = False

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> RangeTestOptions:
        """Read the JSON object. Raises TypeError where one without a default is missing."""
        return cls(**_known(cls, options))


@dataclass(frozen=True)
class BatchSizeOptions:
    """Options of `bench batch-size`.

    Args:
        device: name of a device that is not there, or None.
        max_batch: the largest batch size to consider. None: all samples.
        noise_epochs: epochs after which the gradient noise is measured.
        train_batch_size: batch size of the spec. None: not known.
        memory_bytes: the limit. None: the device's.
        memory_source: who set it.
        devices: numbers of devices that may share a batch, ascending. Empty: one alone.
        parallel: how they share it: `ddp` or `fsdp`.
        predict: whether nothing is run.
    """

    device: str | None = None
    max_batch: int | None = None
    noise_epochs: tuple[int, ...] = ()
    train_batch_size: int | None = None
    memory_bytes: int | None = None
    memory_source: str = "--memory"
    devices: tuple[int, ...] = ()
    parallel: str = "ddp"
    predict: bool = False

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> BatchSizeOptions:
        """Read the JSON object.

        Example:
            >>> BatchSizeOptions.from_dict({"max_batch": 64, "noise_epochs": [0, 1]}).noise_epochs
            (0, 1)
        """
        known = _known(cls, options)
        lists = {name: tuple(known.get(name, ())) for name in ("noise_epochs", "devices")}
        return cls(**{**known, **lists})


def _known(cls: type[RangeTestOptions | BatchSizeOptions], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are fields of the class."""
    return {name: options[name] for name in cls.__dataclass_fields__ if name in options}
