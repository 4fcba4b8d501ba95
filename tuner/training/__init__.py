"""The training loop: batches, steps, evaluation, and the outcome of a training."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.tuner.training.batches import (
        Augment,
        Batches,
        ChannelStatistics,
        channel_statistics,
        own_copy,
        place,
    )
    from fusetune.tuner.training.evaluation import Evaluation, LossFunction, evaluate
    from fusetune.tuner.training.finite_data import check_finite, tensor_not_finite
    from fusetune.tuner.training.loop import train, train_epochs
    from fusetune.tuner.training.loss import RunningLoss
    from fusetune.tuner.training.observer import MakeObserver, Observer, Snapshot
    from fusetune.tuner.training.outcome import (
        Curve,
        EarlyStop,
        Target,
        Training,
        higher_is_better,
        metrics_of,
        status_of,
    )
    from fusetune.tuner.training.plan import Plan, planned_step
    from fusetune.tuner.training.precision import autocast, resolve_precision
    from fusetune.tuner.training.ranks import ONE_RANK, Ranks
    from fusetune.tuner.training.rate import LearningRate
    from fusetune.tuner.training.restore import leaving_no_trace
    from fusetune.tuner.training.setup import TrainingSetup
    from fusetune.tuner.training.step import MakeOptimizer, TrainingStep, restored
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "ONE_RANK",
    "Augment",
    "Batches",
    "ChannelStatistics",
    "Curve",
    "EarlyStop",
    "Evaluation",
    "LearningRate",
    "LossFunction",
    "MakeObserver",
    "MakeOptimizer",
    "Observer",
    "Plan",
    "Ranks",
    "RunningLoss",
    "Snapshot",
    "Target",
    "Training",
    "TrainingSetup",
    "TrainingStep",
    "autocast",
    "channel_statistics",
    "check_finite",
    "evaluate",
    "higher_is_better",
    "leaving_no_trace",
    "metrics_of",
    "own_copy",
    "place",
    "planned_step",
    "resolve_precision",
    "restored",
    "status_of",
    "tensor_not_finite",
    "train",
    "train_epochs",
]
