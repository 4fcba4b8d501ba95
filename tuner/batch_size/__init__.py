"""The largest batch in memory, throughput, gradient noise scale, and one recommended batch size."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.tuner.batch_size.critical import LEAST_SIZES, CriticalBatch, fit_critical_batch
    from fusetune.tuner.batch_size.devices import DeviceChoice, DeviceOption, recommend_devices
    from fusetune.tuner.batch_size.largest import (
        CPU_OVERHEAD,
        CUDA_OVERHEAD,
        LARGEST,
        LargestBatch,
        Overhead,
        Probe,
        fit_overhead,
        largest_batch,
        largest_predicted,
        on_grid,
    )
    from fusetune.tuner.batch_size.noise import noise_scale, norms_along_training
    from fusetune.tuner.batch_size.noise_estimate import NoiseScale, estimate_noise_scale
    from fusetune.tuner.batch_size.recommendation import Recommendation, recommend
    from fusetune.tuner.batch_size.throughput_curve import (
        Throughput,
        find_plateau,
        measure_step_times,
        smoothed_step_times,
        throughput,
    )
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "CPU_OVERHEAD",
    "CUDA_OVERHEAD",
    "LARGEST",
    "LEAST_SIZES",
    "CriticalBatch",
    "DeviceChoice",
    "DeviceOption",
    "LargestBatch",
    "NoiseScale",
    "Overhead",
    "Probe",
    "Recommendation",
    "Throughput",
    "estimate_noise_scale",
    "find_plateau",
    "fit_critical_batch",
    "fit_overhead",
    "largest_batch",
    "largest_predicted",
    "measure_step_times",
    "noise_scale",
    "norms_along_training",
    "on_grid",
    "recommend",
    "recommend_devices",
    "smoothed_step_times",
    "throughput",
]
