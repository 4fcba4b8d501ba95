"""The child's side of `fusetune.bench.finder_bench.jobs`: answers calls, one JSON line each, until its input ends."""

from __future__ import annotations

import json
import os
import sys
import traceback
from importlib import import_module
from typing import Any


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Make a call, and return its value, or the error that it raised.

    Args:
        request: `call`, as `module:function`, and its `arguments` by name.

    Example:
        >>> answer({"call": "builtins:dict", "arguments": {"a": 1}}), answer({"call": "math:nothing", "arguments": {}})
        ({'value': {'a': 1}}, {'failure': "AttributeError: module 'math' has no attribute 'nothing'"})
    """
    module, _, function = request["call"].partition(":")
    try:
        return {"value": getattr(import_module(module), function)(**request["arguments"])}
    except Exception as error:  # a library of others, which may raise anything
        traceback.print_exc()
        return {"failure": " ".join(f"{type(error).__name__}: {error}".split())}


def main() -> None:
    """Answer on what was standard output. What libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(answer(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
