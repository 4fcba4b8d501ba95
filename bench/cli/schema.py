"""`bench schema`."""

from __future__ import annotations

import click

from fusetune.bench.terminal import say


@click.command()
def schema() -> None:
    """Print the JSON Schema of a spec, for editors."""
    from fusetune.bench.spec import schema_text

    say(schema_text(), newline=False)
