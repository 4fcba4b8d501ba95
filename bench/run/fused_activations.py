"""Fused activations in a model, and the check of kernels before anything is trained with them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from fusetune.bench.run.optimizer_maker import OptimizerMaker
from fusetune.bench.spec import Spec
from fusetune.bench.workers import WorkerContext
from fusetune.bench.workloads import verify_optimizer


def fuse_activations(spec: Spec, model: nn.Module, context: WorkerContext) -> str:
    """Put the suite's activations into the model, verify them and the optimizer, and return the activations' path.

    A kernel is verified once for each device and worker.
    """
    from fusetune.kernels.activations import Activation, activation_path
    from fusetune.kernels.replace import replace_activations, verify_activation

    verified = context.cache.setdefault("verified", set())
    options, optimizer = OptimizerMaker(spec).options, spec.train.optimizer_name
    checks: dict[str, Callable[[], None]] = {
        f"{optimizer} {options}": partial(
            verify_optimizer,
            optimizer,
            lr=spec.train.lr,
            options=options,
            device=context.device,
        )
    }
    replaced = replace_activations(model)
    fused = [(module.name, module.options) for module in model.modules() if isinstance(module, Activation)]
    fused += [(name, {}) for _, call, name in (each.rpartition(":") for each in replaced) if call]
    for name, parameters in fused:
        checks[f"{name} {parameters}"] = partial(
            verify_activation, name, torch.float32, torch.device(context.device), **parameters
        )
    for key, check in checks.items():
        if key not in verified:
            check()
            verified.add(key)
    return activation_path(torch.empty(1, device=context.device)) if fused else "none"
