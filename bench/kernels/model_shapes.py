"""The parameter lists of three well-known models, and optimizer kernels on them: one launch for many tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fusetune.bench.errors import InputError

if TYPE_CHECKING:
    import torch

    from fusetune.kernels import Kernel

Shapes = list[tuple[int, ...]]


def resnet50() -> Shapes:
    """ResNet-50: 161 tensors, 25,557,032 parameters."""
    shapes: Shapes = [(64, 3, 7, 7), (64,), (64,)]
    channels = 64
    for blocks, width in ((3, 64), (4, 128), (6, 256), (3, 512)):
        for block in range(blocks):
            for kernel in ((width, channels, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)):
                shapes += [kernel, kernel[:1], kernel[:1]]
            if block == 0:
                shapes += [(4 * width, channels, 1, 1), (4 * width,), (4 * width,)]
            channels = 4 * width
    return [*shapes, (1000, 2048), (1000,)]


def vit_b_16() -> Shapes:
    """ViT-B/16 at 224 pixels: 152 tensors, 86,567,656 parameters."""
    shapes: Shapes = [(1, 1, 768), (1, 197, 768), (768, 3, 16, 16), (768,)]
    for _ in range(12):
        shapes += _transformer_block(768)
    return [*shapes, (768,), (768,), (1000, 768), (1000,)]


def gpt2_124m() -> Shapes:
    """GPT-2 small with tied embeddings: 148 tensors, 124,439,808 parameters."""
    shapes: Shapes = [(50257, 768), (1024, 768)]
    for _ in range(12):
        shapes += _transformer_block(768)
    return [*shapes, (768,), (768,)]


def _transformer_block(width: int) -> Shapes:
    """Attention and a four times wider MLP, each after a layer norm."""
    matrices = [(3 * width, width), (width, width), (4 * width, width), (width, 4 * width)]
    return [*[(width,)] * 4, *matrices, *[matrix[:1] for matrix in matrices]]


# A name that stands for a shape -> the shapes of the model's parameters.
MODELS: dict[str, Shapes] = {"resnet50": resnet50(), "vit_b_16": vit_b_16(), "gpt2_124m": gpt2_124m()}


def kernel_on(kernel: Kernel, shape: int | str) -> tuple[Kernel, int]:
    """Return the kernel that a case means, and the number of elements to make its inputs with.

    Args:
        kernel: as it was found.
        shape: a number of elements, or a name of `MODELS`, for which the kernel must be an optimizer's.

    Returns:
        For a number the kernel itself. For a model one whose streams are lists of tensors, and the number of the
        model's parameters. Its `make_inputs` gives the model's list cut to other numbers of elements too.

    Raises:
        InputError: the model is not known, or the kernel updates no parameters.

    Example:
        >>> from fusetune.kernels import KERNELS
        >>> kernel, elements = kernel_on(KERNELS["adam"], "resnet50")
        >>> import torch
        >>> inputs = kernel.make_inputs(10_000, torch.float32, torch.device("cpu"), 0)
        >>> elements, [tensor.numel() for tensor in inputs["streams"][0]]
        (25557032, [9408, 64, 64, 464])
    """
    if isinstance(shape, int):
        return kernel, shape
    if shape not in MODELS:
        raise InputError.unknown(f"{kernel.name}: shape", shape, MODELS)
    if kernel.family != "optimizer":
        what = f"has no parameters to update on {shape}"
        raise InputError(kernel.name, what, f"it is of the family '{kernel.family}'", "Give a number")
    shapes = MODELS[shape]

    def make_inputs(elements: int, dtype: torch.dtype, device: torch.device, seed: int) -> dict[str, Any]:
        inputs = kernel.make_inputs(elements, dtype, device, seed)
        wanted = list(cut(shapes, elements))
        sizes = [math.prod(each) for each in wanted]
        lists = [
            [part.clone().view(each) for part, each in zip(flat.split(sizes), wanted, strict=True)]
            for flat in inputs["streams"]
        ]
        return {**inputs, "streams": lists}

    def reference(streams: Sequence[Sequence[Any]], **others: Any) -> None:
        for tensors in zip(*streams, strict=True):
            kernel.reference(streams=tensors, **others)

    def bytes_moved(inputs: dict[str, Any]) -> int:
        of_one = kernel.bytes_moved
        assert of_one is not None
        return sum(of_one({**inputs, "streams": each}) for each in zip(*inputs["streams"], strict=True))

    on_model = replace(kernel, make_inputs=make_inputs, reference=reference, bytes_moved=bytes_moved)
    return on_model, sum(map(math.prod, shapes))


def cut(shapes: Sequence[tuple[int, ...]], elements: int) -> Iterator[tuple[int, ...]]:
    """Yield the first shapes that hold so many elements. What the last one lacks or leaves is a vector.

    Example:
        >>> list(cut([(2, 3), (4,)], 8)), list(cut([(2, 3), (4,)], 12)), list(cut([(2, 3)], 6))
        ([(2, 3), (2,)], [(2, 3), (4,), (2,)], [(2, 3)])
    """
    for shape in shapes:
        if math.prod(shape) > elements:
            break
        elements -= math.prod(shape)
        yield shape
    if elements:
        yield (elements,)
