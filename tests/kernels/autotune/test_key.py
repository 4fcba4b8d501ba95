"""Keys: what changes a kernel changes its key, what does not leaves it, and each part can be told apart."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from fusetune.errors import InvalidValueError
from fusetune.kernels import KERNELS
from fusetune.kernels.autotune import TuningKey, bucket, key_of, source_hash
from fusetune.kernels.kernel import Kernel

SOURCE = """
import functools
import math
import torch
import triton
import triton.language as tl

LIMIT = tl.constexpr(3)

@triton.jit
def helper(x):
    return x + 1

@triton.constexpr_function
def twice(n):
    return n * 2

@triton.jit
def kernel(x_ptr, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    wide: tl.constexpr = twice(SIZE)
    tl.store(x_ptr + at, helper(tl.load(x_ptr + at)) + LIMIT)

@triton.jit
def other(x_ptr):
    tl.store(x_ptr, 0.0)

tuned = triton.autotune([triton.Config({"SIZE": 16})], key=[])(kernel)

def unused():
    return 1

def fused(x):
    return launched(x)

def launched(x):
    kernel[(1,)](x, SIZE=16)
    return x

def by_default(x, k=kernel):
    k[(1,)](x, SIZE=16)

def enclosing(k):
    def fused(x):
        k[(1,)](x, SIZE=16)
    return fused

def nested(x):
    return [kernel[(1,)](each, SIZE=16) for each in x]

class Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        kernel[(1,)](x, SIZE=16)

def by_class(x):
    return Function.apply(x)

class Launcher:
    def __call__(self, x):
        self.go(x)
    def go(self, x):
        kernel[(1,)](x, SIZE=16)

def plain(x):
    return x + 1
"""
ROADS: dict[str, Callable[[ModuleType], Any]] = {
    "itself": lambda module: module.kernel,
    "autotune": lambda module: module.tuned,
    "a launcher of a launcher": lambda module: module.fused,
    "a default": lambda module: module.by_default,
    "a closure": lambda module: module.enclosing(module.kernel),
    "a function within": lambda module: module.nested,
    "a class": lambda module: module.by_class,
    "an object": lambda module: module.Launcher(),
    "a method": lambda module: module.Launcher().go,
    "partial": lambda module: __import__("functools").partial(module.launched),
    "a wrapper": lambda module: torch.no_grad()(module.launched),
}
_numbers = itertools.count()


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Callable[[str], ModuleType]]:
    """Import a source as a module of the same name, each time another one."""
    name = "a_persons_kernels"

    def load(source: str) -> ModuleType:
        path = tmp_path / str(next(_numbers)) / f"{name}.py"
        path.parent.mkdir()
        path.write_text(source)
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield load
    sys.modules.pop(name, None)


@pytest.mark.parametrize("road", list(ROADS))
@pytest.mark.parametrize(
    "change",
    [
        ("tl.arange(0, SIZE)", "SIZE - 1 - tl.arange(0, SIZE)"),
        ("return x + 1\n\n@triton.constexpr", "return x + 2\n\n@triton.constexpr"),
        ("tl.constexpr(3)", "tl.constexpr(4)"),
        ("return n * 2", "return n * 3"),
    ],
    ids=["kernel", "function that it calls", "constant", "function of constants"],
)
def test_what_changes_a_kernel_changes_the_hash(
    road: str, change: tuple[str, str], load: Callable[[str], ModuleType]
) -> None:
    before = ROADS[road](load(SOURCE))
    first = source_hash(before)
    assert SOURCE.count(change[0]) == 1
    assert source_hash(ROADS[road](load(SOURCE.replace(*change)))) != first
    assert source_hash(ROADS[road](load(SOURCE))) == first


@pytest.mark.parametrize("road", list(ROADS))
def test_every_road_leads_to_the_same_sources(road: str, load: Callable[[str], ModuleType]) -> None:
    module = load(SOURCE)
    assert source_hash(ROADS[road](module)) == source_hash(module.kernel)


@pytest.mark.parametrize(
    "change",
    [
        ("\nLIMIT", "\n\n# a comment\nLIMIT"),
        ("return 1", "return 2"),
        ("tl.store(x_ptr, 0.0)", "tl.store(x_ptr, 1.0)"),
        ('{"SIZE": 16}', '{"SIZE": 32}'),
    ],
    ids=["place in the file", "function that is not called", "another kernel", "launch configs"],
)
def test_what_does_not_change_a_kernel_leaves_the_hash(
    change: tuple[str, str], load: Callable[[str], ModuleType]
) -> None:
    first = source_hash(load(SOURCE).fused)
    assert source_hash(load(SOURCE.replace(*change)).fused) == first


def test_what_triton_tells_apart_is_told_apart(load: Callable[[str], ModuleType]) -> None:
    """Triton's own hash is the witness, on each line that a kernel can depend on: an added blank there changes both."""
    lines = SOURCE.splitlines(keepends=True)
    theirs, ours = load(SOURCE).kernel.cache_key, source_hash(load(SOURCE).kernel)
    told = 0
    for at, line in enumerate(lines):
        if not line.strip() or line.startswith(("import", "@", "def", "class")) or " def " in line:
            continue
        changed = load("".join([*lines[:at], line.rstrip("\n") + "  # changed\n", *lines[at + 1 :]])).kernel
        if changed.cache_key != theirs:
            told += 1
            assert source_hash(changed) != ours, line
    assert told >= 4


def test_without_a_triton_function_the_whole_file_counts(load: Callable[[str], ModuleType]) -> None:
    source = "def fused(x):\n    return x + 1\n"
    first = source_hash(load(source).fused)
    assert source_hash(load(source + "\nother = 1\n").fused) != first
    assert source_hash(load(source).fused) == first


def test_a_function_without_a_file_has_a_hash() -> None:
    scope: dict[str, Any] = {}
    exec("def fused(x):\n    return x", scope)
    assert source_hash(scope["fused"]) == source_hash(scope["fused"])
    assert source_hash(len)


def test_kernels_of_this_package_differ() -> None:
    names = ["relu", "gelu", "gelu_backward", "adam", "sgd"]
    assert len({source_hash(KERNELS[name].fused) for name in names}) >= 3


@pytest.mark.parametrize("size", [1, 2, 3, 15, 16, 17, 1000, 2**20, 2**20 + 1, 2**40])
def test_a_bucket_is_the_next_power_of_two(size: int) -> None:
    power = int(bucket(size).removeprefix("2^"))
    assert size <= 2**power < 2 * size


@pytest.fixture
def kernel() -> Kernel:
    """A kernel whose key is asked for, never called."""
    return Kernel("copy", lambda **_: None, lambda **_: None, lambda *_: {}, configs=({"BLOCK": 1},))


def base() -> dict[str, Any]:
    """Inputs of `kernel`."""
    return {
        "x": torch.zeros(64, 48),
        "others": [torch.zeros(8)],
        "scale": 0.5,
        "heads": 8,
        "causal": True,
        "n": 3000,
    }


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "dtype": (lambda inputs: {**inputs, "x": inputs["x"].half()}, "dtypes"),
    "rows": (lambda inputs: {**inputs, "x": torch.zeros(65, 48)}, "size"),
    "columns": (lambda inputs: {**inputs, "x": torch.zeros(64, 65)}, "size"),
    "list": (lambda inputs: {**inputs, "others": [torch.zeros(9)]}, "size"),
    "misaligned": (lambda inputs: {**inputs, "others": [torch.zeros(9)[1:]]}, "layout"),
    "transposed": (lambda inputs: {**inputs, "x": torch.zeros(48, 64).t()}, "layout"),
    "bool": (lambda inputs: {**inputs, "causal": False}, "constexprs"),
    "small integer": (lambda inputs: {**inputs, "heads": 9}, "constexprs"),
    "large integer": (lambda inputs: {**inputs, "n": 5000}, "constexprs"),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_each_part_tells_what_it_is_about(change: str, kernel: Kernel) -> None:
    make, part = CHANGES[change]
    assert key_of(kernel, base()).differences(key_of(kernel, make(base()))) == (part,)


@pytest.mark.parametrize(
    "same",
    [
        {"scale": 0.7},
        {"n": 4000},
        {"x": torch.ones(33, 33)},
        {"others": (torch.ones(5),)},
        {"bias": None},
    ],
    ids=["float", "integer in the bucket", "sizes in the bucket", "tuple", "None"],
)
def test_what_a_kernel_is_not_compiled_for_leaves_the_key(same: dict[str, Any], kernel: Kernel) -> None:
    assert key_of(kernel, base()) == key_of(kernel, {**base(), **same})


def test_threads_and_versions_are_in_the_key(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    key = key_of(kernel, base())
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before + 1)
        assert key.differences(key_of(kernel, base())) == ("device",)
    finally:
        torch.set_num_threads(before)
    monkeypatch.setattr("triton.__version__", "9.9.9")
    assert key.differences(key_of(kernel, base())) == ("triton",)
    assert "gcc" in key.compiler or "clang" in key.compiler or key.compiler


@pytest.mark.parametrize("damage", [{"size": 3}, {"size": None}, {"moon": "full"}])
def test_parts_that_make_no_key(damage: dict[str, Any]) -> None:
    parts = dict.fromkeys(TuningKey.__dataclass_fields__, "")
    assert TuningKey.from_parts(parts).parts() == parts
    with pytest.raises(InvalidValueError, match=f"'{next(iter(damage))}' is missing, unknown or no text"):
        TuningKey.from_parts({**parts, **damage})
    del parts["device"]
    with pytest.raises(InvalidValueError, match="'device' is missing"):
        TuningKey.from_parts(parts)
