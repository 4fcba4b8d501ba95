"""Nodes and devices of a cluster, counted from records."""

from __future__ import annotations

from typing import Any

from fusetune.bench.results import Record
from fusetune.bench.stats import Places, places_of


def trial(seed: int, **provenance: Any) -> Record:
    return Record(f"seed={seed}", {}, seed, "ok", provenance=provenance)


def test_a_device_is_counted_once_by_its_node_and_id() -> None:
    lost = [{"node": "c", "device_id": "0", "reason": "it was preempted"}]
    records = [
        trial(0, node="a", device_id="0", device_name="H100"),
        trial(1, node="a", device_id="0", device_name="H100"),  # again
        trial(2, node="b", device_id="0", device_name="H100", attempts=lost),  # the same id elsewhere
        trial(3, node="b", device_id="1,2", device_name="H100"),  # shared by two
        trial(4, node="d", device_id="0", device_name="A100", attempts=lost * 2),
        trial(5, device_name="H100"),
    ]
    assert places_of(records) == Places(nodes=3, devices={"H100": 4, "A100": 1}, lost=3, elsewhere=1)
    assert places_of(records[-1:]) is None
    assert places_of([]) is None
