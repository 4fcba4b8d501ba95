"""Sorting, and whatever else exchanges the lanes of pairs: right, in a few functions of C and little memory."""

# Triton: constexprs in capitals (N803), arguments without types (mypy).
# ruff: noqa: N803
# mypy: disallow-untyped-defs=False
from __future__ import annotations

import importlib.util
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from fusetune.kernels.cpu.lowering import network

DTYPES = [
    torch.int8,
    torch.uint8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
]
SHAPES = [(4,), (8,), (64,), (256,), (4, 32), (2, 4, 16), (8, 1), (32, 2)]
Tile = np.ndarray[Any, Any]


@triton.jit
def sort_tile(X, OUT, SHAPE: tl.constexpr, SIZE: tl.constexpr, DOWN: tl.constexpr):
    place = tl.arange(0, SIZE)
    x = tl.load(X + place).reshape(SHAPE)
    tl.store(OUT + place, tl.sort(x, descending=DOWN).reshape([SIZE]))


@triton.jit
def top_of_rows(X, OUT, ROWS: tl.constexpr, SIZE: tl.constexpr, K: tl.constexpr):
    row = tl.arange(0, ROWS)[:, None]
    x = tl.load(X + row * SIZE + tl.arange(0, SIZE)[None, :])
    tl.store(OUT + row * K + tl.arange(0, K)[None, :], tl.topk(x, K))


@triton.jit
def flip_tile(X, OUT, ROWS: tl.constexpr, SIZE: tl.constexpr, DIM: tl.constexpr):
    place = tl.arange(0, ROWS)[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    tl.store(OUT + place, tl.flip(tl.load(X + place), DIM))


@triton.jit
def _half(x, mask):
    return tl.broadcast_to(tl.sum(x * mask, 1)[:, None, :], x.shape)


@triton.jit
def _exchange(x, places, down, OUTER: tl.constexpr, INNER: tl.constexpr):
    pairs: tl.constexpr = [OUTER, 2, INNER]
    right = tl.arange(0, 2)[None, :, None]
    bits = x.to(tl.int32, bitcast=True).reshape(pairs)
    at = places.reshape(pairs)
    left_bits, right_bits = _half(bits, 1 - right), _half(bits, right)
    left_at, right_at = _half(at, 1 - right), _half(at, right)
    a, b = left_bits.to(tl.float32, bitcast=True), right_bits.to(tl.float32, bitcast=True)
    wrong = (a > b) | (a == b) & (left_at > right_at) | (a != a) & (b == b)
    wrong = wrong | (a != a) & (b != b) & (left_at > right_at)
    take = (wrong ^ down.reshape(pairs)) != 0
    bits = bits ^ tl.where(take, left_bits ^ right_bits, 0)
    at = at ^ tl.where(take, left_at ^ right_at, 0)
    return bits.reshape(x.shape).to(tl.float32, bitcast=True), at.reshape(x.shape)


@triton.jit
def sort_with_places(X, OUT, PLACES, ROWS: tl.constexpr, SIZE: tl.constexpr, BITS: tl.constexpr):
    column = tl.broadcast_to(tl.arange(0, SIZE)[None, :], [ROWS, SIZE])
    place = tl.arange(0, ROWS)[:, None] * SIZE + column
    x = tl.load(X + place)
    at = column
    for stage in tl.static_range(1, BITS + 1):
        down = (column >> stage) & 1
        for step in tl.static_range(stage):
            x, at = _exchange(x, at, down, ROWS * SIZE >> (stage - step), 1 << (stage - 1 - step))
    tl.store(OUT + place, x)
    tl.store(PLACES + place, at)


@triton.jit
def sort_among_others(X, OUT, N, SIZE: tl.constexpr):
    """The tile, its order, both orders together, a sum, a part, and a tile that is ordered again in a loop."""
    place = tl.arange(0, SIZE)
    x = tl.load(X + place)
    up, down = tl.sort(x), tl.sort(x * 2, descending=True)
    tl.store(OUT + place, up)
    tl.store(OUT + SIZE + place, x + up)
    tl.store(OUT + 2 * SIZE + place, up - down)
    tl.store(OUT + 3 * SIZE + place, tl.sum(up * place) + tl.zeros_like(place))
    kept = x
    for i in range(N):
        if i % 2 == 0:
            kept = kept ^ i
            kept = tl.sort(kept)
        else:
            kept = tl.flip(kept, 0) + tl.cumsum(tl.sort(kept, descending=True))
    tl.store(OUT + 4 * SIZE + place, kept)


@triton.jit
def butterflies(X, OUT, BITS: tl.constexpr):
    """A Walsh-Hadamard transform, by sums and differences of pairs."""
    place = tl.arange(0, 2**BITS)
    x = tl.load(X + place)
    for bit in tl.static_range(BITS):
        pairs = x.reshape([2 ** (BITS - 1 - bit), 2, 2**bit])
        right = tl.arange(0, 2)[None, :, None]
        both = tl.sum(pairs, 1)[:, None, :]
        x = tl.where(right == 0, both, both - 2 * pairs).reshape([2**BITS])
    tl.store(OUT + place, x)


@triton.jit
def store_within_a_stage(X, OUT, N: tl.constexpr):
    place = tl.arange(0, N)
    x = tl.load(X + place).reshape([4, 2, 2, 2])
    both = tl.sum(x, 1, keep_dims=True)
    mixed = x ^ both
    tl.store(X + place, tl.zeros_like(place))
    x = mixed * both
    x += tl.max(x, 2, keep_dims=True)
    x -= tl.min(x, 3, keep_dims=True)
    tl.store(OUT + place, x.reshape([N]))


@triton.jit
def view_within_and_without(X, OUT, N: tl.constexpr):
    """Rows as pairs are exchanged, and stored once a later stage has exchanged them."""
    place = tl.arange(0, N)
    x = tl.load(X + place)
    pairs = (x ^ 1).reshape([N // 4, 2, 2])
    pairs = pairs * 3 + tl.sum(pairs, 1, keep_dims=True)
    view = pairs.reshape([N // 8, 2, 4])
    further = tl.sum(view, 1, keep_dims=True) ^ view
    further += tl.max(further, 1, keep_dims=True)
    further -= tl.min(further, 1, keep_dims=True)
    tl.store(OUT + place, further.reshape([N]))
    tl.store(OUT + N + tl.arange(0, N // 8), tl.max(tl.max(view, 2), 1))


def some(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    """Numbers of a dtype, some of them several times, with the largest and the smallest."""
    generator = torch.Generator().manual_seed(seed)
    if dtype.is_floating_point:
        x = (torch.randn(shape, generator=generator, dtype=torch.float64) * 8).round() / 4
        return torch.where(x > 3, torch.inf, torch.where(x < -4, -torch.inf, x)).to(dtype)
    limits = torch.iinfo(dtype)
    return torch.randint(limits.min, limits.max, shape, generator=generator, dtype=dtype)


def compiled(kernel: Any, *args: Any) -> Any:
    """Launch a kernel once, and return what it was compiled to."""
    return kernel[(1,)](*args)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The C is what users get, without a debug mode's own lines."""
    for variable in ("FUSETUNE_CHECK_TILES", "FUSETUNE_CHECK_BOUNDS"):
        monkeypatch.delenv(variable, raising=False)


def sort(x: torch.Tensor, down: bool) -> torch.Tensor:
    out = torch.empty_like(x)
    compiled(sort_tile, x, out, tuple(x.shape), x.numel(), down)
    return out


def lines(kernel: Any) -> int:
    return str(kernel.asm["c"]).count("\n")


def stages(kernel: Any) -> int:
    """The functions that the stages of a network share."""
    return len(re.findall(r"^static .*\bstage\d+\(", kernel.asm["c"], re.MULTILINE))


@pytest.mark.parametrize("down", [False, True], ids=["up", "down"])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
def test_every_type_sorts(dtype: torch.dtype, down: bool) -> None:
    x = some((64,), dtype)
    assert torch.equal(sort(x, down), x.sort(descending=down).values)


@pytest.mark.parametrize("down", [False, True], ids=["up", "down"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rows_of_every_shape_sort(shape: tuple[int, ...], down: bool) -> None:
    x = some(shape, torch.float32)
    assert torch.equal(sort(x, down), x.sort(-1, descending=down).values)


def network_in_numpy(x: Tile) -> Tile:
    """What Triton documents of its network: pairs are exchanged where `x > y` says so, which no NaN does."""
    bits = x.size.bit_length() - 1
    lane = np.arange(x.size)
    for stage in range(1, bits + 1):
        down = (lane >> stage) & 1 if stage < bits else np.zeros_like(lane)
        for bit in reversed(range(stage)):
            y = x[lane ^ (1 << bit)]
            right = (lane >> bit) & 1
            x = np.where((x > y) != ((down ^ right) != 0), y, x)
    return x


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_nan_goes_where_the_comparisons_leave_it(dtype: torch.dtype) -> None:
    x = some((128,), dtype)
    x[[3, 50, 51, 100]] = torch.nan
    np.testing.assert_array_equal(sort(x, False).numpy(), network_in_numpy(x.numpy()))


@pytest.mark.parametrize(("rows", "size", "k"), [(1, 64, 8), (4, 32, 4), (2, 16, 16), (16, 8, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int32], ids=str)
def test_the_largest_of_each_row(dtype: torch.dtype, rows: int, size: int, k: int) -> None:
    x = some((rows, size), dtype)
    out = torch.empty(rows, k, dtype=dtype)
    compiled(top_of_rows, x, out, rows, size, k)
    assert torch.equal(out, x.topk(k).values)


@pytest.mark.parametrize(("shape", "dim"), [((1, 64), 1), ((8, 16), 0), ((8, 16), 1)], ids=str)
def test_flipping(shape: tuple[int, int], dim: int) -> None:
    x = some(shape, torch.float32)
    out = torch.empty_like(x)
    compiled(flip_tile, x, out, *shape, dim)
    assert torch.equal(out, x.flip(dim))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("rows", "bits"), [(1, 2), (1, 6), (4, 5), (8, 3)])
def test_places_go_along_with_what_is_sorted(rows: int, bits: int) -> None:
    x = some((rows, 2**bits), torch.float32)
    x[:, 1] = torch.nan
    out, places = torch.empty_like(x), torch.empty(x.shape, dtype=torch.int32)
    kernel = compiled(sort_with_places, x, out, places, rows, 2**bits, bits)
    wanted = x.sort(dim=-1, stable=True)
    assert torch.equal(places.long(), wanted.indices)
    np.testing.assert_array_equal(out.numpy(), wanted.values.numpy())
    if bits > 2:
        assert lines(kernel) < 900


def test_sorted_tiles_go_on_with_others() -> None:
    size, turns = 32, 5
    x = some((size,), torch.int32)
    out = torch.empty(5 * size, dtype=torch.int32)
    compiled(sort_among_others, x, out, turns, size)
    got = out.reshape(5, size).numpy()
    a = x.numpy()
    place = np.arange(size, dtype=np.int32)
    with np.errstate(over="ignore"):
        up, down = np.sort(a), np.sort(a * np.int32(2))[::-1]
        kept = a
        for i in range(turns):
            if i % 2 == 0:
                kept = np.sort(kept ^ np.int32(i))
            else:
                kept = kept[::-1] + np.cumsum(np.sort(kept)[::-1], dtype=np.int32)
        wanted = [up, a + up, up - down, np.full(size, (up * place).sum(dtype=np.int32)), kept]
    np.testing.assert_array_equal(got, np.stack(wanted))


@pytest.mark.usefixtures("unchecked")
def test_butterflies_of_sums_over_pairs() -> None:
    bits = 7
    x = some((2**bits,), torch.int8).int()
    out = torch.empty_like(x)
    kernel = compiled(butterflies, x, out, bits)
    signs = np.array([[(-1) ** (i & j).bit_count() for j in range(2**bits)] for i in range(2**bits)])
    np.testing.assert_array_equal(out.numpy(), signs @ x.numpy().astype(np.int64))
    assert stages(kernel) == 1


def test_a_store_within_a_stage_comes_behind_its_loads() -> None:
    x = some((32,), torch.int32)
    a, out = x.clone(), torch.empty_like(x)
    assert stages(compiled(store_within_a_stage, a, out, 32)) > 0
    wanted = x.reshape(4, 2, 2, 2)
    both = wanted.sum(1, keepdim=True, dtype=torch.int32)
    wanted = (wanted ^ both) * both
    wanted = wanted + wanted.amax(2, keepdim=True)
    wanted = wanted - wanted.amin(3, keepdim=True)
    assert torch.equal(out, wanted.reshape(-1))
    assert not a.any()


def test_a_view_that_stages_use_is_there_behind_them() -> None:
    x, out = some((32,), torch.int32), torch.empty(36, dtype=torch.int32)
    assert stages(compiled(view_within_and_without, x, out, 32)) > 0
    pairs = (x ^ 1).reshape(8, 2, 2)
    pairs = pairs * 3 + pairs.sum(1, keepdim=True, dtype=torch.int32)
    view = pairs.reshape(4, 2, 4)
    further = view.sum(1, keepdim=True, dtype=torch.int32) ^ view
    further = further + further.amax(1, keepdim=True)
    further = further - further.amin(1, keepdim=True)
    assert torch.equal(out, torch.cat([further.reshape(-1), view.amax((1, 2))]))


@pytest.mark.usefixtures("unchecked")
def test_sorting_4096_takes_few_lines_functions_and_bytes() -> None:
    x = some((4096,), torch.float32)
    out = torch.empty_like(x)
    kernel = compiled(sort_tile, x, out, (4096,), 4096, False)
    assert torch.equal(out, x.sort().values)
    assert stages(kernel) == 2  # with alternating directions, and the last merge in one
    assert lines(kernel) < 500
    assert kernel.metadata.scratch_bytes <= 3 * 4096 * 4
    assert len(re.findall(r"^stage\d+\(", kernel.asm["c"], re.MULTILINE)) == 78


@pytest.mark.usefixtures("unchecked")
def test_lines_do_not_grow_with_the_elements() -> None:
    """By one call a stage, of which there are 21 and 45."""
    lengths = []
    for size in (64, 512):
        x = some((size,), torch.float32)
        lengths.append(lines(compiled(sort_tile, x, torch.empty_like(x), (size,), size, False)))
    assert lengths[1] - lengths[0] == 45 - 21


@pytest.mark.usefixtures("unchecked")
def test_few_exchanges_are_lowered_as_ever() -> None:
    x = some((2, 2), torch.float32)
    out = torch.empty_like(x)
    kernel = compiled(sort_tile, x, out, (2, 2), 4, False)
    assert torch.equal(out, x.sort(-1).values)
    assert stages(kernel) == 0


class Exchanges:
    """A random kernel that exchanges the lanes of pairs of an int32 tile in all manners, and what NumPy says of it."""

    HEAD = "import triton\nimport triton.language as tl\n\n\n@triton.jit\ndef kernel(X, OUT, S):\n"

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        bits = self.random.randrange(3, 8)
        self.x: Tile = np.random.default_rng(seed).integers(-99, 99, 2**bits).astype(np.int32)
        self.scalar = self.random.randrange(-9, 9)
        self.values: list[Tile] = [self.x.reshape([2] * bits)]
        self.lines = [f"place = tl.arange(0, {2**bits})", f"x0 = tl.load(X + place).reshape({[2] * bits})"]
        self.out: list[Tile] = []
        for _ in range(self.random.randrange(3, 12)):
            step = [
                self.combine,
                self.two,
                self.drop,
                self.turn,
                self.pairs,
                self.halves,
                self.store,
                self.overwrite,
            ]
            self.random.choice([self.combine, *step])()
        self.store()

    @property
    def source(self) -> str:
        return self.HEAD + "".join(f"    {line}\n" for line in self.lines)

    def add(self, text: str, value: Tile) -> None:
        self.lines.append(f"x{len(self.values)} = {text}")
        self.values.append(value.astype(np.int32))

    def reduced(self, number: int, axis: int) -> tuple[str, Tile]:
        kind = self.random.choice(["sum", "xor_sum", "max", "min"])
        function = {"sum": np.add, "xor_sum": np.bitwise_xor, "max": np.maximum, "min": np.minimum}[kind]
        value = function.reduce(self.values[number], axis=axis, keepdims=True, dtype=np.int32)
        return f"tl.{kind}(x{number}, {axis}, keep_dims=True)", value

    def bit(self, rank: int) -> tuple[str, Tile]:
        axis = self.random.randrange(rank)
        shape = [2 if each == axis else 1 for each in range(rank)]
        return f"tl.arange(0, 2).reshape({shape})", np.arange(2, dtype=np.int32).reshape(shape)

    def combine(self) -> None:
        number = len(self.values) - 1
        x = self.values[number]
        text, value = self.reduced(number, self.random.randrange(x.ndim))
        bit, of_bit = self.bit(x.ndim)
        form = self.random.randrange(4)
        if form == 0:
            self.add(f"x{number} ^ {text}", x ^ value)
        elif form == 1:
            self.add(f"x{number} * 3 + {text} * {bit} + S", x * 3 + value * of_bit + self.scalar)
        elif form == 2:
            self.add(
                f"tl.where(x{number} > {text} - {bit}, x{number} + {bit}, {text} - x{number})",
                np.where(x > value - of_bit, x + of_bit, value - x),
            )
        else:
            older = self.random.randrange(len(self.values))
            other = self.values[older]
            if other.shape == x.shape:
                self.add(f"x{older} + x{number} - {text}", other + x - value)

    def two(self) -> None:
        number = len(self.values) - 1
        x = self.values[number]
        (first, a), (second, b) = (self.reduced(number, self.random.randrange(x.ndim)) for _ in range(2))
        self.add(f"{first} * 2 - {second} + x{number}", a * 2 - b + x)

    def pairs(self) -> None:
        """A bit of the place gets a dimension of its own, the others go together. Then all get one again."""
        number = len(self.values) - 1
        x = self.values[number]
        bits = x.size.bit_length() - 1
        lower = self.random.randrange(bits)
        shape = [2 ** (bits - 1 - lower), 2, 2**lower]
        self.add(f"x{number}.reshape({shape})", x.reshape(shape))
        text, value = self.reduced(number + 1, 1)
        self.add(f"{text} * 5 - x{number + 1}", value * 5 - x.reshape(shape))
        self.add(f"x{number + 2}.reshape({[2] * bits})", self.values[-1].reshape([2] * bits))

    def halves(self) -> None:
        """Neighbours taken apart, worked on and put together again."""
        number = len(self.values) - 1
        x = self.values[number]
        self.lines.append(f"a{number}, b{number} = tl.split(x{number})")
        a, b = x[..., 0], x[..., 1]
        if a.ndim:
            self.add(f"tl.join(b{number} * 2, a{number} ^ b{number})", np.stack([b * 2, a ^ b], -1))

    def overwrite(self) -> None:
        """What was loaded is there no more."""
        self.lines.append("tl.store(X + place, place)")

    def drop(self) -> None:
        number = len(self.values) - 1
        x = self.values[number]
        if x.ndim > 2:
            axis = self.random.randrange(x.ndim)
            self.add(f"tl.max(x{number}, {axis})", x.max(axis))

    def turn(self) -> None:
        number = len(self.values) - 1
        order = list(range(self.values[number].ndim))
        self.random.shuffle(order)
        self.add(f"tl.permute(x{number}, {order})", self.values[number].transpose(order))

    def store(self) -> None:
        number = self.random.choice([len(self.values) - 1, self.random.randrange(len(self.values))])
        size = self.values[number].size
        at = sum(map(len, self.out))
        self.lines.append(f"tl.store(OUT + {at} + tl.arange(0, {size}), x{number}.reshape([{size}]))")
        self.out.append(self.values[number].reshape(-1))


def got_and_wanted(seed: int, folder: Path) -> tuple[Tile, Tile, str]:
    made = Exchanges(seed)
    file = folder / f"exchanges_{seed}.py"
    file.write_text(made.source)
    specification = importlib.util.spec_from_file_location(file.stem, file)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    wanted = np.concatenate(made.out)
    out = torch.zeros(len(wanted), dtype=torch.int32)
    compiled(module.kernel, torch.from_numpy(made.x), out, made.scalar)
    return out.numpy(), wanted, made.source


@pytest.mark.slow
def test_random_exchanges_store_what_numpy_works_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "FEWEST_EXCHANGES", 1)
    with np.errstate(over="ignore"):
        for seed in range(60):
            got, wanted, source = got_and_wanted(seed, tmp_path)
            np.testing.assert_array_equal(got, wanted, err_msg=source)
