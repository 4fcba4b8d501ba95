"""`bench schema`."""

from __future__ import annotations

import click

from fusetune.bench.terminal import say


@click.command()
@click.argument("of", default="trainings", type=click.Choice(["trainings", "kernels"]))
def schema(of: str) -> None:
    """Print the JSON Schema of a spec, for editors: of trainings, or of kernels."""
    from fusetune.bench.kernels import kernels_schema_text
    from fusetune.bench.spec import schema_text

    say(kernels_schema_text() if of == "kernels" else schema_text(), newline=False)
