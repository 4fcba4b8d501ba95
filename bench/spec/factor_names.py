"""A factor's name, and the field that it means: `batch_size` and `train.batch_size` are one field.

A person writes either, and specs, records and reports keep the name as written. Code that looks for a factor asks here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from fusetune.bench.spec.spec import Data, Model, Section, Train

# The sections whose fields can be factors.
VARIED_SECTIONS: dict[str, type[Section]] = {"train": Train, "model": Model, "data": Data}


@cache
def owners(field: str) -> tuple[str, ...]:
    """Return the sections that have a field of this name, in the order train, model, data."""
    return tuple(name for name, section in VARIED_SECTIONS.items() if field in section.model_fields)


def field_of(name: str) -> str:
    """Return the field that a factor's name means, with its section: equal exactly where two names mean one field.

    Args:
        name: of a factor in a valid spec. A name without a section means the section that has such a field, and
            `train` where none has.

    Example:
        >>> field_of("batch_size"), field_of("train.batch_size"), field_of("width"), field_of("schedule.pct_start")
        ('train.batch_size', 'train.batch_size', 'model.width', 'train.schedule.pct_start')
    """
    first, dot, _ = name.partition(".")
    if dot and first in VARIED_SECTIONS:
        return name
    return f"{(*owners(first), 'train')[0]}.{name}"


def by_field(factors: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration's values by the fields that its factors mean.

    Example:
        >>> by_field({"batch_size": 64, "model.width": 8})
        {'train.batch_size': 64, 'model.width': 8}
    """
    return {field_of(name): value for name, value in factors.items()}


def name_of(field: str, names: Iterable[str]) -> str | None:
    """Return the one of some factors' names that means a field, or None.

    Example:
        >>> name_of("train.batch_size", ["optimizer", "batch_size"]), name_of("train.base_lr", ["optimizer"])
        ('batch_size', None)
    """
    return next((name for name in names if field_of(name) == field), None)
