"""The run of a search: `tuner.search` decides, workers train epochs, records and the log go to disk.

budget --ask--> Advance --worker--> Record (paused, or over) --tell--> searcher and log

records.jsonl gets a record for each training that has ended. Then the winner is trained on fresh seeds, as ordinary
trials. Each job is a thread with its own worker. A single job uses one worker for everything.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from fusetune.bench.errors import InputError
from fusetune.bench.results import Record, RunDirectory, WrittenSpec
from fusetune.bench.run import LocalWorkers, RunPlan, Workers, board_of, rehearse
from fusetune.bench.search.listeners import EpochsListener, MessagesOnly, RerunsListener, SearchKeeper
from fusetune.bench.search.lost_trainings import records_of_lost
from fusetune.bench.search.plan import plan_of, prior_words
from fusetune.bench.search.state import SearchState, open_search
from fusetune.bench.search.workers import SearchExecutor, Shared
from fusetune.bench.spec import Spec
from fusetune.bench.stats import counted
from fusetune.bench.status import Display, StatusKeeper


def run_search(
    spec: Spec, plan: RunPlan, directory: RunDirectory, display: Display, workers: Workers | None = None
) -> list[Record]:
    """Search, then train the winner on fresh seeds. Return all records.

    The search is concluded before the first re-run. A resumed run continues the re-runs of the same winner, even where
    the search ended with budget left.

    Raises:
        InputError: a factor's value cannot be built as the spec asks. A run without records is then removed.
    """
    found, _ = directory.records()
    searching = plan_of(WrittenSpec(spec.resolved()))
    searcher, log = open_search(searching, directory.path, found, go_on=directory.resume_command or "")
    if log.note:
        display.message(f"note: {log.note}")
    state = SearchState(spec, searching, searcher, log)
    used = searcher.epochs_used
    before = f", {used} of them trained before" if used else ""
    display.message(f"search: {searching.budget_epochs} epochs{before}; {_described(state)}")
    failed = sum(record.status == "failed" for record in found)
    board = board_of(plan, unit="epoch")
    try:
        with StatusKeeper(MessagesOnly(display), directory.path, board, failed=failed) as status:
            status.start(searching.budget_epochs, used)
            return _run(state, plan, directory, workers, SearchKeeper(plan, directory, found, status))
    except InputError:
        if not found and not used:
            directory.remove()  # after its status, which a thread may write
        raise


def _run(
    state: SearchState,
    plan: RunPlan,
    directory: RunDirectory,
    workers: Workers | None,
    keeper: SearchKeeper,
) -> list[Record]:
    """Rehearse, search, and train the winner again."""
    workers = workers or LocalWorkers(plan, directory.path)
    try:
        plan = rehearse(plan, plan.trials, directory, keeper.status, workers)
        workers.settle(plan)
        keeper.add(plan.threads)
        if not state.log.is_over:
            _search(state, plan, workers, keeper)
        _train_winner_again(state, plan, workers, keeper)
    finally:
        workers.close()
    return keeper.records


def _search(state: SearchState, plan: RunPlan, workers: Workers, keeper: SearchKeeper) -> None:
    """Spend the remaining budget, record every training, and conclude the search."""
    budget, used = state.plan.budget_epochs, state.searcher.epochs_used
    if used < budget:
        shared = Shared(state, plan.trials[0], budget - used)
        listener = EpochsListener(keeper, shared)
        workers.run(
            _epochs(used, budget, shared),
            listener,
            wrap=lambda executor, index: SearchExecutor(shared, executor, index),
        )
        listener.catch_up()
        keeper.status.devices_dismissed()
        if state.searcher.epochs_used < budget:
            keeper.say(
                f"the search ended after {state.searcher.epochs_used} epochs: nothing was left to train"
            )
    have = {record.trial for record in keeper.records}
    left = list(records_of_lost(state, plan.trials[0], have))
    for record in left:
        keeper.keep(record, "[from the log] ")
    if left:
        keeper.say(
            f"{counted(len(left), 'training')} recorded from the search's log: the worker that held them is gone"
        )
    repeats = sum(training.made_again for training in state.log.trainings)
    if repeats:
        keeper.say(
            f"{counted(repeats, 'epoch')} repeated, because the worker that had trained them was gone; "
            "they are not counted in the budget"
        )
    state.log.conclude()


def _epochs(used: int, budget: int, shared: Shared) -> Iterator[int]:
    """Yield one number per remaining epoch of the budget, while there is something to train."""
    while used < budget and not shared.nothing_left:
        yield used
        used += 1


def _train_winner_again(state: SearchState, plan: RunPlan, workers: Workers, keeper: SearchKeeper) -> None:
    """Train the best configuration on fresh seeds, as ordinary trials."""
    result = state.searcher.result()
    best = result.best
    if best is None:
        keeper.say(f"NOTHING FOUND: {result.failure}")
        return
    trials = [state.trial(best.config, seed, plan.trials[0]) for seed in state.plan.fresh_seeds]
    have = {record.trial for record in keeper.records}
    missing = [trial for trial in trials if trial.id not in have]
    if missing:
        keeper.say(f"the winner is trained again on {counted(len(missing), 'fresh seed')}")
        workers.run(missing, RerunsListener(keeper))


def _described(state: SearchState) -> str:
    size = state.searcher.space.size
    count = "a range of configurations" if math.isinf(size) else f"{size:.0f} configurations"
    return f"{count} of {', '.join(state.plan.space)}; {prior_words(state.plan)}"
