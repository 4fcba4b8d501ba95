"""Finders of the largest batch, each called as its documentation shows, with its defaults, under the case's limit."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fusetune.bench.finder_bench.batch_cases import (
    BATCH_CASES,
    STEPS,
    BatchCase,
    limited,
    tensors,
    train_steps,
)
from fusetune.bench.finder_bench.lightning_trainer import quiet_trainer

LARGE_START = 8192
# A person's spec says which thread count it wants. All finders here get one thread.
_THREADS = 1


def ours(case: BatchCase) -> int | None:
    """`bench batch-size SPEC --memory LIMIT --memory-only`."""
    factories = "fusetune.bench.finder_bench.batch_cases"
    spec = {
        "name": "finder-bench",
        "data": {"factory": f"{factories}:draw", "case": case.name, "validation": 64},
        "model": {"factory": f"{factories}:build", "case": case.name},
        "train": {"optimizer": case.optimizer, "base_lr": 0.001, "batch_size": 1, "epochs": 1},
        "threads": _THREADS,
    }
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "spec.yaml"
        path.write_text(yaml.safe_dump(spec))
        options = ["--memory", str(case.limit_bytes), "--memory-only", "--json", "--results", directory]
        ended = subprocess.run(
            [sys.executable, "-m", "fusetune.bench", "batch-size", str(path), *options],
            stdout=subprocess.PIPE,
            check=False,
        )
        found: int | None = json.loads(ended.stdout)["configurations"][0]["batch_size"]
        return found


def lightning_power(case: BatchCase) -> int | None:
    """`Tuner.scale_batch_size`, its default mode: double the size until it fails."""
    return _lightning(case, "power")


def lightning_binsearch(case: BatchCase) -> int | None:
    """`Tuner.scale_batch_size(mode="binsearch")`: then bisect, and take 5 % off."""
    return _lightning(case, "binsearch")


def _lightning(case: BatchCase, mode: str) -> int | None:
    from lightning.pytorch import LightningModule
    from lightning.pytorch.tuner import Tuner

    class Module(LightningModule):  # type: ignore[misc]
        def __init__(self, model: nn.Module, x: Tensor, y: Tensor, batch_size: int) -> None:
            super().__init__()
            self.model, self.data, self.batch_size = model, TensorDataset(x, y), batch_size

        def training_step(self, batch: Any, index: int) -> Tensor:
            return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return case.make_optimizer(self.parameters())

        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(self.data, self.batch_size, shuffle=True)

    with tempfile.TemporaryDirectory() as directory:
        # What Lightning imports at the first use belongs to the process, not to the training.
        few = tensors(case)
        Tuner(quiet_trainer(directory, max_steps=STEPS)).scale_batch_size(
            Module(case.build(), few[0][:8], few[1][:8], 2), mode=mode, max_trials=1
        )
        del few
        with limited(case):
            module = Module(case.build(), *tensors(case), 2)
            found: int | None = Tuner(quiet_trainer(directory, max_steps=STEPS)).scale_batch_size(
                module, mode=mode
            )
            return found


def accelerate_default(case: BatchCase) -> int:
    """`find_executable_batch_size` from its default start, 128."""
    return _accelerate(case)


def accelerate_large(case: BatchCase) -> int:
    """`find_executable_batch_size(starting_batch_size=8192)`."""
    return _accelerate(case, starting_batch_size=LARGE_START)


def _accelerate(case: BatchCase, **start: int) -> int:
    from accelerate.utils import find_executable_batch_size

    with limited(case):
        x, y = tensors(case)

        @find_executable_batch_size(**start)  # type: ignore[untyped-decorator,unused-ignore]
        def train(batch_size: int) -> int:
            train_steps(case, x, y, batch_size)
            return batch_size

        found: int = train()
        return found


BATCH_FINDERS: dict[str, Callable[[BatchCase], int | None]] = {
    "fusetune, bench batch-size": ours,
    "Lightning, power (default)": lightning_power,
    "Lightning, binsearch": lightning_binsearch,
    "accelerate, from 128 (default)": accelerate_default,
    f"accelerate, from {LARGE_START}": accelerate_large,
}


def find(finder: str, case: str) -> int | None:
    """Ask a finder for the largest batch of a case.

    Args:
        finder: a key of `BATCH_FINDERS`.
        case: a key of `BATCH_CASES`.
    """
    return BATCH_FINDERS[finder](BATCH_CASES[case])
