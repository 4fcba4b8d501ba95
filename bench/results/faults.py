"""Error messages for invalid plain data, which name the field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from fusetune.bench.spec import dotted

_MOST_SHOWN = 60
_DEEPEST = 60


def bounded(value: Any) -> Any:
    """Return plain data after a check of its depth. Deeper data would exceed Python's recursion limit.

    Raises:
        ValueError: the data are nested too deeply.
    """
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > _DEEPEST:
            raise ValueError(f"is nested more than {_DEEPEST} levels deep")
        level = [
            inner
            for each in level
            if isinstance(each, (Mapping, list))
            for inner in (each.values() if isinstance(each, Mapping) else each)
        ]
    return value


def first_fault(error: ValidationError, where: str = "") -> str:
    """Return a sentence on the first error of a validation.

    Args:
        error: the error of pydantic.
        where: the validated field. Empty: the whole data.
    """
    finding = error.errors(include_url=False)[0]
    message = finding["msg"].removeprefix("Value error, ")
    shown = repr(finding["input"])
    shown = shown if len(shown) <= _MOST_SHOWN else f"{shown[: _MOST_SHOWN - 3]}..."
    place = dotted((*filter(None, [where]), *finding["loc"])) or "the whole"
    if finding["type"] == "missing":
        return f"{place} is missing"
    return f"{place}: {message[:1].lower()}{message[1:]}, is {shown}"
