"""An executor on another machine, with a stand-in for Ray that answers as it is told."""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from fusetune.bench.cluster.connection import Node
from fusetune.bench.cluster.device_actor import DeviceSetup
from fusetune.bench.cluster.device_speeds import DeviceSpeeds
from fusetune.bench.cluster.ray_executor import RayExecutor, Request, localized, why_lost
from fusetune.bench.errors import InputError
from fusetune.bench.results import Record
from fusetune.bench.spec import Source
from fusetune.bench.workers import ExecutorLostError, WorkerSetup

exceptions = pytest.importorskip("ray.exceptions")
NODE = Node("77aa", "n1", 2, 4, {"processor": "EPYC", "gpus": []})
RECORD = Record("a", {}, 0, "ok", values={"steps": 3.0})


def answer(record: Record = RECORD, printed: bytes = b"") -> bytes:
    """What an actor returns."""
    return zlib.compress(pickle.dumps((record.as_dict(), 11, printed)))


@dataclass
class Ray:
    """Answers calls of an actor's methods. An exception among the answers is raised by `get`.

    Args:
        answers: method -> what its calls return, one after the other. The last one is returned for ever.
        waits: how often `wait` finds nothing of `run`.
    """

    answers: dict[str, list[Any]]
    waits: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    killed: int = 0
    calls: list[str] = field(default_factory=list)
    waited_s: list[float] = field(default_factory=list)
    exceptions: Any = exceptions
    util: Any = field(
        default_factory=lambda: SimpleNamespace(
            scheduling_strategies=SimpleNamespace(
                NodeAffinitySchedulingStrategy=lambda node, soft: (node, soft)
            )
        )
    )

    def remote(self, **options: Any) -> Callable[[Any], Any]:
        self.options = options
        return lambda cls: SimpleNamespace(remote=lambda setup: self)

    def __getattr__(self, name: str) -> Any:
        method = SimpleNamespace(remote=lambda *arguments: self._call(name))
        method.options = lambda **options: method
        return method

    def _call(self, name: str) -> Any:
        self.calls.append(name)
        found = self.answers[name]
        return name, found.pop(0) if len(found) > 1 else found[0]

    def get(self, reference: tuple[str, Any], timeout: float | None = None) -> Any:
        if isinstance(reference[1], Exception):
            raise reference[1]
        return reference[1]

    def wait(self, references: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        self.waited_s.append(timeout)
        if self.waits:
            self.waits -= 1
            return [each for each in references if each[0] == "progress"], []
        return references, []

    def kill(self, actor: Any) -> None:
        self.killed += 1


def executor(
    ray: Ray, speeds: DeviceSpeeds | None = None, limit_s: float | None = None, code: tuple[str, ...] = ()
) -> RayExecutor:
    ray.answers.setdefault("facts", [{"device_id": "1", "is_free": True, "process_id": 5}])
    ray.answers.setdefault("reference", [(0.1, 0.1, 0.1)])
    setup = DeviceSetup(WorkerSetup("a:b"), limit_s, NODE.id, {}, "/", None, code)
    cluster: Any = SimpleNamespace(ray=ray)
    return RayExecutor(cluster, NODE, Request(1, 2), setup, ready_s=5.0, speeds=speeds)


def test_a_record_comes_back_with_its_place_and_no_call_is_ever_repeated() -> None:
    speeds = DeviceSpeeds()
    for number in range(3):
        speeds.add(f"n{number + 2}, device 0", [0.08])
    ray = Ray({"run": [answer()]})
    record = executor(ray, speeds).run("trial", lambda progress: None)
    assert record.values == RECORD.values
    assert record.provenance == {
        "node": "n1", "device_id": "1", "device_name": "EPYC", "device_speed": 0.8, "device_slow": True,
    }  # fmt: skip
    assert (ray.options["max_restarts"], ray.options["max_task_retries"]) == (0, 0)
    assert (ray.options["num_gpus"], ray.options["num_cpus"]) == (1, 2)
    assert ray.options["scheduling_strategy"] == (NODE.id, False)
    assert ray.calls == ["facts", "reference", "run"]


def test_a_device_is_measured_when_it_joins_and_not_before_each_trial() -> None:
    ray = Ray({"run": [answer()]})
    device = executor(ray)
    for _ in range(3):
        device.run("trial", lambda progress: None)
    assert ray.calls.count("reference") == 1
    assert ray.calls.count("facts") == 1


def test_a_long_trial_is_asked_for_its_progress_and_a_short_one_is_not() -> None:
    heard: list[dict[str, Any]] = []
    ray = Ray({"run": [answer()], "progress": [{}, {"epoch": 1}, {"epoch": 1}, {"epoch": 2}]}, waits=9)
    executor(ray).run("trial", heard.append)
    place = {"node": "n1", "device": "1"}
    assert heard == [place, {"epoch": 1, **place}, {"epoch": 2, **place}]
    assert set(ray.waited_s) == {1.0}
    others = DeviceSpeeds()
    for number in range(511):
        others.add(f"{number}", [0.1])
    ray = Ray({"run": [answer()], "progress": [{}]}, waits=9)
    executor(ray, others).run("trial", heard.append)
    assert set(ray.waited_s) == {5.12}
    heard.clear()
    executor(Ray({"run": [answer()]})).run("trial", heard.append)
    assert heard == [place]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (exceptions.ActorDiedError(), "its process died"),
        (exceptions.ActorUnavailableError("gone", b"0" * 16), "Ray cannot reach its process"),
        (exceptions.NodeDiedError("dead"), "its node died"),
        (exceptions.OutOfMemoryError("more"), "Ray's memory monitor killed it"),
        (exceptions.ObjectStoreFullError("full"), "Ray's object store was full"),
    ],
)
def test_what_becomes_of_an_actor_is_a_loss_and_no_failure(error: Exception, reason: str) -> None:
    ray = Ray({"run": [error]})
    with pytest.raises(ExecutorLostError) as lost:
        executor(ray).run("trial", lambda progress: None)
    assert lost.value.as_dict() == {"node": "n1", "device_id": "1", "reason": reason}
    assert lost.value.started
    assert ray.killed == 1  # it may still run, where only the network is gone


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"device_id": "GPU-7", "is_free": False, "process_id": 5}, "device GPU-7 is used by another run"),
        (exceptions.GetTimeoutError(), "its devices stayed in use"),
        (exceptions.ActorDiedError(), "its process died"),
        (exceptions.RuntimeEnvSetupError("its agent is gone"), "Ray could not set up its process"),
    ],
)
def test_a_device_that_cannot_be_had_has_lost_no_trial(facts: Any, reason: str) -> None:
    ray = Ray({"facts": [facts]})
    with pytest.raises(ExecutorLostError, match=reason) as lost:
        executor(ray).prepare()
    assert not lost.value.started
    assert ray.killed == 1


def test_an_actor_that_does_not_answer_beyond_its_limit_is_killed() -> None:
    ray = Ray({"run": [answer()], "progress": [{}]}, waits=10**9)
    with pytest.raises(ExecutorLostError, match="no answer beyond the limit"):
        executor(ray, limit_s=-61.0).run("trial", lambda progress: None)
    assert ray.killed == 1


def test_bad_input_that_an_actor_finds_is_said_as_it_is() -> None:
    error = exceptions.RayTaskError("run", "Traceback", InputError("data", "is not there"))
    with pytest.raises(InputError, match="data: is not there"):
        executor(Ray({"run": [error]})).run("trial", lambda progress: None)


def test_code_that_does_not_reach_a_node_is_said_with_the_node() -> None:
    ray = Ray({"facts": [exceptions.RuntimeEnvSetupError("no room\nleft")]})
    with pytest.raises(InputError, match=r"the code could not be brought to node n1; Failed.*no room left"):
        executor(ray, code=("mine",)).prepare()


def test_a_cancelled_executor_starts_no_actor() -> None:
    ray = Ray({"run": [answer()]})
    device = executor(ray)
    device.cancel()
    with pytest.raises(ExecutorLostError):
        device.prepare()
    assert ray.calls == []


def test_a_node_reads_its_own_copies_of_data() -> None:
    @dataclass(frozen=True)
    class Trial:
        source: Source

    @dataclass(frozen=True)
    class Step:
        trial: Trial

    here = Source("npz", "npz", path="/shared/a.npz")
    staged = {"/shared/a.npz": "/fast/a.npz"}
    assert localized(Step(Trial(here)), staged).trial.source.path == "/fast/a.npz"
    assert localized(Trial(here), {}) == Trial(here)
    assert localized(Trial(Source("digits", "digits")), staged).source.path is None


def test_an_error_that_nobody_knows_has_its_name_and_one_line() -> None:
    assert why_lost(ValueError("two\nlines " + "x" * 500)).startswith("ValueError: two lines x")
    assert len(why_lost(ValueError("x" * 500))) == 200
