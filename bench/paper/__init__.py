"""Tables for papers: what a ranking says, as plain data, and as LaTeX, Markdown or CSV."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.paper.csv_table import as_csv
    from fusetune.bench.paper.latex_table import as_latex
    from fusetune.bench.paper.latex_text import escaped_for_latex
    from fusetune.bench.paper.markdown_table import as_markdown
    from fusetune.bench.paper.paper_table import MARKS, Column, Figure, Mark, PaperTable
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "MARKS",
    "Column",
    "Figure",
    "Mark",
    "PaperTable",
    "as_csv",
    "as_latex",
    "as_markdown",
    "escaped_for_latex",
]
