"""What is dropped before it is timed, by scripted facts and by machine code that is compiled here."""

from __future__ import annotations

import pytest

from fusetune.bench.autotune import screen
from fusetune.bench.kernels import CompiledFacts

GOOD = CompiledFacts("a", "sm_90", 4, registers=32, spills=0, shared_bytes=0, widest_bytes=16)


def facts(**changes: object) -> CompiledFacts:
    return CompiledFacts(**{**vars(GOOD), "code": str(sorted(changes.items())), **changes})


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (facts(spills=12), "12 registers spill, and another config has 0"),
        (facts(widest_bytes=4), "its accesses have 4 bytes, and another config's have 16"),
        (facts(shared_bytes=240_000), "it needs 240000 bytes of shared memory, and sm_90 has 232448"),
        (facts(shared_bytes=230_000), "2048 bytes are under way in a multiprocessor, and memory needs 2500"),
    ],
)
def test_what_cannot_be_good_is_dropped_with_its_reason(bad: CompiledFacts, why: str) -> None:
    found = screen({0: GOOD, 1: bad}, default=0)
    assert found.kept == (0,)
    assert found.dropped == {1: why}


def test_the_default_is_never_dropped_and_nothing_is_where_all_are_alike() -> None:
    assert screen({0: GOOD, 1: facts(spills=12)}, default=1).kept == (1, 0)
    assert screen({0: facts(spills=10), 1: facts(spills=12)}, default=0).dropped == {}
    narrow = {i: facts(widest_bytes=4, registers=40 + i) for i in range(3)}
    assert screen(narrow, default=0).dropped == {}


def test_an_unknown_gpu_and_a_cpu_drop_nothing() -> None:
    for arch in ("", "sm_999"):
        some = {i: facts(arch=arch, widest_bytes=16, shared_bytes=10**6 * i, registers=i) for i in range(3)}
        assert screen(some, default=0).dropped == {}


def test_codes_that_are_not_known_are_no_duplicates() -> None:
    found = screen({0: CompiledFacts(), 1: CompiledFacts()}, default=0)
    assert found.kept == (0, 1)
    assert found.same_as == {}
