"""`bench init --cluster`: the script runs with stand-ins of Slurm, and the manifest has KubeRay's form."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import CliRunner, Result

from fusetune.bench.cli.init import init
from fusetune.bench.errors import InputError
from fusetune.bench.init import write_cluster_file
from fusetune.bench.results import RunDirectory

ROOT = Path(__file__).parents[3]
SPEC = """\
name: Tiny_1
data: {name: digits, validation: 300}
model: {name: mlp, width: 8, depth: 1}
train: {optimizer: adamw, base_lr: 0.005, batch_size: 64, epochs: 1}
factors: {batch_size: [64, 128]}
threads: 1
"""
# Takes srun's options, and runs its command as the task of one node.
SRUN = """\
#!/bin/bash
while [[ $1 == --* ]]; do shift; done
SLURMD_NODENAME=node-a exec "$@"
"""
# What comes behind -- runs, as `ray symmetric-run` has it.
RAY = """\
#!/bin/bash
echo "ray $*" >> calls
while [[ $1 != -- ]]; do shift; done
shift
exec "$@"
"""
# Begins a run, or goes on with one. With the file `slow` it waits for a signal.
BENCH = """\
#!/bin/bash
echo "bench $*" >> calls
if [[ $1 == status ]]; then echo '{"state": "over"}'; exit; fi
mkdir -p "$RESULTS/Tiny_1/1" && touch "$RESULTS/Tiny_1/1/run.json"
if [[ -e slow ]]; then touch waits; while [[ ! -e requeued ]]; do sleep 0.05; done; fi
exit "$(cat code 2> /dev/null || echo 0)"
"""
SCONTROL = """\
#!/bin/bash
echo "scontrol $*" >> calls
touch requeued
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "tiny.yaml").write_text(SPEC)
    return tmp_path


def run_init(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(init, [str(folder), *arguments])


def programs(folder: Path, **texts: str) -> Path:
    """Write programs into a folder of the search path."""
    place = folder / "programs"
    place.mkdir(exist_ok=True)
    for name, text in texts.items():
        (place / name).write_text(text)
        (place / name).chmod(0o755)
    return place


def job(folder: Path, place: Path, **variables: str) -> dict[str, str]:
    """The environment of a job of one node."""
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(place), os.environ["PATH"]]),
        "SLURM_JOB_ID": "4242",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_CPUS_ON_NODE": "2",
        "RESULTS": str(folder / "results"),
        **variables,
    }


def submit(folder: Path, place: Path) -> tuple[int, list[str]]:
    """Run the script as Slurm does. Return its exit code and what was called."""
    (folder / "calls").unlink(missing_ok=True)
    done = subprocess.run(["bash", "sweep.sbatch"], cwd=folder, env=job(folder, place), check=False)
    return done.returncode, (folder / "calls").read_text().splitlines()


def test_the_first_spec_is_run_and_nothing_is_overwritten(folder: Path) -> None:
    (folder / "specs" / "other.yaml").write_text(SPEC.replace("Tiny_1", "other"))
    (folder / "specs" / "list.yaml").write_text("- 1\n")
    said = run_init(folder, "--cluster", "slurm", "--nodes", "5", "--gpus", "4")
    assert said.exit_code == 0
    assert f"wrote       {folder / 'sweep.sbatch'}\nruns        specs/other.yaml\n" in said.output
    assert f"not run     {folder / 'specs/tiny.yaml'}\n" in said.output
    assert "  sbatch sweep.sbatch\n" in said.output
    text = (folder / "sweep.sbatch").read_text()
    assert "#SBATCH --nodes=5\n" in text
    assert "#SBATCH --gpus-per-node=4\n" in text
    assert "@" not in text.replace('"$@"', "").replace("B:USR1@180", "").replace("${arguments[@]}", "")
    (folder / "sweep.sbatch").write_text("# mine\n")
    assert (
        f"kept        {folder / 'sweep.sbatch'}, which was there\n"
        in run_init(folder, "--cluster", "slurm").output
    )
    assert (folder / "sweep.sbatch").read_text() == "# mine\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--cluster", "slurm", "--spec", "absent.yaml"], "absent.yaml: is no spec; a spec has name, data"),
        (["--cluster", "slurm", "--command", "x"], "--command is gated"),
        (["--spec", "a.yaml"], "--spec goes with --cluster"),
        (["--cluster", "lsf"], "is not one of 'slurm', 'kuberay'"),
    ],
)
def test_bad_input(folder: Path, arguments: list[str], complaint: str) -> None:
    done = run_init(folder, *arguments)
    assert done.exit_code
    assert complaint in f"{done.output}{done.exception}"


def test_no_folder_and_no_spec(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder"):
        write_cluster_file(tmp_path / "absent", "slurm")
    with pytest.raises(InputError, match="holds no spec"):
        write_cluster_file(tmp_path, "kuberay")


@pytest.mark.parametrize("name", ["tiny.yaml", 'it\'s "mine" $HOME;#@SPEC@.yaml'])
def test_the_script_runs_and_a_second_start_goes_on(folder: Path, name: str) -> None:
    (folder / "specs" / "tiny.yaml").rename(folder / "specs" / name)
    write_cluster_file(folder, "slurm", nodes=1, gpus=0)
    place = programs(folder, srun=SRUN, ray=RAY, bench=BENCH, scontrol=SCONTROL)
    address = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split()
    results = folder / "results"
    code, (ray, bench, status) = submit(folder, place)
    assert code == 0
    started = f"--address {[*address, '127.0.0.1'][0]}:24242 --min-nodes 1 -- bench run specs/{name}"
    assert (
        ray
        == f"ray symmetric-run --node-name node-a --num-cpus 2 {started} --executor ray --results {results}"
    )
    assert bench == f"bench run specs/{name} --executor ray --results {results}"
    assert status == f"bench status {results}/Tiny_1/1/ --json"
    code, (_, bench, _) = submit(folder, place)
    assert code == 0
    assert bench.endswith(f" --results {results} --resume {results}/Tiny_1/1")


def test_the_job_has_the_exit_code_of_the_run(folder: Path) -> None:
    write_cluster_file(folder, "slurm", nodes=1)
    place = programs(folder, srun=SRUN, ray=RAY, bench=BENCH)
    (folder / "code").write_text("130\n")
    assert submit(folder, place)[0] == 130
    (folder / "code").unlink()
    programs(folder, bench=BENCH.replace("over", "interrupted"))
    assert submit(folder, place)[0] == 1
    shutil.rmtree(folder / "results")
    programs(folder, ray="#!/bin/bash\necho no Ray > calls\n")  # as where Ray does not start
    assert submit(folder, place)[0] == 1


def test_near_its_time_limit_the_job_queues_itself_again(folder: Path) -> None:
    write_cluster_file(folder, "slurm", nodes=1)
    place = programs(folder, srun=SRUN, ray=RAY, bench=BENCH, scontrol=SCONTROL)
    (folder / "slow").touch()
    with subprocess.Popen(["bash", "sweep.sbatch"], cwd=folder, env=job(folder, place)) as script:
        while not (folder / "waits").exists():
            assert script.poll() is None
            time.sleep(0.02)
        script.send_signal(signal.SIGUSR1)
        assert script.wait() == 0
    assert "scontrol requeue 4242" in (folder / "calls").read_text().splitlines()


def isolated() -> list[str]:
    """The words that run a command among processes and addresses of its own. `ray stop` stops all that it sees."""
    words = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--net"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*words, "ip", "link"], capture_output=True).returncode
    ):
        pytest.skip("needs user namespaces and ip")
    return words


@pytest.mark.slow
def test_the_script_runs_with_ray_itself(folder: Path) -> None:
    pytest.importorskip("ray")
    write_cluster_file(folder, "slurm", nodes=1, gpus=0)
    bench = f'#!/bin/bash\nexec {sys.executable} -m fusetune.bench "$@"\n'
    ray = f'#!/bin/bash\nexec {sys.executable} -m ray.scripts.scripts "$@"\n'
    place = programs(folder, srun=SRUN, bench=bench, ray=ray)
    environment = job(folder, place, PYTHONPATH=str(ROOT / "src"), OMP_NUM_THREADS="1")
    command = [*isolated(), "bash", "-c", "ip link set lo up && exec bash sweep.sbatch"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (folder / "results" / "Tiny_1").iterdir()
    records, notes = RunDirectory.open(path).records()
    assert notes == []
    assert [record.status for record in records] == ["ok", "ok"]


def closed(*required: str, **fields: Any) -> dict[str, Any]:
    """The schema of an object with these fields and no others."""
    return {"type": "object", "required": list(required), "properties": fields, "additionalProperties": False}


def several(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of}


TEXT, COUNT, FLAG = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
POD = closed(
    "spec",
    spec=closed(
        "containers",
        containers=several(
            closed(
                "name",
                name=TEXT,
                image=TEXT,
                env=several(closed("name", name=TEXT, value=TEXT)),
                resources=closed(requests=TEXTS, limits=TEXTS),
                volumeMounts=several(closed("mountPath", "name", mountPath=TEXT, name=TEXT)),
            )
        ),
        volumes=several(closed("name", name=TEXT, persistentVolumeClaim=closed("claimName", claimName=TEXT))),
    ),
)
# The fields of the manifest, as KubeRay's definition of ray.io/v1 RayJob has them (ray.io_rayjobs.yaml, 1.3 MiB). The
# manifest was validated against the whole of it at KubeRay's commit feeaf72.
RAYJOB = closed(
    "apiVersion",
    "kind",
    "metadata",
    "spec",
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=closed(generateName={"type": "string", "pattern": "^[a-z]([-a-z0-9]{0,40})-$"}),
    spec=closed(
        entrypoint=TEXT,
        shutdownAfterJobFinishes=FLAG,
        ttlSecondsAfterFinished=COUNT,
        backoffLimit=COUNT,
        rayClusterSpec=closed(
            "headGroupSpec",
            rayVersion=TEXT,
            headGroupSpec=closed("template", rayStartParams=TEXTS, template=POD),
            workerGroupSpecs=several(
                closed(
                    "groupName",
                    "maxReplicas",
                    "minReplicas",
                    "template",
                    groupName=TEXT,
                    replicas=COUNT,
                    minReplicas=COUNT,
                    maxReplicas=COUNT,
                    rayStartParams=TEXTS,
                    template=POD,
                )
            ),
        ),
    ),
)


@pytest.mark.parametrize(("gpus", "name"), [(8, "Tiny_1"), (0, "2_Very." + "long" * 20)])
def test_the_manifest_has_the_form_of_a_rayjob(folder: Path, gpus: int, name: str) -> None:
    (folder / "specs" / "tiny.yaml").write_text(SPEC.replace("Tiny_1", name))
    assert run_init(folder, "--cluster", "kuberay", "--nodes", "3", "--gpus", str(gpus)).exit_code == 0
    manifest = yaml.safe_load((folder / "rayjob.yaml").read_text())
    jsonschema.validate(manifest, RAYJOB)
    spec = manifest["spec"]
    assert spec["entrypoint"] == "bench run /app/specs/tiny.yaml --executor ray --results /results"
    cluster = spec["rayClusterSpec"]
    (head,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    (group,) = cluster["workerGroupSpecs"]
    (worker,) = group["template"]["spec"]["containers"]
    assert (group["replicas"], worker["resources"]["limits"].get("nvidia.com/gpu")) == (
        3,
        str(gpus) if gpus else None,
    )
    for container in (head, worker):
        assert {"name": "RAY_memory_monitor_refresh_ms", "value": "0"} in container["env"]
