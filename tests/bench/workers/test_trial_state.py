"""Whatever a trial changes in its process is as before for the next one, or the next one has another process."""

from __future__ import annotations

import builtins
import contextlib
import decimal
import gc
import json
import locale
import logging
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fusetune.bench.results.outcomes import WorkerEvents
from fusetune.bench.results.records import Record
from fusetune.bench.workers import trial_state
from fusetune.bench.workers.executors import WorkerExecutor
from fusetune.bench.workers.trial_state import ProcessState
from fusetune.bench.workers.worker import OnProgress, WorkerContext, WorkerSetup
from tests.bench.workers.test_executors import FakeTrial, ignore, is_alive, wait_until

LINUX = sys.platform == "linux"


def same(number: Any) -> Any:
    return number


def lower_soft_limit() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def patch(owner: Any, name: str) -> Callable[[], None]:
    return lambda: setattr(owner, name, same)


def remove_working_directory() -> None:
    gone = tempfile.mkdtemp()
    os.chdir(gone)
    os.rmdir(gone)


def hook_every_module() -> None:
    nn.modules.module.register_module_forward_hook(lambda module, args, output: output * 0)


def relu_of_a_negative() -> float:
    return float(nn.functional.relu(torch.tensor(-1.0)))


def half_of_a_denormal() -> bool:
    return float(torch.full((1,), 1e-310, dtype=torch.float64).mul(0.5)) > 0


def limit() -> Any:
    return resource.getrlimit(resource.RLIMIT_NOFILE)


def mask() -> int:
    before = os.umask(0)
    os.umask(before)
    return before


def change_locale() -> None:
    plain = locale.setlocale(locale.LC_NUMERIC) == "C"
    locale.setlocale(locale.LC_NUMERIC, "C.UTF-8" if plain else "C")


def variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}


def attention() -> tuple[bool, ...]:
    backends = torch.backends.cuda
    return backends.flash_sdp_enabled(), backends.mem_efficient_sdp_enabled(), backends.math_sdp_enabled()


# What a trial does, and how it would be noticed, by other means than those of the module.
CHANGES: dict[str, tuple[Callable[[], object], Callable[[], Any]]] = {
    "torch's default dtype": (lambda: torch.set_default_dtype(torch.float64), lambda: torch.zeros(1).dtype),
    "torch's default device": (lambda: torch.set_default_device("meta"), lambda: torch.zeros(1).device),
    "grad mode": (
        lambda: torch.set_grad_enabled(False),
        lambda: (torch.ones(1, requires_grad=True) * 2).requires_grad,
    ),
    "deterministic algorithms": (
        lambda: torch.use_deterministic_algorithms(True, warn_only=True),
        torch.are_deterministic_algorithms_enabled,
    ),
    "torch's threads": (lambda: torch.set_num_threads(torch.get_num_threads() + 3), torch.get_num_threads),
    "flushing of denormals": (lambda: torch.set_flush_denormal(True), half_of_a_denormal),
    "precision of matrix products": (
        lambda: torch.set_float32_matmul_precision("medium"),
        torch.get_float32_matmul_precision,
    ),
    "anomaly detection": (lambda: torch.autograd.set_detect_anomaly(True), torch.is_anomaly_enabled),
    "autocast on cpu": (
        lambda: torch.autocast("cpu", torch.bfloat16).__enter__(),
        lambda: (torch.ones(2, 2) @ torch.ones(2, 2)).dtype,
    ),
    "autocast's dtype on cpu": (
        lambda: torch.set_autocast_dtype("cpu", torch.float16),
        lambda: torch.get_autocast_dtype("cpu"),
    ),
    "cudnn.benchmark": (
        lambda: setattr(torch.backends.cudnn, "benchmark", True),
        lambda: torch.backends.cudnn.benchmark,
    ),
    "flash attention": (lambda: torch.backends.cuda.enable_flash_sdp(False), attention),
    "torch's global_forward_hooks": (hook_every_module, lambda: nn.Identity()(torch.ones(1)).item()),
    "functions of torch.nn.functional": (patch(nn.functional, "relu"), relu_of_a_negative),
    "functions of torch.Tensor": (patch(torch.Tensor, "abs"), lambda: torch.tensor(-1.0).abs().item()),
    "functions of torch.nn.Module": (
        patch(nn.Module, "__call__"),
        lambda: vars(nn.Module)["__call__"] is same,
    ),
    "functions of torch": (patch(torch, "relu"), lambda: float(torch.relu(torch.tensor(-1.0)))),
    "environment": (lambda: os.environ.update(A_TRIALS="own", PATH="/nowhere"), variables),
    "working directory": (remove_working_directory, lambda: Path(".").resolve()),
    "umask": (lambda: os.umask(0o077 if mask() != 0o077 else 0o022), mask),
    "RLIMIT_NOFILE": (lower_soft_limit, limit),
    "handler of SIGUSR1": (
        lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN),
        lambda: signal.getsignal(signal.SIGUSR1),
    ),
    "blocked signals": (
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2}),
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
    ),
    "locale": (change_locale, lambda: locale.setlocale(locale.LC_NUMERIC)),
    "decimal context": (lambda: setattr(decimal.getcontext(), "prec", 3), lambda: decimal.Decimal(1) / 3),
    "removed modules": (lambda: sys.modules.pop("json"), lambda: sys.modules.get("json") is json),
    "builtins": (patch(builtins, "sorted"), lambda: builtins.sorted([2, 1])),
    "standard streams": (lambda: setattr(sys, "stdout", sys.stderr), lambda: id(sys.stdout)),
    "garbage collector": (gc.disable, gc.isenabled),
    "logging's threshold": (
        lambda: logging.disable(logging.CRITICAL),
        lambda: logging.getLogger("a").isEnabledFor(logging.ERROR),
    ),
    "numpy's error state": (lambda: np.seterr(all="raise"), np.geterr),
    "start method": (
        lambda: torch.multiprocessing.set_start_method("forkserver", force=True),
        lambda: torch.multiprocessing.get_start_method(allow_none=True),
    ),
}
SILENT: dict[str, tuple[Callable[[], object], Callable[[], Any]]] = {
    "warnings' filters": (
        lambda: warnings.simplefilter("error"),
        lambda: [str(each) for each in warnings.filters],
    ),
    "sys.path": (lambda: sys.path.insert(0, "/a/trials/own"), lambda: list(sys.path)),
    "recursion limit": (lambda: sys.setrecursionlimit(sys.getrecursionlimit() + 77), sys.getrecursionlimit),
    "Python's random state": (random.random, random.getstate),
    "numpy's random state": (np.random.random, lambda: np.random.get_state()[2]),  # type: ignore[index]
    "torch's random state": (lambda: torch.rand(1), lambda: torch.get_rng_state().tolist()),
}


@pytest.fixture(autouse=True)
def variables_of_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pytest change its own variable, as it does within each test."""
    monkeypatch.setattr(trial_state, "_LIBRARIES_VARIABLES", (*trial_state._LIBRARIES_VARIABLES, "PYTEST_"))


@pytest.fixture
def state() -> Iterator[ProcessState]:
    """The state at the test's beginning. What a failing test leaves is put back in any case."""
    made = ProcessState()
    yield made
    made.put_back()


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_put_back_and_told(state: ProcessState, name: str) -> None:
    change, look = CHANGES[name]
    before = look()
    change()
    with contextlib.suppress(OSError, TypeError):  # looking itself may be what was broken
        assert look() != before
    left = state.put_back()
    assert look() == before
    assert left.replaced_for == ()
    assert [told for told in left.put_back if told.startswith(name)], left
    assert state.put_back() == ProcessState().put_back()


@pytest.mark.parametrize("name", SILENT)
def test_what_libraries_change_too_is_put_back_without_a_word(state: ProcessState, name: str) -> None:
    change, look = SILENT[name]
    before = look()
    change()
    assert look() != before
    assert state.put_back() == WorkerEvents()
    assert look() == before


def test_an_ordinary_training_leaves_nothing_to_tell(state: ProcessState) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(model.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        model(torch.randn(8, 4)).sum().backward()
    optimizer.step()
    with torch.inference_mode():
        model(torch.randn(8, 4))
    assert state.put_back() == WorkerEvents()


def test_a_modes_end_that_nobody_calls_for_costs_the_worker(state: ProcessState) -> None:
    mode = torch.inference_mode()
    mode.__enter__()
    try:
        assert state.put_back().replaced_for == ("inference mode: False -> True",)
    finally:
        mode.__exit__(None, None, None)
    assert state.put_back() == WorkerEvents()


def test_a_thread_that_runs_on_costs_the_worker_and_one_that_ends_does_not(state: ProcessState) -> None:
    go_on = threading.Event()
    thread = threading.Thread(target=go_on.wait, name="a trial's own")
    thread.start()
    assert state.put_back(paused=True) == WorkerEvents()
    assert state.put_back().replaced_for == ("thread: a trial's own",)
    go_on.set()
    assert state.put_back() == WorkerEvents()


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_a_process_that_is_left_is_ended_and_others_are_not() -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    with subprocess.Popen(sleep) as earlier:
        state = ProcessState()
        with subprocess.Popen([*sleep, "the trial's"]) as later:
            (told,) = state.put_back().put_back
            assert told.startswith("process ended: ")
            assert told.endswith("the trial's")
            # Who asks first learns how it ended: the one that killed it may have.
            assert later.wait(30) in (0, -signal.SIGKILL)
            assert not is_alive(later.pid)
        assert is_alive(earlier.pid)
        earlier.kill()


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_a_limit_that_cannot_be_raised_again_costs_the_worker(
    state: ProcessState, monkeypatch: pytest.MonkeyPatch
) -> None:
    soft, hard = limit()
    given = {resource.RLIMIT_NOFILE: (soft, hard)}
    real = resource.getrlimit
    monkeypatch.setattr(resource, "getrlimit", lambda number: given.get(number) or real(number))
    state = ProcessState()
    given[resource.RLIMIT_NOFILE] = (50, 60)

    def refuse(number: int, limits: tuple[int, int]) -> None:
        if limits[1] > given[number][1]:
            raise ValueError("not allowed to raise maximum limit")
        given[number] = limits

    monkeypatch.setattr(resource, "setrlimit", refuse)
    (told,) = state.put_back().replaced_for
    assert told.startswith("RLIMIT_NOFILE: ")
    assert given[resource.RLIMIT_NOFILE] == (60, 60)  # as far up as it goes


def act(trial: FakeTrial, context: WorkerContext, on_progress: OnProgress) -> Record:
    """Change something, or say what is there."""
    values: dict[str, float] = {"process": os.getpid()}
    if trial.id == "sets":
        torch.set_default_dtype(torch.float64)
        os.environ["A_TRIALS_OWN"] = "1"
        os.chdir("/")
        signal.setitimer(signal.ITIMER_REAL, 1000)
        torch.set_num_threads(trial.factors["threads"] + 2)
    elif trial.id == "lowers":
        resource.setrlimit(resource.RLIMIT_NOFILE, (90, 90))
    elif trial.id == "leaves":
        threading.Thread(target=time.sleep, args=(600,), name="left", daemon=True).start()
    values |= {
        "float64": float(torch.zeros(1).dtype == torch.float64),
        "variable": float("A_TRIALS_OWN" in os.environ),
        "root": float(os.getcwd() == "/"),
        "threads": float(torch.get_num_threads()),
        "files": float(resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
        "alarm": signal.getitimer(signal.ITIMER_REAL)[0],
        "left": float(any(thread.name == "left" for thread in threading.enumerate())),
    }
    return Record(trial.id, {}, 0, "ok", values=values)


@pytest.mark.slow
@pytest.mark.skipif(not LINUX, reason="the worker's limits are Linux's")
def test_no_trial_sees_what_the_one_before_has_left(tmp_path: Path) -> None:
    executor = WorkerExecutor(WorkerSetup(f"{__name__}:act"), log=tmp_path / "worker.log")
    try:
        first = executor.run(FakeTrial("looks"), ignore)
        assert first.worker == WorkerEvents()
        for name in ("sets", "lowers", "leaves"):
            record = executor.run(FakeTrial(name, {"threads": int(first.values["threads"])}), ignore)
            assert record.status == "ok"
            left = record.worker
            if name == "sets":
                told = {text.partition(":")[0] for text in left.put_back}
                assert told == {
                    "alarm",
                    "environment",
                    "torch's default dtype",
                    "working directory",
                    "torch's threads",
                }
                assert not left.replaced_for
            elif name == "leaves":
                assert left == WorkerEvents(replaced_for=("thread: left",))
            after = executor.run(FakeTrial("looks"), ignore)
            assert after.worker == WorkerEvents()
            assert {**after.values, "process": 0} == {**first.values, "process": 0}
            if name == "leaves":
                assert after.values["process"] != record.values["process"]
                assert wait_until(lambda pid=int(record.values["process"]): not is_alive(pid))  # type: ignore[misc]
    finally:
        executor.close()
