"""`bench list`."""

from __future__ import annotations

import click

from fusetune.bench.cli.console import make_console


@click.command("list")
def list_names() -> None:
    """List every name that a spec can use."""
    from fusetune.bench.report import render_names

    render_names(make_console())
