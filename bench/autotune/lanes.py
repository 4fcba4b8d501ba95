"""The workbench of real tuning: configs in lanes, as `bench.kernels` has them.

All configs of a kernel share one lane until one misbehaves. The lane is then killed, and the others go on in a new one.
Inputs come from secret seeds by the lane of the reference. A lane makes fresh tensors from them for each call, off the
clock. So a kernel that works in place is timed as any other, and nobody's tensors are changed by tuning.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Sequence
from typing import Any

from fusetune.bench.autotune.run import Opened
from fusetune.bench.autotune.tuning import Tuning
from fusetune.bench.kernels import (
    Case,
    CompiledFacts,
    LaneError,
    Policy,
    ProcessLane,
    ReferenceLane,
    SharedTree,
    Verification,
    Verifier,
)
from fusetune.kernels import Config
from fusetune.tuner.measure import is_contended

_SETS = 4
_TRIES = 3
# One in so many timed calls is checked, beside the first one of each config.
_CHECKED = 16
# A config may take so many times as long as the fastest, and so many seconds more.
_PATIENCE, _LEAST_PATIENCE_S = 50.0, 2.0
_BUILD_PATIENCE, _LEAST_BUILD_S = 20.0, 30.0


class LaneWorkbench:
    """Builds, verifies and times configs of one case after the other, see `Workbench`.

    Args:
        cold: flush the last-level cache before each call, off the clock.
        device: `cpu` or `cuda`.
        clock: `wall`, or `event` for a GPU.
        make_lane, make_reference: return lanes. For tests.
    """

    def __init__(
        self,
        *,
        cold: bool = True,
        device: str = "cpu",
        make_lane: Callable[[], ProcessLane] | None = None,
        make_reference: Callable[[], ReferenceLane] | None = None,
    ) -> None:
        self._timing = Policy("event" if device == "cuda" else "wall", "cold" if cold else "warm")
        self._lane = make_lane() if make_lane else ProcessLane("ours", device=device)
        self._reference = make_reference() if make_reference else ReferenceLane(device=device)
        self._case: Case | None = None
        self._verifier: Verifier | None = None
        self._pool: list[SharedTree] = []
        self._built: set[tuple[tuple[str, int], ...]] = set()
        self._process: int | None = None
        self._verifications: dict[tuple[tuple[str, int], ...], Verification] = {}
        self._checked: set[tuple[tuple[str, int], ...]] = set()

    @property
    def policy(self) -> str:
        """What is on the clock."""
        return self._timing.name

    def open(self, case: Case) -> Opened:
        """Prepare the case in both lanes, and ask what a launch looks up."""
        self._forget()
        self._case = case
        self._reference.prepare(case)
        self._lane.limit_s = None
        prepared = self._lane.prepare(case)
        self._process = self._lane.process_id
        self._verifier = Verifier(self._reference, case, prepared.bytes_moved)
        self._lane.build_timeout_s = max(_LEAST_BUILD_S, _BUILD_PATIENCE * prepared.compile_s)
        found = self._lane.lookups()
        if not found or len(found[0].space) < 2:
            raise LaneError("skipped", "it has no launch configs to choose from")
        for _ in range(_SETS):
            self._pool.append(SharedTree(self._reference.make_inputs(secrets.randbelow(2**62))))
        first = found[0]
        return Opened(tuple(first.space), first.default, tuple(lookup.key for lookup in found))

    def build(self, config: Config) -> CompiledFacts:
        """Compile a config, and call it once."""
        assert self._case is not None
        try:
            prepared = self._lane.prepare(self._case, config)
        finally:
            # A process that ended, or a new one, knows none of the configs.
            if self._lane.process_id != self._process:
                self._built.clear()
                self._process = self._lane.process_id
        self._built.add(_key(config))
        return prepared.compiled or CompiledFacts()

    def verify(self, config: Config, *, thorough: bool) -> None:
        """Hold its results against float64, at the size of the case or at all sizes, seeds and places."""
        assert self._verifier is not None
        self._select(config)
        self._verifications[_key(config)] = self._verifier.verify(self._lane, thorough=thorough)

    def sample(self, config: Config, turn: int) -> float:
        """Time a call, again where others had the processor. Results of some timed calls are checked."""
        assert self._verifier is not None
        self._select(config)
        inputs = self._pool[turn % len(self._pool)]
        key = _key(config)
        keep = key not in self._checked or secrets.randbelow(_CHECKED) == 0
        best = (math.inf, math.inf)
        for _ in range(_TRIES):
            found = self._lane.time_round(inputs, [self._timing], keep=keep)
            if keep:
                self._verifier.check_timed(self._lane, inputs, self._verifications[key])
                self._checked.add(key)
                keep = False
            if not found.void:
                best = min(best, (found.contention, found.latencies_s[self._timing.name]))
            if not is_contended(best[0]):
                break
        return best[1]

    def expect(self, seconds: float) -> None:
        """Let no call take very much longer than the fastest so far."""
        self._lane.limit_s = _LEAST_PATIENCE_S + _PATIENCE * seconds

    def save(self, keys: Sequence[Any], tuning: Tuning) -> tuple[str, ...]:
        """Write an entry for each key where the default was replaced, or where an older entry must go."""
        from fusetune.kernels.autotune import Entry, read_entry, write_entry

        paths = []
        for key in keys:
            if not tuning.is_replaced and not isinstance(read_entry(key), Entry):
                continue
            latency_s = {tuple(c.config.items()): c.latency_s for c in tuning.candidates}
            found = tuning.confirmation
            speedup = None
            if found is not None and found.replaces and not math.isnan(found.low):
                speedup = (found.gain, found.low, found.high)
            entry = Entry(
                key,
                dict(tuning.winner),
                latency_s=latency_s.get(tuple(tuning.winner.items())),
                default=dict(tuning.default),
                default_latency_s=latency_s.get(tuple(tuning.default.items())),
                speedup=speedup,
                rounds=0 if found is None else len(found.defaults_s),
            )
            paths.append(str(write_entry(entry)))
        return tuple(paths)

    def close(self) -> None:
        """End the processes."""
        self._forget()
        self._lane.close()
        self._reference.close()

    def __enter__(self) -> LaneWorkbench:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _select(self, config: Config) -> None:
        """Have the lane call a config. It is built again where the lane's process is a new one."""
        if self._lane.process_id != self._process or _key(config) not in self._built:
            self.build(config)
        else:
            self._lane.select(config)

    def _forget(self) -> None:
        if self._verifier is not None:
            self._verifier.close()
            self._verifier = None
        for shared in self._pool:
            shared.close()
        self._pool.clear()
        self._built.clear()
        self._verifications.clear()
        self._checked.clear()


def _key(config: Config) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(config.items()))
