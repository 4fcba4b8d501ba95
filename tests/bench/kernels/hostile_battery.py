"""The kernels of hostile/: what each does, and what must become of it.

The first line of each file says what it does and where the idea comes from. The second one is
`# expected: STATUS | STATUS: a piece of the reason`. A line `# dtype: float16` gives the dtype, where it matters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FOLDER = Path(__file__).with_name("hostile")
Group = Literal["cheats", "mistakes", "honest"]
_EXPECTED = re.compile(r"# expected: ([a-z |]+)(?:: (.+))?")
_DTYPE = re.compile(r"^# dtype: (\w+)$", re.MULTILINE)
_SOURCE = re.compile(r"\([\w.-]+/[\w.-]+#\d+(?:, [^()]+)?\)|of [\w.-]+/[\w.-]+#\d+,")


@dataclass(frozen=True)
class Hostile:
    """A kernel of the battery.

    Args:
        path: of its file.
        group: the folder that it is in.
        purpose: the first line of its docstring.
        expected: statuses of which one is right.
        reason: a piece of the reason, or "".
        dtype: of the case.
    """

    path: Path
    group: Group
    purpose: str
    expected: tuple[str, ...]
    reason: str
    dtype: str = "float32"

    @property
    def name(self) -> str:
        """The name of its file."""
        return self.path.stem


def battery(*groups: Group) -> list[Hostile]:
    """Return the kernels of some groups, by group and name. None is imported."""
    return [_read(path, group) for group in groups for path in sorted((FOLDER / group).glob("*.py"))]


def has_source(path: Path) -> bool:
    """Whether a file's docstring names an issue or pull request."""
    return _SOURCE.search(path.read_text().split('"""')[1]) is not None


def _read(path: Path, group: Group) -> Hostile:
    text = path.read_text()
    found = _EXPECTED.search(text)
    assert found is not None, f"{path}: the second line is no `# expected: STATUS`"
    statuses = tuple(each.strip() for each in found[1].split("|"))
    dtype = _DTYPE.search(text)
    purpose = text.split("\n", 1)[0].strip('"')
    return Hostile(path, group, purpose, statuses, found[2] or "", dtype[1] if dtype else "float32")
