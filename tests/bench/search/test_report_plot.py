"""The plot of a search's report: the best so far against the epochs spent, as a log on disk has them."""

from __future__ import annotations

import shutil
from pathlib import Path

from fusetune.bench.results import RunDirectory, study_run
from fusetune.bench.search.event_log import LOG
from fusetune.bench.search.report import progress_plot

OLD_RUN = next((Path(__file__).parents[1] / "old_runs" / "searched").iterdir())


def test_the_best_so_far_never_gets_worse_and_has_every_epoch(tmp_path: Path) -> None:
    directory = RunDirectory.open(OLD_RUN)
    study = study_run(directory, directory.records()[0])
    told = [value for _, value in study.spent if value is not None]
    plot = progress_plot(study)
    if len(told) < 2:
        assert plot is None
        return
    assert plot is not None
    best, each = plot.series
    assert list(each.y) == told
    pick = max if study.plan.maximize else min
    assert list(best.y) == [pick(told[: end + 1]) for end in range(len(told))]
    assert plot.x.high == max(study.plan.budget_epochs, len(study.spent))


def test_without_a_log_there_is_no_order_and_no_plot(tmp_path: Path) -> None:
    own = Path(shutil.copytree(OLD_RUN, tmp_path / "run"))
    (own / LOG).unlink(missing_ok=True)
    directory = RunDirectory.open(own)
    assert progress_plot(study_run(directory, directory.records()[0])) is None
