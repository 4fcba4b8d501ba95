"""Batch normalisation where processes share a batch: over the whole batch on request, else over each share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(model: nn.Module) -> list[str]:
    """Return the names of a model's modules that normalise over the batch in training.

    Example:
        >>> batch_norms(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.GroupNorm(1, 2)))
        ['1']
    """
    return [name for name, module in model.named_modules() if isinstance(module, _BatchNorm)]


def synchronise_batch_norms(model: nn.Module, device: torch.device) -> None:
    """Make a model's batch normalisation work over the batches of all processes.

    torch's SyncBatchNorm is for GPUs alone. On a CPU `SharedBatchNorm` takes its place.

    Args:
        model: its modules of batch normalisation are replaced. Parameters and buffers stay the same objects.
        device: where it is trained.

    Mutates: the model.
    """
    if device.type == "cuda":
        for parent, name, norm in _places(model):
            setattr(parent, name, nn.SyncBatchNorm.convert_sync_batchnorm(norm))
        return
    for parent, name, norm in _places(model):
        setattr(parent, name, SharedBatchNorm(norm))


def _places(model: nn.Module) -> Iterator[tuple[nn.Module, str, _BatchNorm]]:
    """Yield each module of batch normalisation with its parent and its name there."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm) and not isinstance(child, nn.SyncBatchNorm):
                yield parent, name, child


class SharedBatchNorm(_BatchNorm):
    """Batch normalisation over the batches of all processes, on any device.

        mean = (1/n) sum x        var = (1/n) sum (x - mean)^2        over all processes, places and samples, n of them
        y = weight (x - mean) / sqrt(var + eps) + bias

    The running variance takes n / (n - 1) var, as torch's does. In evaluation mode it is torch's batch normalisation.

    Args:
        norm: the module whose parameters, buffers and settings it takes over.

    Shapes: x is (N, C) or (N, C, ...). Each process has the same number of samples and places, or another.
    """

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        for name, parameter in norm.named_parameters(recurse=False):
            setattr(self, name, parameter)
        for name, buffer in norm.named_buffers(recurse=False):
            setattr(self, name, buffer)
        self.train(norm.training)

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any number of places."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise."""
        if not self.training and self.running_mean is not None:
            return super().forward(input)
        x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        others = [0, *range(2, x.dim())]
        places = x.numel() // x.shape[1]
        sums = _sum_over_processes(torch.cat((x.sum(others), x.new_tensor([float(places)]))))
        count = sums[-1].detach()
        shape = (1, -1) + (1,) * (x.dim() - 2)
        mean = sums[:-1] / count
        centred = x - mean.reshape(shape)
        var = _sum_over_processes(centred.square().sum(others)) / count
        self._follow(mean.detach(), var.detach(), float(count))
        y = centred * (var + self.eps).rsqrt().reshape(shape)
        if self.affine:
            y = y * self.weight.reshape(shape) + self.bias.reshape(shape)
        return y.to(input.dtype)

    def _follow(self, mean: Tensor, var: Tensor, count: float) -> None:
        """Move the running statistics."""
        if not self.training or self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        unbiased = var * (count / max(count - 1.0, 1.0))
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)


class _Sum(torch.autograd.Function):
    """The sum over all processes. Its gradient is the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx: Any, numbers: Tensor) -> Tensor:
        total = numbers.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def _sum_over_processes(numbers: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(numbers)  # type: ignore[no-untyped-call]
    return total


def same_buffers(model: nn.Module) -> None:
    """Give all processes the same buffers: means of the running statistics of batch normalisation, others of rank 0.

    The mean of the running means is exactly the running mean over whole batches. That of the running variances leaves
    out how the means of the shares differ.

    Mutates: the model's buffers.
    """
    averaged: set[int] = set()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            averaged.update(
                id(buffer) for buffer in (module.running_mean, module.running_var) if buffer is not None
            )
    processes = dist.get_world_size()
    for buffer in model.buffers():
        if id(buffer) in averaged:
            dist.all_reduce(buffer)
            buffer.div_(processes)
        else:
            dist.broadcast(buffer, 0)
