"""As much of a runner of GitHub Actions as a workflow's `run:` steps need."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class JobRun:
    """What became of a job.

    Args:
        failed: names of the steps that failed.
        output: all that its steps printed.
        summary: what they wrote to the page of the run.
    """

    failed: list[str] = field(default_factory=list)
    output: str = ""
    summary: str = ""


def run_job(
    workflow: Mapping[str, Any], name: str, checkout: Path, workspace: Path, variables: Mapping[str, str]
) -> JobRun:
    """Run the `run:` steps of a job as bash does under GitHub Actions.

    Args:
        workflow: its content.
        name: of the job.
        checkout: where steps start: what actions/checkout has made.
        workspace: the runner's folder for the repository.
        variables: the environment, over that of the workflow.
    """
    files = {key: workspace / key.lower() for key in ("GITHUB_PATH", "GITHUB_STEP_SUMMARY", "GITHUB_ENV")}
    for file in files.values():
        file.write_text("")
    temporary = workspace / "temp"
    temporary.mkdir(exist_ok=True)
    environment = {
        **{key: str(value) for key, value in workflow.get("env", {}).items()},
        **{key: str(value) for key, value in workflow["jobs"][name].get("env", {}).items()},
        **variables,
        **{key: str(file) for key, file in files.items()},
        "GITHUB_ACTIONS": "true",
        "RUNNER_TEMP": str(temporary),
        "RUNNER_WORKSPACE": str(workspace),
    }
    done = JobRun()
    for step in workflow["jobs"][name]["steps"]:
        if "run" not in step or (done.failed and "if" not in step):
            continue
        added = reversed(files["GITHUB_PATH"].read_text().split())
        path = os.pathsep.join([*added, environment["PATH"]])
        ran = subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", step["run"]],
            cwd=checkout,
            env={**environment, "PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        done.output += ran.stdout
        if ran.returncode:
            done.failed.append(step["name"])
    done.summary = files["GITHUB_STEP_SUMMARY"].read_text()
    return done
