"""The fixture `kernel_benchmark`: a test verifies one kernel, and times it where pytest-benchmark times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import torch

from fusetune.bench.errors import InputError
from fusetune.bench.kernels import Case, Direction, Row, Settings, StopRule, competitors_of, measure
from fusetune.bench.pytest_plugin.columns import columns_of
from fusetune.bench.pytest_plugin.kernel_source import WHERE, source_of
from fusetune.bench.pytest_plugin.replayed_clock import ReplayedClock
from fusetune.bench.pytest_plugin.report_key import PROPERTY
from fusetune.kernels import KERNELS

if TYPE_CHECKING:
    from fusetune.kernels import Kernel

# Of pytest-benchmark's options: seconds that the rounds of a test take.
_BUDGET_S = 1.0
_ELEMENTS = 1_000_000
EAGER, COMPILE = "eager", "compile"


class KernelBenchmark:
    """Verifies a kernel, and times it in turns with its competitors, as `bench kernels` does.

    Everything runs in processes of their own, so a kernel that dies or hangs fails one test. Where pytest-benchmark
    times nothing, the kernel is verified and no more: with `--benchmark-disable`, under pytest-xdist, and where
    pytest-benchmark is not installed.

    Args:
        request: of the test.

    Example, in a test module:

        def test_gelu(kernel_benchmark):
            kernel_benchmark("gelu", 1_000_000, "float32")
    """

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._request = request
        self._clock = ReplayedClock()
        self._benchmark = self._fixture_of_pytest_benchmark()

    @property
    def enabled(self) -> bool:
        """Whether kernels are timed, and not only verified."""
        return self._benchmark is not None and bool(self._benchmark.enabled)

    def __call__(
        self,
        kernel: Kernel | ModuleType | str,
        shape: int | str | None = None,
        dtype: torch.dtype | str = "float32",
        *,
        direction: Direction = "forward",
        device: str | None = None,
        threads: int = 1,
        competitors: Sequence[str] | None = None,
    ) -> Row:
        """Verify a kernel, time it, and return its row.

        Args:
            kernel: see `source_of`: a `Kernel`, a module with three functions, or a reference as a text.
            shape: what `make_inputs` gets. None: the kernel's own first size.
            dtype: torch's dtype or its name.
            direction: `backward` times the gradient of its results.
            device: `cpu` or `cuda`. None: a GPU if there is one.
            threads: torch's threads on a CPU.
            competitors: other ways to do the work, timed in turns with it. None: all that need no compilation.

        Returns:
            The row. Its status is `ok`.

        Raises:
            Failed: the kernel is wrong, or has no time for another reason. The reason is the failure's text.
        """
        __tracebackhide__ = True
        try:
            source = source_of(kernel, self._request.module)
            held = KERNELS.get(source.reference) if isinstance(kernel, (str, ModuleType)) else kernel
            given = Case(
                source,
                held.name if held is not None else _short(source.reference),
                _ELEMENTS if shape is None else shape,
                str(dtype).removeprefix("torch."),
                direction,
                device or ("cuda" if torch.cuda.is_available() else "cpu"),
                threads,
            )
            case = (
                replace(given, shape=held.elements[0]) if shape is None and held and held.elements else given
            )
            if competitors is None:
                competitors = [each for each in competitors_of(held) if each != COMPILE] if held else [EAGER]
            row = measured_row(case, competitors, timed=self.enabled, budget_s=self._budget_s())
        except InputError as error:
            reason = str(error)
        else:
            self._request.node.user_properties.append((PROPERTY, columns_of(row)))
            if row.status == "ok":
                self._hand_over(row)
                return row
            reason = f"{row.case.name} is {row.status}: {row.ours.reason}"
        pytest.fail(reason, pytrace=False)

    def _budget_s(self) -> float:
        """Return how long the rounds may take: pytest-benchmark's `max_time`."""
        marker = self._request.node.get_closest_marker("benchmark")
        given = marker.kwargs.get("max_time") if marker else None
        return float(given or self._request.config.getoption("benchmark_max_time", None) or _BUDGET_S)

    def _fixture_of_pytest_benchmark(self) -> Any:
        """Return the fixture `benchmark` of this test, whose timer replays our rounds. None: it is not installed."""
        if not self._request.config.pluginmanager.hasplugin("pytest-benchmark"):
            return None
        node = self._request.node
        if "benchmark" in node.funcargs:
            what = "the test takes `benchmark` as well, which has a timer of its own"
            pytest.fail(str(InputError(WHERE, what, to_do="Take `kernel_benchmark` alone")), pytrace=False)
        given = node.get_closest_marker("benchmark")
        options = {**(given.kwargs if given else {}), "timer": self._clock}
        node.add_marker(pytest.mark.benchmark(**options), append=False)
        benchmark = self._request.getfixturevalue("benchmark")
        # It warns of a test that takes it and times nothing. Ours may skip, fail, or verify alone.
        benchmark.skipped = True
        return benchmark

    def _hand_over(self, row: Row) -> None:
        """Let pytest-benchmark have the rounds, where it times."""
        if not self.enabled:
            return
        policy = row.policies[0].name
        latencies_s = row.ours.latencies_s[policy]
        self._clock.set_rounds(policy, latencies_s)
        self._benchmark.extra_info[PROPERTY] = columns_of(row)
        self._benchmark.pedantic(lambda: None, rounds=len(latencies_s))


def measured_row(case: Case, competitors: Sequence[str], *, timed: bool, budget_s: float) -> Row:
    """Verify a case in processes of their own, and time it if asked for."""
    settings = Settings(competitors=competitors, timed=timed, rule=StopRule(budget_s=budget_s))
    (row,) = measure([case], settings)
    return row


def _short(reference: str) -> str:
    """Return a name for reports: that of the object, or the file's."""
    place, _, name = reference.rpartition(":")
    return name if place else Path(reference).stem
