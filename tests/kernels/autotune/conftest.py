"""A cache of tuned launch configs for each test alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fusetune.kernels.autotune import Entry, TuningKey, entries, forget


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty user's cache, which launches read. Returns the directory of entries, which is not made."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FUSETUNE_TUNING")
    monkeypatch.setattr(entries, "_noticed", False)
    forget()
    yield tmp_path / "cache" / "fusetune" / "autotune" / "1"
    forget()


@pytest.fixture
def key() -> TuningKey:
    """A key with a value of its own in each part."""
    return TuningKey("copy", "0a1b", "C=1", "float32", "2^20", "flat", "a CPU", "gcc 12", "3.7.1")


@pytest.fixture
def entry(key: TuningKey) -> Entry:
    """An entry with a value in each field."""
    return Entry(
        key,
        {"BLOCK_SIZE": 4096, "num_warps": 4},
        latency_s=1e-4,
        default={"BLOCK_SIZE": 1024, "num_warps": 4},
        default_latency_s=1.5e-4,
        speedup=(1.5, 1.4, 1.6),
        rounds=30,
    )
