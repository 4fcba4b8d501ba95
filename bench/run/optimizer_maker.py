"""The spec's optimizer, made for any parameters, at the spec's rate or another."""

from __future__ import annotations

from typing import Any

import torch

from fusetune.bench.catalog import OPTIMIZERS
from fusetune.bench.errors import InputError
from fusetune.bench.spec import OptimizerFactory, Spec
from fusetune.bench.workloads import build_optimizer, build_optimizer_from_factory


class OptimizerMaker:
    """Makes the spec's optimizer, and remembers the last one for the path that it took."""

    def __init__(self, spec: Spec) -> None:
        self._train = spec.train
        self._last: torch.optim.Optimizer | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The optimizer's options. Parameters of other optimizers in play are left out."""
        if isinstance(self._train.optimizer, OptimizerFactory):
            return self._train.optimizer.extras
        names = OPTIMIZERS[self._train.optimizer].parameters
        return {key: value for key in names if (value := getattr(self._train, key)) is not None}

    def __call__(self, parameters: Any) -> torch.optim.Optimizer:
        return self.at(parameters, self._train.lr)

    def at(self, parameters: Any, lr: float) -> torch.optim.Optimizer:
        """Make the optimizer at another rate than the spec's."""
        optimizer, implementation = self._train.optimizer, self._train.implementation
        if isinstance(optimizer, str):
            self._last = build_optimizer(
                optimizer, parameters, lr=lr, implementation=implementation, **self.options
            )
        elif implementation == "fused":
            raise InputError(
                "train.implementation",
                f"fused is not for an optimizer of your own, {optimizer.factory}",
                "the suite has no kernel for it",
                "Use implementation: torch",
            )
        else:
            self._last = build_optimizer_from_factory(
                optimizer.factory, "train.optimizer", parameters, lr=lr, options=self.options
            )
        return self._last

    def path(self, activations: str) -> dict[str, str]:
        """Say which way the optimizer and the activations took: triton, triton-cpu, interpreter or torch."""
        path = getattr(self._last, "path", "torch")
        # An optimizer of a person's own may mean something else by this name.
        return {"optimizer": path if isinstance(path, str) else "torch", "activations": activations}
