"""The flow of `bench run`: plan, assembly, trial."""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.bench.run.assembly import (
        EVALUATION_BATCHES,
        OptimizerMaker,
        PreparedData,
        fuse_activations,
        make_batches,
        make_model,
        make_step,
        prepare_data,
        ready_model,
        rehearse_trial,
        training_plan,
        with_base_lr,
    )
    from fusetune.bench.run.auto_lr import find_learning_rate, place_model, resolve_auto, training_loss
    from fusetune.bench.run.plan import (
        Display,
        RunPlan,
        make_plan,
        make_worker,
        named,
        open_directory,
        rehearse,
        run_trials,
    )
    from fusetune.bench.run.threads import measure_threads, most_threads
    from fusetune.bench.run.trial import run_trial, trial_epochs
else:
    __getattr__ = load_on_use(__name__)

__all__ = [
    "EVALUATION_BATCHES",
    "Display",
    "OptimizerMaker",
    "PreparedData",
    "RunPlan",
    "find_learning_rate",
    "fuse_activations",
    "make_batches",
    "make_model",
    "make_plan",
    "make_step",
    "make_worker",
    "measure_threads",
    "most_threads",
    "named",
    "open_directory",
    "place_model",
    "prepare_data",
    "ready_model",
    "rehearse",
    "rehearse_trial",
    "resolve_auto",
    "run_trial",
    "run_trials",
    "training_loss",
    "training_plan",
    "trial_epochs",
    "with_base_lr",
]
