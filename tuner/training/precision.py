"""The number format of the forward pass: fp32, or bf16 / fp16 through torch.autocast."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from fusetune.errors import InvalidValueError

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS = ("auto", "fp32", *_DTYPES)


def resolve_precision(precision: str, device: torch.device | str) -> str:
    """Turn `auto` into bf16 on a CUDA device that computes in it, else into fp32. Pass the others on.

    Args:
        precision: auto, fp32, bf16 or fp16.
        device: where the model runs.

    Raises:
        ValueError: an unknown precision, or fp16 anywhere but on CUDA.

    Example:
        >>> resolve_precision("auto", "cpu"), resolve_precision("bf16", "cpu")
        ('fp32', 'bf16')
    """
    on_cuda = torch.device(device).type == "cuda"
    if precision not in PRECISIONS:
        raise InvalidValueError.unknown("precision", precision, PRECISIONS, in_order=True)
    if precision == "fp16" and not on_cuda:
        raise InvalidValueError(
            "precision", f"fp16 needs a CUDA device, not {device}", to_do="Use bf16 or fp32"
        )
    if precision == "auto":
        return "bf16" if on_cuda and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return precision


def autocast(precision: str, device: torch.device | str) -> AbstractContextManager[object]:
    """Return a context, to be entered any number of times, in which a forward pass computes in `precision`.

    Args:
        precision: fp32, bf16 or fp16, as `resolve_precision` returns it.
        device: where the model runs.

    Example:
        >>> import torch
        >>> with autocast("bf16", "cpu"):
        ...     torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype
        torch.bfloat16
    """
    # A disabled torch.autocast would do for fp32 too, but costs some microseconds at every step.
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=_DTYPES[precision])
