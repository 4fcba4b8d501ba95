"""What is wrong with plain data, as one sentence that names the field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from fusetune.bench.spec import dotted

_MOST_SHOWN = 60
_DEEPEST = 60


def bounded(value: Any) -> Any:
    """Return plain data of a bounded depth. Deeper ones would end whoever walks through them.

    Raises:
        ValueError: it is deeper.
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
    """Put the first finding of a validation into words.

    Args:
        error: from pydantic.
        where: the field that was validated; empty: all.
    """
    finding = error.errors(include_url=False)[0]
    message = finding["msg"].removeprefix("Value error, ")
    shown = repr(finding["input"])
    shown = shown if len(shown) <= _MOST_SHOWN else f"{shown[: _MOST_SHOWN - 3]}..."
    place = dotted((*filter(None, [where]), *finding["loc"])) or "the whole"
    if finding["type"] == "missing":
        return f"{place} is missing"
    return f"{place}: {message[:1].lower()}{message[1:]}, is {shown}"
