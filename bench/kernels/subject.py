"""What runs inside the process of a lane: it builds a side, calls it, and tells what it saw.

The other side is `process`. Nothing here holds a seed or a result that is right, so nothing is here to be read. All
that counts is taken hold of before a person's code is imported: functions of torch, of Python, the clock, and this
suite's own. Afterwards the suite's modules are forgotten. Whoever patches them patches copies that nobody uses.

A request is a mark, its kind and a dict. An answer has the mark, `done` and a dict, or `failed` with status and reason.
Before each timed call the process says `ready` and waits for the word to go.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import os
import pickle
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fusetune.bench.errors import InputError
from fusetune.bench.import_paths import append_folders
from fusetune.bench.kernels.case import Case, KernelSource
from fusetune.bench.kernels.competitors import build_competitor
from fusetune.bench.kernels.compiled import CompiledFacts, compiled_kernels, facts_of
from fusetune.bench.kernels.detection import InputFacts, bytes_moved, input_facts
from fusetune.bench.kernels.inspection import described
from fusetune.bench.kernels.lane import LARGE_BYTES, LaneError
from fusetune.bench.kernels.loading import load_kernel
from fusetune.bench.kernels.model_shapes import kernel_on
from fusetune.bench.kernels.row import Policy
from fusetune.bench.kernels.shared_arrays import (
    Opaque,
    Tree,
    TreeReader,
    TreeWriter,
    parsed,
    read_into,
    write_from,
)
from fusetune.bench.kernels.signatures import takes_config
from fusetune.bench.kernels.tampering import Untouched
from fusetune.bench.workers import (
    MemoryBudget,
    Message,
    classify,
    describe_exception,
    encode,
    limited_memory,
    measure_footprint,
    next_job,
)
from fusetune.errors import StateError
from fusetune.kernels import Kernel, searches_of_triton, timed_launches
from fusetune.kernels.autotune import forced_config, lookups_of
from fusetune.tuner.measure import (
    CacheFlush,
    CallClock,
    ProcessorWatch,
    Sample,
    caches_of,
    give_back_freed_memory,
    keep_freed_memory,
)

# Functions that a kernel could replace on their modules and classes. Those kept here stay what they are.
_clock_ns = time.perf_counter_ns
_sleep = time.sleep
_live_threads, _main_thread = threading.enumerate, threading.main_thread
_Tensor, _Parameter = torch.Tensor, torch.nn.Parameter
_empty, _clone, _equal, _as_strided = torch.empty, torch.clone, torch.equal, torch.as_strided
_from_numpy = torch.from_numpy
_detach, _numpy, _view, _to = _Tensor.detach, _Tensor.numpy, _Tensor.view, _Tensor.to
_Clock, _Sample, _timed_launches = CallClock, Sample, timed_launches
_contiguous, _reshape = _Tensor.contiguous, _Tensor.reshape
_data_ptr, _untyped_storage, _set = _Tensor.data_ptr, _Tensor.untyped_storage, _Tensor.set_
_copy_ = _Tensor.copy_
_grad = torch.autograd.grad
_write, _pack, _getpid, _truncate = os.write, struct.pack, os.getpid, os.ftruncate
_random, _give_back = os.urandom, give_back_freed_memory

# How long a kernel that works on after its return is waited for: at least, and at most.
_PAUSE_S = (0.02, 0.5)
# A thread of a kernel's own that has more than this share of a processor meanwhile is not one that waits for work.
_BUSY_SHARE = 0.1
_HEADER = "!i"
_OWN_ROOMS = ("fusetune.bench", "fusetune.tuner")
_PUBLIC_SEED = 0
_OURS = "ours"
_SPACER_BYTES = 1 << 14
_ALIGNMENT = 64
# On a GPU the device waits about as long as the host takes for a call. It never takes longer than this.
_LONGEST_HEAD_START_S = 2e-3


def serve(connection: Connection, device: str, limit_bytes: int | None) -> None:
    """Answer the requests that arrive on `connection` until None arrives."""
    answers = _Answers(connection.fileno())
    os.register_at_fork(after_in_child=connection.close)
    keep_freed_memory()
    _lock_progress_bars()
    source = "the benchmark" if limit_bytes else None
    memory = MemoryBudget(device, limit_bytes, source, measure_footprint(device))
    answers.send("", "ready", (_getpid(), memory))
    subject = _Subject(connection, answers, memory)
    with limited_memory(memory):
        while (job := next_job(connection)) is not None:
            subject.answer(*job)


def _lock_progress_bars() -> None:
    """Let tqdm, by which torch.compile draws, lock threads alone. A lock of processes would outlive this one."""
    with contextlib.suppress(ImportError):
        import_module("tqdm").tqdm.set_lock(threading.RLock())


class _Answers:
    """Writes messages in multiprocessing's format, by functions that nobody can replace."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._process = _getpid()

    def send(self, mark: str, kind: str, content: Any) -> None:
        """Send a message. A fork of the process ends here."""
        if _getpid() != self._process:
            os._exit(1)
        data = encode(Message(mark, kind, content))
        data = _pack(_HEADER, len(data)) + data
        while data:
            data = data[_write(self._descriptor, data) :]


@dataclass
class _Side:
    """One side of a case, built."""

    kernel: Kernel
    call: Callable[..., Any]
    elements: int
    dtype: torch.dtype
    device: torch.device
    is_backward: bool
    # Inputs that are no secret. None: they are large, and made anew when they are asked for.
    kept_sample: dict[str, Any] | None
    call_s: float = 0.0
    config: Mapping[str, int] | None = None
    facts: CompiledFacts | None = None

    @property
    def sample(self) -> dict[str, Any]:
        """Inputs that are no secret, the same ones in each process. No call may change them."""
        if self.kept_sample is not None:
            return self.kept_sample
        make = _backward_inputs if self.is_backward else _forward_inputs
        return make(self.kernel, self.elements, self.dtype, self.device, _PUBLIC_SEED)


@dataclass
class _Kept:
    """The results of a call, and copies of them that were made at once."""

    results: Any
    inputs: Any
    copies: list[Any]


@dataclass
class _Subject:
    """Answers requests, one at a time."""

    connection: Connection
    answers: _Answers
    memory: MemoryBudget
    files: dict[str, tuple[int, str]] = field(default_factory=dict)
    answer_file: int = -1
    side: _Side | None = None
    case: str = ""
    sides: dict[Any, _Side] = field(default_factory=dict)
    forced: ExitStack = field(default_factory=ExitStack)
    kept: _Kept | None = None
    flush: CacheFlush | None = None
    clocks: dict[str, CallClock] = field(default_factory=dict)
    previous: list[Any] = field(default_factory=list)
    # What came of the very first call, until it is asked for.
    first: _Kept | None = None
    # The tensors of an earlier call, in order. They take other values.
    used: list[Any] = field(default_factory=list)
    untouched: Untouched = field(default_factory=Untouched)
    # Inputs above `LARGE_BYTES`: nothing is kept from one request to the next but what is asked for.
    is_large: bool = False
    input_bytes: int = 0
    mark: str = ""

    def answer(self, mark: str, kind: str, request: dict[str, Any]) -> None:
        """Answer one request. Whatever is raised is an answer."""
        self.mark = mark
        try:
            content = getattr(self, f"on_{kind}")(**request)
            change = self.untouched.change()
            if change is not None:
                raise LaneError("forged", f"it {change}")
            if self.is_large:
                self.used.clear()
                _give_back()
        except LaneError as error:
            self.answers.send(mark, "failed", (error.status, error.reason))
        except BaseException as error:
            shortage = classify(error, self.memory) if isinstance(error, Exception) else None
            if shortage is not None:
                self.answers.send(mark, "failed", ("out of memory", shortage.sentence))
            else:
                status = "crashed" if kind == "time" else "does not build"
                self.answers.send(mark, "failed", (status, describe_exception(error)))
        else:
            self.answers.send(mark, "done", content)

    def on_take(self, key: str | None, text: str = "") -> None:
        """Take a file: that of answers, or one of inputs."""
        file = recv_handle(self.connection)
        if key is None:
            self.answer_file = file
        else:
            self.files[key] = (file, text)

    def on_drop(self, key: str) -> None:
        """Forget the file of some inputs."""
        os.close(self.files.pop(key)[0])

    def on_describe(self, source: KernelSource, device: str) -> dict[str, Any]:
        """Say what kernels a source has, before any is built."""
        append_folders(*source.import_paths)
        if not source.is_shipped:
            _forget_own_modules()
        with _as_lane_error():
            return {"kernels": described(source, device)}

    def on_prepare(self, case: Case, side: str, config: Mapping[str, int] | None) -> dict[str, Any]:
        """Build a side, and call it on inputs that are no secret."""
        # By its text: a person's code imports the suite anew, so that the next case is of another class.
        known = next(iter(self.sides.values()), None) if repr(case) == self.case else None
        if known is None:
            self.sides.clear()
        self.side = self.kept = self.first = None
        self.case = repr(case)
        self.previous.clear()
        self.used.clear()
        self.clocks.clear()
        append_folders(*case.source.import_paths)
        if case.device == "cpu":
            torch.set_num_threads(case.threads)
        self.untouched.take_settings()
        if known is not None:
            kernel, elements = known.kernel, known.elements
        else:
            if not case.source.is_shipped:
                _forget_own_modules()
            with _as_lane_error():
                kernel, elements = kernel_on(load_kernel(case.source), case.shape)
        device, dtype = torch.device(case.device), getattr(torch, case.dtype)
        call = _function(kernel, side, config)
        backward = case.direction == "backward"
        new = _Side(kernel, call, elements, dtype, device, backward, None, config=config)
        inputs = new.sample if known is None or known.kept_sample is None else known.kept_sample
        new.kept_sample = inputs
        self.input_bytes = _storage_bytes(inputs)
        self.is_large = self.input_bytes > LARGE_BYTES
        self._force(new)
        compiled = compiled_kernels()
        start_ns = _clock_ns()
        first: Any = _ready(new, _copies(inputs))
        with searches_of_triton() as searches:
            result = first()
            _wait(device)
        compile_s = (_clock_ns() - start_ns) * 1e-9
        changed = _changed(inputs, first.inputs)
        if side == _OURS:  # nobody asks for that of the others
            self.first = _kept(result, first.inputs)
        moved_bytes = _bytes_moved(new, result)
        first = result = None  # which makes room
        new.facts = facts_of(kernel for key, kernel in compiled_kernels().items() if key not in compiled)
        calls_s = []
        ready: Any = None
        for _ in range(3):
            ready = None
            ready = _ready(new, _copies(inputs))
            start_ns = _clock_ns()
            ready()
            _wait(device)
            calls_s.append((_clock_ns() - start_ns) * 1e-9)
            if calls_s[-1] > 1.0:
                break
        ready = None
        new.call_s = min(calls_s)
        self.side = self.sides[_config_key(config)] = new
        launches = _launches(_ready(new, _copies(inputs)), device)
        extra_bytes = _extra_bytes(_ready(new, _copies(inputs)), device)
        if self.is_large:
            new.kept_sample = None
            inputs = {}
        # What stays is not looked at any more when garbage is collected before a timed call.
        gc.collect()
        gc.freeze()
        return {
            "bytes_moved": moved_bytes,
            "input_bytes": self.input_bytes,
            "compile_s": compile_s,
            "mutates": sorted(changed),
            "call_s": new.call_s,
            "launches": launches,
            "extra_bytes": extra_bytes,
            "compiled": vars(new.facts),
            "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else "",
            "searches": [search.as_row() for search in searches],
            "caches": [(level.name, level.size_bytes) for level in caches_of(device)],
        }

    def on_select(self, config: Mapping[str, int] | None) -> None:
        """Go back to a config of the same case that was prepared."""
        key = _config_key(config)
        if key not in self.sides:
            raise LaneError("crashed", "a config was not prepared")
        if self.side is not self.sides[key]:
            self.side = self.sides[key]
            self._force(self.side)

    def on_lookups(self) -> dict[str, Any]:
        """Say what a call looks up of tuned configs: keys, and the configs to choose from."""
        side = self._built()
        inputs = _copies(side.sample["inputs"] if side.is_backward else side.sample)
        found = [
            {
                "key": lookup.key.parts(),
                "default": dict(lookup.default),
                "space": [dict(config) for config in lookup.space],
            }
            for lookup in lookups_of(side.kernel, inputs)
        ]
        return {"lookups": found}

    def _force(self, side: _Side) -> None:
        """Have launches of fusetune's own kernels take a side's config from now on."""
        self.forced.close()
        if side.config is not None:
            self.forced.enter_context(forced_config(side.config))

    def on_first(self) -> dict[str, Any]:
        """Write what came of the first call after building, once."""
        first, self.first = self.first, None
        return {} if first is None else {"text": self._write_kept(first), "aliases": _aliases(first)}

    def on_facts(self) -> dict[str, Any]:
        """Say what the kernel says of itself. Asked of the lane of the reference."""
        side = self._built()
        kernel = side.kernel
        return {
            "mutates": [] if side.is_backward else list(_facts(side).mutates),
            "sized": bool(kernel.sized),
            "tolerance": kernel.tolerance,
            "atomics": bool(kernel.atomics),
            "alignment": int(kernel.alignment),
            "elements": side.elements,
            "input_bytes": self.input_bytes,
        }

    def on_make_inputs(self, seed: int, elements: int | None) -> dict[str, Any]:
        """Make inputs by a seed that the driver chose. Asked of the lane of the reference alone."""
        side = self._built()
        make = _backward_inputs if side.is_backward else _forward_inputs
        tree = make(side.kernel, elements or side.elements, side.dtype, side.device, seed)
        return {"text": self._write(tree, windows=True, closed=_closed)}

    def on_truth(self, key: str) -> dict[str, Any]:
        """Compute what is right, in float64. Asked of the lane of the reference alone."""
        side = self._built()
        given = self._inputs(key)
        declared = side.kernel.scratch_bytes
        scratch_bytes = 0 if declared is None or side.is_backward else int(declared(given))
        inputs = _widened(given)
        del given
        call = _ready(_Side(**{**vars(side), "call": side.kernel.reference}), inputs)
        results = call()
        _wait(side.device)
        return {
            "text": self._write({"results": results, "inputs": call.inputs}),
            "scratch_bytes": scratch_bytes,
        }

    def on_call(self, key: str, poison: bool, trusted: bool) -> dict[str, Any]:
        """Call the side on inputs, once or twice, and write what came of it."""
        side = self._built()
        with _poisoned(poison):
            first = self._observed(side, key, reuse=not trusted)
            found = {"repeatable": True, "overwrites": False, "aliases": _aliases(first), "extra_bytes": None}
            if not trusted:
                second = self._observed(side, key)
                found["repeatable"] = all(map(_same_bits, first.copies, second.copies))
                found["overwrites"] = bool(_spans(first.results) & _spans(second.results))
                del second  # which makes room
                extra = _ready(side, self._inputs(key))
                found["extra_bytes"] = _extra_bytes(extra, side.device)
                found["result_bytes"] = sum(tensor.nbytes for tensor in _tensors(first.results))
        return {**found, "text": self._write_kept(first)}

    def on_time(self, keys: list[str], policies: list[Policy]) -> dict[str, Any]:
        """Time one sample by each policy. The driver may keep one of the calls, when it is over."""
        side = self._built()
        self.kept = None
        latencies: dict[str, float] = {}
        watch, missing = ProcessorWatch(), [0.0]
        # Large tensors are not kept from round to round. Then this moves the next ones to other addresses.
        spacer = _empty(_SPACER_BYTES * (1 + _random(1)[0]), dtype=torch.uint8) if self.is_large else None
        for policy in policies:
            # The lead call has the inputs that follow those of the timed ones.
            calls = [_ready(side, self._inputs(keys[i % len(keys)])) for i in range(policy.calls + 1)]
            lead = calls.pop()
            clock = self._clock(policy, side)
            gc.collect()
            gc.disable()
            watch.start()
            try:
                (timed,) = clock.time([_Sample(lead, calls)], before_each=self._wait_for_the_word)
            finally:
                missing.append(watch.stop().missing or 0.0)
                gc.enable()
            latencies[policy.name] = timed.seconds
            self.answers.send(self.mark, "timed", timed.seconds * len(calls))
            kept = self.connection.recv()
            if kept is not None:
                self.kept = _kept(timed.results[kept], calls[kept].inputs)
            # So that the next tensors have other addresses.
            self.previous[:] = [] if self.is_large else [lead, calls, timed]
            del lead, calls, timed
        del spacer
        return {"latencies_s": latencies, "contention": max(missing)}

    def on_kept(self) -> dict[str, Any]:
        """Write the results of the timed call that was kept."""
        kept = self.kept
        if kept is None:
            raise LaneError("crashed", "no timed call was kept")
        self._refuse_late(kept, 0.0)
        if self.is_large:
            self.kept = None
        return {"text": self._write_kept(kept), "aliases": _aliases(kept)}

    def _clock(self, policy: Policy, side: _Side) -> CallClock:
        """Return what times by a policy. It knows what earlier samples needed."""
        if policy.cache == "cold" and self.flush is None:
            self.flush = CacheFlush(side.device)
        if policy.name not in self.clocks:
            self.clocks[policy.name] = _Clock(
                policy.clock,
                side.device,
                flush=self.flush if policy.cache == "cold" else None,
                launch_times=_timed_launches,
                host_s=min(side.call_s, _LONGEST_HEAD_START_S),
            )
        return self.clocks[policy.name]

    def _wait_for_the_word(self) -> None:
        self.answers.send(self.mark, "ready", None)
        self.connection.recv()

    def _built(self) -> _Side:
        if self.side is None:
            raise LaneError("crashed", "nothing was prepared")
        return self.side

    def _inputs(self, key: str, *, reuse: bool = False) -> Any:
        """Return tensors with the values of some inputs.

        Args:
            key: of the inputs.
            reuse: take the tensors of the last such call where they fit, so that what a kernel knows of an object or
                of an address is out of date. Otherwise they are fresh.
        """
        file, text = self.files[key]
        node, extents = parsed(text)
        device = self._built().device
        storages: dict[int, Any] = {}
        used: Iterator[Any] = iter(self.used if reuse else ())
        made: list[Any] = []

        def make(dtype: str, shape: Any, strides: Any, offset: int, index: int) -> Any:
            tensor: Any = next(used, None)
            layout = getattr(torch, dtype), tuple(shape), tuple(strides), offset, extents[index][1]
            fits = tensor is not None and _layout(tensor) == layout
            if index not in storages:
                storages[index] = _filled(file, *extents[index], device, tensor if fits else None)
            if not fits or _data_ptr(tensor) != storages[index].data_ptr() + offset * tensor.element_size():
                tensor = _set(
                    _empty(0, dtype=layout[0], device=device), storages[index], offset, shape, strides
                )
            made.append(tensor)
            return tensor

        tree = TreeReader(make, _open).tree(node)
        if reuse and not self._built().is_backward:
            self.used[:] = made
        return tree

    def _observed(self, side: _Side, key: str, *, reuse: bool = False) -> _Kept:
        """Call once, and copy the results at once. They must not change any more."""
        call = _ready(side, self._inputs(key, reuse=reuse))
        result = call()
        _wait(side.device)
        kept = _kept(result, call.inputs)
        pause_s = min(max(_PAUSE_S[0], 2 * side.call_s), _PAUSE_S[1])
        busy = _BusyThreads()
        self._refuse_late(kept, pause_s)
        name = busy.name(pause_s)
        if name is not None:
            raise LaneError("late", f"a thread that it started works when it has returned ({name})")
        return kept

    def _refuse_late(self, kept: _Kept, pause_s: float) -> None:
        """Raise where results or inputs changed after the call had returned."""
        if pause_s:
            _sleep(pause_s)
        _wait(self._built().device)
        now = [*_tensors(kept.results), *_tensors(kept.inputs)]
        if not all(map(_same_bits, now, kept.copies)):
            raise LaneError("late", "it still wrote when it had returned")

    def _write_kept(self, kept: _Kept) -> str:
        """Write the copies of a call's results, and the storages of its inputs as they were."""
        copies = iter(kept.copies)
        results = _rebuilt(kept.results, copies)
        return self._write({"results": results, "inputs": kept.inputs}, windows=True)

    def _write(
        self, tree: Tree, *, windows: bool = False, closed: Callable[[Any], Opaque] | None = None
    ) -> str:
        """Write a tree into the file of answers, and return its description.

        Args:
            tree: of tensors.
            windows: write storages whole. Else each tensor's own elements.
            closed: what becomes of values that are not plain. None: their names alone are told.
        """

        def window_of(value: Any) -> Any:
            if not isinstance(value, _Tensor):
                return None
            dtype = str(value.dtype).removeprefix("torch.")
            if windows:
                storage = _untyped_storage(value)
                key = storage.data_ptr() or id(value)
                offset, strides = value.storage_offset(), value.stride()
                return dtype, value.shape, strides, offset, key, storage.nbytes(), (storage, value.device)
            whole = _contiguous(_detach(value))
            return dtype, whole.shape, whole.stride(), 0, id(value), whole.nbytes, whole

        writer = TreeWriter(window_of, closed or (lambda value: Opaque(type(value).__name__, "")))
        text = writer.text(tree)
        _truncate(self.answer_file, 0)
        _truncate(self.answer_file, writer.total_bytes)
        for place, storage in writer.placed():
            if isinstance(storage, tuple):
                storage = _set(_empty(0, dtype=torch.uint8, device=storage[1]), storage[0])
            if storage.numel():
                data = _view(_reshape(storage, (-1,)), torch.uint8)
                write_from(self.answer_file, place, _numpy(_to(data, "cpu")))
        return text


class _Ready:
    """A call whose arguments are made."""

    def __init__(self, call: Callable[[], Any], inputs: Any) -> None:
        self._call = call
        self.inputs = inputs

    def __call__(self) -> Any:
        return self._call()


def _ready(side: _Side, inputs: Any) -> _Ready:
    """Do what belongs off the clock, and return the call."""
    call = side.call
    if not side.is_backward:
        return _Ready(partial(call, **inputs), inputs)
    given, gradients = inputs["inputs"], inputs["gradients"]
    leaves = [tensor for tensor in _tensors(given) if tensor.is_floating_point()]
    for leaf in leaves:
        leaf.requires_grad_()
    with torch.enable_grad():
        outputs = [tensor for tensor in _tensors(call(**given)) if tensor.is_floating_point()]
    if len(outputs) != len(gradients) or not any(output.requires_grad for output in outputs):
        raise LaneError("does not build", "its results have no gradient")
    pairs = [
        (output, slope) for output, slope in zip(outputs, gradients, strict=True) if output.requires_grad
    ]
    ends, slopes = ([pair[i] for pair in pairs] for i in (0, 1))
    return _Ready(lambda: list(_grad(ends, leaves, slopes, allow_unused=True)), inputs)


def _config_key(config: Mapping[str, int] | None) -> Any:
    return None if config is None else frozenset(config.items())


def _function(kernel: Kernel, side: str, config: Mapping[str, int] | None) -> Callable[..., Any]:
    """Return what a side calls."""
    if side != "ours":
        return build_competitor(kernel, side)
    fused = kernel.fused
    chosen = config or (kernel.default or kernel.configs[0] if kernel.configs else None)
    if chosen is not None and takes_config(fused):
        given = dict(chosen)
        return lambda **inputs: fused(**inputs, config=given)
    return fused


def _launches(call: _Ready, device: torch.device) -> int | None:
    """Count the kernels that Triton launches in a call. None: not known."""
    if device.type != "cpu":
        return None
    try:
        with _timed_launches() as seconds:
            call()
    except (StateError, OSError):
        return None
    return len(seconds)


@contextmanager
def _as_lane_error() -> Iterator[None]:
    """Let what is wrong in a person's file be said as it is."""
    try:
        yield
    except InputError as error:
        raise LaneError("does not build", str(error)) from error


def _forget_own_modules() -> None:
    """Let a person's code import the suite anew, so that what runs here is out of its reach."""
    for name in list(sys.modules):
        if name.startswith(_OWN_ROOMS):
            del sys.modules[name]


def _forward_inputs(kernel: Kernel, elements: int, dtype: Any, device: Any, seed: int) -> dict[str, Any]:
    return kernel.make_inputs(elements, dtype, device, seed)


def _backward_inputs(kernel: Kernel, elements: int, dtype: Any, device: Any, seed: int) -> dict[str, Any]:
    """Make inputs, and a gradient for each floating result of the reference."""
    inputs = kernel.make_inputs(elements, dtype, device, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        outputs = [each for each in _tensors(kernel.reference(**_copies(inputs))) if each.is_floating_point()]
    gradients = [torch.randn(each.shape, generator=generator).to(each.device, each.dtype) for each in outputs]
    return {"inputs": inputs, "gradients": gradients}


def _tensors(tree: Any) -> Iterator[Any]:
    """Yield the tensors of a tree in order."""
    if isinstance(tree, _Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from _tensors(value)
    elif isinstance(tree, (list, tuple)):
        for value in tree:
            yield from _tensors(value)


def _result_tensors(tree: Any) -> None:
    """Raise unless a result is made of tensors proper, on which nothing is computed later."""
    if tree is None or isinstance(tree, (bool, int, float, complex, str)):
        return
    if isinstance(tree, Mapping):
        tree = list(tree.values())
    if isinstance(tree, (list, tuple)):
        for value in tree:
            _result_tensors(value)
    elif type(tree) not in (_Tensor, _Parameter):
        raise LaneError("not a tensor", f"it returned a {type(tree).__name__}, not a torch.Tensor")
    elif tree.layout is not torch.strided or tree.is_neg() or tree.is_conj():
        raise LaneError("not a tensor", "it returned a tensor whose values are not in its memory")


def _kept(result: Any, inputs: Any) -> _Kept:
    """Copy what a call returned and wrote, at once."""
    _result_tensors(result)
    copies = [_copy(tensor) for tensor in (*_tensors(result), *_tensors(inputs))]
    return _Kept(result, inputs, copies)


def _copy(tensor: Any) -> Any:
    return _contiguous(_clone(_detach(tensor)))


def _same_bits(one: Any, other: Any) -> bool:
    """Whether two tensors have the same bits, NaN or not."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(_equal(_bytes(one), _bytes(other)))


def _bytes(tensor: Any) -> Any:
    return _view(_reshape(_contiguous(_detach(tensor)), (-1,)), torch.uint8)


def _copies(tree: Any) -> Any:
    """Copy the tensors of a tree, with their layout and what they share."""
    storages: dict[int, Any] = {}

    def copy(tensor: Any) -> Any:
        storage = _untyped_storage(tensor)
        key = storage.data_ptr() or id(tensor)
        if key not in storages:
            storages[key] = storage.clone()
        new = _empty(0, dtype=tensor.dtype, device=tensor.device)
        return _set(new, storages[key], tensor.storage_offset(), tensor.shape, tensor.stride())

    return _changed_tensors(tree, copy)


def _widened(tree: Any) -> Any:
    """Return a tree with all numbers in double precision."""

    def widen(tensor: Any) -> Any:
        if tensor.is_floating_point():
            return _to(tensor, torch.float64, copy=True)
        return _to(tensor, torch.complex128, copy=True) if tensor.is_complex() else _clone(tensor)

    return _changed_tensors(tree, widen)


def _rebuilt(tree: Any, copies: Iterator[Any]) -> Any:
    return _changed_tensors(tree, lambda _: next(copies))


def _changed_tensors(tree: Any, change: Callable[[Any], Any]) -> Any:
    """Return a tree with each tensor changed."""
    if isinstance(tree, _Tensor):
        return change(tree)
    if isinstance(tree, Mapping):
        return {key: _changed_tensors(value, change) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)([_changed_tensors(value, change) for value in tree])
    return tree


def _changed(before: Any, after: Any) -> set[str]:
    """Name the inputs that have other bits than before."""
    return {
        name for name in before if not all(map(_same_bits, _tensors(before[name]), _tensors(after[name])))
    }


def _spans(tree: Any) -> set[int]:
    """Return the storages of a result that has elements."""
    return {_untyped_storage(tensor).data_ptr() for tensor in _tensors(tree) if tensor.numel()}


def _storage_bytes(tree: Any) -> int:
    """Return the bytes of all storages of a tree."""
    sizes = {id(tensor): _untyped_storage(tensor) for tensor in _tensors(tree)}
    return sum({each.data_ptr() or key: each.nbytes() for key, each in sizes.items()}.values())


def _aliases(kept: _Kept) -> list[str]:
    """Name the inputs whose memory a result shares."""
    spans = _spans(kept.results)
    if not isinstance(kept.inputs, Mapping):
        return []
    return [name for name, value in kept.inputs.items() if spans & _spans(value)]


def _filled(file: int, begin: int, size: int, device: torch.device, used: Any = None) -> Any:
    """Return a storage with bytes of a file: that of a tensor that was used before, or a new one."""
    if used is None or device.type != "cpu":
        data = _empty(size, dtype=torch.uint8)
    else:
        data = _set(_empty(0, dtype=torch.uint8), _untyped_storage(used))
    if size:
        read_into(file, begin, _numpy(data))
    if used is not None and device.type != "cpu":
        _copy_(_set(_empty(0, dtype=torch.uint8, device=device), _untyped_storage(used)), data)
        return _untyped_storage(used)
    return _untyped_storage(_to(data, device))


def _layout(tensor: Any) -> tuple[Any, ...]:
    """Return what two tensors must have in common for one to take the other's values."""
    storage_bytes = _untyped_storage(tensor).nbytes()
    return tensor.dtype, tuple(tensor.shape), tensor.stride(), tensor.storage_offset(), storage_bytes


class _BusyThreads:
    """Looks at what the threads that Python knows of do while this one sleeps. Those that wait are no matter."""

    def __init__(self) -> None:
        self._before_s = self._seconds()

    def name(self, passed_s: float) -> str | None:
        """Name a thread that had more than a tenth of a processor since."""
        for thread, seconds in self._seconds().items():
            if seconds - self._before_s.get(thread, 0.0) > _BUSY_SHARE * passed_s:
                return str(thread.name)
        return None

    def _seconds(self) -> dict[Any, float]:
        """Return each thread's seconds on a processor."""
        found = {}
        for thread in _live_threads():
            if thread.native_id is not None and thread is not _main_thread():
                with contextlib.suppress(OSError, ValueError):
                    text = Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text()
                    found[thread] = int(text.split()[0]) * 1e-9
        return found


def _open(opaque: Opaque) -> Any:
    """Open what a lane closed."""
    return pickle.loads(base64.b64decode(opaque.text))


def _closed(value: Any) -> Opaque:
    """Close what is no tensor and no plain value."""
    try:
        data = pickle.dumps(value)
    except Exception as error:  # how an object of a person's is pickled
        kind = type(value).__name__
        raise LaneError("does not build", f"an input is a {kind}, which cannot be pickled: {error}") from None
    return Opaque(type(value).__name__, base64.b64encode(data).decode())


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        _synchronize(device)


_synchronize = torch.cuda.synchronize


@contextmanager
def _poisoned(wanted: bool) -> Iterator[None]:
    """Let memory that nobody wrote hold NaN, or the largest integers."""
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    filling: Any = torch.utils.deterministic
    fills = filling.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    filling.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warns)
        filling.fill_uninitialized_memory = fills


class _Allocations(TorchDispatchMode):
    """Adds up the memory of new tensors."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total_bytes = 0
        # Of the last tensor at each address. What is freed makes room for the next.
        self.sizes: dict[int, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {_untyped_storage(tensor).data_ptr() for tensor in _tensors([args, kwargs or {}])}
        result = function(*args, **(kwargs or {}))
        for tensor in _tensors([result]):
            storage = _untyped_storage(tensor)
            if storage.data_ptr() not in known:
                self.total_bytes += storage.nbytes()
                self.sizes[storage.data_ptr()] = storage.nbytes()
        return result


def _extra_bytes(call: _Ready, device: torch.device) -> int:
    """Return the memory that a call takes beside its results."""
    before = _allocated(device)
    with _Allocations() as found:
        result = call()
    _wait(device)
    own = _spans(result)
    if device.type == "cuda":
        results = {_untyped_storage(t).data_ptr(): _untyped_storage(t).nbytes() for t in _tensors(result)}
        return max(0, _allocated(device) - before - int(sum(results.values())))
    return int(found.total_bytes - sum(found.sizes.get(place, 0) for place in own))


def _allocated(device: torch.device) -> int:
    """Return the bytes that torch's allocator has ever handed out on a GPU."""
    if device.type != "cuda":
        return 0
    return int(torch.cuda.memory_stats(device)["allocated_bytes.all.allocated"])


def _facts(side: _Side) -> InputFacts:
    """Find what the reference changes: on few elements, or where it refuses these on those of the case."""
    kernel, dtype, device = side.kernel, side.dtype, side.device
    try:
        return input_facts(kernel, dtype=dtype, device=device)
    except Exception:  # a person's make_inputs or reference
        return input_facts(kernel, side.elements, dtype, device)


def _bytes_moved(side: _Side, result: Any) -> int:
    """Return the bytes that must cross memory once: as declared, or all that is read and written."""
    if side.is_backward:
        return bytes_moved(side.sample, result, InputFacts(()))
    if side.kernel.bytes_moved is not None:
        return int(side.kernel.bytes_moved(side.sample))
    return bytes_moved(side.sample, result, _facts(side))
