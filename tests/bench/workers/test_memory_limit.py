"""Memory limits: really enforced by the kernel, and every way of running out of memory recognised."""

from __future__ import annotations

import mmap
import resource
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fusetune.bench.machine import ContainerMemory
from fusetune.bench.workers import memory_limit as module
from fusetune.bench.workers.memory_limit import (
    CONTAINER_RESERVE_BYTES,
    Footprint,
    MemoryBudget,
    OutOfMemory,
    classify,
    classify_text,
    effective_limit,
    limited_memory,
    measure_footprint,
    settle_footprint,
)
from fusetune.bench.workers.worker import WorkerSetup, make_context
from tests.fresh_process import in_fresh_process

MIB = 2**20
LINUX = sys.platform == "linux"
needs_linux = pytest.mark.skipif(not LINUX, reason="the address space is limited on Linux alone")


def budget_from_now(limit_bytes: int) -> MemoryBudget:
    """A budget counted from what this process holds now."""
    return MemoryBudget("cpu", limit_bytes, "spec", measure_footprint("cpu"))


def shortage_of(action: Callable[[], Any], limit_bytes: int) -> OutOfMemory:
    """Run `action` under a limit that it exceeds and return what was made of its error."""
    budget = budget_from_now(limit_bytes)
    with pytest.raises((RuntimeError, MemoryError, OSError)) as caught, limited_memory(budget):
        action()
    found = classify(caught.value, budget)
    assert found is not None
    return found


@needs_linux
@pytest.mark.parametrize(
    ("action", "request_bytes"),
    [
        (lambda: torch.empty(512 * MIB, dtype=torch.uint8), 512 * MIB),
        (lambda: np.ones(64 * MIB), 512 * MIB),
    ],
    ids=["torch", "numpy"],
)
def test_a_request_over_the_limit_is_refused_and_its_size_known(
    action: Callable[[], Any], request_bytes: int
) -> None:
    found = shortage_of(action, 256 * MIB)
    assert found.exact
    assert request_bytes <= found.wanted_bytes < request_bytes + 32 * MIB
    assert found.values == {"wanted_bytes": found.wanted_bytes, "limit_bytes": 256 * MIB}


@needs_linux
@pytest.mark.parametrize(
    "action",
    [lambda: bytearray(512 * MIB), lambda: mmap.mmap(-1, 512 * MIB)],
    ids=["MemoryError", "ENOMEM"],
)
def test_a_request_of_unknown_size_wanted_at_least_the_limit(action: Callable[[], Any]) -> None:
    found = shortage_of(action, 256 * MIB)
    assert not found.exact
    assert found.wanted_bytes == 256 * MIB
    assert found.sentence.startswith("wanted at least 256 MiB, the limit of the spec is 256 MiB")


def fill_to_the_limit() -> tuple[int, int]:
    """Take 16 MiB at a time until 200 MiB are exceeded; return what was wanted and what was held."""
    settle_footprint("cpu")  # a thread that starts inside the limit reserves 64 MiB of it
    held = []

    def fill() -> None:
        while True:
            held.append(torch.ones(16 * MIB, dtype=torch.uint8))

    found = shortage_of(fill, 200 * MIB)
    return found.wanted_bytes, len(held) * 16 * MIB


@needs_linux
def test_what_is_held_already_is_part_of_what_was_wanted() -> None:
    wanted_bytes, held_bytes = in_fresh_process(fill_to_the_limit)
    assert 200 * MIB <= wanted_bytes <= 232 * MIB
    assert 160 * MIB <= held_bytes <= 200 * MIB


@needs_linux
def test_the_limit_is_over_the_footprint_and_ends_with_the_block() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    budget = budget_from_now(512 * MIB)
    with limited_memory(budget):
        torch.ones(300 * MIB, dtype=torch.uint8)
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        assert (soft, hard) == (budget.footprint.address_space_bytes + 512 * MIB, before[1])
    assert resource.getrlimit(resource.RLIMIT_AS) == before


@needs_linux
def test_the_limit_ends_with_the_block_after_an_error_too() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    shortage_of(lambda: torch.empty(512 * MIB, dtype=torch.uint8), 256 * MIB)
    assert resource.getrlimit(resource.RLIMIT_AS) == before


@needs_linux
def test_a_tighter_limit_of_the_shell_stays() -> None:
    outer = budget_from_now(512 * MIB)
    with limited_memory(outer):
        tight = resource.getrlimit(resource.RLIMIT_AS)
        with limited_memory(budget_from_now(2**40)):
            assert resource.getrlimit(resource.RLIMIT_AS) == tight


def test_without_a_limit_nothing_changes() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    with limited_memory(MemoryBudget()):
        assert resource.getrlimit(resource.RLIMIT_AS) == before


# Each limit meets a network of a new shape, so that oneDNN has primitives to create. The limits fall: once a primitive
# could not be created, none can in this process.
CONVOLUTIONS = """
import torch
from fusetune.bench.workers.memory_limit import *
settle_footprint("cpu")
for channels, limit_mib in enumerate([128, 64, 32, 16, 8, 4, 2, 1], start=16):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, channels, 3), torch.nn.Conv2d(channels, channels, 5))
    images = torch.zeros(4, 3, 16, 16)
    budget = MemoryBudget("cpu", limit_mib * 2**20, "spec", measure_footprint("cpu"))
    try:
        with limited_memory(budget):
            network(images).sum().backward()
    except Exception as error:
        found = classify(error, budget)
        assert found is not None, repr(error)
        assert found.wanted_bytes >= budget.limit_bytes
        print(error)
    else:
        print("fits")
"""


@needs_linux
def test_convolutions_that_run_out_of_memory_are_recognised_whatever_they_raise() -> None:
    done = subprocess.run([sys.executable, "-c", CONVOLUTIONS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    messages = done.stdout.splitlines()
    assert messages[0] == "fits"
    assert messages[-1] != "fits"


@needs_linux
def test_the_footprint_is_settled_before_the_first_real_training_step() -> None:
    code = (
        "import torch; from fusetune.bench.workers.memory_limit import *;"
        "settle_footprint('cpu'); first = measure_footprint('cpu');"
        "settle_footprint('cpu'); second = measure_footprint('cpu');"
        "print(second.address_space_bytes - first.address_space_bytes)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 16 * MIB


def test_what_was_wanted_is_the_request_where_nothing_is_in_use() -> None:
    # A footprint larger than any process leaves nothing in use.
    budget = MemoryBudget(footprint=Footprint(private_bytes=2**62))
    for error, request_bytes in (
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1024 bytes."), 1024),
        (RuntimeError("std::bad_alloc"), None),
    ):
        found = classify(error, budget)
        assert found is not None
        assert found.wanted_bytes == (request_bytes or 0)
        assert found.exact is (request_bytes is not None)
        assert "no limit was set" in found.sentence
    assert classify(ValueError("shapes do not match"), MemoryBudget("cpu", 2**30, "spec")) is None


@needs_linux
def test_reports_with_other_causes_too_count_under_an_enforced_limit_alone() -> None:
    error = RuntimeError("can't start new thread")
    assert classify(error, MemoryBudget("cpu", 2**30, "spec")) is not None
    assert classify(error, MemoryBudget()) is None


def test_an_error_that_was_raised_from_out_of_memory_is_out_of_memory() -> None:
    outer = ValueError("the factory failed")
    outer.__cause__ = MemoryError("Unable to allocate")
    found = classify(outer, MemoryBudget())
    assert found is not None
    assert "Unable to allocate" in found.sentence


def test_the_last_words_of_a_process_tell_out_of_memory_from_other_deaths() -> None:
    words = "epoch 1\nterminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n"
    found = classify_text(words, MemoryBudget(), 123)
    assert found is not None
    assert (found.wanted_bytes, found.exact) == (123, False)
    assert classify_text("Fatal Python error: Segmentation fault\n", MemoryBudget(), 123) is None
    assert classify_text("Traceback\nMemoryError\n", MemoryBudget(), 123) is not None


def test_a_long_message_is_shortened_to_one_line() -> None:
    found = classify(RuntimeError("std::bad_alloc\n" + "frame\n" * 1000), MemoryBudget())
    assert found is not None
    assert "\n" not in found.sentence
    assert len(found.sentence) < 300


def test_the_tighter_of_the_specs_and_the_containers_limit_counts() -> None:
    container = ContainerMemory(limit_bytes=1000 * MIB, in_use_bytes=300 * MIB)
    left = 700 * MIB - CONTAINER_RESERVE_BYTES
    assert effective_limit(None, None) == (None, None)
    assert effective_limit(100 * MIB, None) == (100 * MIB, "spec")
    assert effective_limit(None, container) == (left, "container")
    assert effective_limit(100 * MIB, container) == (100 * MIB, "spec")
    assert effective_limit(900 * MIB, container) == (left, "container")


def test_workers_share_what_the_container_has_left() -> None:
    container = ContainerMemory(limit_bytes=1000 * MIB, in_use_bytes=300 * MIB)
    alone, _ = effective_limit(None, container)
    shared, _ = effective_limit(None, container, jobs=4)
    assert alone is not None
    assert shared == alone // 4


def test_a_limit_has_the_name_of_who_set_it() -> None:
    container = ContainerMemory(limit_bytes=1000 * MIB, in_use_bytes=300 * MIB)
    assert effective_limit(100 * MIB, container, asked_by="--memory") == (100 * MIB, "--memory")
    assert effective_limit(100 * MIB, container, shell_bytes=50 * MIB) == (50 * MIB, "shell")
    assert effective_limit(None, None, shell_bytes=50 * MIB) == (50 * MIB, "shell")
    for source, name in (("--memory", "--memory"), ("shell", "the shell (ulimit -v)"), ("spec", "the spec")):
        sentence = OutOfMemory(2 * MIB, True, MIB, source, "std::bad_alloc").sentence
        assert f"the limit of {name} is 1.00 MiB" in sentence


def limit_of_a_worker_under_ulimit() -> tuple[int | None, str | None]:
    """Leave 700 MiB of address space and start a worker's context with a limit that is looser."""
    settle_footprint("cpu")
    ceiling = measure_footprint("cpu").address_space_bytes + 700 * MIB
    resource.setrlimit(resource.RLIMIT_AS, (ceiling, resource.RLIM_INFINITY))
    memory = make_context(WorkerSetup("", limit_bytes=2**40)).memory
    return memory.limit_bytes, memory.source


@needs_linux
def test_a_worker_counts_a_tighter_limit_of_the_shell_as_its_own() -> None:
    limit, source = in_fresh_process(limit_of_a_worker_under_ulimit)
    assert source == "shell"
    assert limit is not None
    # Starting gives some back and takes some more.
    assert 500 * MIB <= limit <= 750 * MIB


def test_a_full_container_leaves_nothing() -> None:
    assert effective_limit(None, ContainerMemory(100 * MIB, 100 * MIB)) == (0, "container")


def test_a_platform_that_cannot_enforce_a_limit_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.platform, "system", lambda: "Darwin")  # type: ignore[attr-defined]
    budget = MemoryBudget("cpu", 64 * MIB, "spec")
    assert not budget.enforced
    assert "not enforced on Darwin" in budget.note
    before = resource.getrlimit(resource.RLIMIT_AS)
    with limited_memory(budget):
        assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert MemoryBudget("cpu").note == ""
    assert MemoryBudget("cuda", 64 * MIB, "spec").enforced


def test_a_device_limit_is_a_fraction_of_its_memory_over_the_footprint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fractions: list[tuple[float, int]] = []
    total = SimpleNamespace(total_memory=1000 * MIB)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: total)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(
        torch._C, "_cuda_setMemoryFraction", lambda *call: fractions.append(call), raising=False
    )
    monkeypatch.setattr(torch.cuda.memory, "_lazy_init", lambda: None)
    with limited_memory(MemoryBudget("cuda", 200 * MIB, "spec", Footprint(device_bytes=50 * MIB))):
        assert fractions == [(0.25, 3)]
    assert fractions[1:] == [(1.0, 3)]
    with limited_memory(MemoryBudget("cuda:1", 5000 * MIB, "spec")):
        assert fractions[2] == (1.0, 1)


@pytest.mark.gpu
def test_a_real_device_refuses_what_is_over_the_limit() -> None:
    torch.zeros(1, device="cuda")
    budget = MemoryBudget("cuda", 256 * MIB, "spec", measure_footprint("cuda"))
    with pytest.raises(torch.OutOfMemoryError) as caught, limited_memory(budget):
        torch.empty(512 * MIB, dtype=torch.uint8, device="cuda")
    found = classify(caught.value, budget)
    assert found is not None
    assert found.wanted_bytes >= 512 * MIB
