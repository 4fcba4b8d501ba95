"""fusetune: which training configuration reaches the target first on this device, how sure that is, and why.

    from fusetune import FusedAdamW, activation, load, lr_range_test, search

The names below are the public ones. Each is imported when it is first used, so this import costs nothing. The
rooms have more: `fusetune.kernels` (maths on tensors), `fusetune.tuner` (training and tuning) and `fusetune.bench`
(specs, processes, records, reports).
"""

from fusetune.exports import load_on_use

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune import bench, kernels, tuner
    from fusetune.bench.frames import load
    from fusetune.errors import FusetuneError
    from fusetune.kernels import (
        Activation,
        FusedAdam,
        FusedAdamW,
        FusedSGD,
        Kernel,
        activation,
        replace_activations,
        verify_activation,
    )
    from fusetune.kernels.autotune import best_config
    from fusetune.tuner.batch_size import fit_critical_batch, largest_batch, noise_scale, recommend
    from fusetune.tuner.diagnosis import LayerStatistics, diagnose
    from fusetune.tuner.learning_rate import Candidates, confirm, fit_lr_scaling, lr_range_test
    from fusetune.tuner.memory import StepWork, predict_peak, trace_memory
    from fusetune.tuner.schedules import SCHEDULES, build_momentum, build_schedule
    from fusetune.tuner.search import search
    from fusetune.tuner.training import Augment, Batches, EarlyStop, Plan, Target, train
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "SCHEDULES",
    "Activation",
    "Augment",
    "Batches",
    "Candidates",
    "EarlyStop",
    "FusedAdam",
    "FusedAdamW",
    "FusedSGD",
    "FusetuneError",
    "Kernel",
    "LayerStatistics",
    "Plan",
    "StepWork",
    "Target",
    "activation",
    "bench",
    "best_config",
    "build_momentum",
    "build_schedule",
    "confirm",
    "diagnose",
    "fit_critical_batch",
    "fit_lr_scaling",
    "kernels",
    "largest_batch",
    "load",
    "lr_range_test",
    "noise_scale",
    "predict_peak",
    "recommend",
    "replace_activations",
    "search",
    "trace_memory",
    "train",
    "tuner",
    "verify_activation",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
