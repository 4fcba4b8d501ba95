"""The report of a search: winner, importances, best trainings, and the reasons of those that ended early."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from rich.console import Console, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from fusetune.bench.report import caveat_lines
from fusetune.bench.results import Pictures
from fusetune.bench.search.for_optuna import draw_all
from fusetune.bench.search.study import SearchStudy
from fusetune.bench.search.wording import ended_words, header, nothing_found, winner
from fusetune.bench.stats import configuration_label, counted, shorts
from fusetune.bench.terminal import Axis, Series, TextPlot

_BEST = 8
_BAR_WIDTH = 30
_HEIGHT = 8
_LOG_FROM = 10.0


def show_search(study: SearchStudy, console: Console, pictures: Pictures) -> None:
    """Draw the pictures, then print the report, which names their files."""
    if study.importances:
        draw_all(study.predicted, study.importances, pictures)
    render_search(study, console, pictures)


def render_search(study: SearchStudy, console: Console, pictures: Pictures) -> None:
    """Print the report.

    Args:
        study: from `bench.search.study.study_search`.
        console: rich console of 100 columns or more.
        pictures: the plots that were drawn.
    """
    for position, part in enumerate(_parts(study, pictures)):
        if position:
            console.print()
        console.print(part)


def _parts(study: SearchStudy, pictures: Pictures) -> Iterator[RenderableType]:
    yield from caveat_lines(study.caveats)
    for note in filter(None, (*study.notes, pictures.note)):
        yield Text(f"note: {note}", style="yellow")
    yield Text(header(study))
    yield _trials(study)
    plot = progress_plot(study)
    if plot is not None:
        yield plot
    if study.importances:
        yield _importances(study)
    if study.over:
        yield _over(study)
    if study.left:
        yield Text(f"{counted(study.left, 'training')} could have continued when the budget was spent.")
    if study.waiting:
        yield Text(
            f"The search is not over: {counted(study.waiting, 'training')} can continue with --resume."
        )
    if study.winner is None:
        yield Panel(
            Text(" ".join([nothing_found(study), *shorts(study.caveats)]), style="bold red"),
            title="NOTHING FOUND",
            title_align="left",
        )
    else:
        yield Panel(
            Text(" ".join([winner(study), *shorts(study.caveats)])), title="Winner", title_align="left"
        )
    if pictures.files:
        yield Text(f"plots: {', '.join(file.name for file in pictures.files)} in {study.path}")
    if study.note:
        yield Text(f"no importances and plots: {study.note}")


def _trials(study: SearchStudy) -> Table:
    table = Table(title="Best of the search", title_justify="left")
    table.add_column("configuration")
    for column in ("epochs", "best", "ended as"):
        table.add_column(column, justify="right")
    pick = max if study.plan.maximize else min
    for trial in [trial for trial in study.trials if trial.values][:_BEST]:
        table.add_row(
            configuration_label(trial.config),
            f"{trial.epochs}/{study.plan.max_epochs}",
            f"{pick(trial.values):.4g}",
            ended_words(trial),
        )
    return table


def progress_plot(study: SearchStudy) -> TextPlot | None:
    """Return the best value so far against the epochs spent, over the values of all trainings, or None without two."""
    told = [(at, value) for at, (_, value) in enumerate(study.spent, 1) if value is not None]
    if len(told) < 2:
        return None
    epochs, values = [at for at, _ in told], [value for _, value in told]
    best = list(accumulate(values, max if study.plan.maximize else min))
    is_fraction = study.plan.metric.endswith("accuracy")
    return TextPlot(
        f"{study.plan.metric} against epochs spent",
        [
            Series("best so far", epochs, best, "o"),
            Series("each epoch of a training", epochs, values, ".", joined=False),
        ],
        x=Axis(1, max(study.plan.budget_epochs, len(study.spent)), whole=True),
        y=Axis(log=not is_fraction and 0 < min(values) < max(values) / _LOG_FROM),
        height=_HEIGHT,
    )


def _importances(study: SearchStudy) -> Table:
    table = Table(title="Importance (share of the variance of predicted final values)", title_justify="left")
    table.add_column("factor")
    table.add_column("share", justify="right")
    table.add_column("")
    for factor, share in study.importances.items():
        table.add_row(factor, f"{share:.0%}", "█" * round(_BAR_WIDTH * share))
    return table


def _over(study: SearchStudy) -> Table:
    table = Table(title="Ended early", title_justify="left")
    for column in ("configuration", "epochs", "why"):
        table.add_column(column)
    for trial in study.over:
        why = trial.reason or "waiting"
        table.add_row(configuration_label(trial.config), str(trial.epochs), f"{trial.status}: {why}")
    return table
