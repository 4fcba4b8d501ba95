"""What `bench init` says: what it found, what it wrote, and the next commands."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from fusetune.bench.init.files import Written
from fusetune.bench.init.findings import Findings
from fusetune.bench.terminal import invocation


def tell(findings: Findings, written: Written, command: str = "") -> Iterator[str]:
    """Yield the lines.

    Args:
        findings: what was found out.
        written: what became of the files.
        command: the command line that is gated. Empty: a spec is.
    """
    root = findings.repository.root
    yield f"repository  {root}"
    yield f"project     {findings.package}, Python {findings.python}, default branch {findings.branch}"
    yield f"GPU here    {findings.gpu or 'none; the workflow asks for a runner that has one'}"
    for path in written.new:
        yield f"wrote       {path}"
    for path in written.kept:
        yield f"kept        {path}, which was there"
    if len(findings.specs) > 1 and not command:
        yield f"not gated   {_some(findings.specs[1:])}"
    yield ""
    yield "Next:"
    where = Path(os.path.relpath(root))
    change = [] if where == Path() else [f"cd {shlex.quote(str(where))}"]
    yield from (f"  {line}" for line in change)
    if not findings.results_ignored:
        # Histories and baselines are for git, runs are not.
        yield r"  printf '/results/*\n!/results/baselines/\n!/results/history/\n' >> .gitignore"
    if written.new:
        added = [*map(str, written.new), *([] if findings.results_ignored else [".gitignore"])]
        yield f"  git add {shlex.join(added)} && git commit -m 'Gate pull requests'"
    if written.spec in written.new:
        # The commit before has no such spec to compare with.
        yield f"  {invocation()} gate {shlex.quote(str(written.spec))} --self-test"
    else:
        subject = f"--command {shlex.quote(command)}" if command else shlex.quote(str(written.spec))
        yield f"  {invocation()} gate {subject} --base HEAD~1"


def _some(paths: tuple[Path, ...]) -> str:
    shown = ", ".join(map(str, paths[:4]))
    return f"{shown} and {len(paths) - 4} more" if len(paths) > 4 else shown
