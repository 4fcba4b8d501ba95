"""Run random kernels in Triton's interpreter (TRITON_INTERPRET=1) and write what they store.

Usage: python -m tests.kernels.cpu.interpret FOLDER SEED...
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from tests.kernels.cpu.run_random import run


def main(folder: str, seeds: list[str]) -> None:
    for seed in map(int, seeds):
        try:
            np.savez(Path(folder, f"{seed}.npz"), *run(Path(folder), seed))
        except Exception as error:
            Path(folder, f"{seed}.error").write_text(f"{type(error).__name__}: {error} {error.__cause__}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
