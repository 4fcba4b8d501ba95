"""What is put back after a trial run, of models that change themselves and of sources with a state of their own."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fusetune.tuner.learning_rate.range import lr_range_test
from fusetune.tuner.training.restore import leaving_no_trace
from tests.tuner.snapshots import same


class Changing(nn.Module):
    """Changes itself in each forward, in one of the ways that there are."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.layer = nn.Linear(8, 3)
        self.register_buffer("cache", None if kind == "filled buffer" else torch.zeros(1))
        self.history: list[int] = []
        self.known: dict[str, Any] = {"nested": {"seen": set(), "last": deque([1], maxlen=3)}}
        self.order = np.arange(5)
        self.draws = [random.Random(1), np.random.default_rng(1), torch.Generator().manual_seed(1)]
        self.is_first = True

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "grown buffer":
            self.cache = torch.cat([self.cache, torch.ones(1)])  # type: ignore[has-type]
        if self.kind == "filled buffer":
            self.cache = torch.ones(2)
        if self.kind == "new parameter" and self.is_first:
            self.extra = nn.Parameter(torch.ones(3))
            self.register_buffer("further", torch.ones(1))
            self.add_module("norm", nn.LayerNorm(8))
        if self.kind == "new parameter":
            x = self.norm(x) * self.further  # type: ignore[operator]
        if self.kind == "frozen":
            self.layer.bias.requires_grad_(False)
            self.eval()
        self.is_first = False
        self.history.append(1)
        self.known["nested"]["seen"].add(len(self.history))
        self.known["nested"]["last"].append(len(self.history))
        self.known[str(len(self.history))] = x
        self.order += 1
        self.draws[0].random()  # type: ignore[attr-defined]
        self.draws[1].random()  # type: ignore[attr-defined]
        torch.rand(1, generator=self.draws[2])  # type: ignore[call-overload]
        return self.layer(x)


def state_of(model: Changing) -> list[Any]:
    return [
        {name: value.clone() for name, value in model.state_dict().items()},
        [(name, id(parameter), parameter.requires_grad) for name, parameter in model.named_parameters()],
        [(name, id(buffer)) for name, buffer in model.named_buffers()],
        [(name, id(module), module.training) for name, module in model.named_modules()],
        None if model.cache is None else model.cache.tolist(),
        list(model.history),
        sorted(model.known),
        sorted(model.known["nested"]["seen"]),
        list(model.known["nested"]["last"]),
        model.order.tolist(),
        model.draws[0].getstate(),  # type: ignore[attr-defined]
        model.draws[1].bit_generator.state,  # type: ignore[attr-defined]
        model.draws[2].get_state(),  # type: ignore[attr-defined]
        model.is_first,
    ]


@pytest.mark.parametrize(
    "kind", ["grown buffer", "filled buffer", "new parameter", "frozen", "none of these"]
)
def test_a_model_that_changes_itself_is_put_back_after_a_range_test(kind: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 8)
    data = list(zip(x.split(16), (x[:, 0] > 0).long().split(16), strict=True))
    model = Changing(kind)
    before = state_of(model)
    found = lr_range_test(
        model, lambda p, lr: torch.optim.SGD(p, lr=lr), nn.functional.cross_entropy, data, steps=20
    )
    assert found.steps_used
    assert same(before, state_of(model))


def test_each_sweep_begins_with_the_same_model() -> None:
    """A buffer that grows by one in each forward has the same length at the same step of each sweep."""
    lengths: list[int] = []

    class Growing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 3)
            self.register_buffer("cache", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            lengths.append(len(self.cache))  # type: ignore[has-type]
            self.cache = torch.cat([self.cache, torch.ones(1)])  # type: ignore[has-type]
            return self.layer(x)

    data = [(torch.randn(16, 8), torch.randint(0, 3, (16,)))]
    lr_range_test(
        Growing(),
        lambda p, lr: torch.optim.SGD(p, lr=lr),
        nn.functional.cross_entropy,
        data,
        steps=10,
        repeats=3,
        lr_max=1e-5,
    )
    assert lengths == list(range(1, 11)) * 3


class Source:
    """A batch source with every kind of state."""

    def __init__(self) -> None:
        self.passes = 0
        self.list_of_generators = [random.Random(1)]
        self.dict_of_generators = {
            "numpy": np.random.default_rng(1),
            "more": {"old": np.random.RandomState(1)},
        }
        self.tuple_of_generators = (torch.Generator().manual_seed(1),)
        self.queue = deque([1, 2, 3])
        self.seen = {1}
        self.order = np.arange(6)
        self.lists = {"inner": [[1], [2]]}

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.passes += 1
        self.list_of_generators[0].random()
        self.dict_of_generators["numpy"].random()  # type: ignore[attr-defined]
        self.dict_of_generators["more"]["old"].rand()  # type: ignore[index]
        torch.rand(1, generator=self.tuple_of_generators[0])
        self.queue.rotate()
        self.queue.append(4)
        self.seen.add(self.passes)
        np.random.default_rng(self.passes).shuffle(self.order)
        self.lists["inner"][0].append(1)
        yield torch.zeros(2, 3), torch.zeros(2, dtype=torch.long)

    def state(self) -> list[Any]:
        return [
            self.passes,
            self.list_of_generators[0].getstate(),
            self.dict_of_generators["numpy"].bit_generator.state,  # type: ignore[attr-defined]
            self.dict_of_generators["more"]["old"].get_state()[1].tolist(),  # type: ignore[index]
            self.tuple_of_generators[0].get_state(),
            list(self.queue),
            set(self.seen),
            self.order.tolist(),
            [list(each) for each in self.lists["inner"]],
        ]


@pytest.mark.parametrize("raises", [False, True])
def test_a_source_is_put_back_with_all_that_it_holds(raises: bool) -> None:
    source = Source()
    before = source.state()
    order = source.order
    try:
        with leaving_no_trace(nn.Linear(3, 2), source):
            for _ in range(3):
                list(source)
            assert not same(before, source.state())
            if raises:
                raise RuntimeError("on purpose")
    except RuntimeError:
        assert raises
    assert same(before, source.state())
    assert source.order is order


def test_the_data_itself_is_not_copied() -> None:
    class Data:
        def __init__(self) -> None:
            self.large = np.zeros((5, 2**20), dtype=np.float32)
            self.batches = [np.zeros(3) for _ in range(4)]
            self.constant = np.zeros(3)
            self.constant.flags.writeable = False

    data = Data()
    with leaving_no_trace(nn.Linear(1, 1), data):
        data.large[0, 0] = 1
        data.batches[0][0] = 1
    # What the docstring excepts: it would take as much memory again.
    assert data.large[0, 0] == data.batches[0][0] == 1


def test_a_long_list_is_put_back_and_not_looked_into() -> None:
    samples = [[0] for _ in range(2000)]
    holder = {"samples": samples}
    with leaving_no_trace(nn.Linear(1, 1), holder):
        samples[0].append(1)
        del samples[5:]
    assert len(samples) == 2000
    assert samples[0] == [0, 1]
