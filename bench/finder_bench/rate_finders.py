"""Finders of a learning rate, each called as its documentation shows, with its defaults.

All get the same model, optimizer, loss and batches. Those of others are imported by their own process alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from fusetune.bench.finder_bench.lightning_trainer import quiet_trainer
from fusetune.bench.finder_bench.rate_workloads import OPTIMIZERS, RATE_WORKLOADS, RateWorkload
from fusetune.tuner.learning_rate import candidates_around, confirm, lr_range_test

# The usual length of a test. Ours makes three sweeps of as many steps.
STEPS = 100
REPEATS = 3
# Training samples that judge the short trainings.
_HELD = 200

# Rule -> rate, None where there is none, and the optimizer steps of the test.
Found = tuple[dict[str, float | None], int]
RateFinder = Callable[[RateWorkload, int, int], Found]

_loss = nn.functional.cross_entropy


def ours(workload: RateWorkload, seed: int, steps: int) -> Found:
    """`tuner.learning_rate.lr_range_test`, in sweeps of 100 steps each."""
    found = lr_range_test(
        workload.make_model(seed),
        workload.make_optimizer,
        _loss,
        workload.loader(seed),
        repeats=steps // STEPS,
        seed=seed,
    )
    return {"lr_range_test": found.suggestion}, found.steps_used


def confirmed(workload: RateWorkload, seed: int, steps: int) -> Found:
    """The same, and short trainings around it as `bench lr-range` makes them by default."""
    model, loader = workload.make_model(seed), workload.loader(seed, held=_HELD)
    found = lr_range_test(model, workload.make_optimizer, _loss, loader, repeats=steps // STEPS, seed=seed)
    around = candidates_around(found)
    best = confirm(
        model,
        workload.make_optimizer,
        _loss,
        loader,
        [workload.held(_HELD)],
        around,
        steps=STEPS,
        seed=seed,
    )
    return {"confirm": best.lr}, found.steps_used + STEPS * len(around.lrs)


def fastai(workload: RateWorkload, seed: int, steps: int) -> Found:
    """`Learner.lr_find`, with its default rule `valley`, and with `minimum`."""
    from fastai.basics import DataLoaders, Learner, OptimWrapper
    from fastai.callback.schedule import minimum, valley

    kind, settings = OPTIMIZERS[workload.optimizer]
    with tempfile.TemporaryDirectory() as directory:
        loader = workload.loader(seed)
        learner = Learner(
            DataLoaders(loader, loader, device="cpu"),
            workload.make_model(seed),
            loss_func=_loss,
            opt_func=partial(OptimWrapper, opt=kind, **settings),
            path=directory,
        )
        with learner.no_bar():
            found = learner.lr_find(num_it=steps, show_plot=False, suggest_funcs=(valley, minimum))
        return {"valley": float(found.valley), "minimum": float(found.minimum)}, len(learner.recorder.lrs)


def lightning(workload: RateWorkload, seed: int, steps: int) -> Found:
    """`Tuner.lr_find` and its `suggestion`, the steepest fall."""
    from lightning.pytorch import LightningModule
    from lightning.pytorch.tuner import Tuner

    class Module(LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model, self.lr = workload.make_model(seed), 1e-3

        def training_step(self, batch: Any, index: int) -> Any:
            return _loss(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return workload.make_optimizer(self.parameters(), self.lr)

    with tempfile.TemporaryDirectory() as directory:
        trainer = quiet_trainer(directory, max_epochs=steps)
        found = Tuner(trainer).lr_find(Module(), train_dataloaders=workload.loader(seed), num_training=steps)
        return {"suggestion": found.suggestion()}, len(found.results["lr"])


def torch_lr_finder(workload: RateWorkload, seed: int, steps: int) -> Found:
    """`LRFinder.range_test` from 1e-7, and the rate that `plot` suggests, the steepest fall."""
    from torch_lr_finder import LRFinder

    model = workload.make_model(seed)
    finder = LRFinder(model, workload.make_optimizer(model.parameters(), 1e-7), _loss, device="cpu")
    finder.range_test(workload.loader(seed), num_iter=steps)
    lr = finder.plot(suggest_lr=True)[1]
    return {"steepest": float(lr)}, len(finder.history["lr"])


# Finder -> its rules, the default one first.
RULES = {
    "fusetune": ("lr_range_test",),
    "fusetune confirmed": ("confirm",),
    "fastai": ("valley", "minimum"),
    "Lightning": ("suggestion",),
    "torch-lr-finder": ("steepest",),
}
# Finder -> the lengths of its tests: the usual one, and as many steps as ours takes.
LENGTHS = {
    finder: (REPEATS * STEPS,) if finder == "fusetune confirmed" else (STEPS, REPEATS * STEPS)
    for finder in RULES
}
RATE_FINDERS: dict[str, RateFinder] = {
    "fusetune": ours,
    "fusetune confirmed": confirmed,
    "fastai": fastai,
    "Lightning": lightning,
    "torch-lr-finder": torch_lr_finder,
}


def suggest(finder: str, workload: str, seed: int, steps: int) -> dict[str, Any]:
    """Ask a finder.

    Args:
        finder: a key of `RATE_FINDERS`.
        workload: a key of `RATE_WORKLOADS`.
        seed: of the weights and of the order of the samples.
        steps: optimizer steps of the test, a multiple of 100.

    Returns:
        `rates`, rule -> rate or None, and the `steps` that were made.
    """
    rates, made = RATE_FINDERS[finder](RATE_WORKLOADS[workload], seed, steps)
    return {"rates": rates, "steps": made}
