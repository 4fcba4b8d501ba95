"""Replace the activations of a user's model by fused ones, and verify them first."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.kernels.replace.models import replace_activations, verify_activation
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "replace_activations",
    "verify_activation",
]
