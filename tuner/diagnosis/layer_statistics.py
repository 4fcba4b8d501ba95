"""Activations, gradients and movement of each layer, measured while the training clock is stopped.

A snapshot is a mapping of JSON numbers. `tuner.diagnosis` reads a training's snapshots; it needs no torch for that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from fusetune.tuner.diagnosis.layer_probes import (
    Probe,
    ProbeKey,
    thinned,
    watched_layers,
    watching,
    weight_of,
)
from fusetune.tuner.training import Batches, LossFunction, Snapshot, autocast, restored

# A unit is rarely 0 on 64 samples by chance. On 4 samples, as a batch of 1 would give, it often is.
LEAST_SAMPLES = 64
MOST_SAMPLES = 256
# As in an evaluation: without a backward pass, four batches take about the memory of a training step.
BATCHES_AT_ONCE = 4
# Weights of a layer whose movement is followed; the relative error of a norm from 512 entries is about 3 %.
FOLLOWED_WEIGHTS = 512
# Batches up to this size get their gradient noise measured, where the model is small enough for a second gradient.
SMALL_BATCH = 8
MOST_PARAMETERS = 10_000_000
# Means and norms are finite where all of their numbers are. A standard deviation also needs two samples.
_OF_MODEL = {"input_mean": "inputs", "output_mean": "outputs", "loss": "loss"}
_OF_LAYER = {"weight_norm": "weights", "mean": "outputs", "grad_norm": "gradient"}


class LayerStatistics:
    """Takes snapshots of a model on the same held samples.

    The samples are the first of epoch 0, as they are trained on: all of the first 256, fewer for batches below 64.
    The model stays in training mode, so that batch normalisation works as in a step, and runs without gradients.

        moved = |w - w_0| / |w_0|        of up to 512 weights of a layer, evenly spaced; w_0: when this was made
        gradient_noise = b m / (m - 1) (mean_c |g_c|^2 - |g|^2)        the trace of the gradient's covariance
        gradient_square = |g|^2 - gradient_noise / (b m)              g: mean of the gradients g_c of m batches of b

    Args:
        model: not compiled, in training mode; on the batches' device. Of more than 64 layers and activation modules,
            64 evenly spaced are looked at, first and last among them; and so for activations called as functions.
        batches: training data.
        loss_fn: (logits, labels) -> mean loss.
        precision: fp32, bf16 or fp16.

    Memory: 512 weights a layer stay; a snapshot needs about what an evaluation does, and with small batches what a
        step does and one gradient more.

    Source: S. McCandlish et al., "An empirical model of large-batch training" (2018), appendix A.1, for the noise.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> data = Batches(torch.randn(64, 2), torch.arange(64) % 2, batch_size=16)
        >>> look = LayerStatistics(model, data, loss_fn=nn.functional.cross_entropy, precision="fp32")
        >>> snapshot = look.snapshot(epoch=0)
        >>> [(layer["name"], layer["kind"]) for layer in snapshot["layers"]], snapshot["samples"]
        ([('0', 'Linear'), ('1', 'relu'), ('2', 'Linear')], 64)
    """

    def __init__(self, model: nn.Module, batches: Batches, *, loss_fn: LossFunction, precision: str) -> None:
        self._model = model
        self._batches = batches
        self._loss_fn = loss_fn
        self._precision = precision
        self._autocast = autocast(precision, batches.device)
        self._weighted = {
            name: module for name, module in watched_layers(model) if weight_of(module) is not None
        }
        self._start = {name: _followed(module).clone() for name, module in self._weighted.items()}

    def snapshot(self, epoch: int) -> Snapshot:
        """Return what the model does now; gradients are those that its parameters hold.

        Args:
            epoch: epochs that it has been trained for.

        Returns:
            epoch, samples, parameters, training_samples;
            classes, label_entropy (nats, corrected for the number of samples) and label_majority (share of the
            commonest) of the held labels; loss, accuracy and predicted_majority on them;
            input_mean, input_std, input_largest (of |x|) and input_constant (share of features that never change);
            output_mean (of the logits) and output_std (mean over the logits, across samples);
            gradient_noise and gradient_square, with batches of up to 8 samples and up to 10 million parameters;
            not_finite, where there is anything: which of inputs, outputs and loss are not finite (the model's outputs);
            layers, in the order of their calls: name, kind, mean, std and sample_std of the output; where there are
            weights also weight_norm, grad_norm and moved; of rectifiers zero_share and dead_share; of sigmoid and
            tanh saturated_share, see `tuner.diagnosis.layer_probes.Probe`. An activation that a module calls as a
            function is named after the module, as in `block1.relu`.
            not_finite, where there is anything: which of weights, outputs and gradient are not finite.
            A number that is not finite is None, and so is the gradient norm of a layer without a gradient.

        Mutates: nothing; modes, hooks, buffers and torch's random states are put back.
        """
        devices = [self._batches.device] if self._batches.device.type == "cuda" else []
        outer = _Held()
        with torch.random.fork_rng(devices=devices), restored(self._model.named_buffers), torch.no_grad():
            with watching(self._model) as watch:
                for x, y in self._chunks():
                    # Copies, because model and loss may change their arguments, and these are read below.
                    with self._autocast:
                        with watch.forward():
                            logits = self._model(x.clone())
                        loss = self._loss_fn(logits.clone(), y.clone())
                    outer.add(x, y, logits.float(), loss)
            layers = [
                (
                    name if not call else f"{name} (call {call + 1})",
                    probe,
                    {**probe.numbers(), **self._weights(name, call)},
                )
                for (name, call), probe in _listed(watch.probes)
            ]
        numbers, broken = _read([outer.numbers(), *(tensors for _, _, tensors in layers)])
        return {
            "epoch": epoch,
            "samples": outer.samples,
            **outer.label_numbers(),
            "parameters": sum(parameter.numel() for parameter in self._model.parameters()),
            "training_samples": self._batches.samples,
            **numbers[0],
            **_named(broken[0], _OF_MODEL),
            **self._noise(),
            "layers": [
                {"name": name, "kind": probe.kind, **values, **_named(names, _OF_LAYER)}
                for (name, probe, _), values, names in zip(layers, numbers[1:], broken[1:], strict=True)
            ],
        }

    def _chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the held samples, some batches at a time."""
        size = self._batches.batch_size
        wanted = min(MOST_SAMPLES, max(LEAST_SAMPLES, BATCHES_AT_ONCE * size))
        stream = self._batches.epoch(0)
        left = wanted
        while left > 0 and (chunk := list(islice(stream, min(BATCHES_AT_ONCE, math.ceil(left / size))))):
            x, y = (torch.cat(parts)[:left] for parts in zip(*chunk, strict=True))
            left -= len(y)
            yield x, y

    def _noise(self) -> dict[str, float | None]:
        """Estimate the variance of the gradient from the gradients of small batches."""
        parameters = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        size = self._batches.batch_size
        if (
            size > SMALL_BATCH
            or sum(map(torch.numel, parameters)) > MOST_PARAMETERS
            or self._precision == "fp16"
        ):
            return {}
        devices = [self._batches.device] if self._batches.device.type == "cuda" else []
        squares = []
        total: list[Tensor] = []
        with torch.random.fork_rng(devices=devices), restored(self._model.named_buffers):
            for x, y in islice(self._batches.epoch(0), LEAST_SAMPLES // size):
                with self._autocast:
                    loss = self._loss_fn(self._model(x), y)
                gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
                known = [gradient for gradient in gradients if gradient is not None]
                squares.append(get_total_norm(known).square())
                total = [a + b for a, b in zip(total, known, strict=True)] if total else known
        if len(squares) < 2:
            return {}
        count = len(squares)
        (numbers,), _ = _read(
            [{"one": torch.stack(squares).mean(), "all": (get_total_norm(total) / count).square()}]
        )
        if numbers["one"] is None or numbers["all"] is None:
            return {"gradient_noise": None, "gradient_square": None}
        noise = size * count / (count - 1) * (numbers["one"] - numbers["all"])
        return {"gradient_noise": noise, "gradient_square": numbers["all"] - noise / (size * count)}

    def _weights(self, name: str, call: int) -> dict[str, Tensor | None]:
        """Return norms of a layer's weights and gradient, and how far it has moved; nothing for other modules."""
        if name not in self._start or call:
            return {}
        module = self._weighted[name]
        weight, start = weight_of(module), self._start[name]
        assert weight is not None
        return {
            "weight_norm": weight.detach().norm(),
            "grad_norm": None if weight.grad is None else weight.grad.norm(),
            "moved": (_followed(module) - start).norm() / start.norm(),
        }


class _Held:
    """Inputs, labels and logits of the held samples, as sums over chunks."""

    def __init__(self) -> None:
        self._chunks: list[dict[str, Tensor]] = []
        self._labels: list[Tensor] = []
        self._predicted: list[Tensor] = []

    @property
    def samples(self) -> int:
        return sum(map(len, self._labels))

    def add(self, x: Tensor, y: Tensor, logits: Tensor, loss: Tensor) -> None:
        """Take in a chunk."""
        x = x.float()
        self._classes = logits.shape[1]
        self._chunks.append(
            {
                "loss": loss.float(),
                "accuracy": (logits.argmax(1) == y).float().mean(),
                "input_mean": x.mean(),
                "input_std": x.std(),
                "input_largest": x.abs().max(),
                "input_constant": (x.amax(0) == x.amin(0)).float().mean(),
                "output_mean": logits.mean(),
                "output_std": logits.std(0).mean(),
            }
        )
        self._labels.append(y)
        self._predicted.append(logits.argmax(1))

    def numbers(self) -> dict[str, Tensor]:
        """Return means over the chunks, unweighted: all but the last are of one size."""
        return {name: torch.stack([c[name] for c in self._chunks]).mean() for name in self._chunks[0]}

    def label_numbers(self) -> dict[str, float | int]:
        """Return the distribution of labels and predictions, counted once, on the host."""
        labels, predicted = (
            torch.bincount(torch.cat(parts).clamp(min=0), minlength=self._classes).tolist()
            for parts in (self._labels, self._predicted)
        )
        shares = [count / self.samples for count in labels if count]
        # Miller and Madow: the entropy of n draws is too low by (K - 1) / 2n on average.
        entropy = -math.fsum(share * math.log(share) for share in shares) + (len(shares) - 1) / (
            2 * self.samples
        )
        return {
            "classes": self._classes,
            "label_entropy": min(entropy, math.log(self._classes)),
            "label_majority": max(shares),
            "predicted_majority": max(predicted) / self.samples,
        }


def _named(broken: Sequence[str], names: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the quantities with a number that is not finite, by name. Nothing where all are finite."""
    found = [thing for number, thing in names.items() if number in broken]
    return {"not_finite": found} if found else {}


def _read(
    groups: Sequence[Mapping[str, Tensor | None]],
) -> tuple[list[dict[str, float | None]], list[list[str]]]:
    """Bring all numbers to the host at once. The device is waited for here, and only here.

    Returns:
        the numbers, None for one that is not finite or not there. And the names of those that are not finite.
    """
    tensors = [tensor.detach().float() for group in groups for tensor in group.values() if tensor is not None]
    values = iter(torch.stack(tensors).tolist())
    read = [
        {name: None if tensor is None else next(values) for name, tensor in group.items()} for group in groups
    ]

    def is_broken(value: float | None) -> bool:
        return value is not None and not math.isfinite(value)

    numbers = [{name: None if is_broken(value) else value for name, value in group.items()} for group in read]
    return numbers, [[name for name, value in group.items() if is_broken(value)] for group in read]


def _listed(probes: Mapping[ProbeKey, Probe]) -> list[tuple[ProbeKey, Probe]]:
    """Return the probes in the order of their calls, those of functions thinned."""
    functions = set(thinned([key for key, probe in probes.items() if probe.function]))
    return [(key, probe) for key, probe in probes.items() if not probe.function or key in functions]


def _followed(module: nn.Module) -> Tensor:
    """Return the weights whose movement is followed."""
    weight = weight_of(module)
    assert weight is not None
    flat = weight.detach().reshape(-1)
    return flat[:: math.ceil(len(flat) / FOLLOWED_WEIGHTS)]
