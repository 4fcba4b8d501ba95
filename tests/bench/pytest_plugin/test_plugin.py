"""The plug-in in scratch projects, with rows that are written here in place of measured ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fusetune.bench.compare import read_side
from fusetune.bench.pytest_plugin import KernelBenchmark
from fusetune.kernels import KERNELS

pytest_plugins = ("pytester",)
OURS = "fusetune.bench.pytest_plugin.plugin"
PLUGIN = (
    "-p",
    "pytest_benchmark.plugin",
    "-p",
    OURS,
    "-p",
    "no:cacheprovider",
    "-W",
    "ignore:Module already",
)

# pytester forgets what a scratch project imports, and Triton cannot be imported twice in a process.
IMPORTED = (KernelBenchmark, KERNELS)
# Each process of a scratch project measures by this.
CONFTEST = """
import pytest

# As pytest does by itself for all modules of an installed package that has a plug-in.
pytest.register_assert_rewrite("fusetune.bench.kernels")

from fusetune.bench.kernels import CopySpeed, Row, SideResult, Verification
from fusetune.bench.pytest_plugin import fixture

OURS = [0.001, 0.0012, 0.0011, 0.001, 0.0013]

def measured_row(case, competitors, *, timed, budget_s):
    found = Verification(error=1e-7, eager_error=1e-7, tolerance=1e-6, checked=9, timed=2 if timed else 0)
    if case.kernel == "wrong":
        return Row(case, (SideResult("ours", "wrong", "2 of 3 elements are off"),))
    if not timed:
        return Row(case, (SideResult("ours", verification=found),), bytes_moved=8_000_000)
    policy = "wall, cold"
    sides = (
        SideResult("ours", latencies_s={policy: OURS}, contention=[0.0] * 5, verification=found, launches=1),
        SideResult("eager", latencies_s={policy: [2 * each for each in OURS]}, contention=[0.0] * 5),
        SideResult("liger", "skipped", "it is not installed"),
    )
    return Row(case, sides, bytes_moved=8_000_000, copy=CopySpeed(1e10, "DRAM", 8_000_000))

@pytest.fixture(autouse=True)
def measured(monkeypatch):
    monkeypatch.setattr(fixture, "measured_row", measured_row)
"""
TESTS = """
from fusetune.kernels import Kernel
from fusetune.kernels import KERNELS

def make_inputs(elements, dtype, device, seed):
    raise AssertionError("no kernel runs in pytest's process")

WRONG = Kernel("wrong", lambda x: x, lambda x: 2 * x, make_inputs)

def test_right(kernel_benchmark):
    row = kernel_benchmark(KERNELS["gelu"], 1_000_000, "float32")
    assert row.case.name == "gelu/1000000/float32"

def test_wrong(kernel_benchmark):
    kernel_benchmark(WRONG, 3)
"""


@pytest.fixture(autouse=True)
def no_other_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is installed beside takes a second a project."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    # A scratch project's pytest is no worker of the xdist that runs this test.
    for name in [name for name in os.environ if name.startswith("PYTEST_XDIST_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_kernels=TESTS)
    return pytester


def test_a_kernel_is_timed_by_our_rounds_in_pytest_benchmarks_table(project: pytest.Pytester) -> None:
    result = project.runpytest(
        *PLUGIN, "--benchmark-json=out.json", "-k", "right", "--benchmark-columns=median,rounds"
    )
    result.assert_outcomes(passed=1)
    (benchmark,) = json.loads((project.path / "out.json").read_text())["benchmarks"]
    assert benchmark["name"] == "test_right"
    assert benchmark["stats"]["data"] == [0.001, 0.0012, 0.0011, 0.001, 0.0013]
    assert benchmark["options"]["timer"] == "fusetune: wall, cold"
    columns = benchmark["extra_info"]["kernel_benchmark"]
    assert columns["bandwidth_bytes_per_s"] == pytest.approx(8e6 / 0.0011)
    assert columns["competitors"]["eager"]["speedup"] == pytest.approx(2)
    assert columns["competitors"]["liger"]["status"] == "skipped"
    result.stdout.fnmatch_lines(["test_right 7.27 GB/s, 73 % of copy, ~2.00x eager *1.1000 *5*"])
    result.stdout.fnmatch_lines(
        ["gelu/1000000/float32 *1.10 ms *7.27 GB/s, 73 % of copy", "*eager ~2.00x *liger skipped*"]
    )


def test_a_wrong_kernel_fails_its_test_with_the_reason_and_has_no_time(project: pytest.Pytester) -> None:
    result = project.runpytest(*PLUGIN, "--benchmark-json=out.json")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*wrong/3/float32 is wrong: 2 of 3 elements are off"])
    assert len(json.loads((project.path / "out.json").read_text())["benchmarks"]) == 1


def test_with_benchmarks_disabled_kernels_are_verified(project: pytest.Pytester) -> None:
    result = project.runpytest(*PLUGIN, "--benchmark-disable", "-k", "right")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*right (error 1.0e-07)*", "1 kernel was verified and not timed.*"])


@pytest.mark.parametrize("options", [[], ["--benchmark-disable"]])
def test_a_test_that_skips_is_skipped_without_a_warning(
    pytester: pytest.Pytester, options: list[str]
) -> None:
    pytester.makepyfile("import pytest\ndef test_it(kernel_benchmark): pytest.skip('not here')")
    pytester.runpytest(*PLUGIN, *options, "-W", "error").assert_outcomes(skipped=1)


@pytest.mark.slow
def test_under_xdist_kernels_are_verified_and_nothing_is_timed(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess(*PLUGIN, "-p", "xdist", "-n", "1", "--benchmark-enable")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["1 kernel was verified and not timed.*"])


def test_without_pytest_benchmark_kernels_are_verified(project: pytest.Pytester) -> None:
    result = project.runpytest("-p", OURS, "-W", "ignore:Module already", "-k", "right")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["1 kernel was verified and not timed.*"])


def test_its_json_is_read_by_both_compares(project: pytest.Pytester) -> None:
    for name in ("base", "head"):
        project.runpytest(*PLUGIN, f"--benchmark-json={name}.json", "-k", "right").assert_outcomes(passed=1)
    (stored,), _ = read_side(str(project.path / "base.json"))
    assert stored.clock == ("fusetune: wall, cold",)
    project.runpytest(*PLUGIN, "-k", "right", "--benchmark-save=first", "--benchmark-storage=saved")
    result = project.runpytest(*PLUGIN, "-k", "right", "--benchmark-compare", "--benchmark-storage=saved")
    result.stdout.fnmatch_lines(["test_right 7.27 GB/s, *(0001_first) *", "test_right 7.27 GB/s, *(NOW) *"])


def test_a_kernel_that_no_module_holds_is_said(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(
        """
        from fusetune.kernels import Kernel

        def test_local(kernel_benchmark):
            kernel_benchmark(Kernel("mine", lambda x: x, lambda x: x, lambda *given: {}), 3)
        """
    )
    result = pytester.runpytest(*PLUGIN)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*kernel_benchmark: no module has the kernel 'mine' under a name*"])


def test_a_test_that_takes_both_fixtures_is_told(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_both(benchmark, kernel_benchmark): pass")
    result = pytester.runpytest(*PLUGIN)
    result.stdout.fnmatch_lines(["*Take `kernel_benchmark` alone*"])


def test_options_of_the_test_stay(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_kernels="""
        import pytest

        @pytest.mark.benchmark(group="mine")
        def test_right(kernel_benchmark):
            kernel_benchmark("gelu", 1_000_000)
        """
    )
    result = project.runpytest(*PLUGIN)
    result.stdout.fnmatch_lines(["*benchmark 'mine': 1 tests*"])


def test_pytest_starts_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys, pytest\n"
        "class Last:\n"
        "    def pytest_unconfigure(self): print('torch' in sys.modules, 'numpy' in sys.modules)\n"
        f"pytest.main(['-q', *{PLUGIN!r}, 'test_plain.py'], plugins=[Last()])\n"
    )
    (tmp_path / "test_plain.py").write_text("def test_plain(): pass\n")
    done: Any = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("False False\n"), done.stdout


@pytest.mark.slow
def test_the_page_of_the_docs_runs(pytester: pytest.Pytester) -> None:
    page = (Path(__file__).parents[3] / "docs" / "pytest.md").read_text()
    code = page.partition("```python\n")[2].partition("```")[0]
    pytester.makepyfile(test_mine=code)
    result = pytester.runpytest_subprocess(*PLUGIN, "--benchmark-max-time=0.2", "--benchmark-json=out.json")
    result.assert_outcomes(passed=3)
    saved = json.loads((pytester.path / "out.json").read_text())["benchmarks"]
    found = [each["extra_info"]["kernel_benchmark"] for each in saved]
    assert [each["name"] for each in found][:2] == ["twice/10000/float32", "twice/1000000/float32"]
    assert found[1]["bytes_moved"] == 8_000_000
    assert found[1]["checked_timed_calls"] >= 1
    assert found[1]["competitors"]["eager"]["median_s"] > 0
    assert all(min(each["stats"]["data"]) > 0 for each in saved)
