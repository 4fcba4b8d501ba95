"""A tile that is kept in an array is kept in full, whichever part of it the loop nest at hand needs."""

# Triton: constexprs in capitals (N803), arguments without types (mypy).
# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
import triton.language as tl

from fusetune.kernels.cpu.compiler import CPUBackend
from fusetune.kernels.cpu.lowering import band, module

Numbers = torch.Tensor
R, C = 8, 2


@triton.jit
def tile_of(x_ptr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    return tl.load(x_ptr + tl.arange(0, ROWS)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :])


@triton.jit
def sums_of_halves(x_ptr, y_ptr):
    a, b = tl.split(tile_of(x_ptr, 8, 2))
    tl.store(y_ptr, tl.sum(a))
    tl.store(y_ptr + 1, tl.sum(b))


def right_sums(x: Numbers) -> list[float]:
    return x.view(8, 2).sum(0).tolist()


@triton.jit
def second_half_first(x_ptr, y_ptr):
    a, b = tl.split(tl.exp(tile_of(x_ptr, 8, 2)))
    tl.store(y_ptr, tl.sum(b))
    tl.store(y_ptr + 1, tl.sum(a))


@triton.jit
def scan_of_one_half(x_ptr, y_ptr):
    a, b = tl.split(tl.exp(tile_of(x_ptr, 8, 2)))
    tl.store(y_ptr + tl.arange(0, 8), tl.cumsum(a, 0))
    tl.store(y_ptr + 8 + tl.arange(0, 8), tl.cumsum(b, 0) + a)


def right_scans(x: Numbers) -> list[float]:
    a, b = x.view(8, 2).exp().T
    return [*a.cumsum(0).tolist(), *(b.cumsum(0) + a).tolist()]


@triton.jit
def rows_apart(x_ptr, y_ptr):
    a, b = tl.split(tl.trans(tl.sqrt(tile_of(x_ptr, 2, 8))))
    tl.store(y_ptr, tl.max(a, 0))
    tl.store(y_ptr + 1, tl.min(b, 0))


@triton.jit
def permuted(x_ptr, y_ptr):
    x = tl.reshape(tl.load(x_ptr + tl.arange(0, 16)), (2, 4, 2))
    a, b = tl.split(tl.permute(tl.exp(x), (2, 1, 0)))
    tl.store(y_ptr, tl.sum(tl.sum(a, 0), 0))
    tl.store(y_ptr + 1, tl.sum(tl.sum(b, 1), 0))


@triton.jit
def nested(x_ptr, y_ptr):
    x = tl.exp(tl.reshape(tl.load(x_ptr + tl.arange(0, 16)), (4, 2, 2)))
    low, high = tl.split(x)
    a, b = tl.split(low)
    c, d = tl.split(high)
    tl.store(y_ptr, tl.sum(a))
    tl.store(y_ptr + 3, tl.sum(d))
    tl.store(y_ptr + 1, tl.sum(b))
    tl.store(y_ptr + 2, tl.sum(c))


@triton.jit
def reshaped_between(x_ptr, y_ptr):
    a, b = tl.split(tl.exp(tile_of(x_ptr, 8, 2)))
    tl.store(y_ptr + tl.arange(0, 4), tl.sum(tl.reshape(a, (4, 2)), 1))
    tl.store(y_ptr + 4 + tl.arange(0, 2), tl.sum(tl.reshape(b, (4, 2)), 0))


@triton.jit
def joined_apart(x_ptr, y_ptr):
    x = tl.exp(tl.load(x_ptr + tl.arange(0, 8)))
    y = tl.sqrt(tl.load(x_ptr + 8 + tl.arange(0, 8)))
    a, b = tl.split(tl.reshape(tl.join(x, y), (8, 2)))
    tl.store(y_ptr, tl.sum(a))
    tl.store(y_ptr + 1, tl.sum(b))
    tl.store(y_ptr + 2, tl.sum(x * y))


@triton.jit
def joined_and_one_half(x_ptr, y_ptr):
    a, b = tl.split(tl.exp(tile_of(x_ptr, 8, 2)))
    both = tl.join(tl.cumsum(a, 0), b)
    tl.store(y_ptr, tl.sum(tl.reshape(both, (16,))))
    tl.store(y_ptr + 1, tl.sum(b))


@triton.jit
def joined_from_parts(x_ptr, y_ptr):
    joined = tl.exp(tl.join(tl.load(x_ptr + tl.arange(0, 8)), tl.load(x_ptr + 8 + tl.arange(0, 8))))
    a, b = tl.split(joined)
    tl.store(y_ptr, tl.sum(a))
    tl.store(y_ptr + 1, tl.sum(b))
    tl.store(y_ptr + 2, tl.sum(tl.reshape(joined, (16,))))


@triton.jit
def concatenated(x_ptr, y_ptr):
    a, b = tl.split(tl.exp(tile_of(x_ptr, 8, 2)))
    tl.store(y_ptr, tl.sum(tl.cat(b, tl.cumsum(b, 0), can_reorder=True)))
    tl.store(y_ptr + 1, tl.sum(tl.cat(a, b, can_reorder=True)))


@triton.jit
def in_a_loop(x_ptr, y_ptr):
    first = tl.zeros((8,), tl.float32)
    second = 0.0
    for turn in range(3):
        a, b = tl.split(tl.exp(tile_of(x_ptr, 8, 2) + turn))
        first += tl.cumsum(a, 0)
        second += tl.sum(b)
    tl.store(y_ptr + tl.arange(0, 8), first)
    tl.store(y_ptr + 8, second)


def right_loop(x: Numbers) -> list[float]:
    turns = [(x.view(8, 2) + turn).exp() for turn in range(3)]
    return [*sum(each[:, 0].cumsum(0) for each in turns), sum(each[:, 1].sum() for each in turns)]  # type: ignore[misc]


@triton.jit
def in_branches(x_ptr, y_ptr):
    a, b = tl.split(tl.exp(tile_of(x_ptr, 8, 2)))
    if tl.load(x_ptr) > 0:
        tl.store(y_ptr, tl.sum(a))
    else:
        tl.store(y_ptr, tl.sum(b))
    if tl.load(x_ptr) < 100:
        tl.store(y_ptr + 1, tl.sum(b))


@triton.jit
def carried(x_ptr, y_ptr):
    x = tl.exp(tile_of(x_ptr, 8, 2))
    for _ in range(3):
        a, b = tl.split(x)
        x = tl.join(b, tl.cumsum(a, 0))
    a, b = tl.split(x)
    tl.store(y_ptr + tl.arange(0, 8), b)
    tl.store(y_ptr + 8, tl.sum(a))


def right_carried(x: Numbers) -> list[float]:
    a, b = x.view(8, 2).exp().T
    for _ in range(3):
        a, b = b, a.cumsum(0)
    return [*b.tolist(), a.sum().item()]


@triton.jit
def whole_after_half(x_ptr, y_ptr):
    x = tl.exp(tile_of(x_ptr, 8, 2))
    doubled = x * 2
    a, b = tl.split(doubled)
    tl.store(y_ptr, tl.sum(a))
    tl.store(y_ptr + 1 + tl.arange(0, 2), tl.sum(x, 0))
    tl.store(y_ptr + 3, tl.sum(b))


@triton.jit
def a_loaded_half_after_its_memory_changed(x_ptr, y_ptr):
    a, b = tl.split(tile_of(x_ptr, 8, 2))
    tl.store(y_ptr, tl.sum(a))
    tl.store(x_ptr + tl.arange(0, 16), tl.zeros((16,), tl.float32))
    tl.store(y_ptr + 1, tl.sum(b))


@triton.jit
def exchanged_with_its_transpose(x_ptr, y_ptr):
    x = tl.exp(tile_of(x_ptr, 4, 4))
    y = x + 1
    for _ in range(3):
        z = tl.sqrt(x * y)
        x, y = z, tl.trans(z)
    place = tl.arange(0, 4)[:, None] * 4 + tl.arange(0, 4)[None, :]
    tl.store(y_ptr + place, x)
    tl.store(y_ptr + 16 + place, y)


def right_exchanged(x: Numbers) -> list[float]:
    x = x.view(4, 4).exp()
    y = x + 1
    for _ in range(3):
        z = (x * y).sqrt()
        x, y = z, z.T
    return [*x.reshape(-1).tolist(), *y.reshape(-1).tolist()]


def halves(x: Numbers) -> tuple[Numbers, Numbers]:
    a, b = x.view(8, 2).exp().T
    return a, b


CASES: list[tuple[Any, Callable[[Numbers], Any]]] = [
    (sums_of_halves, right_sums),
    (second_half_first, lambda x: [half.sum() for half in reversed(halves(x))]),
    (scan_of_one_half, right_scans),
    (rows_apart, lambda x: [x.view(2, 8).sqrt()[0].max(), x.view(2, 8).sqrt()[1].min()]),
    (permuted, lambda x: [x.view(2, 8).exp()[0].sum(), x.view(2, 8).exp()[1].sum()]),
    (nested, lambda x: x.view(4, 2, 2).exp().sum(0).T.reshape(-1).tolist()),
    (
        reshaped_between,
        lambda x: [*halves(x)[0].view(4, 2).sum(1).tolist(), *halves(x)[1].view(4, 2).sum(0).tolist()],
    ),
    (
        joined_apart,
        lambda x: [x[:8].exp().sum(), x[8:].sqrt().sum(), (x[:8].exp() * x[8:].sqrt()).sum()],
    ),
    (joined_and_one_half, lambda x: [halves(x)[0].cumsum(0).sum() + halves(x)[1].sum(), halves(x)[1].sum()]),
    (joined_from_parts, lambda x: [x[:8].exp().sum(), x[8:].exp().sum(), x.exp().sum()]),
    (concatenated, lambda x: [halves(x)[1].sum() + halves(x)[1].cumsum(0).sum(), x.exp().sum()]),
    (in_a_loop, right_loop),
    (in_branches, lambda x: [half.sum() for half in halves(x)]),
    (carried, right_carried),
    (
        whole_after_half,
        lambda x: [2 * halves(x)[0].sum(), *x.view(8, 2).exp().sum(0).tolist(), 2 * halves(x)[1].sum()],
    ),
    (a_loaded_half_after_its_memory_changed, right_sums),
    (exchanged_with_its_transpose, right_exchanged),
]


@pytest.mark.parametrize(("kernel", "right"), CASES, ids=[kernel.__name__ for kernel, _ in CASES])
def test_halves_that_are_needed_in_different_loop_nests(kernel: Any, right: Callable[[Numbers], Any]) -> None:
    x = torch.arange(16, dtype=torch.float32) / 8 + 1
    wanted = torch.tensor([float(each) for each in right(x.double())], dtype=torch.float64)
    y = torch.full((len(wanted),), torch.nan)
    kernel[(1,)](x, y)
    torch.testing.assert_close(y.double(), wanted, rtol=1e-5, atol=0)


def test_the_sums_of_the_issue_are_exact() -> None:
    x, y = torch.arange(16, dtype=torch.float32) / 8 + 1, torch.zeros(2)
    sums_of_halves[(1,)](x, y)
    assert y.tolist() == [15.0, 16.0]


@pytest.mark.parametrize(("kernel", "right"), CASES, ids=[kernel.__name__ for kernel, _ in CASES])
def test_the_mode_that_checks_what_is_kept_finds_nothing(
    kernel: Any, right: Callable[[Numbers], Any]
) -> None:
    x = torch.arange(16, dtype=torch.float32) / 8 + 1
    wanted = torch.tensor([float(each) for each in right(x.double())], dtype=torch.float64)
    y = torch.full((len(wanted),), torch.nan)
    kernel[(1,)](x, y, check_tiles=True)
    torch.testing.assert_close(y.double(), wanted, rtol=1e-5, atol=0)


@triton.jit
def halves_apart(x_ptr, y_ptr):
    x = tl.load(x_ptr + tl.arange(0, 8)[:, None] * 2 + tl.arange(0, 2)[None, :])  # kept
    a, b = tl.split(x)
    backwards = 7 - tl.arange(0, 8)
    tl.store(y_ptr + tl.arange(0, 8), tl.gather(a, backwards, 0))
    tl.store(y_ptr + 8 + tl.arange(0, 8), tl.gather(b, backwards, 0))


@triton.jit
def stored_in_order(x_ptr, y_ptr, n):
    """Tiles that are kept for stores under one mask alone: what lies beyond it is never worked out."""
    place = tl.arange(0, 64)
    x = tl.exp(tl.load(x_ptr + place, mask=place < n))
    tl.store(y_ptr + place, x, mask=place < n)
    tl.store(y_ptr + place + 1, x * 2, mask=place < n)
    tl.store(y_ptr + place + 2, x * 3, mask=place < n)


def line_of(text: str) -> int:
    lines = Path(__file__).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.endswith(text))


def compiled_anew(kernel: Any, folder: Path, *arguments: Any, **options: Any) -> Any:
    """Launch a kernel whose compilation must not be another's."""
    kernel.device_caches.clear()
    try:
        with triton.knobs.cache.scope():
            triton.knobs.cache.dir = str(folder)
            return kernel[(1,)](*arguments, **options)
    finally:
        kernel.device_caches.clear()


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int8, torch.int16, torch.int32, torch.bool]
)
def test_the_mode_finds_a_tile_that_is_kept_in_part(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    x, y = (torch.arange(16) % 3).to(dtype), torch.empty(16, dtype=dtype)
    compiled_anew(halves_apart, tmp_path / "right", x, y, check_tiles=True)
    assert torch.equal(y, x.view(8, 2).flip(0).T.reshape(16))
    monkeypatch.setattr(band.Band, "_covers", lambda *_: True)
    with pytest.raises(AssertionError) as caught:
        compiled_anew(halves_apart, tmp_path / "planted", x, y, check_tiles=True)
    made_by = (
        "arith.cmpi" if dtype == torch.bool else "tt.load"
    )  # bytes in memory are bools where they are not 0
    assert str(caught.value) == (
        f"halves_apart: {__file__}:{line_of('# kept')}: {made_by}: a tile is read that was not kept in full; this is a "
        "fault of the CPU backend. Report it together with the kernel."
    )


def test_the_mode_finds_what_an_operation_across_lanes_leaves_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def first_half_alone(emitter: Any, operation: Any) -> None:
        first, _ = operation.operands
        array = emitter.array_of(first)
        target = emitter.arrays[operation.result] = emitter.new_array(operation.result.type)
        emitter.line(f"memcpy({target}, {array}, {first.type.elements * first.type.bytes});")
        emitter.done.add(operation)

    monkeypatch.setitem(module.LOWERINGS, "tt.cat", first_half_alone)
    with pytest.raises(AssertionError, match=r"test_kept_tiles.py:\d+: tt.cat: a tile is read that was not"):
        compiled_anew(concatenated, tmp_path, torch.ones(16), torch.ones(2), check_tiles=True)


def test_what_is_kept_for_stores_under_one_mask_alone_is_no_fault(tmp_path: Path) -> None:
    x, y = torch.rand(64), torch.zeros(66)
    compiled = compiled_anew(stored_in_order, tmp_path, x, y, 5, check_tiles=True)
    assert "[i0] = 1;" in compiled.asm["c"]
    assert "kept_in_full(a" not in compiled.asm["c"]
    wanted = torch.zeros(66)
    for times in (1, 2, 3):
        wanted[times - 1 : times + 4] = x[:5].exp() * times
    torch.testing.assert_close(y, wanted)


def test_the_environment_sets_the_mode_and_kernels_are_compiled_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    backend = CPUBackend(triton.runtime.driver.active.get_current_target())
    hashes = {}
    for value in ("0", "1"):
        monkeypatch.setenv("FUSETUNE_CHECK_TILES", value)
        hashes[value] = backend.parse_options({}).hash()
        sums_of_halves.device_caches.clear()
        with triton.knobs.cache.scope():
            triton.knobs.cache.dir = str(tmp_path)  # the same for both
            compiled = sums_of_halves[(1,)](torch.ones(16), torch.empty(2))
        assert ("kept_in_full(a" in compiled.asm["c"]) == (value == "1")
    sums_of_halves.device_caches.clear()
    assert hashes["0"] != hashes["1"]
