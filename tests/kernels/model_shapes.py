"""Shapes of the parameters of three well-known models, for what depends on sizes alone."""

from __future__ import annotations

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


def vit_b16() -> Shapes:
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


MODELS: dict[str, Shapes] = {"resnet50": resnet50(), "vit-b-16": vit_b16(), "gpt2-124m": gpt2_124m()}
