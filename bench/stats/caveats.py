"""Caveats of a run's numbers, derived from its data and printed by every kind of report.

To add one, write a rule that takes run.json and the records and yields its caveats. Then add it to `_RULES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fusetune.bench.kinds import SEARCH, kind_of
from fusetune.bench.results import LOCAL, Record, RunInfo, TrainingOutcome
from fusetune.bench.stats.device_kinds import on_one_kind
from fusetune.bench.terminal import invocation
from fusetune.tuner.measure import CONTENDED, is_contended

# Provenance keys that differ only after a resume under other conditions -> name in a sentence.
_SHARED = {
    "torch": "versions of torch",
    "commit": "commits",
    "threads": "numbers of threads",
}
_MOST_NAMED = 3
_SHORT_HASH = 12


@dataclass(frozen=True)
class Caveat:
    """One caveat.

    Args:
        name: a fixed identifier.
        sentence: the text for the head of a report.
        short: the text for the end of a recommendation. Empty if it does not matter there.
        mend: advice for a more certain result, as `what: how`. Empty if there is none.
        is_banner: whether it comes above everything else.
    """

    name: str
    sentence: str
    short: str = ""
    mend: str = ""
    is_banner: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        return asdict(self)


def caveats_of(run: RunInfo, records: Sequence[Record]) -> tuple[Caveat, ...]:
    """Return the caveats of a run, banners first.

    Args:
        run: the run. What is unknown of it gives no caveat.
        records: records of the run, possibly none.

    Example:
        >>> from fusetune.bench.results import WrittenSpec
        >>> spec = WrittenSpec({"target": {"metric": "test_accuracy", "at_least": 0.9}})
        >>> run = RunInfo(spec=spec, jobs=2)
        >>> [caveat.name for caveat in caveats_of(run, [])]
        ['steered_by_test_set', 'shared_timings']
    """
    found = [caveat for rule in _RULES for caveat in rule(run, records)]
    return tuple(sorted(found, key=lambda caveat: not caveat.is_banner))


def provenances(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Return the provenances of some records, each object once: records that were read for a report share them."""
    return list({id(record.provenance): record.provenance for record in records}.values())


def _stand_in(run: RunInfo, records: Sequence[Record]) -> Iterator[Caveat]:
    """Generated data replaced the spec's data set."""
    if run.stand_in:
        yield Caveat(
            "stand_in",
            f"STAND-IN DATA: {run.stand_in}",
            "All this holds for stand-in data.",
            "data: the real data set in place of the stand-in",
            is_banner=True,
        )


def _steering(run: RunInfo, records: Sequence[Record]) -> Iterator[Caveat]:
    """The target uses test samples or training samples, so that selection is biased."""
    metric = run.spec.target_metric or ""
    kind = kind_of(run.kind)
    selects = kind is not None and kind.trains
    if metric.startswith("test_"):
        yield Caveat(
            "steered_by_test_set",
            f"The test set is used for selection ({metric}, DAWNBench-style), so its scores are optimistic."
            if selects
            else f"The spec's target is {metric}, so its trainings use the test set for selection.",
            "The test set was used for selection, so its scores are optimistic.",
            "target: a validation metric, such as val_accuracy, keeps the test set for the end",
        )
    elif metric.startswith("train_"):
        yield Caveat(
            "steered_by_training_set",
            f"The training set is used for selection ({metric}), so the ranking says nothing about unseen data."
            if selects
            else f"The spec's target is {metric}, so its trainings use the training set for selection.",
            "The training set was used for selection, so memorizing it counts as success.",
            "target: a validation metric, such as val_accuracy",
        )


def _shared_timings(run: RunInfo, records: Sequence[Record]) -> Iterator[Caveat]:
    """Several trials ran at once, possibly only before or after a resume."""
    jobs = max([run.jobs, *(int(each.get("jobs", 1)) for each in provenances(records))])
    if jobs > 1:
        taken, mend = f"taken with {jobs} trials at once", "--jobs 1 times them alone"
        if run.executor != LOCAL:
            taken, mend = (
                f"{taken} on a node",
                "`resources.cpus` at a node's cores gives each a node to itself",
            )
        yield Caveat(
            "shared_timings",
            f"Timings were {taken}.",
            mend=f"{'jobs' if run.executor == LOCAL else 'resources'}: timings were {taken}. {mend}",
        )


def _contended(run: RunInfo, records: Sequence[Record]) -> Iterator[Caveat]:
    """Other processes used the processor while trials were timed."""
    timed = [record for record in records if "processor_missing" in record.values]
    count = sum(is_contended(record.values["processor_missing"]) for record in timed)
    if count:
        which = f"{count} of {len(timed)} timings were taken while other processes used the processor"
        yield Caveat(
            "contended_timings",
            f"Contended: {which} (above {100 * CONTENDED:.0f} % of it). Steps to the target do not depend on that.",
            f"{which}, so times include their load. Better ones need a quiet machine.",
            f"machine: a quiet one. `{invocation()} doctor` lists the processes that use the processor",
        )


def _changed_sources(run: RunInfo, records: Sequence[Record]) -> Iterator[Caveat]:
    """Sources with uncommitted changes ran."""
    if run.dirty or any(each.get("dirty") for each in provenances(records)):
        yield Caveat(
            "changed_sources", "The sources had uncommitted changes, so the commit does not identify them."
        )


def _mixed(run: RunInfo, records: Sequence[Record]) -> Iterator[Caveat]:
    """Parts of the run had different conditions, so their trials are not comparable."""
    made = provenances(records)
    for key, name in _SHARED.items():
        values = {str(each[key]) for each in made if each.get(key) is not None}
        if len(values) > 1:
            shown = sorted(value[:_SHORT_HASH] if key == "commit" else value for value in values)
            listed = ", ".join(shown[:_MOST_NAMED]) + (", ..." if len(shown) > _MOST_NAMED else "")
            yield Caveat(
                f"mixed_{key}",
                f"Trials ran on different {name}: {listed}.",
                mend=f"{name}: the same for all trials of a run",
            )


def _kinds_of_device(run: RunInfo, records: Sequence[Record]) -> Iterator[Caveat]:
    """Trials ran on several kinds of device, so that times of one of them are compared."""
    _, kinds = on_one_kind(records)
    if kinds is None:
        return
    listed = ", ".join(f"{kind} ({count} of {len(records)} trials)" for kind, count in kinds.trials.items())
    untimed = f" Without a time of its configuration there: {kinds.untimed}." if kinds.untimed else ""
    yield Caveat(
        "mixed_device_name",
        f"Trials ran on different devices: {listed}. Steps to the target are pooled. Times are those of {kinds.main}: "
        f"steps of other trials are multiplied by the step time of their configuration there.{untimed}",
        f"Times are those of {kinds.main}.",
        mend="devices: one kind for all trials of a run",
    )


def _slow_devices(run: RunInfo, records: Sequence[Record]) -> Iterator[Caveat]:
    """Trials were timed on devices that are slower than their kind."""
    slow = [record.provenance for record in records if record.provenance.get("device_slow")]
    if slow:
        names = sorted({f"{each.get('node')} device {each.get('device_id')}" for each in slow})
        listed = ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "")
        which = f"{len(slow)} of {len(records)} timings were taken on devices slower than their kind"
        yield Caveat(
            "slow_devices",
            f"Slow devices: {which} ({listed}). Steps to the target do not depend on that.",
            f"{which}.",
            mend=f"slow devices: leave out {listed}, or mend them",
        )


def _shares_normalised(run: RunInfo, records: Sequence[Record]) -> Iterator[Caveat]:
    """Batch normalisation worked over each device's share of a batch, so that devices change what is trained."""
    sizes = {
        outcome.sharing.devices
        for record in records
        if isinstance(outcome := record.outcome, TrainingOutcome)
        and outcome.sharing is not None
        and outcome.sharing.batch_norm == "share"
    }
    if sizes:
        most = max(sizes)
        which = f"{most}th" if most > 3 else {2: "half", 3: "third"}[most]
        yield Caveat(
            "shares_normalised",
            f"Batch normalisation worked over each device's share of a batch, down to a {which} of it. So the number "
            "of devices changes what is trained.",
            mend="batch normalisation: sync_batchnorm: true works over whole batches",
        )


def _same(run: RunInfo, records: Sequence[Record]) -> Iterator[Caveat]:
    """Several configurations are the same training. A run trains it once, but a search treats them as different."""
    same = run.same
    if same:
        more = f" and {len(same) - 1} more" if len(same) > 1 else ""
        searched = kind_of(run.kind) is SEARCH
        what = (
            "The search treats equal trainings as different"
            if searched
            else "Left out, because it trains the same"
        )
        yield Caveat("same_configurations", f"{what}: {same[0]}{more}.")


_RULES: tuple[Callable[[RunInfo, Sequence[Record]], Iterator[Caveat]], ...] = (
    _stand_in,
    _steering,
    _shared_timings,
    _contended,
    _changed_sources,
    _mixed,
    _kinds_of_device,
    _slow_devices,
    _shares_normalised,
    _same,
)
