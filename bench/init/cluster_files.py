"""The files of `bench init --cluster`: a script for Slurm, or a manifest for KubeRay. One that is there is kept."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fusetune.bench.errors import InputError
from fusetune.bench.init.files import write_new
from fusetune.bench.init.findings import SPEC_KEYS, read_mapping
from fusetune.bench.path_checks import entries, is_file, is_folder
from fusetune.bench.stats import counted
from fusetune.bench.terminal import invocation

# Names in @ are put in.
_SBATCH = """\
#!/bin/bash
# @SPEC@ on @NODES_IN_WORDS@ of a Slurm partition: sbatch @FILE@
# `bench init --cluster slurm` wrote this file once. Change it as you like. FILL IN says where you have to.
#SBATCH --job-name=@NAME@
#SBATCH --nodes=@NODES@
#SBATCH --ntasks-per-node=1        # one Ray a node, for all of its devices
@GPU_LINE@#SBATCH --exclusive                # timings want a node of their own, and a node runs one Ray at a time
#SBATCH --mem=0                    # all memory of a node
#SBATCH --time=24:00:00            # FILL IN the limit of your partition
#SBATCH --output=%x-%j.log
# After preemption the job waits again under its number, and its run goes on.
#SBATCH --requeue
#SBATCH --open-mode=append
# Three minutes before its time is over it is told, and queues itself again.
#SBATCH --signal=B:USR1@180
# A node that fails does not end the job. Its trials go back into the queue.
#SBATCH --no-kill
##SBATCH --partition=FILL-IN
##SBATCH --account=FILL-IN

set -euo pipefail

# FILL IN what makes `bench` and `ray` known on every node: pip install 'fusetune[cluster]' on a shared file system.
# source /shared/venv/bin/activate

SPEC=@QUOTED_SPEC@
# On a file system that every node sees. The run of this job lies here alone, so that a new start of the job finds it.
RESULTS="${RESULTS:-$PWD/results/slurm-$SLURM_JOB_ID}"

# `limits.memory` of the spec decides about memory. Ray's own monitor would kill a trial and start it again in silence.
export RAY_memory_monitor_refresh_ms=0
export RAY_USAGE_STATS_ENABLED=0
# Seconds that Ray waits for all nodes.
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=600

# This script runs on the first node, which becomes Ray's head. FILL IN another address of it if nodes do not reach each
# other by its first one.
HEAD=$(hostname -I | cut -d ' ' -f 1)
HEAD=${HEAD:-127.0.0.1}
PORT=$((20000 + SLURM_JOB_ID % 10000))

arguments=(--executor ray --results "$RESULTS")
for earlier in "$RESULTS"/*/*/run.json; do
  if [ -e "$earlier" ]; then arguments+=(--resume "$(dirname "$earlier")"); fi
done

trap 'scontrol requeue "$SLURM_JOB_ID"' USR1

# One task a node. The first starts Ray's head and the driver, the others join. All end with the driver.
srun --ntasks="$SLURM_JOB_NUM_NODES" --no-kill --kill-on-bad-exit=0 --wait=0 \\
  bash -c 'exec ray symmetric-run --node-name "$SLURMD_NODENAME" --num-cpus "$SLURM_CPUS_ON_NODE" "$@"' - \\
  --address "$HEAD:$PORT" --min-nodes "$SLURM_JOB_NUM_NODES" -- \\
  bench run "$SPEC" "${arguments[@]}" &
step=$!
code=0
wait "$step" || code=$?
# A signal ends `wait` too.
while kill -0 "$step" 2> /dev/null; do code=0; wait "$step" || code=$?; done

# ray symmetric-run ends with 0 where Ray did not start at all. Then no run is over.
if [ "$code" -eq 0 ]; then
  for run in "$RESULTS"/*/*/; do
    bench status "$run" --json | grep -q '"state": "over"' || code=1
  done
fi
exit "$code"
"""
_RAYJOB = """\
# @SPEC@ on @NODES_IN_WORDS@ of a Kubernetes cluster with KubeRay: kubectl create -f @FILE@
# `bench init --cluster kuberay` wrote this file once. Change it as you like. FILL IN says where you have to.
apiVersion: ray.io/v1
kind: RayJob
metadata:
  generateName: @NAME@-
spec:
  # The driver, on the head. To go on after the head was lost: bench run --resume /results/NAME/ID --executor ray
  entrypoint: @ENTRYPOINT@
  # Pods end with the run. What it recorded stays on the volume.
  shutdownAfterJobFinishes: true
  ttlSecondsAfterFinished: 600
  # A second start of the whole run is yours to decide.
  backoffLimit: 0
  rayClusterSpec:
    rayVersion: "2.60.0"  # that of the image
    # The head runs the driver and no trial. Keep it off nodes that are preempted.
    headGroupSpec:
      rayStartParams: {num-cpus: "0", node-name: $HOSTNAME}
      template:
        spec:
          containers:
            - name: ray-head
              image: FILL-IN/with-fusetune-and-your-code:1  # pip install 'fusetune[cluster]', and this folder as /app
              env: @ENV@
              resources:
                requests: {cpu: "4", memory: 16Gi}
                limits: {cpu: "4", memory: 16Gi}
              volumeMounts:
                - {name: results, mountPath: /results}
          volumes:
            - name: results
              persistentVolumeClaim: {claimName: results}  # FILL IN a claim of yours
    workerGroupSpecs:
      - groupName: devices
        replicas: @NODES@
        minReplicas: 1
        maxReplicas: @NODES@
        rayStartParams: {node-name: $HOSTNAME}  # the pod's name, which records have then
        template:
          spec:
            # FILL IN what selects your GPUs, and spot nodes if you like: a trial of a pod that is lost is run again.
            # nodeSelector: {cloud.google.com/gke-spot: "true"}
            containers:
              - name: ray-worker
                image: FILL-IN/with-fusetune-and-your-code:1  # the head's
                env: @ENV@
                resources:
                  requests: @RESOURCES@
                  limits: @RESOURCES@
"""
_ENV = '[{name: RAY_memory_monitor_refresh_ms, value: "0"}, {name: RAY_USAGE_STATS_ENABLED, value: "0"}]'
# Kubernetes and KubeRay put their own endings behind a name: 47 characters in all.
_LONGEST_NAME = 40


@dataclass(frozen=True)
class ClusterFile:
    """A file that starts a run on a cluster.

    Args:
        path: where it is.
        spec: what it runs, as the file has it.
        name: of the spec.
        is_new: whether it was written now. Otherwise it was there.
        others: specs that were found too.
    """

    path: Path
    spec: str
    name: str
    is_new: bool
    others: tuple[Path, ...] = ()


def write_cluster_file(
    folder: Path, cluster: str, spec: Path | None = None, *, nodes: int = 2, gpus: int = 8
) -> ClusterFile:
    """Write what starts a run on a cluster, if it is not there.

    Args:
        folder: of the project. The run starts there.
        cluster: a key of `CLUSTERS`.
        spec: that is run. None: the first one in the folder or in its `specs`.
        nodes: nodes with devices.
        gpus: GPUs of a node. 0: its processor is the device.

    Raises:
        InputError: there is no such folder or no spec, or the file cannot be written.
    """
    if not is_folder(folder):
        raise InputError(folder, "is no folder", to_do="Name the folder of a project.")
    found = _specs(folder) if spec is None else [spec]
    if not found:
        raise InputError(
            folder,
            "holds no spec",
            "specs are looked for here and in specs/",
            "Name one by --spec, see `bench init --help`.",
        )
    chosen, *others = found
    content = read_mapping(chosen) if is_file(chosen) else {}
    if not content.keys() >= SPEC_KEYS:
        raise InputError(chosen, "is no spec", "a spec has name, data, model and train", "Check its path.")
    name, text = CLUSTERS[cluster]
    path = folder / name
    relative = os.path.relpath(chosen, folder)
    parts = {
        "@SPEC@": " ".join(relative.split()),
        "@QUOTED_SPEC@": shlex.quote(relative),
        "@FILE@": name,
        "@NAME@": _name(str(content["name"])),
        "@NODES@": str(nodes),
        "@NODES_IN_WORDS@": counted(nodes, "node"),
        **text(relative, gpus),
    }
    filled = _TEMPLATES[cluster]
    # One pass, so that no part is looked for in another.
    filled = re.sub("|".join(parts), lambda match: parts[match[0]], filled)
    return ClusterFile(path, relative, str(content["name"]), write_new(path, filled), tuple(others))


def tell_cluster(file: ClusterFile, cluster: str) -> Iterator[str]:
    """Yield what `bench init --cluster` says: what it wrote, and the next commands.

    Args:
        file: what became of the file.
        cluster: a key of `CLUSTERS`.
    """
    yield f"wrote       {file.path}" if file.is_new else f"kept        {file.path}, which was there"
    yield f"runs        {file.spec}"
    if file.others:
        shown = ", ".join(map(str, file.others[:4]))
        yield f"not run     {shown}{f' and {len(file.others) - 4} more' if len(file.others) > 4 else ''}"
    yield ""
    yield f"Next: fill in what {file.path.name} marks with FILL IN, then"
    where = file.path.parent
    if where != Path():
        yield f"  cd {shlex.quote(str(where))}"
    if cluster == "slurm":
        yield f"  sbatch {file.path.name}"
        yield f"  {invocation()} status {shlex.quote(f'results/slurm-JOB/{file.name}')}"
    else:
        yield f"  kubectl create -f {file.path.name}"
        yield f"  kubectl exec HEAD-POD -- bench status {shlex.quote(f'/results/{file.name}')}"


def _specs(folder: Path) -> list[Path]:
    """Return the specs directly in a folder and in its `specs`, in the order of their names."""
    places = [path for where in (folder, folder / "specs") for path in entries(where)]
    return [
        path for path in places if path.suffix in (".yaml", ".yml") and read_mapping(path).keys() >= SPEC_KEYS
    ]


def _name(spec_name: str) -> str:
    """Make a name that Slurm and Kubernetes take: small letters, digits and hyphens, a letter first."""
    name = re.sub(r"[^a-z0-9]+", "-", spec_name.lower()).strip("-")
    name = name if name[:1].isalpha() else f"run-{name}"
    return name[:_LONGEST_NAME].strip("-")


def _for_slurm(spec: str, gpus: int) -> Mapping[str, str]:
    return {"@GPU_LINE@": f"#SBATCH --gpus-per-node={gpus}\n" if gpus else ""}


def _for_kuberay(spec: str, gpus: int) -> Mapping[str, str]:
    cores, memory = (8 * gpus, 64 * gpus) if gpus else (8, 32)
    devices = f', nvidia.com/gpu: "{gpus}"' if gpus else ""
    command = shlex.join(["bench", "run", f"/app/{Path(spec).as_posix()}", "--executor", "ray"])
    return {
        "@ENTRYPOINT@": json.dumps(f"{command} --results /results"),
        "@ENV@": _ENV,
        "@RESOURCES@": f'{{cpu: "{cores}", memory: {memory}Gi{devices}}}',
    }


_TEMPLATES = {"slurm": _SBATCH, "kuberay": _RAYJOB}
# Cluster -> the file's name, and the parts of its text that depend on the spec's path and the GPUs of a node.
CLUSTERS: Mapping[str, tuple[str, Callable[[str, int], Mapping[str, str]]]] = {
    "slurm": ("sweep.sbatch", _for_slurm),
    "kuberay": ("rayjob.yaml", _for_kuberay),
}
