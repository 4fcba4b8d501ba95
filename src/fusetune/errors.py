"""The errors that fusetune raises on purpose, as a tree. `except FusetuneError` catches all of them.

    FusetuneError                       code
    ├── InvalidValueError (ValueError)  invalid-value      an argument that a function cannot take
    ├── InvalidTypeError  (TypeError)   invalid-type       an argument of a type that a function cannot take
    ├── StateError        (RuntimeError) state             a call that the state of a program or machine does not allow
    └── fusetune.bench's BenchError     bench              exit code 1
        ├── InputError                  input              exit code 2: a spec, a flag, a file or a name
        │   └── DownloadError           download
        ├── RunDirectoryError           run-directory      exit code 2: the results directory
        └── SetupError                  setup              exit code 4: a revision that cannot be made to run

An unknown name has the code `unknown-name`, whatever its class. Some rooms have classes of their own below these.

The text of an error is `<where>: <what>; <known>. <to_do>`. A part that is empty is left out with its punctuation.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from fusetune.closest_name import closest

E = TypeVar("E", bound="FusetuneError")


class FusetuneError(Exception):
    """Base of every error that fusetune raises on purpose.

    Args:
        where: the argument, the key of a spec or the file that the error is about. It may be empty.
        what: what is wrong there.
        known: what is known about it, such as the values that are allowed. It may be empty.
        to_do: what a person can do. It may be empty.

    Attributes:
        code: a short name of the kind of error, which stays the same between releases.
        where, what, known, to_do: the parts of the text.
        closest: the known name that is most like an unknown one, or None.

    Example:
        >>> error = InvalidValueError("lr", "-1 is not allowed", "known: above 0", "Give a rate above 0")
        >>> str(error), error.code
        ('lr: -1 is not allowed; known: above 0. Give a rate above 0', 'invalid-value')
    """

    code: str = "error"

    def __init__(self, where: object, what: str, known: str = "", to_do: str = "") -> None:
        self.where = str(where)
        self.what = what
        self.known = known
        self.to_do = to_do
        self.closest: str | None = None
        text = f"{self.where}: {what}" if self.where else what
        text = f"{text}; {known}" if known else text
        super().__init__(f"{text}. {to_do}" if to_do else text)

    def __str__(self) -> str:
        """Return the text as it is, for a KeyError would put it into quotes."""
        return str(self.args[0])

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the fields, whatever the arguments of a subclass are."""
        return _restored, (type(self), str(self)), self.__dict__

    @classmethod
    def unknown(
        cls: type[E],
        where: object,
        name: object,
        known: Iterable[str],
        *,
        in_order: bool = False,
        otherwise: str = "Use one of these.",
    ) -> E:
        """Return the error for a name that is not in a table: the known names and the closest.

        Args:
            where: what the name is for.
            name: the unknown name.
            known: the names in the table.
            in_order: list the known names as they come, not by the alphabet.
            otherwise: what to do where no known name is close.

        Example:
            >>> str(InvalidValueError.unknown("spec.yaml:3: train.optimizer", "adamwt", ["sgd", "adamw", "adam"]))
            "spec.yaml:3: train.optimizer: unknown 'adamwt'; known: adam, adamw, sgd. Did you mean 'adamw'?"
        """
        names = list(known) if in_order else sorted(known)
        near = closest(name, names)
        to_do = f"Did you mean '{near}'?" if near else otherwise
        error = cls(where, f"unknown '{name}'", f"known: {', '.join(names)}", to_do)
        error.closest = near
        error.code = "unknown-name"
        return error


def _restored(cls: type[E], text: str) -> E:
    return cls.__new__(cls, text)


class InvalidValueError(FusetuneError, ValueError):
    """An argument that a function cannot take."""

    code = "invalid-value"


class InvalidTypeError(FusetuneError, TypeError):
    """An argument of a type that a function cannot take."""

    code = "invalid-type"


class StateError(FusetuneError, RuntimeError):
    """A call that the state of the program or of the machine does not allow."""

    code = "state"
