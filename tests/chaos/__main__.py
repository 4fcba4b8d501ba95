"""`python -m tests.chaos`: rounds of runs that are killed, starved of disk and torn, and must come out right.

CHAOS_ROUNDS is their number, CHAOS_SEED the first one's seed. A round that fails prints its seed.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.chaos.rounds import Rounds

# What runs load one after the other. A fork has it already, and would else take seconds of a processor each time.
LIBRARIES = (
    "torch._dynamo",
    "scipy.stats",
    "matplotlib.figure",
    "optuna",
    "fusetune.bench.run.trial",
    "fusetune.bench.workers.worker",
)


def main() -> int:
    """Run the rounds. Return 1 where one failed."""
    for name in LIBRARIES:
        importlib.import_module(name)
    count, first = int(os.environ.get("CHAOS_ROUNDS", "200")), int(os.environ.get("CHAOS_SEED", "0"))
    failed: list[int] = []
    happened: Counter[str] = Counter()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        rounds = Rounds(Path(folder))
        for seed in range(first, first + count):
            story = rounds.run(seed)
            happened.update(story.faults)
            print(f"{'FAILED' if story.wrong else 'ok    '} seed {seed:>4}  {story}", flush=True)
            if story.wrong:
                failed.append(seed)
                print(
                    f"    {story.wrong}\n    again: CHAOS_ROUNDS=1 CHAOS_SEED={seed} make chaos", flush=True
                )
    faults = ", ".join(f"{fault} {number}" for fault, number in sorted(happened.items()))
    print(
        f"{count} rounds in {time.monotonic() - began:.0f} s, {len(failed)} failed{': ' * bool(failed)}",
        end="",
    )
    print(", ".join(map(str, failed)))
    print(f"what happened in them: {faults}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
