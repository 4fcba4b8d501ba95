"""The text of `.github/workflows/gpu-bench.yml`: pull requests are gated, and a run is recorded every night."""

from __future__ import annotations

import json
from pathlib import Path

from fusetune.bench.init.findings import Findings

WORKFLOW = Path(".github", "workflows", "gpu-bench.yml")

# Names in @ are put in. What GitHub replaces stands in the environment, so that no shell reads it as its own.
_TEMPLATE = """\
# Is a pull request slower, hungrier or worse at learning? `bench init` wrote this file once. Change it as you like.
# It needs a runner of your own with the labels below: Settings > Actions > Runners > New self-hosted runner.
name: gpu-bench

on:
  pull_request:
    branches: [@BRANCH@]
@SCHEDULE@
permissions:
  contents: read

# A new push ends the measurement of the one before.
concurrency:
  group: gpu-bench-${{ github.ref }}
  cancel-in-progress: true

env:
  FUSETUNE: @FUSETUNE@
  @SUBJECT@
  BUDGET: 20min

jobs:
  gate:
    # A runner of your own must not run what strangers propose.
    if: github.event_name == 'pull_request' && github.event.pull_request.head.repo.full_name == github.repository
    runs-on: [self-hosted, linux, gpu]
    timeout-minutes: 120
    permissions:
      contents: read
      pull-requests: write
    steps:
      # The merge of the pull request. Its first parent is what it is compared with, so the history has to be there.
@STEPS@      # Exit code 1 (regressed or missing), 2 (bad input) and 4 (a side does not install) turn the job red.
      - name: Gate
        run: |
          out="$RUNNER_TEMP/gpu-bench"
          mkdir -p "$out"
@FIRST@          python -m fusetune.bench gate @WHAT@ --base HEAD^1 --head HEAD --budget "$BUDGET" \\
            --results "$out" --markdown "$out/gate.md" --json "$out/gate.json" --junit "$out/gate.xml"

      - name: Comment on the pull request
        if: ${{ !cancelled() }}
        uses: actions/github-script@v7
        with:
          script: |
            const fs = require('fs');
            const marker = '<!-- gpu-bench -->';
            const run = `${context.serverUrl}/${context.repo.owner}/${context.repo.repo}/actions/runs/${context.runId}`;
            const file = `${process.env.RUNNER_TEMP}/gpu-bench/gate.md`;
            const report = fs.existsSync(file)
              ? fs.readFileSync(file, 'utf8').slice(0, 60000)
              : `The gate came to no result. [Its log](${run}) says why.`;
            const body = `${marker}\\n${report}`;
            const where = { owner: context.repo.owner, repo: context.repo.repo };
            const issue_number = context.issue.number;
            const comments = await github.paginate(github.rest.issues.listComments, { ...where, issue_number });
            const earlier = comments.find((comment) => comment.body.startsWith(marker));
            if (earlier) {
              await github.rest.issues.updateComment({ ...where, comment_id: earlier.id, body });
            } else {
              await github.rest.issues.createComment({ ...where, issue_number, body });
            }

      - name: Keep the measurements
        if: ${{ !cancelled() }}
        uses: actions/upload-artifact@v4
        with:
          name: gpu-bench
          path: ${{ runner.temp }}/gpu-bench
          if-no-files-found: ignore
"""

_STEPS = """\
      - uses: actions/checkout@v4
        with:
          fetch-depth: 0

      - uses: actions/setup-python@v5
        with:
          python-version: @PYTHON@

      # Kept between runs, beside the checkout.
      - name: Install
        run: |
          venv="$RUNNER_WORKSPACE/gpu-bench-@VERSION@"
          test -x "$venv/bin/python" || python -m venv "$venv"
          "$venv/bin/python" -m pip install --quiet --disable-pip-version-check @INSTALLATION@
          echo "$venv/bin" >> "$GITHUB_PATH"

"""

_SCHEDULE = """\
  # Every night, on the default branch.
  schedule:
    - cron: "17 3 * * *"
  workflow_dispatch:
"""

_HISTORY = """\

  history:
    if: github.event_name != 'pull_request'
    runs-on: [self-hosted, linux, gpu]
    timeout-minutes: 120
    permissions:
      contents: write
    env:
      GIT_AUTHOR_NAME: gpu-bench
      GIT_AUTHOR_EMAIL: gpu-bench@users.noreply.github.com
      GIT_COMMITTER_NAME: gpu-bench
      GIT_COMMITTER_EMAIL: gpu-bench@users.noreply.github.com
    steps:
@STEPS@      # The branch gpu-bench-history holds nothing but recorded runs, one line each.
      - name: Record
        run: |
          history="$RUNNER_TEMP/results/history"
          git worktree prune
          if git ls-remote --exit-code origin refs/heads/gpu-bench-history > /dev/null; then
            git fetch --quiet origin refs/heads/gpu-bench-history
            git worktree add --quiet --detach "$history" FETCH_HEAD
          else
            begin=$(git commit-tree -m "Recorded runs" "$(git mktree < /dev/null)")
            git worktree add --quiet --detach "$history" "$begin"
          fi
          python -m fusetune.bench run "$SPEC" --record --results "$RUNNER_TEMP/results"
          git -C "$history" add --all
          git -C "$history" commit --quiet -m "Record $(git rev-parse --short HEAD)"
          git -C "$history" push --quiet origin HEAD:refs/heads/gpu-bench-history

      - name: Show the history
        run: |
          {
            echo '```text'
            python -m fusetune.bench history "$SPEC" --results "$RUNNER_TEMP/results"
            echo '```'
          } | tee -a "$GITHUB_STEP_SUMMARY"
"""

# The pull request that brings the spec has a base without it.
_FIRST = """\
          if ! git cat-file -e "HEAD^1:$SPEC"; then
            echo "The base has no $SPEC yet, so there is nothing to compare with." | tee "$out/gate.md"
            exit 0
          fi
"""


def workflow(findings: Findings, spec: Path | None, command: str) -> str:
    """Return the workflow's text.

    Args:
        findings: what is known of the repository.
        spec: the spec to gate, relative to the repository's root; None: the command is gated.
        command: the command line to gate.
    """
    subject = f"COMMAND: {_quoted(command)}" if spec is None else f"SPEC: {_quoted(spec.as_posix())}"
    parts = {
        "@STEPS@": _STEPS,
        "@SCHEDULE@": "" if spec is None else _SCHEDULE,
        "@BRANCH@": _quoted(findings.branch),
        "@FUSETUNE@": _quoted(findings.fusetune),
        "@SUBJECT@": subject,
        "@PYTHON@": _quoted(findings.python),
        "@INSTALLATION@": " ".join(
            filter(None, ['"$FUSETUNE"' if findings.fusetune else "", findings.installation])
        ),
        "@VERSION@": findings.python,
        "@FIRST@": "" if spec is None else _FIRST,
        "@WHAT@": '--command "$COMMAND"' if spec is None else '"$SPEC"',
    }
    text = _TEMPLATE if spec is None else _TEMPLATE + _HISTORY
    if not findings.fusetune:
        text = text.replace("  FUSETUNE: @FUSETUNE@\n", "")
    for name, value in parts.items():
        text = text.replace(name, value)
    return text


def _quoted(text: str) -> str:
    """Write a text as a scalar of YAML: one of JSON is one."""
    return json.dumps(text)
