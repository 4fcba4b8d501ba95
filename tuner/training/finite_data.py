"""The sample of the data, or the tensor of a model, that is not finite: named before a rate is blamed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fusetune.errors import InvalidValueError

# Samples among which there is one are looked at in parts of so many numbers: a mask takes a byte for each.
_AT_ONCE = 2**22


def samples_not_finite(x: Tensor) -> tuple[int, int] | None:
    """Return the index of the first sample with a NaN or an infinity and how many there are. None: all are finite.

    One pass where the data are, without a copy. The host waits for it once. Only what is not finite costs more.

    Args:
        x: (N, ...). Of anything but floating numbers there is nothing to look for.

    Example:
        >>> samples_not_finite(torch.tensor([[1.0, 2.0], [3.0, float("nan")], [float("inf"), 0.0]]))
        (1, 2)
    """
    if not x.is_floating_point() or not x.numel():
        return None
    if all(bool(end.isfinite()) for end in torch.aminmax(x)):  # NaN is passed on
        return None
    rows = max(1, _AT_ONCE * len(x) // x.numel())
    broken = torch.cat([~part.reshape(len(part), -1).isfinite().all(1) for part in x.split(rows)])
    count = int(broken.sum())
    return (int(broken.int().argmax()), count) if count else None


def check_finite(where: str, x: Any) -> None:
    """Refuse samples that are not finite.

    Args:
        where: what they are, such as `training data`.
        x: (N, ...). Anything but a tensor is passed over.

    Raises:
        ValueError: names the first such sample by its index, and says how many there are.

    Example:
        >>> check_finite("x", torch.tensor([[0.0], [float("inf")]]))
        Traceback (most recent call last):
        ...
        fusetune.errors.InvalidValueError: x: sample 1 is not finite; 1 of 2 samples is. Mend it or leave it out
    """
    found = samples_not_finite(x) if isinstance(x, Tensor) and x.dim() else None
    if found is None:
        return
    index, count = found
    are, it = ("is", "it") if count == 1 else ("are", "them")
    raise InvalidValueError(
        where,
        f"sample {index} is not finite",
        f"{count} of {len(x)} samples {are}",
        f"Mend {it} or leave {it} out",
    )


def tensor_not_finite(model: nn.Module) -> str | None:
    """Return the name of a model's first parameter or buffer that is not finite, or None.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> _ = nn.init.constant_(model.bias, float("nan"))
        >>> tensor_not_finite(model)
        'bias'
    """
    named = [
        (name, tensor.detach())
        for tensors in (model.named_parameters(), model.named_buffers())
        for name, tensor in tensors
        if tensor.is_floating_point() or tensor.is_complex()
    ]
    return next((name for name, tensor in named if not bool(tensor.isfinite().all())), None)
