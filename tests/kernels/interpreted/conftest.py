"""These tests need Triton's interpreter, chosen when the kernels are imported: `test_interpreted.py` runs them."""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["test_*.py"]
