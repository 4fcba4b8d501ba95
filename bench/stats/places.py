"""Where trials ran: the nodes and devices of a cluster, as far as records say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fusetune.bench.results import Record
from fusetune.bench.stats.device_kinds import kind_of_device


@dataclass(frozen=True)
class Places:
    """The nodes and devices of a cluster that trials ran on.

    Args:
        nodes: number of nodes.
        devices: kind -> number of devices, the most frequent first. The kind is empty where it is not known.
        lost: number of attempts that were lost with their device.
        elsewhere: number of trials that ran on no cluster.
    """

    nodes: int
    devices: Mapping[str, int]
    lost: int
    elsewhere: int


def places_of(records: Sequence[Record]) -> Places | None:
    """Return where trials ran, or None where no trial ran on a cluster.

    Example:
        >>> def trial(seed, node, device, kind):
        ...     provenance = {"node": node, "device_id": device, "device_name": kind}
        ...     return Record(f"seed={seed}", {}, seed, "ok", provenance=provenance)
        >>> places_of([trial(0, "a", "0", "H100"), trial(1, "a", "1", "H100"), trial(2, "b", "0", "A100")])
        Places(nodes=2, devices={'H100': 2, 'A100': 1}, lost=0, elsewhere=0)
    """
    kinds: dict[tuple[str, str], str] = {}
    lost = elsewhere = 0
    for record in records:
        node = record.provenance.get("node")
        if not node:
            elsewhere += 1
            continue
        lost += len(record.provenance.get("attempts") or ())
        for device in str(record.provenance.get("device_id") or "").split(","):  # of a trial on several
            kinds[node, device] = kind_of_device(record)
    if not kinds:
        return None
    counts = Counter(kinds.values())
    devices = {kind: counts[kind] for kind in sorted(counts, key=lambda kind: (-counts[kind], kind))}
    return Places(len({node for node, _ in kinds}), devices, lost, elsewhere)
