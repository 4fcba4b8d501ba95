"""Numbers that JSON has no word for, as null."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def finite_or_null(value: Any) -> Any:
    """Return plain data with null for every number that is not finite, and lists for tuples.

    Args:
        value: of mappings, lists, tuples, texts, numbers and None.

    Example:
        >>> finite_or_null({"error": math.inf, "times": (1.0, math.nan)})
        {'error': None, 'times': [1.0, None]}
    """
    if isinstance(value, Mapping):
        return {key: finite_or_null(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_null(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
