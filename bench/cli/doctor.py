"""`bench doctor`."""

from __future__ import annotations

import click

from fusetune.bench.cli.console import make_console


@click.command()
def doctor() -> None:
    """Check what this machine can run and what is missing."""
    from fusetune.bench.doctor import diagnose, render_checks

    render_checks(diagnose(), make_console())
