"""Two or more ways to do the same work, timed in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

ROUNDS = 15
_LEAST_S = 0.02  # of one side in one round
Side = Callable[[], object]


class Race:
    """Times sides in turns, first to last and last to first, so that a drift of the machine hits all alike.

    Args:
        sides: ours first.
    """

    def __init__(self, sides: dict[str, Side]) -> None:
        self._sides = sides
        self._times_s: dict[str, list[float]] = {name: [] for name in sides}
        self._calls: dict[str, int] = {}

    def run_and_say(
        self, benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str], title: str
    ) -> None:
        """Time the rounds, once where nothing is timed, and print medians and ratios."""
        for name, side in self._sides.items():
            side()  # compiles
            self._calls[name] = max(1, int(_LEAST_S / seconds(side, 1))) if benchmark.enabled else 1
        benchmark.pedantic(self._round, rounds=ROUNDS if benchmark.enabled else 1)
        if benchmark.enabled:
            with capsys.disabled():
                print(f"\n{title}: {self._result()}")

    def _result(self) -> str:
        ours, *others = self._sides
        parts = [f"{1e3 * statistics.median(self._times_s[ours]):.3f} ms"]
        for other in others:
            pairs = zip(self._times_s[other], self._times_s[ours], strict=True)
            ratios = [theirs / mine for theirs, mine in pairs]
            parts.append(
                f"{other} {1e3 * statistics.median(self._times_s[other]):.3f}: {statistics.median(ratios):.2f} times "
                f"[{min(ratios):.2f}..{max(ratios):.2f}]"
            )
        return ", ".join(parts)

    def _round(self) -> None:
        for names in (list(self._sides), list(reversed(self._sides))):
            for name in names:
                calls = self._calls[name]
                self._times_s[name].append(seconds(self._sides[name], calls) / calls)


def seconds(side: Side, calls: int) -> float:
    """The time of some calls, until a GPU, where one is used, has done them."""
    _wait()
    start_s = time.perf_counter()
    for _ in range(calls):
        side()
    _wait()
    return time.perf_counter() - start_s


def _wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
