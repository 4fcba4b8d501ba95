"""Sending of a run to an experiment tracker: TensorBoard, Trackio, Weights & Biases or MLflow."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.tracking.destination import TRACKERS, Destination, destinations
    from fusetune.bench.tracking.reporting import Reporting, send_run
    from fusetune.bench.tracking.tracker import TrackedRun, TrackedTrial, Tracker, tracked_run, tracked_trial
    from fusetune.bench.tracking.valid_names import valid_name
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "TRACKERS",
    "Destination",
    "Reporting",
    "TrackedRun",
    "TrackedTrial",
    "Tracker",
    "destinations",
    "send_run",
    "tracked_run",
    "tracked_trial",
    "valid_name",
]
