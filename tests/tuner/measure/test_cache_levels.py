from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fusetune.tuner.measure.cache_levels import (
    FALLBACK_BYTES,
    CacheFlush,
    CacheLevel,
    caches_of,
    cpu_caches,
    level_of,
)

_PATH = "sys/devices/system/cpu/cpu0/cache"


def sysfs(root: Path, *caches: tuple[str, str, str]) -> Path:
    for place, (level, kind, size) in enumerate(caches):
        folder = root / _PATH / f"index{place}"
        folder.mkdir(parents=True)
        for name, text in (("level", level), ("type", kind), ("size", size)):
            (folder / name).write_text(f"{text}\n")
    return root


def test_sizes_are_those_of_the_data_caches_smallest_first(tmp_path: Path) -> None:
    root = sysfs(
        tmp_path,
        ("1", "Data", "32K"),
        ("1", "Instruction", "64K"),
        ("2", "Unified", "512K"),
        ("3", "Unified", "33M"),
    )
    assert cpu_caches(root) == (
        CacheLevel("L1", 32 << 10),
        CacheLevel("L2", 512 << 10),
        CacheLevel("L3", 33 << 20),
    )


def test_what_sysfs_does_not_say_is_left_out(tmp_path: Path) -> None:
    root = sysfs(
        tmp_path,
        ("1", "Data", "48K"),
        ("2", "Unified", ""),
        ("3", "Unified", "many"),
        ("x", "Unified", "1M"),
        ("4", "Unified", "0"),
    )
    assert cpu_caches(root) == (CacheLevel("L1", 48 << 10),)
    assert cpu_caches(tmp_path / "none") == ()


@pytest.mark.parametrize(("size", "name"), [(1, "L1"), (1024, "L1"), (1025, "L3"), (4097, "DRAM")])
def test_the_level_is_the_smallest_that_holds_the_working_set(size: int, name: str) -> None:
    assert level_of(size, [CacheLevel("L1", 1024), CacheLevel("L3", 4096)]) == name


def test_a_flush_touches_twice_the_last_level_cache() -> None:
    flush = CacheFlush("cpu", [CacheLevel("L1", 1 << 10), CacheLevel("L2", 1 << 12)])
    assert flush.size_bytes == 2 << 12
    flush()
    flush()
    assert flush._buffer.nbytes == flush.size_bytes
    assert set(flush._buffer.tolist()) == {2}  # each word was read and written, twice


def test_where_no_size_is_known_a_large_one_is_assumed() -> None:
    assert CacheFlush("cpu", []).size_bytes == 2 * FALLBACK_BYTES


def test_of_a_gpu_the_l2_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Properties:
        L2_cache_size = 50 << 20

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Properties())
    assert caches_of("cuda") == (CacheLevel("L2", 50 << 20),)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: object())
    assert caches_of("cuda") == ()
