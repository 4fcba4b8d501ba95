"""A factor's value as text: in a trial's id and in sentences. Different values have different texts.

Ordinary values are written as in the spec: `adam`, `0.1`, `null`, `[1;2]`, `one-cycle(pct_start=0.3)`. A text that
could be read as another value is written in quotes, as in JSON: `"true"`, `"1"`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

from fusetune.bench.terminal import one_line

_STRUCTURE = re.compile(r"""[,;=()\[\]"{}]|\A\s|\s\Z|\s\s""")
_WORDS = ("", "true", "false", "null")


class LeftOut(str):
    """A field that a configuration leaves unchanged and whose value is not known. null would be a value."""


LEFT_OUT = LeftOut("default")


def left_out(values: Iterable[Any]) -> LeftOut:
    """Return the word for a factor that is left out, none of its values.

    Example:
        >>> left_out(["a", None]), left_out(["default", None])
        ('default', 'left-out')
    """
    taken = {value for value in values if isinstance(value, str)}
    if LEFT_OUT not in taken:
        return LEFT_OUT
    words = ("left-out", *(f"left-out-{number}" for number in range(len(taken))))
    return LeftOut(next(word for word in words if word not in taken))


def value_id(value: Any) -> str:
    """Write a value into a trial's id.

    Args:
        value: plain data: text, number, true or false, null, list, mapping.

    Returns:
        One line without control characters. Equal texts mean equal values of equal types. A tuple counts as a list.

    Example:
        >>> value_id(True), value_id("true"), value_id([1, 2]), value_id("[1;2]")
        ('true', '"true"', '[1;2]', '"[1;2]"')
        >>> value_id({"name": "one-cycle", "pct_start": 0.3})
        'one-cycle(pct_start=0.3)'
    """
    return _written(value, ";", str)


def value_label(value: Any) -> str:
    """Write a value for sentences and tables: as `value_id`, with spaces and short numbers.

    Example:
        >>> value_label(0.10), value_label([1, 2]), value_label({"name": "one-cycle"}), value_label("0.1")
        ('0.1', '[1, 2]', 'one-cycle', '"0.1"')
    """
    if isinstance(value, Mapping) and set(value) in ({"name"}, {"factory"}):
        value = next(iter(value.values()))
    return _written(value, ", ", _short)


def key_id(key: str) -> str:
    """Write a factor's name into a trial's id.

    Example:
        >>> key_id("train.batch_size"), key_id("a=b")
        ('train.batch_size', '"a=b"')
    """
    return _quoted(key) if _STRUCTURE.search(key) or one_line(key) != key or not key else key


def _written(value: Any, between: str, number: Callable[[float], str]) -> str:
    """Write a value. `between` separates items, `number` writes a float."""

    def inner(item: Any) -> str:
        return _written(item, between, number)

    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return number(value)
    if isinstance(value, str):
        return value if isinstance(value, LeftOut) or _is_plain(value) else _quoted(value)
    if isinstance(value, (list, tuple)):
        return f"[{between.join(map(inner, value))}]"
    if isinstance(value, Mapping):
        head = _head(value)
        rest = [f"{key_id(str(key))}={inner(item)}" for key, item in value.items() if key != head]
        name = inner(value[head]) if head is not None else ""
        return f"{name}({between.join(rest)})"
    return str(value)


def _head(value: Mapping[Any, Any]) -> str | None:
    """Return the key that names a mapping: `factory` with a reference, which has a colon, or else `name`."""
    factory, name = value.get("factory"), value.get("name")
    if isinstance(factory, str) and ":" in factory:
        return "factory"
    return "name" if isinstance(name, str) and ":" not in name else None


def _is_plain(text: str) -> bool:
    """Whether a text is read as itself and nothing else."""
    return not (text in _WORDS or _reads_as_number(text) or _STRUCTURE.search(text) or one_line(text) != text)


def _reads_as_number(text: str) -> bool:
    """Whether a text has the form of a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _quoted(text: str) -> str:
    """Write a text in quotes as in JSON, with every character printable."""
    return one_line(json.dumps(text, ensure_ascii=False))


def _short(value: float) -> str:
    """Write a number with the fewest digits that are exact."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def same_value(one: Any, other: Any) -> bool:
    """Whether two values train the same: 1 and 1.0 do, 1 and true do not.

    Example:
        >>> same_value(1, 1.0), same_value(1, True), same_value({"a": 1, "b": 2}, {"b": 2, "a": 1})
        (True, False, True)
    """
    return bool(frozen(one) == frozen(other))


def frozen(value: Any) -> Any:
    """Return a hashable stand-in that is equal where two values are the same, and of unequal types unequal.

    Example:
        >>> frozen(True) == frozen(1), frozen([1]) == frozen((1.0,)), frozen([["a", 1]]) == frozen({"a": 1})
        (False, True, False)
    """
    if isinstance(value, Mapping):
        return ("mapping", *sorted((str(key), frozen(item)) for key, item in value.items()))
    if isinstance(value, (list, tuple)):
        return ("list", *map(frozen, value))
    return (type(value).__name__ if isinstance(value, bool) else "", value)


def freeze(value: Any) -> Hashable:
    """Make a factor value comparable. A mapping that only names something equals the bare name. 1 is 1.0, not true."""
    if type(value) in (str, int, float):  # most are, and reports of many trials ask for each of them
        return value  # type: ignore[no-any-return]
    if isinstance(value, Mapping):
        if set(value) in ({"name"}, {"factory"}):
            return freeze(next(iter(value.values())))
        return ("mapping", *sorted((key, freeze(item)) for key, item in value.items()))
    if isinstance(value, (list, tuple)):
        return ("list", *map(freeze, value))
    return ("bool", value) if isinstance(value, bool) else value


def named_levels(spec: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the factors that a spec of a run.json varies: name -> its values.

    Example:
        >>> named_levels({"configurations": [{"a": 1, "b": [2, 3]}, {"a": 4}]})
        {'a': [1, 4], 'b': [2, 3]}
    """
    found: dict[str, dict[Hashable, Any]] = {}
    for entry in spec.get("configurations") or ():
        for name, given in entry.items():
            values = given if isinstance(given, list) else [given]
            found.setdefault(name, {}).update(
                {freeze(v): v for v in values if freeze(v) not in found.get(name, {})}
            )
    listed = {name: list(values.values()) for name, values in found.items()}
    return listed or {name: values for name, values in (spec.get("factors") or {}).items() if values}
