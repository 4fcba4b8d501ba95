"""Kernels that work in place tune as their twins that do not: what restores their inputs is off the clock."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fusetune.bench.autotune import Opened, Tuning, tune
from fusetune.bench.kernels import Case, CompiledFacts, KernelSource, Policy, SharedTree
from fusetune.bench.kernels.shared_arrays import Array
from fusetune.bench.kernels.subject import _Side, _Subject
from fusetune.kernels import Config, Kernel
from fusetune.tuner.measure import CallClock
from tests.tuner.measure.scripted_device import ScriptedDevice

SPACE: tuple[Config, ...] = tuple({"BLOCK": block} for block in (64, 128, 256, 512))
SECONDS = {64: 2.0, 128: 1.5, 256: 1.0, 512: 1.05}
RESTORE_S = 1000.0
VALUES = np.arange(1.0, 5.0, dtype=np.float32)


class TwinBench:
    """Times on a scripted device, by what times in a lane. To make the tensors of a call takes very long there."""

    policy = "wall, cold"

    def __init__(self, is_in_place: bool, seed: int) -> None:
        self.device = ScriptedDevice()
        self.is_in_place = is_in_place
        self.noise = np.random.default_rng(seed)
        self.seen: list[torch.Tensor] = []
        self.shared = SharedTree({"x": Array.of(VALUES)})
        # Both the word to go and the wish to keep no result.
        connection: Any = SimpleNamespace(recv=lambda: None)
        answers: Any = SimpleNamespace(send=lambda *message: None)
        self.subject = _Subject(connection, answers, memory=None)
        self.subject.files["given"] = (self.shared.file, self.shared.text)
        clock = CallClock("wall", self.device, flush=self.device.flush)
        self.subject._clock = lambda policy, side: clock  # type: ignore[method-assign]
        make = self.subject._inputs

        def restored(key: str) -> Any:
            self.device.log.append("restore")
            self.device.host_s += RESTORE_S
            return make(key)

        self.subject._inputs = restored  # type: ignore[method-assign, assignment]

    def call(self, x: torch.Tensor, config: Config) -> torch.Tensor | None:
        self.device.log.append("call")
        self.seen.append(x.clone())
        self.device.give(SECONDS[config["BLOCK"]] * float(np.exp(0.01 * self.noise.standard_normal())))
        if self.is_in_place:
            x.mul_(2)
            return None
        return 2 * x

    def open(self, case: Case) -> Opened:
        return Opened(SPACE, SPACE[0])

    def build(self, config: Config) -> CompiledFacts:
        return CompiledFacts(str(config))

    def verify(self, config: Config, *, thorough: bool) -> None:
        pass

    def sample(self, config: Config, turn: int) -> float:
        kernel = Kernel("doubling", self.call, self.call, lambda *_: {})
        call = lambda x: self.call(x, config)  # noqa: E731
        self.subject.side = _Side(kernel, call, 4, torch.float32, torch.device("cpu"), False, {})
        found = self.subject.on_time(["given"], [Policy("wall", "cold")])
        return float(found["latencies_s"][self.policy])

    def expect(self, seconds: float) -> None:
        pass

    def save(self, keys: Sequence[Any], tuning: Tuning) -> tuple[str, ...]:
        return ()


@contextmanager
def tuned_twin(is_in_place: bool) -> Iterator[tuple[Tuning, TwinBench]]:
    bench = TwinBench(is_in_place, seed=int(is_in_place))
    try:
        case = Case(KernelSource("gelu"), "gelu", 4, "float32")
        yield tune(case, bench, budget_s=1e12, clock=lambda: bench.device.host_s), bench
    finally:
        bench.shared.close()


def test_a_kernel_that_works_in_place_tunes_within_2_percent_of_its_twin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        gc, "collect", lambda: 0
    )  # it is called before each sample, and takes long in a large process
    with tuned_twin(True) as (ours, bench), tuned_twin(False) as (twins, other):
        assert ours.is_replaced
        assert dict(ours.winner) == dict(twins.winner) == {"BLOCK": 256}
        for mine, theirs in zip(ours.candidates, twins.candidates, strict=True):
            assert median(mine.samples_s) == pytest.approx(median(theirs.samples_s), rel=0.02)
            # The true time: nothing of 1000 s to restore or 100 s to flush is in it.
            assert mine.latency_s == pytest.approx(SECONDS[mine.config["BLOCK"]], rel=0.02)
        # Both had fresh tensors with the same values in every call, however often the kernel wrote to its own.
        for each in (bench, other):
            assert each.device.log.count("restore") == each.device.log.count("call") == len(each.seen)
            assert all(torch.equal(x, torch.from_numpy(VALUES)) for x in each.seen)
