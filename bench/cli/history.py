"""`bench history`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fusetune.bench.cli.console import make_console
from fusetune.bench.cli.options import results_option
from fusetune.bench.terminal import say

if TYPE_CHECKING:
    from fusetune.bench.history import History, HistoryStudy


@click.command()
@click.argument("spec", required=False)
@click.option("--metric", metavar="METRIC", help="Only this metric, with its newest runs one a line.")
@click.option(
    "--machine", metavar="KIND", help="The kind of machine. Default: that of the newest recorded run."
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on stdout, and nothing else there."
)
@results_option
def history(
    spec: str | None,
    metric: str | None,
    machine: str | None,
    as_json: bool,
    results: Path,
) -> None:
    """Show each metric of SPEC over commits: where it changed, in which commits, and what changed around them.

    SPEC is the path of a spec or the name of a history. Runs are recorded by the option --record of `bench run`.
    Without SPEC, the histories are listed.

    Exit codes: 0 success, 2 bad input, 130 interrupted.
    """
    from fusetune.bench.history import known_histories, read_history, show_histories, show_history

    known = known_histories(results)
    if spec is None and len(known) > 1:
        if as_json:
            say(json.dumps({name: sorted(machines) for name, machines in known.items()}, sort_keys=True))
        else:
            show_histories(known, make_console())
        return
    name = _name(spec) if spec is not None else next(iter(known), "")
    study = _study(read_history(results, name, machine), metric)
    if as_json:
        say(json.dumps(study.as_dict(), allow_nan=False))
    else:
        show_history(study, make_console(), runs=metric is not None)


def _name(spec: str) -> str:
    """Return the name of the history that SPEC means: that of the spec in a file, or SPEC itself."""
    from fusetune.bench.history import history_name
    from fusetune.bench.path_checks import is_file
    from fusetune.bench.spec import read_yaml

    path = Path(spec)
    if path.suffix not in (".yaml", ".yml"):
        return history_name(spec)
    return str(read_yaml(path).data.get("name") or path.stem) if is_file(path) else path.stem


def _study(found: History, metric: str | None) -> HistoryStudy:
    from fusetune.bench.history import CommitCounter, study_history

    return study_history(found, CommitCounter(Path.cwd()), metric)
