"""Text from others, made safe for terminals and pictures, and the only ways to a terminal."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.terminal.console import SafeConsole, say
    from fusetune.bench.terminal.streams import LossyFile, StandardStreams, open_closed_streams, text_stream
    from fusetune.bench.terminal.text import one_line, picture_text
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "LossyFile",
    "SafeConsole",
    "StandardStreams",
    "one_line",
    "open_closed_streams",
    "picture_text",
    "say",
    "text_stream",
]
