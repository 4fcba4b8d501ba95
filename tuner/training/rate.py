"""A schedule at work on an optimizer: learning rate and momentum of every group, before each step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from fusetune.errors import InvalidValueError

StepFunction = Callable[[int], float]


class LearningRate:
    """Sets lr = base_lr * schedule(step) in every group. A group's base_lr is the lr that it was made with.

    With `plateau`, torch's ReduceLROnPlateau lowers the base_lr whenever the watched metric stops improving, in each
    group down to `min_factor` times what that group began with.
    With `momentum`, its value becomes SGD's `momentum`, or the first of Adam's `betas`.

    Args:
        optimizer: whose groups are set.
        schedule: step (from 0) -> multiplier.
        momentum: step (from 0) -> momentum, or None to leave it alone.
        plateau: the arguments of ReduceLROnPlateau and, in the place of min_lr, min_factor in [0, 1]. Or None.

    Mutates: the optimizer's groups.

    Raises:
        ValueError: `momentum` for an optimizer that has none.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.5)
        >>> rate = LearningRate(optimizer, lambda step: 1 / (1 + step))
        >>> rate.set(3); optimizer.param_groups[0]["lr"]
        0.125
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedule: StepFunction,
        *,
        momentum: StepFunction | None = None,
        plateau: Mapping[str, Any] | None = None,
    ) -> None:
        self._groups = optimizer.param_groups
        self._schedule = schedule
        self._momentum = momentum
        if momentum and not all("momentum" in group or "betas" in group for group in self._groups):
            raise InvalidValueError(
                "momentum",
                f"{type(optimizer).__name__} has neither momentum nor betas",
                to_do="Do not cycle the momentum",
            )
        # ReduceLROnPlateau changes the rates of an optimizer. It gets one of its own that holds the base rates, so
        # that its reductions and the schedule's multipliers do not overwrite each other.
        bases = [{"params": [torch.zeros(1)], "lr": float(group["lr"])} for group in self._groups]
        base_optimizer = torch.optim.SGD(bases)
        self._bases = base_optimizer.param_groups
        self._plateau = None
        if plateau is not None:
            rule = dict(plateau)
            if "min_factor" in rule:
                factor = rule.pop("min_factor")
                rule["min_lr"] = [factor * base["lr"] for base in self._bases]
            # By default torch leaves out reductions below 1e-8, which is much of a small group's rate.
            self._plateau = ReduceLROnPlateau(base_optimizer, **{"eps": 0.0, **rule})

    @property
    def current(self) -> float:
        """The learning rate of the first group."""
        return float(self._groups[0]["lr"])

    def set(self, step: int) -> None:
        """Set the rates for `step`, the number of updates made so far."""
        multiplier = self._schedule(step)
        for group, base in zip(self._groups, self._bases, strict=True):
            group["lr"] = base["lr"] * multiplier
        if self._momentum is None:
            return
        momentum = self._momentum(step)
        for group in self._groups:
            if "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            else:
                group["momentum"] = momentum

    def end_epoch(self, metric: float | None) -> None:
        """Give the plateau rule, where there is one, the watched metric at an epoch's end. None counts as no news."""
        if self._plateau is not None and metric is not None:
            self._plateau.step(metric)
