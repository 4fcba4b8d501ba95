"""What a reader must know before believing a run's numbers: derived once from its data, said by every kind of report.

To add one, write a rule that takes the run and its records, yields its caveats, and stands in `_RULES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fusetune.bench.kinds import SEARCH, kind_of
from fusetune.bench.results import Record, RunInfo
from fusetune.bench.terminal import invocation
from fusetune.tuner.measure import CONTENDED, is_contended

# What all records of a run share unless it was resumed elsewhere: provenance key -> name in a sentence.
_SHARED = {
    "device_name": "devices",
    "torch": "versions of torch",
    "commit": "commits",
    "threads": "numbers of threads",
}
_MOST_NAMED = 3
_SHORT_HASH = 12


@dataclass(frozen=True)
class Caveat:
    """One thing to know.

    Args:
        name: what it is, the same in every run.
        sentence: for the head of a report.
        short: for the end of a recommendation. Empty where it changes nothing there.
        mend: what would make the result surer, as `what: how`. Empty where nothing does.
        is_banner: whether it stands over everything else.
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
        run: the run. What is not known of it raises no caveat.
        records: those of the run, any number of them.

    Example:
        >>> from fusetune.bench.results import WrittenSpec
        >>> spec = WrittenSpec({"target": {"metric": "test_accuracy", "at_least": 0.9}})
        >>> run = RunInfo(spec=spec, jobs=2)
        >>> [caveat.name for caveat in caveats_of(run, [])]
        ['steered_by_test_set', 'shared_timings']
    """
    found = [caveat for rule in _RULES for caveat in rule(run, records)]
    return tuple(sorted(found, key=lambda caveat: not caveat.is_banner))


def _stand_in(run: RunInfo, records: Sequence[Record]) -> Iterator[Caveat]:
    """Generated data took the place of the set that the spec names."""
    if run.stand_in:
        yield Caveat(
            "stand_in",
            f"STAND-IN DATA: {run.stand_in}",
            "All this holds for stand-in data.",
            "data: the real data set in place of the stand-in",
            is_banner=True,
        )


def _steering(run: RunInfo, records: Sequence[Record]) -> Iterator[Caveat]:
    """The target is judged on samples that should only be looked at once, or that are trained on."""
    metric = run.spec.target_metric or ""
    kind = kind_of(run.kind)
    steered = kind is not None and kind.trains
    if metric.startswith("test_"):
        yield Caveat(
            "steered_by_test_set",
            f"The test set steers ({metric}, DAWNBench-style), so it says nothing about unseen data."
            if steered
            else f"The spec's target is {metric}: the test set steers its trainings.",
            "The test set steered, so its numbers flatter.",
            "target: one on validation samples, as val_accuracy, leaves the test set for the end",
        )
    elif metric.startswith("train_"):
        yield Caveat(
            "steered_by_training_set",
            f"The training set steers ({metric}), so the ranking says nothing about unseen data."
            if steered
            else f"The spec's target is {metric}: the training set steers its trainings.",
            "The training set steered: learning by heart counts as success.",
            "target: one on validation samples, as val_accuracy",
        )


def _shared_timings(run: RunInfo, records: Sequence[Record]) -> Iterator[Caveat]:
    """Trials ran at once. A run that was resumed may have done so in a part of it."""
    jobs = max([run.jobs, *(int(record.provenance.get("jobs", 1)) for record in records)])
    if jobs > 1:
        yield Caveat(
            "shared_timings",
            f"Timings were taken with {jobs} trials at once.",
            mend=f"jobs: timings were taken with {jobs} trials at once; --jobs 1 times them alone",
        )


def _contended(run: RunInfo, records: Sequence[Record]) -> Iterator[Caveat]:
    """Others had the processor while trials were timed."""
    timed = [record for record in records if "processor_missing" in record.values]
    count = sum(is_contended(record.values["processor_missing"]) for record in timed)
    if count:
        which = f"{count} of {len(timed)} timings were taken while others had the processor"
        yield Caveat(
            "contended_timings",
            f"Contended: {which} (above {100 * CONTENDED:.0f} % of it). Steps to the target do not depend on that.",
            f"{which}, so times say as much of that work. Better ones need a quiet machine.",
            f"machine: a quiet one; `{invocation()} doctor` shows who has the processor",
        )


def _changed_sources(run: RunInfo, records: Sequence[Record]) -> Iterator[Caveat]:
    """The commit does not name what ran."""
    if run.dirty or any(record.provenance.get("dirty") for record in records):
        yield Caveat(
            "changed_sources", "The sources had uncommitted changes: the commit does not name what ran."
        )


def _mixed(run: RunInfo, records: Sequence[Record]) -> Iterator[Caveat]:
    """Parts of the run were made under different conditions, so their trials do not compare."""
    for key, name in _SHARED.items():
        values = {str(record.provenance[key]) for record in records if record.provenance.get(key) is not None}
        if len(values) > 1:
            shown = sorted(value[:_SHORT_HASH] if key == "commit" else value for value in values)
            listed = ", ".join(shown[:_MOST_NAMED]) + (", ..." if len(shown) > _MOST_NAMED else "")
            yield Caveat(
                f"mixed_{key}",
                f"Trials ran on different {name}: {listed}.",
                mend=f"{name}: a run from its beginning to its end on one",
            )


def _same(run: RunInfo, records: Sequence[Record]) -> Iterator[Caveat]:
    """Configurations that come to the same training were trained once, but a search takes them for different ones."""
    same = run.same
    if same:
        more = f" and {len(same) - 1} more" if len(same) > 1 else ""
        searched = kind_of(run.kind) is SEARCH
        what = (
            "The search tells apart what trains the same" if searched else "Left out, for it trains the same"
        )
        yield Caveat("same_configurations", f"{what}: {same[0]}{more}.")


_RULES: tuple[Callable[[RunInfo, Sequence[Record]], Iterator[Caveat]], ...] = (
    _stand_in,
    _steering,
    _shared_timings,
    _contended,
    _changed_sources,
    _mixed,
    _same,
)
