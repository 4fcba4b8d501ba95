"""Trials on a Ray cluster: an actor holds each device. Ray is imported only where it is asked for."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.cluster.ray_run import RayRun
else:
    __getattr__ = load_on_use(__name__)

__all__ = ["RayRun"]
