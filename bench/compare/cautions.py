"""What forbids a comparison of two stored results, and what a reader of one must know first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fusetune.bench.compare.stored import COMPARED, Stored
from fusetune.bench.errors import InputError
from fusetune.bench.gate import LEAST_PAIRS
from fusetune.bench.spec import difference

Results = Sequence[Stored]
# Shares of comparisons of unchanged code that are REGRESSED, measured by `measure`, see docs/gate.md.
FALSE_ALARMS = "2 to 14 %"
FALSE_ALARMS_IN_TURN = "about 1 %"
_MOST_LISTED = 3
_SHORT_HASH = 12
# Processors change their clock with every load. Beyond this they ran under another limit.
_CLOCK_CHANGE = 0.1
# What a person may change without changing what is measured.
_NO_SETTINGS = ("description", "name", "seeds")


def refuse_other_devices(base: Results, head: Results) -> None:
    """Refuse to compare what two different devices measured.

    Args:
        base, head: processes of each side.

    Raises:
        InputError: the devices, or the architectures, with the names of both.
    """
    known = [(each, each.device) for each in (*base, *head) if each.device]
    for each, device in known:
        first, device_of_first = known[0]
        if device != device_of_first:
            raise _other_devices(first, device_of_first or "", each, device or "")
    architectures = [
        (each, each.machine["architecture"]) for each in (*base, *head) if "architecture" in each.machine
    ]
    for each, name in architectures:
        if name != architectures[0][1]:
            raise _other_devices(*architectures[0], each, name)


def _other_devices(one: Stored, name: str, other: Stored, other_name: str) -> InputError:
    return InputError(
        "compare",
        f"two devices, {name!r} and {other_name!r}",
        f"{one.path} and {other.path}",
        "Measure both on one device",
    )


def refuse_other_forms(base: Results, head: Results) -> None:
    """Refuse to compare results that hold different numbers.

    Raises:
        InputError: names both kinds.
    """
    ours, theirs = base[0].form, head[0].form
    if ours != theirs:
        known = f"{base[0].path} is of {ours} and {head[0].path} of {theirs}"
        raise InputError(
            "compare", "the sides hold different kinds of results", known, "Give two of one kind"
        )


def cautions(base: Results, head: Results) -> tuple[str, ...]:
    """Return what a reader of a comparison must know first, a sentence each.

    Args:
        base, head: processes of each side, at least one.
    """
    return tuple(dict.fromkeys(note for rule in _RULES for note in rule(base, head)))


def _has_timings(side: Results) -> bool:
    return "timing" in COMPARED[side[0].form].values()


def _stored_baselines(base: Results, head: Results) -> Iterator[str]:
    if not _has_timings(base):
        return
    yield (
        f"Stored results give more false alarms: unchanged code is REGRESSED in {FALSE_ALARMS} of such comparisons, "
        f"and in {FALSE_ALARMS_IN_TURN} of those whose sides take turns, as in `bench gate`."
    )


def _stand_ins(base: Results, head: Results) -> Iterator[str]:
    for name, side in _sides(base, head):
        for stand_in in _distinct([each.stand_in for each in side]):
            yield f"STAND-IN DATA in {name}: {stand_in}"


def _too_few(base: Results, head: Results) -> Iterator[str]:
    few = [f"{name} is {_counted(side)}" for name, side in _sides(base, head) if len(side) < LEAST_PAIRS]
    if not _has_timings(base):
        return
    if few:
        yield f"Timings take {LEAST_PAIRS} processes a side before they can be judged, and {' and '.join(few)}."
    elif len(base) != len(head):
        yield f"Of {len(base)} and {len(head)} processes, the first {min(len(base), len(head))} of each side are timed."


def _counted(side: Results) -> str:
    return f"{len(side)} process{'' if len(side) == 1 else 'es'}"


def _sources(base: Results, head: Results) -> Iterator[str]:
    if dirty := _names_of(base, head, lambda each: bool(each.dirty)):
        yield f"Uncommitted changes in {dirty}: the commit does not name what ran."
    if unknown := _names_of(base, head, lambda each: each.commit is None):
        yield f"The commit of {unknown} is not known."
    found = [_distinct([each.commit for each in side]) for side in (base, head)]
    for (name, _), commits in zip(_sides(base, head), found, strict=True):
        if len(commits) > 1:
            yield f"Several commits in {name}: {_listed([each[:_SHORT_HASH] for each in commits])}."
    if not dirty and not unknown and found[0] == found[1] and len(found[0]) == 1:
        yield f"Both sides are of commit {found[0][0][:_SHORT_HASH]}."


def _names_of(base: Results, head: Results, holds: Callable[[Stored], bool]) -> str:
    """Name the sides of which this holds for a process."""
    return " and ".join(name for name, side in _sides(base, head) if any(map(holds, side)))


def _versions(base: Results, head: Results) -> Iterator[str]:
    for library in dict.fromkeys(name for each in (*base, *head) for name in each.versions):
        found = [[each.versions.get(library) for each in side] for side in (base, head)]
        yield from _changed(f"versions of {library}", *found)


def _machines(base: Results, head: Results) -> Iterator[str]:
    if not all(each.device for each in (*base, *head)):
        yield "The name of the device is not known on both sides, so it cannot be checked that they are the same."
    for key, words in (
        ("cores", "numbers of cores"),
        ("cpu_quota", "processor quotas"),
        ("cpu_capability", "vector instructions"),
        ("driver", "drivers"),
        ("os", "systems"),
    ):
        yield from _changed(words, *([each.machine.get(key) for each in side] for side in (base, head)))
    yield from _changed(
        "numbers of threads", *([each.threads or None for each in side] for side in (base, head))
    )


def _clocks(base: Results, head: Results) -> Iterator[str]:
    yield from _changed("clocks", *([each.clock or None for each in side] for side in (base, head)))
    speeds = [each.clock_hz for each in (*base, *head) if each.clock_hz]
    if speeds and max(speeds) > (1 + _CLOCK_CHANGE) * min(speeds):
        yield f"The processor's clock differs: from {min(speeds) / 1e9:.2f} to {max(speeds) / 1e9:.2f} GHz."


def _settings(base: Results, head: Results) -> Iterator[str]:
    found = [[_plain(each) for each in side] for side in (base, head)]
    if base[0].form == "pytest-benchmark":  # by benchmark, and those of one side alone are rows
        # A file without a benchmark says nothing of its settings.
        whole = [{key: value for each in reversed(side) for key, value in each.items()} for side in found]
        both = whole[0].keys() & whole[1].keys()
        found = [
            [{key: each.get(key, known[key]) for key in known if key in both} for each in side]
            for known, side in zip(whole, found, strict=True)
        ]
    yield from _other(found, "The settings differ{where}: {changes}.")
    data = [[each.data for each in side if each.data] for side in (base, head)]
    yield from _other(data, "The data differ{where}: their fingerprints are not the same.")
    counted = [[each.peak_bytes_of or None for each in side] for side in (base, head)]
    yield from _changed("ways to count peak memory", *counted)


def _other(sides: Sequence[Sequence[Mapping[str, Any]]], said: str) -> Iterator[str]:
    """Say that a process has something other than the first one of its side, or base than head."""
    ours, theirs = sides
    if not ours or not theirs:
        return
    for where, first, others in (
        ("", ours[0], theirs[:1]),
        (" within base", ours[0], ours),
        (" within head", theirs[0], theirs),
    ):
        changes = dict.fromkeys(change for each in others for change in difference(first, each))
        if changes:
            yield said.format(where=where, changes=_listed(list(changes)))


def _plain(stored: Stored) -> dict[str, Any]:
    """The settings, a spec's keys at the top. Threads that were chosen anew each time are no setting."""
    spec = stored.settings.get("spec") or {}
    left = {key: value for key, value in spec.items() if key not in _NO_SETTINGS}
    options = stored.settings.get("options") or {}
    return {**left, **options}


def _jobs(base: Results, head: Results) -> Iterator[str]:
    for name, side in _sides(base, head):
        jobs = max(each.jobs for each in side)
        if jobs > 1:
            yield f"Timings of {name} were taken with {jobs} trials at once."


def _intervals(base: Results, head: Results) -> Iterator[str]:
    """Whether two range tests can be told apart."""
    for name, (low, high) in base[0].intervals.items():
        if name in head[0].intervals:
            other_low, other_high = head[0].intervals[name]
            apart = other_low > high or other_high < low
            told = "do not overlap" if apart else "overlap"
            yield (
                f"{name}: the 95 % intervals of the suggested lr {told}, {low:.3g} to {high:.3g} in base and "
                f"{other_low:.3g} to {other_high:.3g} in head."
            )


def _sides(base: Results, head: Results) -> tuple[tuple[str, Results], tuple[str, Results]]:
    return ("base", base), ("head", head)


def _changed(words: str, base: Sequence[Any], head: Sequence[Any]) -> Iterator[str]:
    """Say that something differs between the sides, or within one. What is not known on a side does not."""
    ours, theirs = _distinct(base), _distinct(head)
    if ours and theirs and set(ours) != set(theirs):
        yield f"Other {words}: {_listed(ours)} in base, {_listed(theirs)} in head."
    elif len(ours) > 1:
        yield f"Other {words} within a side: {_listed(ours)}."


def _distinct(values: Sequence[Any]) -> list[str]:
    return list(dict.fromkeys(_text(each) for each in values if each is not None))


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _listed(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _MOST_LISTED} more" if len(texts) > _MOST_LISTED else ""
    return ", ".join(texts[:_MOST_LISTED]) + more


_RULES: tuple[Callable[[Results, Results], Iterator[str]], ...] = (
    _stand_ins,
    _stored_baselines,
    _too_few,
    _sources,
    _versions,
    _machines,
    _clocks,
    _settings,
    _jobs,
    _intervals,
)
