"""Printing: untrusted texts made safe, lines, tables and plots, standard streams, commands that can be pasted."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.terminal.console import SafeConsole, say
    from fusetune.bench.terminal.markdown import escaped
    from fusetune.bench.terminal.plots import (
        Axis,
        Mark,
        MarkStyle,
        PlotsBeside,
        Series,
        TextPlot,
        brief,
        brief_unit,
    )
    from fusetune.bench.terminal.spreadsheet import spreadsheet_text
    from fusetune.bench.terminal.started_as import invocation
    from fusetune.bench.terminal.streams import LossyFile, StandardStreams, open_closed_streams, text_stream
    from fusetune.bench.terminal.text import one_line, printable
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "Axis",
    "LossyFile",
    "Mark",
    "MarkStyle",
    "PlotsBeside",
    "SafeConsole",
    "Series",
    "StandardStreams",
    "TextPlot",
    "brief",
    "brief_unit",
    "escaped",
    "invocation",
    "one_line",
    "open_closed_streams",
    "printable",
    "say",
    "spreadsheet_text",
    "text_stream",
]
