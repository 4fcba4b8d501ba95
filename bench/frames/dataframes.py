"""Columns as a table of pandas or polars. Neither is imported before one is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

from fusetune.bench.frames.columns import TableColumn
from fusetune.errors import InvalidValueError, StateError


def to_library(columns: Sequence[TableColumn], library: str | None) -> Any:
    """Return the table in the library that was asked for.

    Args:
        columns: of equal length.
        library: `pandas`, `polars`, or None for the first that is installed.

    Raises:
        InvalidValueError: an unknown library.
        StateError: it is not installed.
    """
    if library is not None and library not in _BUILDERS:
        raise InvalidValueError.unknown("library", library, _BUILDERS, in_order=True)
    wanted = [library] if library else list(_BUILDERS)
    for name in wanted:
        if find_spec(name) is not None:
            return _BUILDERS[name](columns)
    missing = " and ".join(wanted)
    raise StateError(
        "to_frame",
        f"{missing} {'is' if library else 'are'} not installed",
        "a table needs pandas or polars",
        f"Run pip install {wanted[0]}.",
    )


def _to_pandas(columns: Sequence[TableColumn]) -> Any:
    import pandas

    frame = pandas.DataFrame({column.name: _pandas_values(column) for column in columns})
    frame.attrs["units"] = {column.name: column.unit for column in columns if column.unit}
    return frame


def _pandas_values(column: TableColumn) -> Any:
    """Return a column as an array of pandas, with the type that fits."""
    import pandas

    if column.type == "label":
        known = dict.fromkeys(value for value in column.values if value is not None)
        return pandas.Categorical(column.values, categories=list(known))
    dtypes = {"text": "string", "integer": "int64", "count": "Int64", "number": "float64", "flag": "boolean"}
    values = column.values
    if column.type == "number":
        values = [float("nan") if value is None else float(value) for value in values]
    return pandas.Series(values, dtype=dtypes[column.type])


def _to_polars(columns: Sequence[TableColumn]) -> Any:
    import polars

    dtypes = {
        "label": polars.Categorical,
        "text": polars.String,
        "integer": polars.Int64,
        "count": polars.Int64,
        "number": polars.Float64,
        "flag": polars.Boolean,
    }

    def values(column: TableColumn) -> list[Any]:
        return (
            [None if value is None else float(value) for value in column.values]
            if column.type == "number"
            else list(column.values)
        )

    return polars.DataFrame(
        [polars.Series(column.name, values(column), dtype=dtypes[column.type]) for column in columns]
    )


_BUILDERS: dict[str, Callable[[Sequence[TableColumn]], Any]] = {"pandas": _to_pandas, "polars": _to_polars}
