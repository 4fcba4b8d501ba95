"""`python -m tests.chaos.clusters`: runs on a Ray cluster that loses nodes, actors, drivers, room and time.

CLUSTER_ROUNDS is their number, CLUSTER_SEED the first one's seed. After a round every trial has exactly one record,
with what an undisturbed local run learnt, and no process of it is left. No command may take longer than its limit.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.end_to_end.conftest import environment
from tests.ray_cluster import RayCluster

SPEC = """\
name: tiny
device: cpu
data: {name: spirals, limit: 400, validation: 100}
model: {name: mlp, width: 16, depth: 2}
train: {optimizer: adam, base_lr: 0.01, batch_size: 16, epochs: 12}
factors: {batch_size: [8, 16, 32]}
seeds: 4
threads: 1
executor: {name: ray, wait_for_devices: 2min}
resources: {gpus: 1}
"""
TRIALS = 12
# The longest that any command of a round may take, and that what it started may live after it.
LIMIT_S, ENDS_S = 400.0, 60.0
_FILL_S = 6


class WrongError(Exception):
    """A run did what no run may do."""


def main() -> int:
    """Run the rounds. Return 1 where one failed."""
    count, first = int(os.environ.get("CLUSTER_ROUNDS", "50")), int(os.environ.get("CLUSTER_SEED", "0"))
    happened: Counter[str] = Counter()
    failed = []
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        place = Path(folder)
        (place / "tiny.yaml").write_text(SPEC)
        expected = _undisturbed(place)
        with RayCluster() as cluster:
            rounds = _Rounds(place, cluster, expected)
            for seed in range(first, first + count):
                faults, wrong = rounds.run(seed)
                happened.update(faults)
                print(f"{'FAILED' if wrong else 'ok    '} seed {seed:>4}  {', '.join(faults)}", flush=True)
                if wrong:
                    failed.append(seed)
                    print(
                        f"    {wrong}\n    again: CLUSTER_ROUNDS=1 CLUSTER_SEED={seed} make chaos", flush=True
                    )
    print(f"{count} rounds, {len(failed)} failed {failed or ''}; {dict(happened)}")
    return 1 if failed else 0


def _undisturbed(place: Path) -> dict[str, Any]:
    """Return what each trial learns on one machine, by trial."""
    command = [sys.executable, "-m", "fusetune.bench", "run", "tiny.yaml", "--executor", "local"]
    command += ["--set", "resources={}", "--results", "expected"]
    done = subprocess.run(
        command, cwd=place, env=environment(place), capture_output=True, text=True, timeout=LIMIT_S
    )
    assert done.returncode == 0, done.stderr
    return _learnt(next((place / "expected" / "tiny").iterdir()))


def _learnt(run: Path) -> dict[str, Any]:
    """Return trial -> status, steps and losses, without clocks. A second record of a trial is wrong."""
    found: dict[str, Any] = {}
    for line in (run / "records.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record["trial"] in found:
            raise WrongError(f"{record['trial']} has two records")
        curve = [(entry["step"], entry["train_loss"], entry["val_loss"]) for entry in record["curve"]]
        found[record["trial"]] = record["status"], curve
    return found


class _Rounds:
    """Rounds on one cluster, which has two nodes again after each."""

    def __init__(self, place: Path, cluster: RayCluster, expected: dict[str, Any]) -> None:
        self._place, self._cluster, self._expected = place, cluster, expected
        self._nodes = ["n1", "n2"]
        self._named = 2
        self._disasters: dict[str, Callable[[random.Random, subprocess.Popen[str]], None]] = {
            "node removed": self._remove_node,
            "actor killed": self._kill_actor,
            "driver killed": self._kill_driver,
            "object store full": self._fill_store,
            "slow node": self._slow_node,
        }

    def run(self, seed: int) -> tuple[list[str], str]:
        """Run the round of a seed. Return what happened, and what is wrong."""
        chance = random.Random(seed)
        results = self._place / f"round-{seed}"
        faults = chance.sample(sorted(self._disasters), chance.choice((1, 1, 2)))
        try:
            # In every other round a node is one device, whose loss is that of the node.
            self._end_well(results, faults, chance, gpus=1 + seed % 2)
            self._check(results)
        except (WrongError, subprocess.TimeoutExpired) as error:
            return faults, str(error)
        finally:
            self._heal()
        return faults, ""

    def _end_well(self, results: Path, faults: list[str], chance: random.Random, gpus: int) -> None:
        """Run, meet the disasters, and resume until the run is whole. Half of the resumptions are local."""
        left = list(faults)
        for attempt in range(6):
            runs = list((results / "tiny").glob("*")) if results.exists() else []
            whole = runs and (runs[0] / "records.jsonl").exists() and len(_learnt(runs[0])) == TRIALS
            if attempt and whole:
                return
            command = ["run", "tiny.yaml", "--results", str(results)]
            if runs and (runs[0] / "run.json").exists():
                command = ["run", "--resume", str(runs[0])]
            local = bool(attempt) and not left and chance.random() < 0.5
            where = ["--executor", f"ray={self._cluster.address}", "--set", f"resources.gpus={gpus}"]
            if local:
                where = ["--executor", "local", "--set", "resources={}"]
            driver = subprocess.Popen(
                [sys.executable, "-m", "fusetune.bench", *command, *where],
                cwd=self._place,
                env=environment(self._place),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            out: list[str] = []
            reader = threading.Thread(target=_collect, args=(driver, out))
            reader.start()
            try:
                while left and driver.poll() is None:
                    time.sleep(chance.uniform(2.0, 14.0))
                    self._disasters[left.pop()](chance, driver)
                code = driver.wait(LIMIT_S)
            except subprocess.TimeoutExpired:
                driver.kill()
                raise WrongError(f"a command hung: {''.join(out)[-1500:]}") from None
            finally:
                reader.join(10)
            if code not in (0, 2, -signal.SIGKILL) or "Traceback" in "".join(out):
                raise WrongError(f"exit code {code}: {''.join(out)[-1500:]}")
        raise WrongError("the run did not come to its end")

    def _check(self, results: Path) -> None:
        (run,) = (results / "tiny").iterdir()
        found = _learnt(run)
        if found != self._expected:
            wrong = sorted(name for name in self._expected if found.get(name) != self._expected[name])
            raise WrongError(f"other records than without disasters: {wrong}")
        give_up_s = time.monotonic() + ENDS_S
        while orphans := self._cluster.actors():
            if time.monotonic() > give_up_s:
                raise WrongError(f"processes are left: {sorted(orphans)}")
            time.sleep(0.5)

    def _remove_node(self, chance: random.Random, driver: subprocess.Popen[str]) -> None:
        self._cluster.remove(self._nodes.pop(chance.randrange(len(self._nodes))))
        if chance.random() < 0.7:
            self._add_node()

    def _add_node(self) -> None:
        self._named += 1
        self._cluster.add(f"n{self._named}")
        self._nodes.append(f"n{self._named}")

    def _kill_actor(self, chance: random.Random, driver: subprocess.Popen[str]) -> None:
        if alive := sorted(self._cluster.actors()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(alive), signal.SIGKILL)

    def _kill_driver(self, chance: random.Random, driver: subprocess.Popen[str]) -> None:
        with contextlib.suppress(ProcessLookupError):
            driver.kill()

    def _fill_store(self, chance: random.Random, driver: subprocess.Popen[str]) -> None:
        """Another driver fills the object stores for some seconds."""
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _FILL, self._cluster.address, str(_FILL_S)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=LIMIT_S,
        )

    def _slow_node(self, chance: random.Random, driver: subprocess.Popen[str]) -> None:
        """A device answers nothing for some seconds."""
        if alive := sorted(self._cluster.actors()):
            with _stopped(chance.choice(alive)):
                time.sleep(chance.uniform(1.0, 8.0))

    def _heal(self) -> None:
        """Have two nodes again."""
        while len(self._nodes) < 2:
            self._add_node()


def _collect(driver: subprocess.Popen[str], out: list[str]) -> None:
    out.extend(driver.stdout or ())


@contextmanager
def _stopped(process_id: int) -> Iterator[None]:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process_id, signal.SIGSTOP)
    yield
    with contextlib.suppress(ProcessLookupError):
        os.kill(process_id, signal.SIGCONT)


_FILL = """
import sys, time
import ray
ray.init(address=sys.argv[1], log_to_driver=False)

@ray.remote(num_cpus=0)
def fill(seconds):
    kept = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            kept.append(ray.put(bytes(8 << 20)))
        except ray.exceptions.RayError:
            time.sleep(0.2)

ray.get([fill.remote(float(sys.argv[2])) for _ in range(2)])
"""

if __name__ == "__main__":
    sys.exit(main())
