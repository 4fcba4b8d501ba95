"""`bench init`."""

from __future__ import annotations

from pathlib import Path

import click

from fusetune.bench.terminal import say


@click.command()
@click.argument("folder", metavar="[DIR]", default=Path(), type=click.Path(path_type=Path))
@click.option(
    "--command",
    default="",
    metavar="COMMAND",
    help="Gate this program in place of a spec: it prints one JSON object of metrics, see bench gate --help.",
)
def init(folder: Path, command: str) -> None:
    """Write what gates the pull requests of the project in DIR: a spec, and a workflow of GitHub Actions.

    What can be found out is not asked for: specs that are there, the package, its Python, the default branch. A file
    that exists is kept.
    """
    from fusetune.bench.init import find_out, tell, write_files

    findings = find_out(folder)
    for line in tell(findings, write_files(findings, command), command):
        say(line)
