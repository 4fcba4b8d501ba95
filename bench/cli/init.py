"""`bench init`."""

from __future__ import annotations

from pathlib import Path

import click

from fusetune.bench.terminal import say


@click.command()
@click.argument("folder", metavar="[DIR]", default=Path(), type=click.Path(path_type=Path))
@click.option(
    "--command",
    default="",
    metavar="COMMAND",
    help="Gate this program in place of a spec: it prints one JSON object of metrics, see bench gate --help.",
)
@click.option(
    "--cluster",
    type=click.Choice(["slurm", "kuberay"]),
    help="Write what starts a run on a cluster in place of a gate: sweep.sbatch, or rayjob.yaml.",
)
@click.option(
    "--spec", type=click.Path(path_type=Path), help="With --cluster: the spec. Default: the first in DIR."
)
@click.option(
    "--nodes",
    type=click.IntRange(1, 10_000),
    default=2,
    show_default=True,
    help="With --cluster: nodes with devices.",
)
@click.option(
    "--gpus",
    type=click.IntRange(0, 64),
    default=8,
    show_default=True,
    help="With --cluster: GPUs of a node. 0: trials use its processor.",
)
def init(
    folder: Path, command: str, *, cluster: str | None, spec: Path | None, nodes: int, gpus: int
) -> None:
    """Write what gates the pull requests of the project in DIR: a spec, and a workflow of GitHub Actions.

    What can be found out is not asked for: specs that are there, the package, its Python, the default branch. A file
    that exists is kept.

    With --cluster, write what starts a run of a spec on Slurm, or on Kubernetes with KubeRay.
    """
    from fusetune.bench.init import find_out, tell, tell_cluster, write_cluster_file, write_files

    if cluster is not None:
        if command:
            raise click.UsageError("--command is gated, and --cluster runs a spec: give one of them")
        written = write_cluster_file(folder, cluster, spec, nodes=nodes, gpus=gpus)
        for line in tell_cluster(written, cluster):
            say(line)
        return
    if spec is not None:
        raise click.UsageError("--spec goes with --cluster")
    findings = find_out(folder)
    for line in tell(findings, write_files(findings, command), command):
        say(line)
