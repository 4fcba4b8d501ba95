"""The checks of `bench doctor`: what this machine can run, and what is missing."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.doctor.checks import diagnose, render_checks
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "diagnose",
    "render_checks",
]
