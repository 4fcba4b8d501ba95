"""What Triton's own `@triton.autotune` searched for, told while a person's kernel runs as it is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from fusetune.kernels.triton_inside import autotuners, jit_function, search_listener

_S_PER_MS = 1e-3


@dataclass(frozen=True)
class TritonSearch:
    """One search of `@triton.autotune`. It has plain values alone, so that processes can tell it.

    Args:
        kernel: the name of the `@triton.jit` function.
        key: what the choice holds for, as texts: values of the arguments named by `key`, and dtypes.
        configs: each launch config that was tried, in the order of the search.
        latencies_s: of each config: median, 20th and 80th percentile, in seconds. Infinity: it failed. Empty: this
            Triton does not tell.
        best: the config that Triton chose.
        seconds: the time of the search. None: nothing was searched, or this Triton does not tell.
        from_cache: the timings come from Triton's cache on disk.

    Example:
        >>> configs = {"BLOCK": 256}, {"BLOCK": 1024}
        >>> search = TritonSearch("add", ("1000",), configs, ((2e-6,), (1e-6,)), best=configs[1])
        >>> search.failed, search.sentence
        (0, 'Triton chose BLOCK 1024 for add (1000), of 2 configs')
    """

    kernel: str
    key: tuple[str, ...]
    configs: tuple[Mapping[str, int | str], ...]
    latencies_s: tuple[tuple[float, ...], ...]
    best: Mapping[str, int | str]
    seconds: float | None = None
    from_cache: bool = False

    @property
    def failed(self) -> int:
        """How many configs could not be launched."""
        return sum(math.isinf(latency[0]) for latency in self.latencies_s if latency)

    @property
    def sentence(self) -> str:
        """What Triton chose, for a report."""
        chosen = ", ".join(f"{name} {value}" for name, value in self.best.items())
        text = (
            f"Triton chose {chosen} for {self.kernel} ({', '.join(self.key)}), of {len(self.configs)} configs"
        )
        if self.failed:
            text += f", of which {self.failed} failed"
        if self.from_cache:
            return f"{text}, by its cache on disk"
        return text if self.seconds is None else f"{text}, in {self.seconds:.2g} s"

    def as_row(self) -> dict[str, Any]:
        """Return plain values, for JSON and for messages between processes. A config that failed has no latency.

        Example:
            >>> TritonSearch("add", (), ({"BLOCK": 8},), ((math.inf,),), {"BLOCK": 8}).as_row()["configs"]
            [{'config': {'BLOCK': 8}, 'latency_s': None, 'p20_s': None, 'p80_s': None}]
        """
        configs = []
        for index, config in enumerate(self.configs):
            told = self.latencies_s[index] if index < len(self.latencies_s) else ()
            times = [time if math.isfinite(time) else None for time in told]
            latency, p20, p80 = (*times, None, None, None)[:3]
            configs.append({"config": dict(config), "latency_s": latency, "p20_s": p20, "p80_s": p80})
        return {
            "kernel": self.kernel,
            "key": list(self.key),
            "best": dict(self.best),
            "seconds": self.seconds,
            "from_cache": self.from_cache,
            "configs": configs,
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> TritonSearch:
        """Return the search that a row tells.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: it is no such row. A process may have told anything.

        Example:
            >>> search = TritonSearch("add", ("8",), ({"BLOCK": 8},), ((1e-6, 1e-6, 2e-6),), {"BLOCK": 8}, 0.5)
            >>> TritonSearch.from_row(search.as_row()) == search
            True
        """
        seconds = row["seconds"]
        return cls(
            str(row["kernel"]),
            tuple(map(str, row["key"])),
            tuple(_plain(each["config"]) for each in row["configs"]),
            tuple(_times(each) for each in row["configs"]),
            _plain(row["best"]),
            None if seconds is None else float(seconds),
            bool(row["from_cache"]),
        )


@contextmanager
def searches_of_triton() -> Iterator[list[TritonSearch]]:
    """Collect the searches that Triton makes in the block. Where somebody listens already, they are told as well.

    Triton tells of searches from 3.8 on. Before, they are read from the autotuners at the end of the block: of several
    searches by one autotuner, the last one alone has timings.

    Example:
        >>> with searches_of_triton() as found:
        ...     pass
        >>> found
        []
    """
    found: list[TritonSearch] = []
    before: Any = None

    def listener(**told: Any) -> None:
        found.append(_search(told["fn"], told["key"], told["best_config"], told["configs_timings"], told))
        if before is not None:
            before(**told)

    tells, before = search_listener(listener)
    known = {} if tells else {id(each): _State.of(each) for each in _autotuners()}
    try:
        yield found
    finally:
        if tells:
            search_listener(before)
        else:
            for each in _autotuners():
                found += _new_searches(each, known.get(id(each), _State()))


# What was seen stays known, for `gc.freeze` hides objects from the next look.
_seen: dict[int, Any] = {}


def _autotuners() -> list[Any]:
    _seen.update((id(each), each) for each in autotuners())
    return [*_seen.values()]


@dataclass(frozen=True)
class _State:
    """What an autotuner knew at one time.

    Args:
        keys: for which it had chosen a config.
        bench_time: of its last search.
        timings: of its last search, the object itself, so that no other one can have its place.
        tuner: kept alive, so that no other one can have its id.
    """

    keys: frozenset[Any] = frozenset()
    bench_time: float | None = None
    timings: Any = None
    tuner: Any = field(default=None, repr=False)

    @classmethod
    def of(cls, tuner: Any) -> _State:
        timings = getattr(tuner, "configs_timings", None)
        return cls(frozenset(tuner.cache), getattr(tuner, "bench_time", None), timings, tuner)


def _new_searches(tuner: Any, before: _State) -> Iterator[TritonSearch]:
    """The searches of an autotuner since a state. Only the last one's timings are still there."""
    now = _State.of(tuner)
    keys = [key for key in tuner.cache if key not in before.keys]
    for key in keys:
        is_last = key == keys[-1] and now.timings is not before.timings
        searched = is_last and now.bench_time != before.bench_time
        told = {"duration": now.bench_time if searched else None, "cache_hit": is_last and not searched}
        yield _search(tuner, key, tuner.cache[key], now.timings if is_last else {}, told)


def _search(
    function: Any, key: Sequence[Any], best: Any, timings: Mapping[Any, Any], told: Mapping[str, Any]
) -> TritonSearch:
    """Take what Triton tells, as plain values."""
    jit = jit_function(function) or function
    seconds = told.get("duration")
    return TritonSearch(
        str(getattr(jit, "__name__", "?")),
        tuple(map(str, key)),
        tuple(_config(each) for each in timings),
        tuple(_in_seconds(times) for times in timings.values()),
        _config(best),
        None if seconds is None else float(seconds),
        bool(told.get("cache_hit")),
    )


def _config(config: Any) -> dict[str, int | str]:
    """A config of Triton's as names and values. What says nothing new is left out."""
    return _plain(
        {name: value for name, value in config.all_kwargs().items() if (name, value) != ("num_ctas", 1)}
    )


def _plain(config: Mapping[str, Any]) -> dict[str, int | str]:
    return {str(name): value if isinstance(value, int) else str(value) for name, value in config.items()}


def _times(told: Mapping[str, Any]) -> tuple[float, ...]:
    """The latencies of a row's config."""
    times = [told["latency_s"], told["p20_s"], told["p80_s"]]
    return (math.inf,) if times[0] is None else tuple(float(time) for time in times if time is not None)


def _in_seconds(times: Any) -> tuple[float, ...]:
    """Triton's milliseconds: the median, the 20th and the 80th percentile, or a single number."""
    values = times if isinstance(times, list | tuple) else [times]
    return tuple(float(value) * _S_PER_MS for value in values)
