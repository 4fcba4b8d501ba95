"""How far a run is, by node: collected from its events, kept in `status.json`, and drawn."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.status.board import LOCAL, Board
    from fusetune.bench.status.keeper import Display, StatusKeeper
    from fusetune.bench.status.node_table import (
        by_node,
        by_trial,
        device_words,
        kinds,
        node_count,
        shortened,
        whole_seconds,
    )
    from fusetune.bench.status.run_status import (
        STATUS,
        DeviceNow,
        Loss,
        NodeNow,
        RunStatus,
        TrialNow,
        Unit,
        read_status,
    )
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "LOCAL",
    "STATUS",
    "Board",
    "DeviceNow",
    "Display",
    "Loss",
    "NodeNow",
    "RunStatus",
    "StatusKeeper",
    "TrialNow",
    "Unit",
    "by_node",
    "by_trial",
    "device_words",
    "kinds",
    "node_count",
    "read_status",
    "shortened",
    "whole_seconds",
]
