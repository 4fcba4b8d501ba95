"""One parameter in a spec: its meaning, its type and range, and the check of a value."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fusetune.errors import InvalidValueError


@dataclass(frozen=True)
class Parameter:
    """The meaning, the type, the range and the default of one parameter.

    Numbers are in [low, high], except an excluded end. `numbers` is an increasing list of them. A `default` of None is
    derived from the length of the training, and `meaning` describes how.
    """

    meaning: str
    kind: Literal["number", "numbers", "integer", "flag", "choice"] = "number"
    low: float = 0.0
    high: float = math.inf
    low_excluded: bool = False
    high_excluded: bool = False
    choices: tuple[str, ...] = ()
    default: Any = None

    def check(self, where: str, value: object) -> None:
        """Raise ValueError unless `value` has the parameter's type and range.

        Example:
            >>> Parameter("share of the training", high=1).check("pct_start", 1.5)
            Traceback (most recent call last):
            ...
            fusetune.errors.InvalidValueError: pct_start: 1.5 is out of range; known: [0, 1]. Choose a number in it
        """
        if value is None and self.default is None:
            return
        if self.kind == "flag":
            if not isinstance(value, bool):
                raise InvalidValueError(
                    where, f"{value!r} is not a flag", "known: true, false", "Write one of these"
                )
        elif self.kind == "choice":
            if value not in self.choices:
                raise InvalidValueError.unknown(where, value, self.choices)
        elif self.kind == "numbers":
            self._check_numbers(where, value)
        else:
            self._check_number(where, value)

    @property
    def interval(self) -> str:
        """The range of a number in the notation of intervals.

        Example:
            >>> Parameter("exponent", low_excluded=True).interval
            '(0, inf)'
        """
        left = "(" if self.low_excluded else "["
        right = ")" if self.high_excluded or math.isinf(self.high) else "]"
        return f"{left}{self.low:g}, {self.high:g}{right}"

    def _check_number(self, where: str, value: object) -> None:
        """Raise ValueError unless `value` is a finite number in the range."""
        allowed = int if self.kind == "integer" else (int, float)
        if isinstance(value, bool) or not isinstance(value, allowed):
            kind = "an integer" if self.kind == "integer" else "a number"
            raise InvalidValueError(
                where, f"{value!r} is not {kind}", f"known: {self.interval}", f"Write {kind} in it"
            )
        above = value > self.low if self.low_excluded else value >= self.low
        below = value < self.high if self.high_excluded or math.isinf(self.high) else value <= self.high
        if not (above and below):
            raise InvalidValueError(
                where, f"{value!r} is out of range", f"known: {self.interval}", "Choose a number in it"
            )

    def _check_numbers(self, where: str, value: object) -> None:
        """Raise ValueError unless `value` is an increasing list of numbers in the range."""
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            raise InvalidValueError(
                where, f"{value!r} is not a list of numbers", to_do="Write it like [8, 12]"
            )
        for number in value:
            self._check_number(where, number)
        if any(later <= earlier for earlier, later in itertools.pairwise(value)):
            raise InvalidValueError(
                where, f"{value!r} does not increase", to_do="Write each number once, in order"
            )
