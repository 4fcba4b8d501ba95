"""Programs that wait for others go on, whichever they wait for. Where nobody can, the launch says so with the line."""

# Triton: constexprs in capitals (N803), arguments without types (mypy).
# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import triton
import triton.language as tl

from fusetune.kernels.cpu.lowering import waiting

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(params=[1, 2], ids=lambda threads: f"threads{threads}")
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """The threads that kernels begin with."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def zeros(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.int32)


@triton.jit
def first_waits_for_last(flag_ptr, seen_ptr):
    if tl.program_id(0) == 0:
        while tl.atomic_add(flag_ptr, 0) == 0:
            pass
        tl.store(seen_ptr, tl.load(flag_ptr))
    elif tl.program_id(0) == tl.num_programs(0) - 1:
        tl.atomic_xchg(flag_ptr, 7)


@triton.jit
def first_looks_volatile(flag_ptr, seen_ptr):
    if tl.program_id(0) == 0:
        while tl.load(flag_ptr, volatile=True) == 0:
            pass
        tl.store(seen_ptr, tl.load(flag_ptr, volatile=True))
    elif tl.program_id(0) == tl.num_programs(0) - 1:
        tl.store(flag_ptr, 7)


@triton.jit
def first_swaps(flag_ptr, seen_ptr):
    if tl.program_id(0) == 0:
        found = tl.atomic_cas(flag_ptr, 7, 8)
        while found != 7:
            found = tl.atomic_cas(flag_ptr, 7, 8)
        tl.store(seen_ptr, found)
    elif tl.program_id(0) == tl.num_programs(0) - 1:
        tl.atomic_xchg(flag_ptr, 7)


@triton.jit
def first_waits_for_a_tile(flag_ptr, seen_ptr):
    i = tl.arange(0, 4)
    if tl.program_id(0) == 0:
        flags = tl.zeros([4], tl.int32)
        while tl.sum(flags, 0) != 28:
            flags = tl.load(flag_ptr + i, volatile=True)
        tl.store(seen_ptr, tl.max(flags, 0))
    elif tl.program_id(0) == tl.num_programs(0) - 1:
        tl.store(flag_ptr + i, 7 + tl.zeros([4], tl.int32))


@triton.jit(noinline=True)
def awaited(flag_ptr):
    found = tl.atomic_add(flag_ptr, 0)
    while found == 0:
        found = tl.atomic_add(flag_ptr, 0)
    return found


@triton.jit
def first_waits_in_a_call(flag_ptr, seen_ptr):
    if tl.program_id(0) == 0:
        tl.store(seen_ptr, awaited(flag_ptr))
    elif tl.program_id(0) == tl.num_programs(0) - 1:
        tl.atomic_xchg(flag_ptr, 7)


@pytest.mark.parametrize("programs", [2, 5, 300])
@pytest.mark.parametrize(
    "kernel",
    [first_waits_for_last, first_looks_volatile, first_swaps, first_waits_for_a_tile, first_waits_in_a_call],
)
def test_a_program_may_wait_for_a_later_one(kernel: Any, programs: int, threads: int) -> None:
    flag, seen = zeros(4), zeros(1)
    kernel[(programs,)](flag, seen)
    assert seen.item() == 7


@triton.jit
def chained(order_ptr, count_ptr, BACKWARDS: tl.constexpr):
    """Program i waits until the one ahead, or behind, is through."""
    pid, last = tl.program_id(0), tl.num_programs(0) - 1
    place = last - pid if BACKWARDS else pid
    while tl.atomic_add(count_ptr, 0) != place:
        pass
    tl.store(order_ptr + place, pid)
    tl.atomic_add(count_ptr, 1)


@pytest.mark.parametrize("backwards", [False, True])
def test_chains_of_waiting_programs_run_in_their_order(backwards: bool, threads: int) -> None:
    order, count = zeros(64), zeros(1)
    chained[(64,)](order, count, BACKWARDS=backwards)
    assert order.tolist() == (list(reversed(range(64))) if backwards else list(range(64)))


def test_a_chain_of_more_programs_than_run_at_once_is_fine_where_they_wait_for_earlier_ones(
    threads: int,
) -> None:
    programs = waiting.MOST_AT_ONCE + 200
    order, count = zeros(programs), zeros(1)
    chained[(programs,)](order, count, BACKWARDS=False)
    assert order.tolist() == list(range(programs))


@triton.jit
def summed_under_lock(lock_ptr, x_ptr, sum_ptr, SIZE: tl.constexpr):
    """What stream-K does with the tile that several programs add to."""
    i = tl.arange(0, SIZE)
    x = tl.load(x_ptr + tl.program_id(0) * SIZE + i)
    while tl.atomic_cas(lock_ptr, 0, 1) == 1:
        pass
    tl.store(sum_ptr + i, tl.load(sum_ptr + i) + x)
    tl.debug_barrier()
    tl.atomic_xchg(lock_ptr, 0)


def test_a_lock_lets_one_in_at_a_time(threads: int) -> None:
    x = torch.arange(200 * 32).reshape(200, 32).remainder(17).float()
    total = torch.zeros(32)
    summed_under_lock[(200,)](zeros(1), x, total, SIZE=32)
    assert torch.equal(total, x.sum(0))


@triton.jit
def scanned(x_ptr, y_ptr, flags_ptr, sums_ptr, ticket_ptr, SIZE: tl.constexpr, REVERSED: tl.constexpr):
    """A prefix sum in one pass: each block looks back for the sums of those before it."""
    pid = tl.num_programs(0) - 1 - tl.program_id(0) if REVERSED else tl.program_id(0)
    i = pid * SIZE + tl.arange(0, SIZE)
    x = tl.load(x_ptr + i)
    own = tl.sum(x, 0)
    tl.store(sums_ptr + 2 * pid, own)
    tl.atomic_xchg(flags_ptr + pid, 1)
    before = own * 0
    at = pid - 1
    while at >= 0:
        flag = tl.atomic_add(flags_ptr + at, 0)
        if flag == 2:
            before += tl.load(sums_ptr + 2 * at + 1, volatile=True)
            at = -1
        elif flag == 1:
            before += tl.load(sums_ptr + 2 * at, volatile=True)
            at -= 1
    tl.store(sums_ptr + 2 * pid + 1, before + own)
    tl.atomic_xchg(flags_ptr + pid, 2)
    tl.store(y_ptr + i, tl.cumsum(x, 0) + before)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_that_looks_back(reverse: bool, threads: int) -> None:
    x = torch.arange(100 * 16, dtype=torch.int32).remainder(13)
    y = torch.empty_like(x)
    scanned[(100,)](x, y, zeros(100), zeros(200), zeros(1), SIZE=16, REVERSED=reverse)
    assert torch.equal(y, x.cumsum(0).int())


@triton.jit
def met(count_ptr, after_ptr):
    """A barrier of the whole grid."""
    tl.atomic_add(count_ptr, 1)
    while tl.load(count_ptr, volatile=True) < tl.num_programs(0):
        pass
    tl.store(after_ptr + tl.program_id(0), tl.load(count_ptr, volatile=True))


def test_all_programs_may_wait_for_all(threads: int) -> None:
    after = zeros(200)
    met[(200,)](zeros(1), after)
    assert after.tolist() == [200] * 200


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels that are compiled now give up soon, and run at most 8 programs at once."""
    monkeypatch.setattr(waiting, "LONGEST_WAIT_S", 0.2)
    monkeypatch.setattr(waiting, "MOST_AT_ONCE", 8)


def waits_at(kernel: Any, line: int) -> str:
    return f"{kernel.__name__}: {re.escape(__file__)}:{kernel.starting_line_number + line}: no program can go on; "


@triton.jit
def never_set(flag_ptr):
    while tl.atomic_add(flag_ptr, 0) == 0:
        pass


@triton.jit
def never_unlocked(flag_ptr):
    while tl.atomic_cas(flag_ptr, 0, 1) == 0:
        pass
    while tl.atomic_cas(flag_ptr, 0, 1) == 1:
        pass


@triton.jit
def never_seen(flag_ptr):
    found = tl.load(flag_ptr)
    while found == 0:
        found = tl.load(flag_ptr)
    tl.store(flag_ptr + 1, found)


@triton.jit
def never_by_some(flag_ptr):
    """The programs that end leave the others alone."""
    if tl.program_id(0) % 2 == 0:
        while tl.load(flag_ptr, volatile=True) != 3:
            pass
    else:
        tl.atomic_add(flag_ptr + 1, 1)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("programs", [1, 3, 20])
@pytest.mark.parametrize(("kernel", "line"), [(never_set, 2), (never_seen, 3)])
def test_a_flag_that_nobody_sets_is_an_error_with_the_line(
    kernel: Any, line: int, programs: int, threads: int
) -> None:
    run, left = min(programs, 8), max(0, programs - 8)
    said = rf"of {programs}, 0 have ended, {run} wait, and {left} have not begun \(at most 8 run at once\)"
    with pytest.raises(RuntimeError, match=waits_at(kernel, line) + said):
        kernel[(programs,)](zeros(2))


@pytest.mark.usefixtures("impatient")
def test_a_lock_that_nobody_opens_and_programs_that_end(threads: int) -> None:
    with pytest.raises(RuntimeError, match=waits_at(never_unlocked, 4)):
        never_unlocked[(2,)](zeros(1))
    with pytest.raises(
        RuntimeError, match=waits_at(never_by_some, 4) + "of 8, 4 have ended, 4 wait, and 0 have not"
    ):
        never_by_some[(8,)](zeros(2))


@triton.jit
def never_but_busy(flag_ptr):
    """What it stores is there already."""
    while tl.atomic_add(flag_ptr, 0) == 0:
        tl.store(flag_ptr + 1, 5)


@pytest.mark.usefixtures("impatient")
def test_storing_the_same_again_and_again_changes_nothing(threads: int) -> None:
    with pytest.raises(RuntimeError, match=waits_at(never_but_busy, 3)):
        never_but_busy[(2,)](zeros(2))


@triton.jit
def waits_for_no_thread(flag_ptr):
    if tl.program_id(0) == 0:
        while tl.atomic_add(flag_ptr, 0) == 0:
            pass
    else:
        tl.atomic_xchg(flag_ptr, 1)


@pytest.mark.usefixtures("impatient")
def test_where_the_system_gives_no_thread_the_launch_says_how_many_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting, "_STACK_BYTES", 1 << 60)  # more than any address space has
    said = r"of 2, 0 have ended, 1 wait, and 1 have not begun \(at most 1 run at once\)"
    with pytest.raises(RuntimeError, match=waits_at(waits_for_no_thread, 3) + said):
        waits_for_no_thread[(2,)](zeros(1))


@triton.jit
def waits_beyond(flag_ptr):
    if tl.program_id(0) == tl.num_programs(0) - 1:
        tl.atomic_xchg(flag_ptr, 1)
    while tl.atomic_add(flag_ptr, 0) == 0:
        pass


@pytest.mark.usefixtures("impatient")
def test_waiting_for_a_program_beyond_those_that_run_at_once_is_an_error(threads: int) -> None:
    waits_beyond[(8,)](zeros(1))
    with pytest.raises(
        RuntimeError, match=waits_at(waits_beyond, 4) + "of 9, 0 have ended, 8 wait, and 1 have not"
    ):
        waits_beyond[(9,)](zeros(1))
    waits_beyond[(8,)](zeros(1))  # nothing is left of it


@triton.jit
def patient(flag_ptr, turns_ptr, most):
    """It gives up by itself."""
    turns = 0
    while (tl.atomic_add(flag_ptr, 0) == 0) & (turns < most):
        turns += 1
    tl.store(turns_ptr, turns)


@triton.jit
def slow_to_set(flag_ptr, x_ptr, seen_ptr, turns, SIZE: tl.constexpr):
    """One computes for long, and the other waits."""
    if tl.program_id(0) == 0:
        while tl.atomic_add(flag_ptr, 0) == 0:
            pass
        tl.store(seen_ptr, 1)
    else:
        x = tl.load(x_ptr + tl.arange(0, SIZE))
        for _ in range(turns):
            x = tl.sin(x)
        tl.store(x_ptr + tl.arange(0, SIZE), x)
        tl.atomic_xchg(flag_ptr, 1)


def test_a_loop_that_counts_its_turns_is_not_stuck(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.setattr(waiting, "LONGEST_WAIT_S", 1e-6)
    turns = zeros(1)
    patient[(1,)](zeros(1), turns, 2000)
    assert turns.item() == 2000


def test_a_program_that_computes_is_waited_for(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.setattr(waiting, "LONGEST_WAIT_S", 1e-6)
    seen = zeros(1)
    slow_to_set[(2,)](zeros(1), torch.ones(64), seen, 50000, SIZE=64)
    assert seen.item() == 1


@triton.jit
def searched(x_ptr, at_ptr, wanted, n):
    """A loop whose end depends on memory, and which waits for nobody."""
    low, high = 0, n
    while low < high:
        middle = (low + high) // 2
        if tl.load(x_ptr + middle) < wanted:
            low = middle + 1
        else:
            high = middle
    tl.store(at_ptr, low)


def test_other_loops_are_left_as_they_are() -> None:
    at = zeros(1)
    compiled = searched[(1,)](torch.arange(0, 200, 2, dtype=torch.int32), at, 31, 100)
    assert at.item() == 16
    assert "wait_turn" not in compiled.asm["c"]


@triton.jit
def polled(flag_ptr, seen_ptr, timeout):
    if tl.program_id(0) == 0:
        tl.store(seen_ptr, tl.atomic_poll(flag_ptr, 7))
        tl.store(seen_ptr + 1, tl.atomic_poll(flag_ptr, 9, timeout_ns=timeout))
    elif tl.program_id(0) == tl.num_programs(0) - 1:
        tl.atomic_xchg(flag_ptr, 7)


@triton.jit
def polled_in_vain(flag_ptr):
    tl.atomic_poll(flag_ptr, 7)


since_triton_3_9 = pytest.mark.skipif(not hasattr(tl, "atomic_poll"), reason="Triton 3.9 brought it")


@since_triton_3_9
@pytest.mark.parametrize("programs", [2, 30])
def test_a_poll_may_wait_for_a_later_program(programs: int, threads: int) -> None:
    seen = zeros(2)
    polled[(programs,)](zeros(1), seen, 1000)
    assert seen.tolist() == [1, 0]


@since_triton_3_9
@pytest.mark.usefixtures("impatient")
def test_a_poll_for_what_nobody_writes_is_an_error(threads: int) -> None:
    with pytest.raises(RuntimeError, match=waits_at(polled_in_vain, 2)):
        polled_in_vain[(2,)](zeros(1))
