"""Files that a command writes beside its report, where `-` is standard output."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fusetune.bench.errors import InputError, unusable
from fusetune.bench.path_checks import is_folder
from fusetune.bench.terminal import say

STDOUT = Path("-")


def check_outputs(outputs: Mapping[str, Path | None]) -> None:
    """Refuse files whose folder is missing, and two outputs to one place, before anything is measured.

    Args:
        outputs: option -> file. None: not asked for.

    Raises:
        InputError: names the option.
    """
    seen: dict[Path, str] = {}
    for option, file in outputs.items():
        if file is None:
            continue
        if file != STDOUT and not is_folder(file.parent):
            raise InputError(f"{option} {file}", "its folder is not there", to_do="Make it first.")
        if file in seen:
            raise InputError(f"{option} {file}", f"is where {seen[file]} goes", to_do="Give another file.")
        seen[file] = option


def write_output(file: Path, text: str) -> None:
    """Write a text to a file, or to standard output.

    Raises:
        RunDirectoryError: the file cannot be written.
    """
    if file == STDOUT:
        say(text, newline=False)
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise unusable(file, error) from error
