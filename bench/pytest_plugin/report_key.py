"""Under which name a kernel's columns travel."""

from __future__ import annotations

# The property of a test's report, which comes back from the processes of pytest-xdist too, and the key of `extra_info`.
PROPERTY = "kernel_benchmark"
