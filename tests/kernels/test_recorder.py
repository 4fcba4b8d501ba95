"""Launches and compilations as the stand-in driver records them."""

from __future__ import annotations

import pytest
import torch
from triton.runtime import driver

from fusetune.kernels.launch import LaunchConfig, launch, path_of
from fusetune.kernels.static.recorder import Launch, Recording, record_launches
from tests.kernels.probe_kernels import add_kernel

CONFIG = LaunchConfig(block_size=256, num_warps=2)


def add(n: int, offset: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Launch the addition of two vectors of `n` elements that start `offset` elements behind an aligned address."""
    x, y, out = (torch.ones(n + offset, dtype=dtype)[offset:] for _ in range(3))
    launch(add_kernel, (-(-n // 256),), x, y, out, n, config=CONFIG)
    return out


def test_a_launch_is_recorded_and_not_run() -> None:
    with record_launches() as recording:
        out = add(1024)
    assert recording.launches == [
        Launch(
            kernel="add_kernel",
            grid=(4, 1, 1),
            num_warps=2,
            num_stages=1,
            types={
                "x_ptr": "*fp32",
                "y_ptr": "*fp32",
                "out_ptr": "*fp32",
                "n": "i32",
                "BLOCK_SIZE": "constexpr",
            },
            constants={"BLOCK_SIZE": 256},
            aligned=frozenset({"x_ptr", "y_ptr", "out_ptr", "n"}),
        )
    ]
    assert recording.launches[0].programs == 4
    assert out.eq(1).all()


def test_a_second_call_compiles_nothing() -> None:
    with record_launches() as recording:
        add(1024)
        add(2048)
    assert len(recording.launches) == 2
    assert recording.compilations == ["add_kernel"]


@pytest.mark.parametrize(
    ("second", "lost"),
    [({"n": 1023}, {"n"}), ({"n": 1024, "offset": 1}, {"x_ptr", "y_ptr", "out_ptr"})],
    ids=["length", "alignment"],
)
def test_losing_divisibility_by_16_compiles_again(second: dict[str, int], lost: set[str]) -> None:
    with record_launches() as recording:
        add(1024)
        add(**second)  # type: ignore[arg-type]
    first, last = recording.launches
    assert first.aligned - last.aligned == lost
    assert len(recording.compilations) == 2


def test_a_length_of_one_is_compiled_in() -> None:
    with record_launches() as recording:
        add(1)
    assert recording.launches[0].constants["n"] == 1


def test_another_dtype_compiles_again() -> None:
    with record_launches() as recording:
        add(1024)
        add(1024, dtype=torch.bfloat16)
    assert [each.types["x_ptr"] for each in recording.launches] == ["*fp32", "*bf16"]
    assert len(recording.compilations) == 2


def test_an_empty_grid_launches_nothing() -> None:
    with record_launches() as recording:
        add(0)
    assert recording == Recording()


def test_every_recording_compiles_afresh() -> None:
    for _ in range(2):
        with record_launches() as recording:
            add(1024)
        assert recording.compilations == ["add_kernel"]


def test_kernels_take_the_triton_path_only_while_recording() -> None:
    cpu = torch.device("cpu")
    assert path_of(add_kernel, cpu) == "triton-cpu"
    with record_launches():
        assert path_of(add_kernel, cpu) == "triton"
    assert path_of(add_kernel, cpu) == "triton-cpu"


def test_the_driver_is_restored_after_an_error() -> None:
    before = driver._active
    with pytest.raises(ValueError, match="no number"), record_launches():
        int("no number")
    assert driver._active is before


def test_nothing_stays_in_the_cache_of_a_kernel() -> None:
    before = len(add_kernel.device_caches)
    with record_launches():
        add(1024)
    assert len(add_kernel.device_caches) == before


def test_a_recording_for_amd_compiles_for_amd() -> None:
    with record_launches("gfx942") as recording:
        add(1024)
    assert len(recording.launches) == 1


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown 'sm_1'"), record_launches("sm_1"):
        pass
