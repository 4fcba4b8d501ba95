"""The pictures in a run's directory. The command of the run draws them, and later reports only list them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusetune.bench.errors import unusable
from fusetune.bench.results.whole_file import write_whole
from fusetune.bench.terminal import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FORMATS = ("png", "svg")
_LONGEST_TEXT = 160


class Pictures:
    """The pictures of one run, each as PNG and as SVG.

    Args:
        directory: the run's directory.
        drawing: whether to draw them. Else only existing files are listed.

    Attributes:
        paths: the existing PNG files.
        note: why pictures are missing, such as a full disk, which does not fail the run. Else empty.

    Example:
        >>> import tempfile
        >>> from matplotlib.figure import Figure
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Pictures(Path(folder), drawing=True).add("empty", Figure)
        ...     read = Pictures(Path(folder), drawing=False)
        ...     for name in ("empty", "missing"):
        ...         read.add(name, Figure)
        ...     [path.name for path in read.paths], read.note
        (['empty.png'], '')
    """

    def __init__(self, directory: Path, *, drawing: bool) -> None:
        self._directory = directory
        self._drawing = drawing
        self.paths: list[Path] = []
        self.note = ""

    @property
    def files(self) -> list[Path]:
        """All files, PNG and SVG."""
        return [path.with_suffix(f".{ending}") for path in self.paths for ending in _FORMATS]

    def add(
        self,
        name: str,
        draw: Callable[[], Figure],
        *,
        style: Any = None,
        dpi: float | None = None,
        tight: bool = False,
    ) -> None:
        """Draw one picture, or list it if its file exists.

        Args:
            name: the files' name without the extension.
            draw: a function that returns the figure.
            style: a mapping of matplotlib's settings for drawing and saving, or None.
            dpi: resolution of the PNG. None: the figure's.
            tight: whether to crop the margins.
        """
        path = self._directory / f"{name}.png"
        if not self._drawing:
            if path.is_file():
                self.paths.append(path)
            return
        if self.note:
            return
        from matplotlib import rc_context

        with rc_context(style):
            contents = _rendered(draw(), dpi or "figure", "tight" if tight else None)
        try:
            for ending, content in contents.items():
                write_whole(path.with_suffix(f".{ending}"), content)
        except OSError as error:
            self.note = f"the pictures cannot be saved; {unusable(path, error)}"
        else:
            self.paths.append(path)


def picture_text(text: str) -> str:
    r"""Return a text that is safe as a title, a label or a tick of a picture.

    The text is that of `one_line`, cut to 160 characters. Dollars are escaped, because Matplotlib reads mathematics
    between them.

    Example:
        >>> print(picture_text("$\nope{$"))
        \$\nope{\$
    """
    line = one_line(text)
    if len(line) > _LONGEST_TEXT:
        line = f"{line[: _LONGEST_TEXT - 3]}..."
    return line.replace("$", r"\$")


def _rendered(figure: Figure, dpi: Any, box: str | None) -> dict[str, bytes]:
    """Return the content of each file. Equal figures give equal bytes."""
    contents = {}
    for ending in _FORMATS:
        stream = io.BytesIO()
        metadata = {"Date": None} if ending == "svg" else {}
        figure.savefig(stream, format=ending, dpi=dpi, bbox_inches=box, metadata=metadata)
        contents[ending] = stream.getvalue()
    return contents
