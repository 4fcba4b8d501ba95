"""What lanes on a CPU have in common: it is imported once, in the process that they are forked from.

torch and Triton take a second or two to import, and a lane that is forked starts in some hundredths.
"""

from __future__ import annotations

from fusetune.bench.workers import wait_passively

# OpenMP reads its settings when torch is loaded.
wait_passively()

from fusetune.bench.kernels.subject import serve  # noqa: E402

__all__ = ["serve"]
