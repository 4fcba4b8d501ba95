"""Lanes: a side of a benchmark in a process of its own, which may die, hang or lie without harm to the others.

    driver                                              subject
    prepare, call, make_inputs, truth     ──request──>  builds, calls
                                          <──answer───  a description; the bytes are in a file in memory
    time_round   ──inputs──>  fresh tensors, off the clock
                 <──ready───
                 ──go──────>  calls, on its clock        the driver's own clock runs from here
                 <──timed───                             to here
                 ──keep────>  a call that the driver chose just now

The driver imports no torch and no person's code. docs/kernel-trust.md says what all this holds against.
"""

from __future__ import annotations

import math
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import TypeAdapter, ValidationError

from fusetune.bench.kernels.case import Case, KernelSource
from fusetune.bench.kernels.compiled import CompiledFacts
from fusetune.bench.kernels.lane import LARGE_BYTES, LaneError, Prepared, TimedRound
from fusetune.bench.kernels.row import Policy, SideStatus
from fusetune.bench.kernels.shared_arrays import (
    SharedTree,
    Tree,
    UnreadableTreeError,
    memory_file,
    read_tree,
)
from fusetune.bench.machine import container_memory, oom_kill_count
from fusetune.bench.units import format_seconds
from fusetune.bench.workers import (
    ForeignMessageError,
    WorkerLostError,
    WorkerProcess,
    begin,
    keep_compiled_code_private,
)

if TYPE_CHECKING:
    from fusetune.kernels.autotune import Lookup

# A call may take so many times as long as the first ones, and at least so many seconds more.
_PATIENCE, _LEAST_LIMIT_S = 200.0, 10.0
_SLOWEST_COPY_BYTES_PER_S = 50e6
# Of the memory that is available when a lane starts.
_SHARE_OF_MEMORY = 0.5
# What a message and a process that sleeps may cost between the two clocks.
_MESSAGE_S = 3e-3
_ROUNDS_TO_JUDGE = 5
_SPEED_OF_LIES = 4.0
_KEPT_FILES = 16
# Of the inputs that a lane makes for itself. They are no secret.
PUBLIC_SEED = 0
# What every lane on a CPU starts with.
_LIBRARIES = ("fusetune.bench.kernels.subject",)

_Lane = TypeVar("_Lane", bound="ProcessLane")


@dataclass(frozen=True)
class Answer:
    """What a call came to, as the driver got it. All arrays are the driver's own.

    Args:
        results: what was returned, with an `Array` for each tensor.
        inputs: the inputs after the call.
        repeatable: a second call on the same values gave the same bits.
        overwrites: a second call returned the memory of the first one's result, which was still held.
        aliases: names of the inputs whose memory a result shares.
        extra_bytes: memory that a call took beside its results. None: not measured. Of `truth`: what is declared.
    """

    results: Tree
    inputs: Tree
    repeatable: bool = True
    overwrites: bool = False
    aliases: tuple[str, ...] = ()
    extra_bytes: int | None = None


@dataclass(frozen=True)
class KernelFacts:
    """What a kernel says of itself, as the lane of the reference reads it. See `Kernel`.

    Args:
        mutates: given, or found on the reference.
        tolerance, atomics, alignment, sized: see `Kernel`.
        elements: of the case.
        input_bytes: of the inputs of the case. 0: not known.
    """

    mutates: tuple[str, ...]
    tolerance: float | None
    atomics: bool
    alignment: int
    elements: int
    sized: bool = True
    input_bytes: int = 0


class ProcessLane:
    """A side in a process of its own: the contract is `Lane`.

    The process starts at the first `prepare`, and again at a `prepare` after its death or for another person's kernel.

    Args:
        side: `ours`, or a name of `competitors_of` the kernel.
        device: `cpu` or `cuda`.
        limit_bytes: memory that the process may take. None: half of what is available at its start.
        build_timeout_s: the longest `prepare`, with imports and compilation.
        log: takes the process's output. None: a temporary file.

    Attributes:
        limit_s: the longest answer to inputs, beside the copies. None: by the first calls.
    """

    def __init__(
        self,
        side: str,
        *,
        device: str = "cpu",
        limit_bytes: int | None = None,
        build_timeout_s: float = 180.0,
        log: Path | None = None,
    ) -> None:
        self._side = side
        self._device = device
        self._limit_bytes = limit_bytes
        self.build_timeout_s = build_timeout_s
        self.limit_s: float | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        if log is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="bench-lane-")
            log = Path(self._temporary.name, "lane.log")
        self._log = log
        self._worker: WorkerProcess | None = None
        self._source: KernelSource | None = None
        self._answer_file = -1
        self._given: dict[str, SharedTree] = {}
        self._call_s = 0.0
        self._threads = 1
        self._slack: dict[str, list[float]] = {}
        self._kept_call: int | None = None

    @property
    def side(self) -> str:
        """The side's name."""
        return self._side

    @property
    def process_id(self) -> int | None:
        """The id of the process. None while there is none."""
        return self._worker.process_id if self._worker else None

    def prepare(self, case: Case, config: Mapping[str, int] | None = None) -> Prepared:
        """Build the kernel for a case, and call it a few times on inputs that are no secret, off the clock.

        Args:
            case: what is meant.
            config: the launch config. None: the kernel's own.

        Raises:
            LaneError: it does not build, it died, or it takes too long.
        """
        mine = self._source is None or self._source == case.source
        if not mine and not (case.source.is_shipped and self._source and self._source.is_shipped):
            self._kill()
        self._source = case.source
        self._threads = case.threads
        self._slack.clear()
        self._kept_call = None
        request = {"case": case, "side": self._side, "config": None if config is None else dict(config)}
        found = self._ask("prepare", request, self.build_timeout_s)
        self._call_s = _number(found, "call_s")
        return Prepared(
            bytes_moved=int(_number(found, "bytes_moved")),
            compile_s=_number(found, "compile_s"),
            mutates=tuple(map(str, found["mutates"])),
            call_s=self._call_s,
            launches=found["launches"],
            extra_bytes=int(_number(found, "extra_bytes")),
            device_name=str(found["device_name"]),
            caches=tuple((str(name), int(size)) for name, size in found["caches"]),
            searches=tuple(found["searches"]),
            input_bytes=int(_number(found, "input_bytes")),
            compiled=_compiled(found.get("compiled")),
        )

    def select(self, config: Mapping[str, int] | None) -> None:
        """Go back to a launch config of the same case that was prepared in this process, off the clock."""
        self._ask("select", {"config": None if config is None else dict(config)}, _LEAST_LIMIT_S)

    def lookups(self) -> tuple[Lookup, ...]:
        """Return what a call of the case that was prepared looks up of tuned launch configs."""
        from fusetune.kernels.autotune import Lookup, TuningKey

        found = self._ask("lookups", {}, self.build_timeout_s)
        try:
            return tuple(
                Lookup(
                    TuningKey.from_parts(each["key"]),
                    _config(each["default"]),
                    tuple(map(_config, each["space"])),
                )
                for each in found["lookups"]
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise LaneError("forged", f"its answer has no lookups: {error}") from None

    def describe(self, source: KernelSource) -> list[dict[str, Any]]:
        """Say what kernels a source has. See `described`.

        Raises:
            LaneError: it has none that can be called, or its import ended the process or takes too long.
        """
        self._watched(self._started)
        self._source = source
        request = {"source": source, "device": self._device}
        found = self._ask("describe", request, self.build_timeout_s)
        return list(found["kernels"])

    def results(self, inputs: SharedTree | Tree, *, poison: bool = True, trusted: bool = False) -> Answer:
        """Call it on inputs that the driver made, twice, off the clock.

        Args:
            inputs: a tree of arrays, or one that is shared already.
            poison: memory that nobody wrote holds NaN.
            trusted: call once, and believe.

        Raises:
            LaneError: it failed or died, still writes when it has returned, or returned no tensors.
        """
        with _Shared(inputs) as shared:
            request = {"key": self._give(shared), "poison": poison, "trusted": trusted}
            found = self._ask("call", request, self._limit_s(4, shared))
            self._take_back(shared)
            return self._answer(found)

    def first_results(self) -> Answer | None:
        """Return what came of the first call of `prepare`, on inputs of `PUBLIC_SEED`. None: it was returned before."""
        found = self._ask("first", {}, self._limit_s(1))
        return self._answer(found) if found else None

    def time_round(
        self, inputs: SharedTree | Tree | Sequence[Any], policies: Sequence[Policy], *, keep: bool
    ) -> TimedRound:
        """Time one round: a sample by each policy, on fresh tensors.

        Args:
            inputs: a tree, or a list of `SharedTree`, which the calls of a sample take in turn.
            policies: in the order in which they are timed.
            keep: hold the results of one call, chosen when it is over.

        Raises:
            LaneError: it failed or died, or its times are not those that passed outside.
        """
        given: list[Any] = [inputs]
        if isinstance(inputs, list) and all(isinstance(each, SharedTree) for each in inputs):
            given = inputs
        shared = [each if isinstance(each, SharedTree) else SharedTree(each) for each in given]
        keys = [self._give(each) for each in shared]
        kept_policy = secrets.choice(policies) if keep else None
        calls = sum(policy.calls for policy in policies)
        limit_s = self._limit_s(2 * calls, *(shared * calls))
        mark = self._begin("time", {"keys": keys, "policies": list(policies)})
        outside_s = 0.0
        claimed: dict[str, float] = {}
        for policy in policies:
            self._expect(mark, "ready", limit_s)
            busy_s, start_s = self._busy_s(), time.perf_counter()
            self._send("go")
            seconds = self._expect(mark, "timed", limit_s)
            passed_s = time.perf_counter() - start_s
            self._judge_time(policy, seconds, passed_s, self._busy_s() - busy_s)
            outside_s += passed_s
            claimed[policy.name] = float(seconds) / policy.calls
            if policy is kept_policy:
                self._kept_call = secrets.randbelow(policy.calls)
                self._send(self._kept_call)
            else:
                self._send(None)
        found = self._expect(mark, "done", limit_s)
        self._take_back(*shared)
        return TimedRound(claimed, _number(found, "contention"), outside_s)

    @property
    def kept_call(self) -> int | None:
        """Which call of its sample was kept. Its inputs were those of `time_round` by this index, in turn."""
        return self._kept_call

    def kept_results(self) -> Answer:
        """Return the results of the timed call that was kept.

        Raises:
            LaneError: it wrote after the call had returned.
        """
        return self._answer(self._ask("kept", {}, self._limit_s(1)))

    def close(self) -> None:
        """End the process."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop()
        self._forget()
        if self._temporary is not None:
            self._temporary.cleanup()

    def __enter__(self: _Lane) -> _Lane:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _started(self) -> WorkerProcess:
        """Return the process, and start one where there is none."""
        if self._worker is not None and self._worker.process.is_alive():
            return self._worker
        self._kill()
        keep_compiled_code_private()
        limit = self._limit_bytes
        if limit is None and self._device == "cpu":
            limit = default_limit_bytes()
        # CUDA does not survive a fork, and what is imported may ask it something.
        libraries = _LIBRARIES if self._device == "cpu" else ()
        setup = (self._device, limit)
        self._worker = WorkerProcess(start_lane, setup, self._log, name="bench-lane", libraries=libraries)
        self._worker.wait_until_ready(lambda: False)
        self._answer_file = memory_file("fusetune-answers")
        self._hand_over(self._answer_file, {"key": None})
        return self._worker

    def _hand_over(self, file: int, request: dict[str, Any]) -> None:
        """Let the process have a file."""
        mark = self._begin("take", request, start=False)
        assert self._worker is not None
        self._worker.send_file(file)
        self._expect(mark, "done", _LEAST_LIMIT_S)

    def _give(self, shared: SharedTree) -> str:
        """Let the process have some inputs, unless it has them, and return their key."""
        for key, known in self._given.items():
            if known is shared:
                return key
        while len(self._given) >= _KEPT_FILES:
            oldest = next(iter(self._given))
            self._ask("drop", {"key": oldest}, _LEAST_LIMIT_S)
            del self._given[oldest]
        key = secrets.token_hex(8)
        self._watched(self._hand_over, shared.file, {"key": key, "text": shared.text})
        self._given[key] = shared
        return key

    def _take_back(self, *inputs: SharedTree) -> None:
        """Have the process forget large inputs, so that their memory is free when they are closed."""
        for key, known in list(self._given.items()):
            if known.nbytes > LARGE_BYTES and any(known is each for each in inputs):
                self._ask("drop", {"key": key}, _LEAST_LIMIT_S)
                del self._given[key]

    def _limit_s(self, calls: int, *shared: SharedTree) -> float:
        """Return how long some calls may take, by the first ones and what is copied."""
        copied = sum(each.nbytes for each in shared)
        if self.limit_s is not None:
            return self.limit_s + 4 * copied / _SLOWEST_COPY_BYTES_PER_S
        return _LEAST_LIMIT_S + _PATIENCE * self._call_s * calls + 4 * copied / _SLOWEST_COPY_BYTES_PER_S

    def _ask(self, kind: str, request: dict[str, Any], limit_s: float) -> dict[str, Any]:
        """Ask the process, and return its answer."""
        found = self._expect(self._begin(kind, request), "done", limit_s)
        return found if isinstance(found, dict) else {}

    def _begin(self, kind: str, request: dict[str, Any], *, start: bool = True) -> str:
        """Send a request, and return the mark of its answers."""
        mark = secrets.token_hex(8)
        if start and kind == "prepare":
            self._watched(self._started)
        self._send((mark, kind, request))
        return mark

    def _send(self, content: Any) -> None:
        if self._worker is None:
            raise LaneError("crashed", "its process has ended")
        self._watched(self._worker.send, content)

    def _expect(self, mark: str, kind: str, limit_s: float) -> Any:
        """Return the content of the next message. Raises LaneError where it is not of that kind."""
        found, content = self._watched(self._next, mark, limit_s)
        if found == kind:
            return content
        if found == "failed":
            status, reason = content
            if status in get_args(SideStatus):
                raise LaneError(status, str(reason))
        self._kill()
        raise LaneError("forged", f"a message came out of turn ({found} for {kind})")

    def _next(self, mark: str, limit_s: float) -> tuple[str, Any]:
        assert self._worker is not None
        try:
            return self._worker.receive(mark, limit_s, refuse=True)
        except TimeoutError:
            self._kill()
            raise LaneError("timed out", f"it did not return within {format_seconds(limit_s)}") from None

    def _watched(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Do something with the process. Its death is a LaneError."""
        log_start = self._log.stat().st_size if self._log.exists() else 0
        kills = oom_kill_count()
        try:
            return work(*arguments)
        except WorkerLostError as lost:
            worker = self._worker
            self._kill()
            assert worker is not None
            loss = worker.explain(lost, log_start, kills, oom_kill_count())
            if loss.shortage is not None:
                raise LaneError("out of memory", loss.shortage.sentence) from None
            status: SideStatus = "forged" if isinstance(lost, ForeignMessageError) else "crashed"
            raise LaneError(status, loss.reason) from None

    def _kill(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()
        self._forget()

    def _forget(self) -> None:
        """Let go of what the process had."""
        self._given.clear()
        if self._answer_file >= 0:
            os.close(self._answer_file)
            self._answer_file = -1

    def _answer(self, found: dict[str, Any]) -> Answer:
        tree = self._tree(found)
        extra = found.get("extra_bytes")
        return Answer(
            tree["results"],
            tree["inputs"],
            bool(found.get("repeatable", True)),
            bool(found.get("overwrites", False)),
            tuple(map(str, found.get("aliases", ()))),
            None if extra is None else int(extra),
        )

    def _tree(self, found: dict[str, Any]) -> Tree:
        """Read what an answer describes."""
        try:
            tree = read_tree(str(found["text"]), self._answer_file)
            os.ftruncate(self._answer_file, 0)
            return tree
        except (UnreadableTreeError, KeyError) as error:
            self._kill()
            raise LaneError("forged", f"its results are no arrays: {error}") from None

    def _busy_s(self) -> float:
        """Return the processor seconds of the process, or the clock where these are not known or not the work."""
        busy_s = self._worker.busy_s() if self._worker is not None and self._device == "cpu" else None
        return time.perf_counter() if busy_s is None else busy_s

    def _judge_time(self, policy: Policy, seconds: Any, passed_s: float, busy_s: float) -> None:
        """Refuse a time that is not the time that passed outside.

        Args:
            policy: what is said to be on the clock.
            seconds: what the process says.
            passed_s: by the driver's clock, with the message, and a call that is not timed.
            busy_s: processor time of the process meanwhile. A busy machine makes it no longer.
        """
        good = isinstance(seconds, float) and math.isfinite(seconds) and seconds > 0
        if not good or seconds > passed_s:
            self._kill()
            raise LaneError("forged", f"it says {seconds} s, and {passed_s:.3g} s passed outside")
        if policy.clock != "wall":
            return
        slack = self._slack.setdefault(policy.name, [])
        slack.append(busy_s / self._threads - _MESSAGE_S - _SPEED_OF_LIES * seconds)
        if len(slack) >= _ROUNDS_TO_JUDGE and min(slack[-_ROUNDS_TO_JUDGE:]) > 0:
            self._kill()
            told = f"it says {format_seconds(seconds)}, and worked for {format_seconds(busy_s)}"
            raise LaneError("forged", f"{told}, as in each of the last {_ROUNDS_TO_JUDGE} rounds")


class ReferenceLane(ProcessLane):
    """The lane of the reference, which is the side `eager` too. Secret inputs and what is right come from here.

    Args:
        device, limit_bytes, build_timeout_s, log: see `ProcessLane`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("eager", **options)

    def facts(self) -> KernelFacts:
        """Return what the kernel of the case that was prepared says of itself."""
        found = self._ask("facts", {}, self.build_timeout_s)
        return KernelFacts(
            tuple(map(str, found["mutates"])),
            found["tolerance"],
            bool(found["atomics"]),
            int(found["alignment"]),
            int(found["elements"]),
            bool(found["sized"]),
            int(found["input_bytes"]),
        )

    def make_inputs(self, seed: int, elements: int | None = None) -> Tree:
        """Return inputs for the case that was prepared, made by its `make_inputs`.

        Args:
            seed: below 2**63. The driver's secret.
            elements: the size. None: that of the case.
        """
        found = self._ask("make_inputs", {"seed": seed, "elements": elements}, self.build_timeout_s)
        return self._tree(found)

    def truth(self, inputs: SharedTree | Tree) -> Answer:
        """Return results and inputs afterwards by the reference on the same values in float64.

        Ask for it when the kernel has answered: so what is right does not exist while it could look for it.
        """
        with _Shared(inputs) as shared:
            request = {"key": self._give(shared)}
            found = self._ask("truth", request, self.build_timeout_s + self._limit_s(4, shared))
            self._take_back(shared)
            tree = self._tree(found)
            declared = int(_number(found, "scratch_bytes"))
            return Answer(tree["results"], tree["inputs"], extra_bytes=declared)


class _Shared:
    """Shares a tree for a while, unless it is shared already."""

    def __init__(self, inputs: SharedTree | Tree) -> None:
        self._inputs = inputs

    def __enter__(self) -> SharedTree:
        return self._inputs if isinstance(self._inputs, SharedTree) else SharedTree(self._inputs)

    def __exit__(self, *error: object) -> None:
        pass


def start_lane(connection: Any, leash: Any, setup: tuple[str, int | None], log: Path) -> None:
    """Serve a lane. The main function of a started process, see `workers.worker.begin`."""
    begin(connection, leash, log)
    # torch is loaded behind the guard, which needs none.
    from fusetune.bench.kernels.subject import serve

    serve(connection, *setup)


def default_limit_bytes() -> int | None:
    """Return half of the memory that is available now. None where the system does not say."""
    available = available_bytes()
    return None if available is None else int(_SHARE_OF_MEMORY * available)


def available_bytes() -> int | None:
    """Return the memory that can be taken now, of the machine and of its container. None where the system is silent."""
    found = []
    with suppress(OSError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    container = container_memory()
    if container is not None:
        found.append(container.available_bytes)
    return min(found, default=None)


def _config(found: Any) -> dict[str, int]:
    """Return a launch config of an answer."""
    return {str(name): int(value) for name, value in found.items()}


def _compiled(found: Any) -> CompiledFacts | None:
    """Return what a lane says of the machine code, where it is well formed."""
    try:
        return TypeAdapter(CompiledFacts).validate_python(found)
    except ValidationError:
        return None


def _number(found: Mapping[str, Any], name: str) -> float:
    """Return a number of an answer. Anything else was forged."""
    value = found.get(name)
    if isinstance(value, (int, float)) and math.isfinite(value):
        return value
    raise LaneError("forged", f"its answer has no {name}")
