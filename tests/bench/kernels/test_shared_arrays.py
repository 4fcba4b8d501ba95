"""Arrays cross between processes bit by bit, and nothing that another process says is believed."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import pytest
import torch

from fusetune.bench.kernels.shared_arrays import (
    Array,
    Opaque,
    SharedTree,
    UnreadableTreeError,
    arrays_of,
    memory_file,
    moved,
    read_tree,
    scaled,
)
from fusetune.errors import InvalidValueError

DTYPES = (
    *("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "complex64", "complex128"),
    *("int8", "int16", "int32", "int64", "uint8", "bool"),
)


def array_of(tensor: torch.Tensor) -> Array:
    """What a lane would send, by torch's own view of the bytes."""
    storage = tensor.untyped_storage()
    data = torch.empty(0, dtype=torch.uint8).set_(storage).numpy().copy()
    dtype = str(tensor.dtype).removeprefix("torch.")
    return Array(dtype, tuple(tensor.shape), tensor.stride(), data, int(tensor.storage_offset()))


def random_bits(dtype: str, shape: tuple[int, ...]) -> torch.Tensor:
    kind = getattr(torch, dtype)
    if dtype == "bool":
        return torch.rand(shape) < 0.5
    size = int(np.prod(shape)) * kind.itemsize
    return torch.randint(0, 256, (size,), dtype=torch.uint8).view(kind).view(shape)


def assert_same(array: Array, expected: Any) -> None:
    """NaN that signal warn where they are widened."""
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(array.values.astype(np.float64), expected)


def crossed(tree: Any) -> Any:
    shared = SharedTree(tree)
    try:
        return read_tree(shared.text, shared.file)
    finally:
        shared.close()


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_crosses_bit_by_bit(dtype: str) -> None:
    tensor = random_bits(dtype, (5, 3))
    got = crossed({"x": array_of(tensor)})["x"]
    assert got.bits.tobytes() == tensor.view(torch.uint8).numpy().tobytes()
    assert (got.dtype, got.shape) == (dtype, (5, 3))


@pytest.mark.parametrize("dtype", [name for name in DTYPES if name != "bool" and "complex" not in name])
def test_values_are_those_that_torch_reads(dtype: str) -> None:
    tensor = random_bits(dtype, (4096,))
    expected = tensor.double().numpy()
    assert_same(array_of(tensor), expected)


@pytest.mark.parametrize("dtype", [name for name in DTYPES if "float" in name])
def test_the_gap_above_one_and_the_smallest_number_are_torch_s(dtype: str) -> None:
    info = torch.finfo(getattr(torch, dtype))
    array = array_of(torch.zeros(1, dtype=getattr(torch, dtype)))
    assert (array.eps, array.smallest) == (info.eps, info.smallest_normal * info.eps)


def test_layout_and_shared_memory_cross() -> None:
    whole = torch.arange(24.0).view(4, 6)
    tree = {"t": array_of(whole.t()), "row": array_of(whole), "wide": array_of(torch.ones(1).expand(5))}
    tree["row"] = Array("float32", (6,), (1,), tree["t"].storage, 6)
    got = crossed(tree)
    np.testing.assert_array_equal(got["t"].values, whole.t().numpy())
    np.testing.assert_array_equal(got["row"].values, whole[1].numpy())
    assert got["row"].storage is got["t"].storage
    assert got["wide"].values.tolist() == [1.0] * 5


def test_everything_that_is_plain_crosses() -> None:
    tree = {
        "a": [None, True, 3, -(10**30), 0.1, float("inf"), 2 - 3j, "text"],
        4: (1, [2, (3,)], {}),
        "nan": float("nan"),
        "empty": Array.of(np.zeros((0, 3))),
        "scalar": Array.of(np.float32(2.5)),
        "table": Opaque("MultiTensorTable", "gASV"),
    }
    got = crossed(tree)
    assert got["a"] == tree["a"]
    assert got[4] == tree[4]
    assert np.isnan(got["nan"])
    assert got["empty"].values.shape == (0, 3)
    assert got["scalar"].values == 2.5
    assert got["scalar"].shape == ()
    assert got["table"] == tree["table"]


def test_what_cannot_cross_is_named() -> None:
    with pytest.raises(InvalidValueError, match="set"):
        SharedTree({"x": {1, 2}})


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="files in memory cannot be sealed here")
def test_nobody_can_change_inputs_that_are_shared() -> None:
    shared = SharedTree([Array.of(np.arange(8.0))])
    with pytest.raises(OSError, match="not permitted"):
        os.pwrite(shared.file, b"\0", 0)
    with pytest.raises(OSError, match="not permitted"):
        os.ftruncate(shared.file, 0)
    assert read_tree(shared.text, shared.file)[0].values[7] == 7
    shared.close()


@pytest.mark.parametrize(
    ("node", "storages"),
    [
        (["array", "float32", [9], [1], 0, 0], [[0, 32]]),
        (["array", "float32", [8], [1], 1, 0], [[0, 32]]),
        (["array", "float32", [8], [1], -1, 0], [[0, 32]]),
        (["array", "float32", [2], [2**62], 0, 0], [[0, 32]]),
        (["array", "float32", [-8], [1], 0, 0], [[0, 32]]),
        (["array", "float32", [8], [1], 0, 1], [[0, 32]]),
        (["array", "float32", [8], [1, 1], 0, 0], [[0, 32]]),
        (["array", "object", [1], [1], 0, 0], [[0, 32]]),
        (["array", "float32", [8], [1], 0, 0], [[0, 2**50]]),
        (["array", "float32", [8], [1], 0, 0], [[-8, 32]]),
        (["array", "float32", ["x"], [1], 0, 0], [[0, 32]]),
        (["plain", [1]], []),
        (["pickle", "gASV"], []),
        (["float", "zero"], []),
        (["dict", [[["list", []], ["plain", 1]]]], []),
        (3, []),
        ([["plain", 1]] * 3, []),
    ],
)
def test_a_forged_description_is_refused(node: Any, storages: Any) -> None:
    file = memory_file("test")
    os.ftruncate(file, 32)
    with pytest.raises(UnreadableTreeError):
        read_tree(json.dumps({"tree": node, "storages": storages}), file)
    os.close(file)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"tree": 1}', "[" * 100_000, '{"tree": 1, "storages": 3}'])
def test_what_is_no_description_is_refused(text: str) -> None:
    file = memory_file("test")
    with pytest.raises(UnreadableTreeError):
        read_tree(text, file)
    os.close(file)


@pytest.mark.parametrize("by_bytes", [0, 1, 2, 4, 8, 36])
def test_moved_arrays_have_their_values_elsewhere(by_bytes: int) -> None:
    x = torch.randn(7, 5)
    tree = {"x": array_of(x.t()), "n": array_of(torch.arange(3))}
    tree["view"] = Array("float32", (5,), (1,), tree["x"].storage, 5)
    got = moved(tree, by_bytes=by_bytes, guard_bytes=128, seed=1)
    for (_, old), (_, new) in zip(arrays_of(tree), arrays_of(got), strict=True):
        np.testing.assert_array_equal(old.values, new.values)
        assert (
            new.offset * new.itemsize % 64 == -(-by_bytes // new.itemsize) * new.itemsize % 64 or old.offset
        )
    assert got["view"].storage is got["x"].storage
    assert len(got["n"].storage) == 3 * 8 + 2 * 128 + -(-by_bytes // 8) * 8


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("factor", [0.75, 91 / 128, 127 / 128])
def test_scaling_is_what_torch_computes(dtype: str, factor: float) -> None:
    tensor = random_bits(dtype, (4096,))
    tree: dict[str, Any] = {"x": array_of(tensor), "i": array_of(torch.arange(3)), "p": 2.0}
    got = scaled(tree, factor)
    expected = (tensor.double() * factor).to(tensor.dtype).double().numpy()
    assert_same(got["x"], expected)
    assert got["i"].values.tolist() == [0, 1, 2]
    assert got["p"] == 2.0
    np.testing.assert_array_equal(tree["x"].bits, array_of(tensor).bits)


def test_overlapping_arrays_are_scaled_once() -> None:
    x = Array.of(np.array([1, 2, 3, 4], np.float32))
    tail = Array("float32", (2,), (1,), x.storage, 2)
    got = scaled([x, tail, x], 0.5)
    assert got[0].values.tolist() == [0.5, 1.0, 1.5, 2.0]
    assert got[1].values.tolist() == [1.5, 2.0]


@pytest.mark.parametrize("factor", [0.0, 1.5, 0.7, -0.5])
def test_a_factor_that_not_every_dtype_holds_is_refused(factor: float) -> None:
    with pytest.raises(InvalidValueError, match="1/128"):
        scaled([], factor)
