"""Kernels that are long in C: their functions are cut, what they store stays the same, and the longest get -O1."""

# Triton: constexprs in capitals (N803), arguments without types (mypy).
# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from fusetune.kernels.cpu import toolchain
from fusetune.kernels.cpu.lowering import outline
from fusetune.kernels.cpu.lowering.outline import Function, definitions
from tests.kernels.cpu.run_random import differences

SIZE = 32
PARAMETERS = ("const grid_t *grid", "char *scratch", "float * arg0", "int32_t arg1")
ARRAYS = ("float *restrict a1 = (void *)(scratch + 0);", "float *restrict a2 = (void *)(scratch + 64);")


@triton.jit
def many_rounds(X, OUT, ROUNDS: tl.constexpr, N: tl.constexpr):
    """Rounds of a scan, a sum over all lanes and a turn of the tile, written out."""
    place = tl.arange(0, N)
    x = tl.load(X + place)
    total = 0
    for i in tl.static_range(ROUNDS):
        x = tl.cumsum(x, 0) ^ (x + i)
        total += tl.sum(x, 0) * (i + 1)
        x = tl.gather(x, (place + i) % N, 0) + total
    tl.store(OUT + place, x)


@triton.jit
def rounds_in_a_loop(X, OUT, TURNS, ROUNDS: tl.constexpr, N: tl.constexpr):
    """The same in a loop that a condition ends, with a branch at each turn."""
    place = tl.arange(0, N)
    x = tl.load(X + place)
    turn = 0
    largest = tl.max(x, 0)
    while (turn < TURNS) & (largest != 7):
        for i in tl.static_range(ROUNDS):
            x = tl.cumsum(x, 0) ^ (x + i)
            largest = tl.maximum(largest, tl.max(x, 0))
            if largest % 2 == 0:
                y = tl.gather(x, (place + i) % N, 0)
                x = y + largest
            else:
                x = x - tl.sum(x, 0)
        turn += 1
        tl.store(OUT + turn * N + place, x)
    tl.store(OUT + place, x + turn)


def rounds(x: Any, count: int) -> Any:
    total = np.int32(0)
    place = np.arange(len(x))
    for i in range(count):
        x = np.cumsum(x, dtype=np.int32) ^ (x + np.int32(i))
        total = total + x.sum(dtype=np.int32) * np.int32(i + 1)
        x = x[(place + i) % len(x)] + total
    return x


def turns(x: Any, count: int, of: int) -> Any:
    out = np.zeros((count + 1, len(x)), np.int32)
    place = np.arange(len(x))
    largest, turn = x.max(), 0
    while turn < count and largest != 7:
        for i in range(of):
            x = np.cumsum(x, dtype=np.int32) ^ (x + np.int32(i))
            largest = max(largest, x.max())
            if np.fmod(largest, 2) == 0:
                x = x[(place + i) % len(x)]
                x = x + largest
            else:
                x = x - x.sum(dtype=np.int32)
        turn += 1
        out[turn] = x
    out[0] = x + np.int32(turn)
    return out


def numbers() -> torch.Tensor:
    return torch.randint(
        -(2**31), 2**31 - 1, (SIZE,), generator=torch.Generator().manual_seed(0), dtype=torch.int32
    )


def lengths(c: str) -> list[int]:
    """The lines of each function that the kernel and its parts became."""
    found = re.findall(r"^static .*\btt_\w+\(.*\) \{\n(?:.*\n)*?\}$", c, re.MULTILINE)
    return [each.count("\n") for each in found]


@pytest.fixture
def unoptimized(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = (*toolchain.flags(), "-O0")
    monkeypatch.setattr(toolchain, "flags", lambda: flags)


@pytest.fixture
def everything_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every loop nest becomes a function, in short kernels too."""
    monkeypatch.setattr(outline, "MOST_LINES", 1)
    monkeypatch.setattr(outline, "LINES_OF_A_PART", 1)


@pytest.mark.usefixtures("unoptimized")
def test_a_long_function_is_cut_and_stores_the_same() -> None:
    x, out = numbers(), torch.empty(SIZE, dtype=torch.int32)
    kernel = many_rounds[(1,)](x, out, 60, SIZE)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(out.numpy(), rounds(x.numpy(), 60))
    found = lengths(kernel.asm["c"])
    assert sum(found) > outline.MOST_LINES
    assert len(found) > 5
    # A part ends behind the loop nest that makes it long enough.
    assert max(found) < outline.MOST_LINES


@pytest.mark.usefixtures("unoptimized")
def test_a_long_loop_is_cut_within() -> None:
    count, of = 3, 25
    x, out = numbers(), torch.zeros((count + 1, SIZE), dtype=torch.int32)
    kernel = rounds_in_a_loop[(1,)](x, out, count, of, SIZE)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(out.numpy(), turns(x.numpy(), count, of))
    found = lengths(kernel.asm["c"])
    assert sum(found) > outline.MOST_LINES
    assert len(found) > 5


def test_a_short_function_stays_in_one_piece() -> None:
    x, out = numbers(), torch.empty(SIZE, dtype=torch.int32)
    kernel = many_rounds[(1,)](x, out, 3, SIZE)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(out.numpy(), rounds(x.numpy(), 3))
    assert len(lengths(kernel.asm["c"])) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("unoptimized", "everything_cut")
@pytest.mark.parametrize(
    "seeds", [range(1000, 1040), range(1040, 1080)], ids=lambda seeds: f"from_{seeds.start}"
)
def test_random_kernels_store_the_same_in_pieces(seeds: range, tmp_path: Path) -> None:
    assert differences(tmp_path, seeds) == []


@pytest.mark.slow
@pytest.mark.usefixtures("everything_cut")
def test_optimizations_change_nothing_in_pieces(tmp_path: Path) -> None:
    assert differences(tmp_path, range(1100, 1112)) == []


def pieces(lines: Sequence[str]) -> list[str]:
    return definitions(Function("tt_k", PARAMETERS, ARRAYS, lines))


@pytest.mark.usefixtures("everything_cut")
def test_a_part_gets_what_it_needs_and_gives_back_what_it_assigns() -> None:
    part, rest = pieces(
        [
            "int32_t v1 = arg1 + 1;",
            "int32_t v2 = (3);",
            "float v3;",
            "for (int32_t o = 0; o < 1; ++o) {",
            "v3 = a1[o] + v1 * v2;",
            "}",
            "return;",
        ]
    )
    assert part == "\n".join(
        [
            "static __attribute__((noinline)) void tt_k_part1("
            "const grid_t *grid, char *scratch, float *v3_left, int32_t v1) {",
            ARRAYS[0],
            "int32_t v2 = (3);",
            "float v3 = *v3_left;",
            "for (int32_t o = 0; o < 1; ++o) {",
            "v3 = a1[o] + v1 * v2;",
            "}",
            "*v3_left = v3;",
            "}",
        ]
    )
    assert rest.splitlines()[-3:] == ["tt_k_part1(grid, scratch, &v3, v1);", "return;", "}"]


@pytest.mark.usefixtures("everything_cut")
@pytest.mark.parametrize(
    "lines",
    [
        ["if (arg1)", "{", "a1[0] = 1;", "}", "else", "{", "a1[0] = 2;", "}"],
        ["{", "if (arg1) return;", "}"],
        ["{", "if (arg1) goto block1;", "}", "block1:;"],
        ["{", "a1[0] = t9;", "}"],
        ["vector4 v1 = {0};", "{", "a1[0] = v1[0];", "}"],
        ["float v1[2], v2;", "{", "a1[0] = v1[0];", "}"],
        ["{", "a1[0] = 1;"],
    ],
    ids=["branch", "return", "goto", "unknown", "type", "declaration", "braces"],
)
def test_what_is_not_understood_stays_where_it_is(lines: list[str]) -> None:
    (whole,) = pieces(lines)
    assert whole.splitlines() == [
        "static void tt_k(const grid_t *grid, char *scratch, float * arg0, int32_t arg1) {",
        *ARRAYS,
        *lines,
        "}",
    ]


def test_only_very_long_code_is_optimized_less(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[tuple[str, ...]] = []

    def compiled(code: Path, library: Path, flags: Sequence[str]) -> None:
        chosen.append(tuple(flags))
        library.write_bytes(b"")

    flags = toolchain.flags()
    monkeypatch.setattr(toolchain, "_compile", compiled)
    for lines in (toolchain.MOST_LINES_OPTIMIZED, toolchain.MOST_LINES_OPTIMIZED + 1):
        toolchain.compile_shared_object("\n" * lines, True)
    assert chosen[0] == (*flags, "-ffp-contract=fast")
    assert chosen[1] == tuple("-O1" if flag == "-O3" else flag for flag in chosen[0])
    assert "-O1" in chosen[1]
