"""What will be loaded, and from where: decided where the spec is read, used in a worker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fusetune.bench.catalog import DATASETS

_LIBRARIES = {"digits": ("sklearn.datasets",), "folder": ("PIL.Image",)}


@dataclass(frozen=True)
class Source:
    """The data to load, and their origin. Small and picklable: made where the spec is read, loaded in a worker.

    `name` is the data set in use, or a factory's reference. `wanted` is the one that the spec names, and `reason` says
    why they differ. `path` is absolute. `options` are a generated set's seed and sizes, a factory's keyword arguments,
    or a folder's labels and size. `classes` are the names by number, if they have names. `where` is the place in the
    spec, for error messages.
    """

    name: str
    wanted: str
    path: str | None = None
    reason: str | None = None
    is_factory: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    where: str = "data"

    @property
    def stand_in(self) -> bool:
        """Whether this is another data set than the spec names."""
        return self.name != self.wanted

    @property
    def libraries(self) -> tuple[str, ...]:
        """Modules that loading it imports, of which nothing else has need."""
        return () if self.is_factory else _LIBRARIES.get(self.name, ())

    def announcement(self) -> str | None:
        """The banner before training and over every report. None for real data."""
        if not self.stand_in:
            return None
        return (
            f"{self.wanted} {self.reason}; its stand-in {self.name} is used ({DATASETS[self.name].summary}). "
            f"Accuracies are not those of {self.wanted}."
        )
