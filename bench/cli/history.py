"""`bench history`."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from fusetune.bench.cli.console import make_console
from fusetune.bench.cli.exit_codes import FAILED
from fusetune.bench.cli.options import overrides_option, results_option
from fusetune.bench.errors import InputError
from fusetune.bench.interrupts import terminate_as_interrupt
from fusetune.bench.path_checks import is_file, is_folder
from fusetune.bench.terminal import say

if TYPE_CHECKING:
    from fusetune.bench.gate import Rules
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
@click.option(
    "--bisect",
    "bisected",
    metavar="METRIC",
    help="Find the commit that made METRIC worse, by `git bisect run` with the gate as its test.",
)
@click.option(
    "--good",
    metavar="REV",
    help="A commit before the change. Default: the last one before the newest change of METRIC for the worse.",
)
@click.option("--bad", metavar="REV", help="A commit after it. Default: the first one after that change.")
@click.option("--command", metavar="COMMAND", help="Bisect a program in place of a SPEC, see `bench gate`.")
@click.option("--budget", metavar="TIME", help="The longest that each gate of a bisection may measure.")
@click.option(
    "--html",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a page to FILE in place of the report.",
)
@overrides_option
@results_option
def history(
    spec: str | None,
    metric: str | None,
    machine: str | None,
    as_json: bool,
    html: Path | None,
    overrides: tuple[str, ...],
    results: Path,
    **bisection: str | None,
) -> None:
    """Show each metric of SPEC over commits: where it changed, in which commits, and what changed around them.

    SPEC is the path of a spec or the name of a history. Runs are recorded by the option --record of `bench run`.
    Without SPEC, the histories are listed.

    Exit codes: 0 success, 1 a bisection found no commit, 2 bad input, 4 a bisection cannot be made to run, 130
    interrupted.
    """
    from fusetune.bench.history import known_histories, read_history, show_histories, show_history

    if html is not None:
        _check_page(html, bisected=bisection["bisected"] is not None, as_json=as_json)
    if bisection["bisected"] is not None:
        options = [part for text in overrides for part in ("--set", text)]
        if bisection["budget"] is not None:
            options += ["--budget", bisection["budget"]]
        _bisect(spec, machine, results, bisection, options, as_json=as_json)
    if overrides:
        raise click.UsageError("--set is for --bisect METRIC")
    for option in ("good", "bad", "command", "budget"):
        if bisection[option] is not None:
            raise click.UsageError(f"--{option} is for --bisect METRIC")
    known = known_histories(results)
    if spec is None and len(known) > 1:
        if html is not None:
            raise InputError(
                "--html", "there are several histories", f"known: {', '.join(sorted(known))}", "Name one"
            )
        if as_json:
            say(json.dumps({name: sorted(machines) for name, machines in known.items()}, sort_keys=True))
        else:
            show_histories(known, make_console())
        return
    name = _name(spec) if spec is not None else next(iter(known), "")
    found = read_history(results, name, machine)
    study = _study(found, metric, spec)
    if html is not None:
        _write_page(html, study, found)
    elif as_json:
        say(json.dumps(study.as_dict(), allow_nan=False))
    else:
        show_history(study, make_console(), runs=metric is not None)


def _check_page(html: Path, *, bisected: bool, as_json: bool) -> None:
    """Refuse a page that cannot be written, before anything is read."""
    if bisected or as_json:
        raise click.UsageError(f"--html goes without {'--bisect' if bisected else '--json'}")
    if not is_folder(html.parent):
        raise InputError(f"--html {html}", "its folder is not there", to_do="Make it first")


def _write_page(html: Path, study: HistoryStudy, found: History) -> None:
    from fusetune.bench.cli.page_file import write_page
    from fusetune.bench.history import history_part

    write_page(html, (history_part(study, found),))
    make_console().print(f"page: {html}", markup=False, highlight=False, soft_wrap=True)


def _name(spec: str) -> str:
    """Return the name of the history that SPEC means: that of the spec in a file, or SPEC itself."""
    from fusetune.bench.history import history_name
    from fusetune.bench.spec import read_yaml

    path = Path(spec)
    if path.suffix not in (".yaml", ".yml"):
        return history_name(spec)
    return str(read_yaml(path).data.get("name") or path.stem) if is_file(path) else path.stem


def _study(found: History, metric: str | None, spec: str | None) -> HistoryStudy:
    from fusetune.bench.history import CommitCounter, study_history

    return study_history(found, CommitCounter(Path.cwd()), metric, _rules(found, spec))


def _rules(found: History, spec: str | None) -> Rules | None:
    """Return what the `gate:` section says of the spec that was measured; None: it is not here, or has no section."""
    from fusetune.bench.gate import Rules
    from fusetune.bench.spec import load_spec, read_yaml

    path = Path(spec) if spec is not None and is_file(Path(spec)) else _spec_file(found)
    if path is None:
        return None
    data = read_yaml(path).data
    profiles = data.get("profiles")
    within = profiles.values() if isinstance(profiles, dict) else ()
    if not any(isinstance(each, dict) and "gate" in each for each in (data, *within)):
        return None
    device = str(found.entries[-1].machine.get("device") or "cpu")
    return Rules.of_section(load_spec(path, device=device).spec.gate, f"{path}: gate")


def _spec_file(found: History) -> Path | None:
    """Return the spec of the newest run that has one, where it is here: below the top of this repository."""
    from fusetune.bench.gate import find_repository

    recorded = next((each.spec_path for each in reversed(found.entries) if each.spec_path is not None), None)
    if recorded is None:
        return None
    try:
        path = find_repository(Path.cwd()).root / recorded
    except InputError:
        path = Path(recorded)
    return path if is_file(path) else None


def _bisect(
    spec: str | None,
    machine: str | None,
    results: Path,
    asked: dict[str, str | None],
    options: list[str],
    *,
    as_json: bool,
) -> NoReturn:
    """Find the first bad commit, print it and exit.

    Raises:
        InputError: neither options nor the history say what to bisect.
    """
    from fusetune.bench.gate import find_repository
    from fusetune.bench.history import bisect, show_bisection

    metric = asked["bisected"] or ""
    good, bad, command = asked["good"], asked["bad"], asked["command"]
    if spec is not None and command is not None:
        raise click.UsageError("name either a SPEC or a --command")
    subject = (
        ["--command", command] if command is not None else [spec] if spec and is_file(Path(spec)) else []
    )
    repository = find_repository(Path.cwd())
    if not subject or good is None or bad is None:
        found = _recorded(command or spec, machine, results)
        subject = subject or _subject(found, repository.root)
        before, after = (good, bad) if good and bad else _change(found, metric, spec)
        good, bad = good or before, bad or after
    with terminate_as_interrupt():
        bisection = bisect(
            repository,
            [*subject, *options, "--results", str(results)],
            metric,
            good,
            bad,
            folder=Path.cwd(),
            news=lambda text: say(text, err=True),
        )
    if as_json:
        say(json.dumps(dataclasses.asdict(bisection)))
    else:
        show_bisection(bisection, make_console())
    sys.exit(0 if bisection.found is not None else FAILED)


def _recorded(name: str | None, machine: str | None, results: Path) -> History:
    from fusetune.bench.history import history_name, known_histories, read_history

    known = known_histories(results)
    if name is None and len(known) == 1:
        name = next(iter(known))
    if name is None:
        raise click.UsageError("name a SPEC or a --command, and --good and --bad where no history is there")
    return read_history(results, history_name(name) if name in known else _name(name), machine)


def _subject(found: History, root: Path) -> list[str]:
    """Return what the newest run measured, as arguments of `bench gate`."""
    newest = found.entries[-1]
    if newest.measured_command is not None:
        return ["--command", newest.measured_command]
    path = root / (newest.spec_path or "")
    if newest.spec_path is None or not is_file(path):
        raise InputError(
            "SPEC", f"the spec of '{found.spec}' is not here", f"it was {newest.spec_path}", "Give its path."
        )
    return [str(path)]


def _change(found: History, metric: str, spec: str | None) -> tuple[str, str]:
    """Return the commits around the newest change of a metric for the worse."""
    from fusetune.bench.history import newest_worsening

    change = newest_worsening(_study(found, metric, spec), metric)
    if change is None:
        raise InputError(
            "--bisect",
            f"'{metric}' has no change for the worse in this history",
            to_do="Name the commits by --good and --bad.",
        )
    return change
