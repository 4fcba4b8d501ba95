"""The contract of a kernel refuses what nothing could be done with, when it is written and in one sentence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import triton
import triton.language as tl

import fusetune
from fusetune.errors import FusetuneError, InvalidTypeError, InvalidValueError
from fusetune.kernels import KERNELS, Kernel, config_grid


@triton.jit
def nothing_kernel(x: Any, BLOCK: tl.constexpr) -> None:  # noqa: N803
    pass


@triton.autotune([triton.Config({"BLOCK": 1})], key=[])
@triton.heuristics({})
@triton.jit
def tuned_kernel(x: Any, BLOCK: tl.constexpr) -> None:  # noqa: N803
    pass


def make_inputs(elements: int, dtype: torch.dtype, device: torch.device, seed: int) -> dict[str, Any]:
    return {"x": torch.full((elements,), seed, dtype=dtype, device=device)}


def kernel(**changes: Any) -> Kernel:
    given: dict[str, Any] = {
        "name": "twice",
        "fused": torch.add,
        "reference": torch.add,
        "make_inputs": make_inputs,
    }
    return Kernel(**(given | changes))


def test_a_kernel_is_a_public_name() -> None:
    assert fusetune.Kernel is Kernel
    assert all(isinstance(shipped, Kernel) for shipped in KERNELS.values())


def test_lists_are_as_good_as_tuples() -> None:
    written = kernel(mutates=["x"], elements=[1, 2], dtypes=[torch.float64], configs=[{"BLOCK": 1}])
    assert written.mutates == ("x",)
    assert written.elements == (1, 2)
    assert written.dtypes == (torch.float64,)
    assert written.configs == ({"BLOCK": 1},)


def test_a_default_is_one_of_the_configs_and_may_be_the_kernels_own_choice() -> None:
    space = ({}, *config_grid(BLOCK=(1, 2)))
    assert kernel(configs=space, default={}).default == {}
    assert kernel(configs=space, default={"BLOCK": 2}).default == {"BLOCK": 2}


@pytest.mark.parametrize(
    ("changes", "kind", "text"),
    [
        ({"name": ""}, InvalidValueError, "name: '' is not allowed"),
        ({"name": " a"}, InvalidValueError, "name: ' a' is not allowed"),
        ({"name": "a/b"}, InvalidValueError, "known: printable characters but '/'"),
        ({"name": "a\nb"}, InvalidValueError, "is not allowed"),
        ({"name": 3}, InvalidTypeError, "name: is a int; known: a text"),
        ({"fused": 3}, InvalidTypeError, "twice: fused: is a int; known: a function"),
        ({"fused": nothing_kernel}, InvalidTypeError, "Give a Python function that launches it"),
        ({"fused": tuned_kernel}, InvalidTypeError, "is a @triton.jit function"),
        ({"reference": None}, InvalidTypeError, "twice: reference: is a NoneType"),
        ({"bytes_moved": 12}, InvalidTypeError, "twice: bytes_moved: is a int"),
        ({"competitors": {"hers": 1}}, InvalidTypeError, "twice: competitors: hers: is a int"),
        ({"mutates": "x"}, InvalidTypeError, "known: a tuple of names of inputs. Put it into a tuple"),
        ({"mutates": (1,)}, InvalidTypeError, "twice: mutates: is a int"),
        ({"elements": 1000}, InvalidTypeError, "twice: elements: is a int; known: a tuple of integers"),
        ({"elements": (0,)}, InvalidValueError, "twice: elements: 0 is not allowed; known: 1 or more"),
        ({"elements": (True,)}, InvalidTypeError, "twice: elements: is a bool"),
        ({"dtypes": ("float32",)}, InvalidTypeError, "twice: dtypes: is a str; known: torch.dtype"),
        ({"dtypes": ()}, InvalidValueError, "twice: dtypes: is empty"),
        ({"tolerance": 0.0}, InvalidValueError, "twice: tolerance: 0.0 is not allowed"),
        ({"tolerance": float("nan")}, InvalidValueError, "known: above 0 and finite"),
        ({"alignment": 12}, InvalidValueError, "twice: alignment: 12 is not allowed; known: powers of two"),
        ({"alignment": 0}, InvalidValueError, "twice: alignment: 0 is not allowed"),
        ({"configs": {"BLOCK": (1, 2)}}, InvalidTypeError, "twice: configs: is a dict"),
        ({"configs": (64,)}, InvalidTypeError, "twice: configs: is a int"),
        (
            {"configs": ({"BLOCK": "64"},)},
            InvalidTypeError,
            "twice: configs: BLOCK: is a str; known: integers",
        ),
        ({"configs": ({"A": 1}, {"B": 1})}, InvalidValueError, "they differ in A, B"),
        ({"configs": ({"A": 1}, {"A": 1})}, InvalidValueError, "twice: configs: hold one twice"),
        ({"configs": ({"A": 1},), "default": {"A": 2}}, InvalidValueError, "{'A': 2} is none of configs"),
        ({"default": {"A": 2}}, InvalidValueError, "is none of configs"),
    ],
)
def test_what_nothing_could_be_done_with_is_one_sentence(
    changes: dict[str, Any], kind: type[FusetuneError], text: str
) -> None:
    with pytest.raises(kind) as raised:
        kernel(**changes)
    assert text in str(raised.value)


def test_a_config_grid_is_every_combination_in_order() -> None:
    assert config_grid() == ({},)
    assert config_grid(BLOCK=[1, 2], num_warps=4) == (
        {"BLOCK": 1, "num_warps": 4},
        {"BLOCK": 2, "num_warps": 4},
    )
    grid = config_grid(A=range(3), B=(1, 2), C=(5, 6, 7))
    assert len({tuple(config.items()) for config in grid}) == 3 * 2 * 3


@pytest.mark.parametrize(
    ("values", "kind"), [({"A": ()}, InvalidValueError), ({"A": ("1",)}, InvalidTypeError)], ids=str
)
def test_a_config_grid_holds_integers(values: dict[str, Any], kind: type[FusetuneError]) -> None:
    with pytest.raises(kind, match=r"^A: "):
        config_grid(**values)
