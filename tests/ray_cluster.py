"""A Ray cluster on this machine for tests: a head without devices, and nodes with two declared GPUs each.

    with RayCluster() as cluster: bench("run", SPEC, "--executor", f"ray={cluster.address}")

The cluster is another process, so that a test's own process stays free of Ray. It ends with its standard input.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
_STORE_BYTES = 80 * 2**20
# No memory monitor, no usage report. Other tests have the cores too, so a slow answer is no death.
SETTINGS = {"RAY_memory_monitor_refresh_ms": "0", "RAY_USAGE_STATS_ENABLED": "0"}


class RayCluster:
    """The process of a cluster.

    Args:
        nodes: how many, named n1, n2 and so on.
        store_bytes: of each node's object store.
        variables: name of a node -> environment variables of its processes, besides those of this one.

    Attributes:
        address: host:port.
        session: the folder of its logs. What runs on its nodes writes there.
    """

    def __init__(
        self,
        nodes: int = 2,
        store_bytes: int = _STORE_BYTES,
        variables: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed with the cluster
        of_nodes = {name: dict(each) for name, each in (variables or {}).items()}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__, str(nodes), str(store_bytes), json.dumps(of_nodes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            # Tests hide GPUs, which Ray would hold against declared ones.
            env={**{key: os.environ[key] for key in os.environ if key != "CUDA_VISIBLE_DEVICES"}, **SETTINGS},
            start_new_session=True,
        )
        self.address, self.session = self._answer().split(maxsplit=1)

    def __enter__(self) -> RayCluster:
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        finally:
            # Ray's processes have sessions of their own. Those of a cluster that did not end by itself are in this one.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._said.close()

    def remove(self, name: str) -> None:
        """Kill a node."""
        self._do(f"remove {name}")

    def add(self, name: str) -> None:
        """Let a node join."""
        self._do(f"add {name}")

    def actors(self) -> set[int]:
        """Return the processes of this project's actors on its nodes. Other clusters of this machine have theirs."""
        found = set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    is_actor = b"DeviceActor" in (entry / "cmdline").read_bytes()
                    if is_actor and str((entry / "fd" / "2").readlink()).startswith(self.session):
                        found.add(int(entry.name))
        return found

    def _do(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            self._said.seek(0)
            raise AssertionError(f"the cluster did not do it: {self._said.read()[-2000:]}")
        return line


def _serve(count: int, store_bytes: int, variables: dict[str, dict[str, str]]) -> None:
    """Run a cluster until the standard input ends. Its commands are `remove NAME` and `add NAME`."""
    from ray.cluster_utils import Cluster

    node: dict[str, Any] = {"num_cpus": 2, "num_gpus": 2, "object_store_memory": store_bytes}
    head = {**node, "num_cpus": 0, "num_gpus": 0, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)

    def add(name: str) -> Any:
        return cluster.add_node(node_name=name, env_vars=variables.get(name), **node)

    nodes = {name: add(name) for name in (f"n{k + 1}" for k in range(count))}
    node_of_head: Any = cluster.head_node
    print(cluster.address, os.path.realpath(node_of_head.get_session_dir_path()), flush=True)
    for line in sys.stdin:
        command, name = line.split()
        if command == "remove":
            cluster.remove_node(nodes.pop(name), allow_graceful=False)
        else:
            nodes[name] = add(name)
        print("done", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    _serve(int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]))
