"""What pytest loads: fixtures and hooks. It imports pytest alone until a test asks for the fixture.

pytest-benchmark does the files, the table and the options. Without it, kernels are verified and not timed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from fusetune.bench.pytest_plugin.report_key import PROPERTY

if TYPE_CHECKING:
    from fusetune.bench.pytest_plugin.fixture import KernelBenchmark


@pytest.fixture
def kernel_benchmark(request: pytest.FixtureRequest) -> KernelBenchmark:
    """Verify a kernel, and time it in turns with its competitors, by `kernel_benchmark(KERNEL, shape, dtype)`.

    See `fusetune.bench.pytest_plugin.KernelBenchmark`.
    """
    from fusetune.bench.pytest_plugin.fixture import KernelBenchmark

    return KernelBenchmark(request)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the kernels that were verified or timed, after pytest-benchmark's table."""
    found: list[Any] = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for key, value in report.user_properties
        if key == PROPERTY
    ]
    if found:
        from fusetune.bench.pytest_plugin.summary import summary_lines

        terminalreporter.section("kernels")
        for line in summary_lines(found):
            terminalreporter.write_line(line)


@pytest.hookimpl(optionalhook=True, hookwrapper=True)
def pytest_benchmark_group_stats(benchmarks: Sequence[dict[str, Any]]) -> Iterator[None]:
    """Write each kernel's bandwidth and speedup behind its name in pytest-benchmark's table, and there alone."""
    yield
    for benchmark in benchmarks:
        columns = (benchmark.get("extra_info") or {}).get(PROPERTY)
        if columns:
            from fusetune.bench.pytest_plugin.summary import name_in_table

            suffix = name_in_table(columns, benchmark["median"])
            for key in ("name", "fullname"):
                benchmark[key] += suffix
