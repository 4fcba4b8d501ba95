"""Lanes: what comes of a side in a process of its own, whatever that side does."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fusetune.bench.kernels import Case, KernelSource, Policy
from fusetune.bench.kernels.lane import LaneError
from fusetune.bench.kernels.process import ProcessLane, ReferenceLane
from fusetune.bench.kernels.shared_arrays import Array, SharedTree, scaled
from fusetune.bench.kernels.verify import Verifier
from tests.bench.workers.test_executors import is_alive, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Triton runs under Linux alone")

HEAD = """
import torch, time, os, threading, sys
from torch import Tensor

def reference(x, y):
    return x * y + 1

def make_inputs(elements, dtype, device, seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(elements, generator=generator).to(device, dtype) for name in ("x", "y")}
"""
RIGHT = """
def fused(x, y):
    return x * y + 1
scratch_bytes = lambda inputs: inputs["x"].nbytes
"""


def source_of(folder: Path, code: str, *, head: str = HEAD) -> KernelSource:
    path = folder / "own_kernel.py"
    path.write_text(textwrap.dedent(head) + textwrap.dedent(code))
    return KernelSource(str(path))


def case_of(source: KernelSource, dtype: str = "float32", elements: int = 1000) -> Case:
    return Case(source, "own_kernel", elements, dtype)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReferenceLane]:
    """The lane of a reference that all kernels here share."""
    with ReferenceLane() as lane:
        lane.prepare(case_of(source_of(tmp_path_factory.mktemp("reference"), RIGHT)))
        yield lane


def outcome(lane: ProcessLane, reference: ReferenceLane, source: KernelSource, rounds: int = 6) -> None:
    """Verify and time a kernel, as the driver does. Raises LaneError where something is not right."""
    case = case_of(source)
    prepared = lane.prepare(case)
    verifier = Verifier(reference, case, prepared.bytes_moved)
    found = verifier.verify(lane)
    tree = reference.make_inputs(secrets.randbelow(2**62))
    for _ in range(rounds):
        shared = SharedTree(scaled(tree, (64 + secrets.randbelow(64)) / 128))
        lane.time_round(shared, [Policy(cache="warm"), Policy(cache="warm", calls=3)], keep=True)
        found = verifier.check_timed(lane, shared, found)
    assert found.timed == rounds
    verifier.close()


def refusal(tmp_path: Path, reference: ReferenceLane, code: str, **options: float) -> LaneError:
    source = source_of(tmp_path, code)
    with ProcessLane("ours", **options) as lane, pytest.raises(LaneError) as caught:  # type: ignore[arg-type]
        outcome(lane, reference, source)
    return caught.value


def test_a_kernel_that_is_right_is_verified_and_timed(tmp_path: Path, reference: ReferenceLane) -> None:
    with ProcessLane("ours") as lane:
        outcome(lane, reference, source_of(tmp_path, RIGHT))
        assert lane.side == "ours"


@pytest.mark.parametrize(
    ("status", "said", "code"),
    [
        ("wrong", "off by", "def fused(x, y): return x * y"),
        ("wrong", "shape", "def fused(x, y): return (x * y + 1)[:-1]"),
        ("wrong", "second call", "kept = {}\ndef fused(x, y): return kept.setdefault(len(x), x * y + 1)"),
        ("mutated", "changed x", "def fused(x, y):\n    r = x * y + 1\n    x.zero_()\n    return r"),
        ("allocates", "beside its results", "def fused(x, y):\n    x.new_empty(10**6)\n    return x * y + 1"),
        (
            "not a tensor",
            "Mine",
            "class Mine(Tensor): pass\ndef fused(x, y): return (x * y + 1).as_subclass(Mine)",
        ),
        ("does not build", "ZeroDivisionError", "def fused(x, y): return 1 / 0"),
        ("does not build", "no_such_module", "import no_such_module"),
        ("does not build", "SystemExit", "def fused(x, y): sys.exit(0)"),
        ("crashed", "code 0", "def fused(x, y): os._exit(0)"),
        ("crashed", "SIGSEGV", "import ctypes\ndef fused(x, y): ctypes.string_at(0)"),
        ("out of memory", "wanted", "def fused(x, y): return torch.empty(2**50, dtype=torch.uint8)"),
        (
            "late",
            "still",
            # Its first calls are right. Then there is another value whenever one looks, however long one waits.
            """
            calls = []
            def fused(x, y):
                calls.append(1)
                out = x * y + 1
                def work():
                    for turn in range(2000):
                        time.sleep(0.001)
                        out.fill_(turn)
                if len(calls) > 8:
                    threading.Thread(target=work, daemon=True).start()
                return out
            """,
        ),
        (
            "forged",
            "",
            """
            def fused(x, y):
                for file in range(3, 64):
                    try: os.write(file, b"\\0\\0\\0\\4abcd")
                    except OSError: pass
                return x * y + 1
            """,
        ),
    ],
)
def test_each_way_of_failing_has_its_status(
    tmp_path: Path, reference: ReferenceLane, status: str, said: str, code: str
) -> None:
    error = refusal(tmp_path, reference, code)
    assert error.status == status
    assert said in error.reason
    assert "\n" not in error.reason


def test_a_kernel_that_never_returns_is_killed(tmp_path: Path, reference: ReferenceLane) -> None:
    error = refusal(tmp_path, reference, "def fused(x, y):\n    while True: pass", build_timeout_s=1.0)
    assert (error.status, error.reason) == ("timed out", "it did not return within 1.00 s")


def test_what_a_kernel_patches_is_not_what_counts(tmp_path: Path, reference: ReferenceLane) -> None:
    error = refusal(
        tmp_path,
        reference,
        """
        import gc, json, pickle, select, struct
        import fusetune.bench.kernels.subject as subject
        import fusetune.bench.kernels.shared_arrays as shared_arrays
        import fusetune.bench.kernels.verify as verify
        import fusetune.bench.workers.messages as messages
        subject._same_bits = subject._Tensor = subject._Subject.on_call = lambda *a: True
        verify.compare = shared_arrays.read_into = lambda *a, **k: None
        messages.encode = pickle.dumps = struct.pack = json.dumps = lambda *a: b""
        os.write = os.pwrite = lambda *a: 0
        def fused(x, y): return torch.zeros_like(x)
        """,
    )
    assert error.status == "wrong"
    assert "off by" in error.reason


@pytest.mark.parametrize(
    "name", ["time.perf_counter", "time.perf_counter_ns", "torch.equal", "torch.Tensor.clone"]
)
def test_replaced_functions_are_named(tmp_path: Path, reference: ReferenceLane, name: str) -> None:
    code = f"real = {name}\n{name} = lambda *a, **k: real(*a, **k)\n" + RIGHT
    error = refusal(tmp_path, reference, code)
    assert error.status == "forged"
    assert f"replaced {name}" in error.reason


def test_a_lane_lives_on_after_a_failure_of_its_kernel(tmp_path: Path, reference: ReferenceLane) -> None:
    with ProcessLane("ours") as lane:
        bad = source_of(tmp_path, "def fused(x, y): os._exit(3)")
        with pytest.raises(LaneError, match="code 3"):
            lane.prepare(case_of(bad))
        with pytest.raises(LaneError, match="ended"):
            lane.kept_results()
        (tmp_path / "good").mkdir()
        outcome(lane, reference, source_of(tmp_path / "good", RIGHT), rounds=1)


def test_the_driver_loads_no_torch() -> None:
    program = "import sys, fusetune.bench.kernels.process, fusetune.bench.kernels.verify; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_a_shipped_optimizer_is_verified_through_its_tables(dtype: str) -> None:
    case = Case(KernelSource("adam"), "adam", 1000, dtype)
    with ReferenceLane() as reference, ProcessLane("ours") as lane:
        reference.prepare(case)
        prepared = lane.prepare(case)
        assert prepared.mutates == reference.facts().mutates == ("streams",)
        verifier = Verifier(reference, case, prepared.bytes_moved)
        found = verifier.verify(lane)
        assert found.repeatable
        assert found.error <= found.tolerance
        assert found.checked >= 5
        verifier.close()


def test_the_truth_is_that_of_numpy_in_float64(reference: ReferenceLane) -> None:
    tree = reference.make_inputs(7)
    x, y = (tree[name].values.astype(np.float64) for name in "xy")
    np.testing.assert_array_equal(reference.truth(tree).results.values, x * y + 1)
    assert isinstance(reference.results(tree, trusted=True).results, Array)


def test_gradients_are_verified_by_the_reference_s_own() -> None:
    case = Case(KernelSource("silu"), "silu", 1000, "float32", "backward")
    with ReferenceLane() as reference:
        reference.prepare(case)
        tree = reference.make_inputs(7)
        x, slope = (each.values.astype(np.float64) for each in (tree["inputs"]["x"], tree["gradients"][0]))
        sigmoid = 1 / (1 + np.exp(-x))
        expected = slope * sigmoid * (1 + x * (1 - sigmoid))
        np.testing.assert_allclose(reference.truth(tree).results[0].values, expected, rtol=1e-12)


@pytest.mark.slow
def test_everything_ends_with_the_driver_even_when_it_is_killed(tmp_path: Path) -> None:
    source = source_of(
        tmp_path,
        """
        import subprocess
        def fused(x, y):
            child = subprocess.Popen(["sleep", "600"], start_new_session=True)
            with open(__file__ + ".pid", "w") as file:
                file.write(f"{os.getpid()} {child.pid}")
            return x * y + 1
        """,
    )
    program = tmp_path / "driver.py"
    program.write_text(
        textwrap.dedent(
            f"""
            import time
            from fusetune.bench.kernels import Case, KernelSource
            from fusetune.bench.kernels.process import ProcessLane
            if __name__ == "__main__":
                lane = ProcessLane("ours")
                lane.prepare(Case(KernelSource({source.reference!r}), "own", 10, "float32"))
                print("ready", flush=True)
                time.sleep(600)
            """
        )
    )
    driver = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    assert driver.stdout.readline() == "ready\n"
    ids = [int(word) for word in Path(f"{source.reference}.pid").read_text().split()]
    assert all(map(is_alive, ids))
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    driver.stdout.close()
    assert wait_until(lambda: not any(map(is_alive, ids)))


def test_lanes_leave_nothing_behind(tmp_path: Path, reference: ReferenceLane) -> None:
    files = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        with ProcessLane("ours") as lane:
            lane.prepare(case_of(source_of(tmp_path, RIGHT)))
            lane.results(reference.make_inputs(1))
    assert len(os.listdir("/proc/self/fd")) <= files


def test_progress_bars_in_a_lane_leave_no_lock_of_processes_behind(tmp_path: Path) -> None:
    pytest.importorskip("tqdm")
    code = """
    from tqdm import tqdm
    assert type(tqdm.get_lock()) is type(threading.RLock()), tqdm.get_lock()
    """
    with ProcessLane("ours") as lane:
        assert lane.prepare(case_of(source_of(tmp_path, RIGHT + textwrap.dedent(code)))).bytes_moved
