"""Peak memory of a training: predicted from traces on fake tensors, or measured."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.tuner.memory.lines import StepMemory
    from fusetune.tuner.memory.peak import peak_tensor_bytes
    from fusetune.tuner.memory.predict import predict_peak, trace_memory
    from fusetune.tuner.memory.trace import StepWork
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "StepMemory",
    "StepWork",
    "peak_tensor_bytes",
    "predict_peak",
    "trace_memory",
]
