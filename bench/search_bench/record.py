"""Recording of a table of learning curves, for a small network and all combinations of five hyper-parameters.

    learning rate x batch size x optimizer x activation x schedule = 9 x 5 x 3 x 3 x 3 = 1215 configurations, 8 epochs

All configurations of a table share the order of the samples and the initial weights. Those with equal batch size and
activation are trained as one wide network with hand-written gradients. The values equal those of separate trainings up
to rounding, in a fifth of the time.

`python -m fusetune.bench.search_bench.record NAME` writes one table, in minutes on one core. `--prior` recomputes the
prior that `tuner.search` ships, from all tables.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from fusetune.bench.search_bench.table import Table
from fusetune.bench.search_bench.workloads import WORKLOADS, Workload
from fusetune.bench.terminal import say
from fusetune.tuner.schedules import build_schedule
from fusetune.tuner.search import SHIPPED

LRS = tuple(float(f"{10 ** (-4 + half / 2):.4g}") for half in range(9))
BATCH_SIZES = (16, 32, 64, 128, 256)
OPTIMIZERS = ("sgd", "momentum", "adam")
ACTIVATIONS = ("relu", "tanh", "sigmoid")
SCHEDULES = ("constant", "cosine", "one-cycle")
EPOCHS = 8
MOMENTUM = 0.9
BETAS, EPS = (0.9, 0.999), 1e-8

_ACT: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
# Derivative of each activation, as a function of its output.
_SLOPE: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": lambda out: (out > 0).to(out.dtype),
    "tanh": lambda out: 1 - out * out,
    "sigmoid": lambda out: out * (1 - out),
}


def record(workload: Workload, family: str = "", *, epochs: int = EPOCHS, seed: int = 0) -> Table:
    """Train every configuration and return its validation accuracies.

    Memory: 81 copies of the weights, with gradients and two moments for each.
    """
    grid = (LRS, BATCH_SIZES, OPTIMIZERS, ACTIVATIONS, SCHEDULES)
    correct = np.zeros((*map(len, grid), epochs), dtype=np.uint16)
    for (b, batch_size), (a, activation) in itertools.product(enumerate(BATCH_SIZES), enumerate(ACTIVATIONS)):
        start = time.process_time()
        # (optimizer, lr, schedule, epoch) -> (lr, optimizer, schedule, epoch)
        counts = _train_side_by_side(workload, batch_size, activation, epochs, seed)
        correct[:, b, :, a] = counts.transpose(1, 0, 2, 3)
        say(
            f"batch {batch_size} {activation}: best {counts.max() / len(workload.y_val):.4f}, "
            f"{time.process_time() - start:.1f} s",
        )
    choices: dict[str, list[Any]] = {
        "lr": list(LRS),
        "batch_size": list(BATCH_SIZES),
        "optimizer": list(OPTIMIZERS),
        "activation": list(ACTIVATIONS),
        "schedule": list(SCHEDULES),
    }
    return Table(choices, correct.reshape(-1, epochs), len(workload.y_val), family)


def _train_side_by_side(
    workload: Workload, batch_size: int, activation: str, epochs: int, seed: int
) -> np.ndarray:
    """Train all optimizers, rates and schedules as one wide network. Return the correct answers after each epoch.

    Returns:
        (optimizers, rates, schedules, epochs) int64.
    """
    torch.manual_seed(seed)
    n, classes = len(workload.y), int(workload.y.max()) + 1
    widths = (workload.x.shape[1], *workload.hidden, classes)
    models = len(OPTIMIZERS) * len(LRS) * len(SCHEDULES)
    per_optimizer = len(LRS) * len(SCHEDULES)
    parameters: list[torch.Tensor] = []
    for fan_in, fan_out in itertools.pairwise(widths):
        bound = fan_in**-0.5
        weight = torch.empty(fan_in, fan_out).uniform_(-bound, bound)
        bias = torch.empty(1, fan_out).uniform_(-bound, bound)
        parameters += [weight.expand(models, -1, -1).contiguous(), bias.expand(models, -1, -1).contiguous()]
    velocity = [torch.zeros_like(p[per_optimizer : 2 * per_optimizer]) for p in parameters]
    exp_avg = [torch.zeros_like(p[2 * per_optimizer :]) for p in parameters]
    exp_avg_sq = [torch.zeros_like(p[2 * per_optimizer :]) for p in parameters]
    steps_per_epoch = n // batch_size
    total = epochs * steps_per_epoch
    multipliers = torch.tensor(
        [
            [
                build_schedule(name, total_steps=total, steps_per_epoch=steps_per_epoch)(step)
                for name in SCHEDULES
            ]
            for step in range(total)
        ]
    )
    lrs = torch.tensor(LRS)
    counts = np.zeros((models, epochs), dtype=np.int64)
    for epoch in range(epochs):
        order = torch.randperm(n, generator=torch.Generator().manual_seed(1000 * seed + epoch))
        for index in range(steps_per_epoch):
            rows = order[index * batch_size : (index + 1) * batch_size]
            gradients = _gradients(parameters, workload.x[rows], workload.y[rows], activation)
            step = epoch * steps_per_epoch + index
            lr = (lrs[:, None] * multipliers[step]).reshape(-1, 1, 1)
            first = 1 - BETAS[0] ** (step + 1)
            second = (1 - BETAS[1] ** (step + 1)) ** 0.5
            for i, (p, g) in enumerate(zip(parameters, gradients, strict=True)):
                p[:per_optimizer].addcmul_(lr, g[:per_optimizer], value=-1)
                velocity[i].mul_(MOMENTUM).add_(g[per_optimizer : 2 * per_optimizer])
                p[per_optimizer : 2 * per_optimizer].addcmul_(lr, velocity[i], value=-1)
                g_adam = g[2 * per_optimizer :]
                exp_avg[i].lerp_(g_adam, 1 - BETAS[0])
                exp_avg_sq[i].mul_(BETAS[1]).addcmul_(g_adam, g_adam, value=1 - BETAS[1])
                denominator = exp_avg_sq[i].sqrt().div_(second).add_(EPS)
                p[2 * per_optimizer :].addcdiv_(exp_avg[i] * (lr / first), denominator, value=-1)
        logits = _forward(parameters, workload.x_val, activation)[-1]
        right = (logits.argmax(-1) == workload.y_val).sum(-1)
        finite = logits.isfinite().all(-1).all(-1)
        counts[:, epoch] = torch.where(finite, right, 0).numpy()
    return counts.reshape(len(OPTIMIZERS), len(LRS), len(SCHEDULES), epochs)


def _forward(parameters: list[torch.Tensor], x: torch.Tensor, activation: str) -> list[torch.Tensor]:
    """Return each layer's output for all models, (models, samples, width)."""
    w1, b1, w2, b2, w3, b3 = parameters
    act = _ACT[activation]
    h1 = act(torch.matmul(x, w1).add_(b1))
    h2 = act(torch.baddbmm(b2, h1, w2))
    return [h1, h2, torch.baddbmm(b3, h2, w3)]


def _gradients(
    parameters: list[torch.Tensor], x: torch.Tensor, y: torch.Tensor, activation: str
) -> list[torch.Tensor]:
    """Return the gradients of the mean cross entropy, in the order of the parameters."""
    h1, h2, logits = _forward(parameters, x, activation)
    slope = _SLOPE[activation]
    d3 = logits.softmax(-1).sub_(F.one_hot(y, logits.shape[-1])).div_(len(y))
    d2 = torch.bmm(d3, parameters[4].mT).mul_(slope(h2))
    d1 = torch.bmm(d2, parameters[2].mT).mul_(slope(h1))
    return [
        torch.matmul(x.T, d1),
        d1.sum(1, keepdim=True),
        torch.bmm(h1.mT, d2),
        d2.sum(1, keepdim=True),
        torch.bmm(h2.mT, d3),
        d3.sum(1, keepdim=True),
    ]


def main() -> None:
    """Record the named tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"tables to record: {', '.join(sorted(WORKLOADS))}"
    )
    parser.add_argument(
        "--prior", action="store_true", help="write the shipped prior from the shipped tables"
    )
    parser.add_argument("--directory", type=Path, default=Path(__file__).parent / "tables")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(WORKLOADS))
    if unknown or not (arguments.names or arguments.prior):
        parser.error(f"unknown table '{unknown[0]}'" if unknown else "name a table, or --prior")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    for name in arguments.names:
        start = time.perf_counter()
        source = WORKLOADS[name]
        table = record(source.draw(), source.family)
        table.save(arguments.directory / f"{name}.npz")
        say(f"{name}: {table.summary()} ({time.perf_counter() - start:.0f} s)")
    if arguments.prior:
        from fusetune.bench.search_bench.replay import prior_without_family

        prior_without_family(None).save(SHIPPED)
        say(f"prior: {SHIPPED}")


if __name__ == "__main__":
    main()
