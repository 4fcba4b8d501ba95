"""The command line: one file a command."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.cli.program import main
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "main",
]
