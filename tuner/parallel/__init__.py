"""Data parallel training: processes that share each batch, by torch.distributed."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.tuner.parallel.batch_norm import batch_norms, synchronise_batch_norms
    from fusetune.tuner.parallel.communication import Communication, communication_of
    from fusetune.tuner.parallel.data_parallel import DataParallel, called_modules, gradients_stay, no_buffers
    from fusetune.tuner.parallel.lost_peer import reports_lost_peer, reports_timeout
    from fusetune.tuner.parallel.process_group import joined, operations_entered, warm_up
    from fusetune.tuner.parallel.sharding import shard
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "Communication",
    "DataParallel",
    "batch_norms",
    "called_modules",
    "communication_of",
    "gradients_stay",
    "joined",
    "no_buffers",
    "operations_entered",
    "reports_lost_peer",
    "reports_timeout",
    "shard",
    "synchronise_batch_norms",
    "warm_up",
]
