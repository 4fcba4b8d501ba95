"""The data of a trial: loaded and split once for many trials, and put on the device for one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from fusetune.bench.spec import Data, Source, Trial
from fusetune.bench.workers import WorkerContext
from fusetune.bench.workloads import Splits, load, narrowed, split
from fusetune.tuner.training import Augment, Batches, ChannelStatistics, channel_statistics

VALIDATION_SHARE = 10
# An evaluation keeps no activations for a backward pass, so four batches take about the memory of a training step.
EVALUATION_BATCHES = 4


@dataclass(frozen=True)
class PreparedData:
    """A data set split for training, and its training part's statistics, which are kept from trial to trial."""

    splits: Splits
    statistics: ChannelStatistics


@dataclass(frozen=True)
class DataSets:
    """A trial's data on its device.

    Args:
        splits: the same as arrays, as loaded.
        training: augmented as the spec says, in batches of the trial's size.
        validation, test: in batches of four times that size.
    """

    splits: Splits
    training: Batches
    validation: Batches
    test: Batches

    @property
    def batches(self) -> tuple[Batches, Batches, Batches]:
        """Training, validation and test data."""
        return self.training, self.validation, self.test


def load_sets(trial: Trial, context: WorkerContext) -> DataSets:
    """Load a trial's data and put them on the worker's device."""
    return place_sets(trial, prepare_data(trial, context), context.device)


def prepare_data(trial: Trial, context: WorkerContext) -> PreparedData:
    """Load and split the data, or take them from the cache. Another data set replaces the one that is there."""
    assert trial.source is not None
    source, data = trial.source, trial.spec.data
    key = (source.name, source.path, repr(source.options), data.validation, data.limit, data.seed)
    have, prepared = context.cache.get("data", (None, None))
    if have != key:
        context.cache.pop("data", None)
        splits = _load_splits(source, data)
        prepared = PreparedData(splits, channel_statistics(splits.x_train))
        context.cache["data"] = (key, prepared)
    return cast(PreparedData, prepared)


def _load_splits(source: Source, data: Data) -> Splits:
    """Load what the split needs, and hold out validation samples: a tenth where the spec gives no number."""
    tenth_of_limit = (data.limit or 0) // VALIDATION_SHARE
    arrays = load(narrowed(source, validation=data.validation or tenth_of_limit, limit=data.limit))
    tenth = tenth_of_limit or len(arrays.x_train) // VALIDATION_SHARE
    validation = data.validation or max(arrays.num_classes, tenth)
    return split(arrays, validation=validation, limit=data.limit, seed=data.seed)


def place_sets(trial: Trial, prepared: PreparedData, device: str) -> DataSets:
    """Put the three parts of the data on the device."""
    splits = prepared.splits
    size = trial.spec.train.batch_size

    def on_device(x: Any, y: Any, batch_size: int, augment: Augment | None = None) -> Batches:
        return Batches(
            x,
            y,
            batch_size,
            seed=trial.seed,
            device=device,
            statistics=prepared.statistics,
            augment=augment,
        )

    return DataSets(
        splits,
        on_device(splits.x_train, splits.y_train, size, Augment(**trial.spec.data.augment.model_dump())),
        on_device(splits.x_val, splits.y_val, EVALUATION_BATCHES * size),
        on_device(splits.x_test, splits.y_test, EVALUATION_BATCHES * size),
    )
