"""What a reference changes and moves is found, whatever the values are, and whatever memory the tensors share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fusetune.bench.kernels.detection import InputFacts, bits_of, bytes_in, bytes_moved, input_facts
from fusetune.kernels import KERNELS, Kernel

NAN = float("nan")


def facts_of(reference: Callable[..., Any], make: Callable[[int], dict[str, Any]]) -> InputFacts:
    kernel = Kernel("probe", reference, reference, lambda elements, dtype, device, seed: make(seed))
    return input_facts(kernel)


def draw(seed: int, *names: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(100, generator=generator) for name in names}


@pytest.mark.parametrize(
    ("reference", "mutates"),
    [
        (lambda x, y: x + y, ()),
        (lambda x, y: x.add_(y), ("x",)),
        # What an operation leaves as it is.
        (lambda x, y: y.clamp_(-1e9, 1e9), ("y",)),
        (lambda x, y: y.mul_(1), ("y",)),
        # What goes round the count of writes.
        (lambda x, y: x.data.add_(1), ("x",)),
        (lambda x, y: np.negative(x.numpy(), out=x.numpy()), ("x",)),
        (lambda x, y: torch._foreach_add_([x, y], 1), ("x", "y")),
        (lambda x, y: x[:3].zero_(), ("x",)),
        (lambda x, y: torch.neg(x, out=y), ("y",)),
    ],
)
def test_what_is_written_is_found(reference: Callable[..., Any], mutates: tuple[str, ...]) -> None:
    assert facts_of(reference, lambda seed: draw(seed, "x", "y")).mutates == mutates


def test_nan_is_no_change() -> None:
    assert facts_of(lambda x: x + 1, lambda seed: {"x": torch.full((9,), NAN)}).mutates == ()
    assert facts_of(lambda x: x.add_(1), lambda seed: {"x": torch.full((9,), NAN)}).mutates == ("x",)


def test_rows_of_one_tensor_are_told_apart() -> None:
    def make(seed: int) -> dict[str, Tensor]:
        rows = torch.randn(3, 100, generator=torch.Generator().manual_seed(seed))
        return dict(zip("pgv", rows, strict=True))

    assert facts_of(lambda p, g, v: p.sub_(g), make).mutates == ("p",)
    assert facts_of(lambda p, g, v: v.clamp_(-1e9, 1e9), make).mutates == ("v",)


def test_views_that_overlap_change_together() -> None:
    def make(seed: int) -> dict[str, Tensor]:
        x = torch.randn(100, generator=torch.Generator().manual_seed(seed))
        return {"x": x, "same": x, "tail": x[50:], "head": x[:50]}

    assert facts_of(lambda x, same, tail, head: tail.neg_(), make).mutates == ("x", "same", "tail")


@pytest.mark.parametrize(
    ("reference", "overwritten"),
    [
        (lambda x, out: out.copy_(x), True),
        (lambda x, out: out.add_(x), False),
        (lambda x, out: out.zero_(), True),
        (lambda x, out: out.relu_(), False),
        (lambda x, out: out[:50].copy_(x[:50]), True),
        (lambda x, out: out.copy_(out.max() + x), False),
        (lambda x, out: (out.copy_(x), out)[1], True),
        (lambda x, out: (x + out, out.zero_())[0], False),
        (lambda x, out: (x + 1, out.zero_())[0], True),
    ],
)
def test_what_is_written_and_not_read_is_found(reference: Callable[..., Any], overwritten: bool) -> None:
    facts = facts_of(reference, lambda seed: draw(seed, "x", "out"))
    assert facts == InputFacts(("out",), ("out",) if overwritten else ())


def test_integers_that_are_written_and_not_read_are_found() -> None:
    def make(seed: int) -> dict[str, Tensor]:
        return draw(seed, "x") | {"out": torch.zeros(100, dtype=torch.long), "mask": torch.zeros(100).bool()}

    def reference(x: Tensor, out: Tensor, mask: Tensor) -> None:
        out.copy_(x.argsort())
        torch.gt(x, 0, out=mask)

    assert facts_of(reference, make).overwritten == ("out", "mask")

    def indexed(x: Tensor, out: Tensor, mask: Tensor) -> None:
        out.copy_(x[out].long())

    assert facts_of(indexed, make) == InputFacts(("out",))


def test_what_the_author_says_is_taken() -> None:
    kernel = Kernel("said", torch.neg, torch.neg, lambda *_: {"x": torch.ones(3)}, mutates=("x",))
    assert input_facts(kernel).mutates == ("x",)


@pytest.mark.parametrize("name", ["gelu", "sgd", "momentum", "tanh_backward"])
def test_shipped_kernels_have_the_bytes_that_are_found(name: str) -> None:
    """They say theirs themselves, which is another way to the same number."""
    kernel = KERNELS[name]
    inputs = kernel.make_inputs(1000, torch.float32, torch.device("cpu"), 0)
    tensors = [each for each in inputs.values() if isinstance(each, Tensor | list)]
    assert tensors
    own = Kernel("own", kernel.fused, kernel.reference, kernel.make_inputs)
    facts = input_facts(own)
    assert set(facts.mutates) == set(kernel.mutates or ())
    if not facts.mutates:
        assert bytes_moved(inputs, kernel.reference(**inputs), facts) == kernel.bytes_moved(inputs)


X = torch.arange(100, dtype=torch.float32)


@pytest.mark.parametrize(
    ("tensors", "size"),
    [
        ([], 0),
        ([X], 400),
        ([X, X], 400),
        ([X, X.clone()], 800),
        ([X[:60], X[40:]], 400),
        ([X[:10], X[90:]], 80),
        ([X[::2]], 200),
        ([X[::2], X[1::2]], 400),
        ([X[::2], X[::4]], 200),
        ([X.view(10, 10).t()], 400),
        ([X[:1].expand(1000)], 4),
        ([X[:10].expand(50, 10)], 40),
        ([X.view(10, 10)[:, :3]], 120),
        ([X.unfold(0, 10, 1)], 400),
        ([X.view(torch.int16)[:10], X], 400),
        ([torch.empty(0)], 0),
        ([torch.ones((), dtype=torch.float64)], 8),
        ([torch.eye(10).to_sparse()], 10 * 4 + 20 * 8),
    ],
    ids=str,
)
def test_each_byte_counts_once(tensors: list[Tensor], size: int) -> None:
    assert bytes_in(tensors) == size


def test_bytes_of_random_views_are_those_of_their_addresses() -> None:
    generator = torch.Generator().manual_seed(0)
    memory = torch.zeros(4096, dtype=torch.uint8)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    for _ in range(50):
        views, addresses = [], set()
        for _ in range(number(1, 5)):
            sizes = [number(1, 6) for _ in range(number(0, 4))]
            strides = [number(0, 20) for _ in sizes]
            offset = number(0, 100)
            view = memory.view(torch.int32).as_strided(sizes, strides, offset)
            views.append(view)
            for index in np.ndindex(*sizes):
                first = 4 * (offset + sum(i * stride for i, stride in zip(index, strides, strict=True)))
                addresses |= set(range(first, first + 4))
        assert bytes_in(views) == len(addresses)


def test_results_that_are_views_of_what_is_only_read_are_not_written() -> None:
    x = torch.ones(100)
    assert bytes_moved({"x": x}, x.view(10, 10), InputFacts(())) == 400
    assert bytes_moved({"x": x}, x, InputFacts(("x",))) == 800
    assert bytes_moved({"x": x}, (x + 1, x), InputFacts(())) == 800


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int8, torch.bool, torch.complex64])
def test_bits_are_those_in_memory(dtype: torch.dtype) -> None:
    values = torch.tensor([1, 0, 1]).to(dtype)
    assert bits_of(values).numpy().tobytes() == bytes(values.untyped_storage().tolist())
