"""The kernels and their competitors, ready to be timed side by side: the same work on the CPU and on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fusetune.kernels import FusedAdam, FusedAdamW, FusedSGD, replace_activations
from fusetune.kernels.activations.api import activation, reference
from tests.perf.race import Side

OPTIMIZERS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "adam": (FusedAdam, torch.optim.Adam, {}),
    "adamw": (FusedAdamW, torch.optim.AdamW, {}),
    "sgd": (FusedSGD, torch.optim.SGD, {"lr": 0.01}),
    "momentum": (FusedSGD, torch.optim.SGD, {"lr": 0.01, "momentum": 0.9}),
}


def parameters(shapes: Sequence[tuple[int, ...]], device: str) -> list[nn.Parameter]:
    """Parameters with gradients, the same each time."""
    generator = torch.Generator(device).manual_seed(0)
    made = [nn.Parameter(torch.randn(shape, generator=generator, device=device)) for shape in shapes]
    for parameter in made:
        parameter.grad = torch.randn(parameter.shape, generator=generator, device=device)
    return made


def optimizers(name: str, shapes: Sequence[tuple[int, ...]], device: str) -> dict[str, Any]:
    """Ours, and torch's fused and foreach, each with parameters of its own."""
    fused_class, torch_class, options = OPTIMIZERS[name]
    return {
        "ours": fused_class(parameters(shapes, device), **options),
        "fused": torch_class(parameters(shapes, device), fused=True, **options),
        "foreach": torch_class(parameters(shapes, device), foreach=True, **options),
    }


def bias_and_activation(
    name: str, direction: str, x: Tensor, bias: Tensor, dy: Tensor, *, compiled: bool
) -> dict[str, Side]:
    """Forward or backward: ours, eager, and torch.compile's if asked for."""

    def eager(x: Tensor, bias: Tensor) -> Tensor:
        return reference(x, name, bias)

    functions: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "ours": lambda x, bias: activation(x, name, bias),
        "eager": eager,
    }
    if compiled:
        torch._dynamo.reset()  # compiled functions share one code object, which is compiled anew a few times only
        functions["compiled"] = torch.compile(eager)
    if direction == "forward":
        return {key: partial(f, x, bias) for key, f in functions.items()}
    return {key: _backward(f, x, bias, dy) for key, f in functions.items()}


def _backward(function: Callable[[Tensor, Tensor], Tensor], x: Tensor, bias: Tensor, dy: Tensor) -> Side:
    """Return what works out the gradients of input and bias."""
    leaves = [x.clone().requires_grad_(), bias.clone().requires_grad_()]
    y = function(*leaves)
    return lambda: torch.autograd.grad(y, leaves, dy, retain_graph=True)


def steps_of_a_small_model(device: str) -> dict[str, Callable[[], Tensor]]:
    """Training steps of one small model, by our kernels in full, in part, and by torch; each returns its loss."""
    generator = torch.Generator(device).manual_seed(0)
    x = torch.randn(64, 64, generator=generator, device=device)
    y = torch.randint(10, (64,), generator=generator, device=device)

    def trained(fused_optimizer: bool, fused_activations: bool) -> Callable[[], Tensor]:
        torch.manual_seed(0)
        layers = [nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)]
        model = nn.Sequential(*layers).to(device)
        if fused_activations:
            replace_activations(model)
        optimizer = (FusedAdam if fused_optimizer else torch.optim.Adam)(model.parameters())

        def step() -> Tensor:
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        return step

    return {
        "ours": trained(True, True),
        "fused activations only": trained(False, True),
        "fused optimizer only": trained(True, False),
        "torch": trained(False, False),
    }


def assert_same_loss(steps: dict[str, Callable[[], Tensor]]) -> None:
    """All sides have made as many steps, and are at the same loss."""
    losses = torch.stack([step().detach() for step in steps.values()])
    torch.testing.assert_close(losses, losses[-1].expand(len(steps)), rtol=1e-4, atol=1e-4)
