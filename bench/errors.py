"""What can go wrong, as a tree; the command line turns each leaf into one sentence and an exit code.

    BenchError              exit 1
    ├── InputError          exit 2   a spec, a flag, a file or a name that the user can mend
    └── RunDirectoryError   exit 2   the results directory: unwritable, full, in use, or of a changed spec

A message reads `<where>: <what is wrong>; <what is known>. <what to do>`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from bench.aliases import meant


class BenchError(Exception):
    """Base of every error the suite raises on purpose; shown without a traceback."""

    exit_code = 1


class InputError(BenchError):
    """Input that the user can mend: a spec, an override, a data file, a factory."""

    exit_code = 2


class RunDirectoryError(BenchError):
    """The results directory cannot be used as asked."""

    exit_code = 2


def closest(name: object, known: Iterable[str]) -> str | None:
    """Return the known name that other libraries call `name`, else the one most like it, or None.

    Example:
        >>> closest("lr", ["base_lr", "betas"]), closest("bettas", ["base_lr", "betas"])
        ('base_lr', 'betas')
    """
    known = list(known)
    if (alias := meant(name, known)) is not None:
        return alias
    matches = difflib.get_close_matches(str(name).lower(), known, n=1, cutoff=0.6)
    return matches[0] if matches else None


def unknown_name(where: str, name: object, known: Iterable[str]) -> InputError:
    """Build the error for a name that is not in a table: the known ones and the closest.

    Example:
        >>> str(unknown_name("spec.yaml:3: train.optimizer", "adamwt", ["sgd", "adamw", "adam"]))
        "spec.yaml:3: train.optimizer: unknown 'adamwt'; known: adam, adamw, sgd. Did you mean 'adamw'?"
    """
    names = sorted(known)
    near = closest(name, names)
    hint = f"Did you mean '{near}'?" if near else "Use one of these."
    return InputError(f"{where}: unknown '{name}'; known: {', '.join(names)}. {hint}")
