"""The flow of `bench run`: plan, workload, trial."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.run.assembly import assemble, make_step
    from fusetune.bench.run.auto_lr import find_learning_rate, with_any_rate
    from fusetune.bench.run.data_sets import EVALUATION_BATCHES, DataSets, load_sets
    from fusetune.bench.run.local_workers import LentExecutor, LocalWorkers, Workers, Wrap
    from fusetune.bench.run.optimizer_maker import OptimizerMaker
    from fusetune.bench.run.place import Place, check_gpus, local_place
    from fusetune.bench.run.plan import (
        board_of,
        folders_of_factories,
        hard_timeout,
        make_plan,
        named,
        open_directory,
        rehearse,
        run_trials,
    )
    from fusetune.bench.run.rehearsal import rehearse_trial
    from fusetune.bench.run.run_plan import RunPlan
    from fusetune.bench.run.threads import measure_threads, most_threads
    from fusetune.bench.run.trial import run_trial, share_trial, sharing_ranks, trial_epochs
    from fusetune.bench.run.workload import Workload, build_workload, make_model
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "EVALUATION_BATCHES",
    "DataSets",
    "LentExecutor",
    "LocalWorkers",
    "OptimizerMaker",
    "Place",
    "RunPlan",
    "Workers",
    "Workload",
    "Wrap",
    "assemble",
    "board_of",
    "build_workload",
    "check_gpus",
    "find_learning_rate",
    "folders_of_factories",
    "hard_timeout",
    "load_sets",
    "local_place",
    "make_model",
    "make_plan",
    "make_step",
    "measure_threads",
    "most_threads",
    "named",
    "open_directory",
    "rehearse",
    "rehearse_trial",
    "run_trial",
    "run_trials",
    "share_trial",
    "sharing_ranks",
    "trial_epochs",
    "with_any_rate",
]
