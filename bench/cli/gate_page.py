"""A gate shown again, the page in its directory, and that of two stored results."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fusetune.bench.cli.page_file import add_part, write_page
from fusetune.bench.terminal import SafeConsole

if TYPE_CHECKING:
    from fusetune.bench.gate import GateResult, StoredGate


def show_stored_gate(stored: StoredGate, console: SafeConsole) -> None:
    """Print a gate or a self-test as its command did, or how to go on with one that has no verdicts."""
    from fusetune.bench.gate import SelfTest, show_gate, show_self_test

    if stored.result is None:
        console.print(stored.unfinished, markup=False, highlight=False)
        console.print(stored.go_on, markup=False, highlight=False, soft_wrap=True)
    elif isinstance(stored.result, SelfTest):
        show_self_test(stored.result, console)
    else:
        show_gate(stored.result, console)


def add_gate_page(directory: str, console: SafeConsole) -> None:
    """Write the page of a gate into its directory, and print its path.

    Args:
        directory: of the gate. Empty: it has none.
        console: takes the path.
    """
    from fusetune.bench.gate import gate_part, read_stored_gate

    if directory:
        add_part(Path(directory), gate_part(read_stored_gate(Path(directory))), console)


def add_comparison_page(result: GateResult, path: Path, console: SafeConsole) -> None:
    """Write the page of two stored results, and print its path.

    Args:
        result: of `bench compare`.
        path: the file, which is replaced.
        console: takes the path.

    Raises:
        RunDirectoryError: the file cannot be written.
    """
    from fusetune.bench.gate import comparison_part

    command = shlex.join(("python", "-m", "bench", *sys.argv[1:]))
    write_page(path, (comparison_part(result, command),))
    console.print(f"\npage: {path}", highlight=False, soft_wrap=True, style="bold")
