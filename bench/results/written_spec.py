"""A resolved spec as run.json has it. It may be of an earlier version, so it is not read as a `Spec`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fusetune.bench.spec import AUTO, named_levels
from fusetune.tuner.training import Target


@dataclass(frozen=True)
class WrittenSearch:
    """What a search may spend, see `bench.spec.spec.SearchSettings`."""

    budget_epochs: int
    prior: bool = True
    fresh_seeds: int = 3


@dataclass(frozen=True)
class WrittenSpec:
    """The parts of a resolved spec that reports and later commands use. A part that is missing has its default.

    Args:
        content: every key with its value, see docs/spec.md.

    Example:
        >>> spec = WrittenSpec({"name": "demo", "factors": {"batch_size": [32, 64]}, "seeds": [0, 1]})
        >>> spec.name, spec.levels, spec.seeds, spec.design
        ('demo', {'batch_size': [32, 64]}, (0, 1), 'grid')
    """

    content: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The spec's name, `run` where it has none."""
        return str(self.content.get("name") or "run")

    @property
    def data(self) -> str:
        """Name or factory of the data."""
        return _name_of_section(self.content.get("data"))

    @property
    def model(self) -> str:
        """Name or factory of the model."""
        return _name_of_section(self.content.get("model"))

    @property
    def target(self) -> Target | None:
        """What is to be reached."""
        given = self.content.get("target")
        return Target(**given) if given else None

    @property
    def target_metric(self) -> str | None:
        """The target's metric."""
        return (self.content.get("target") or {}).get("metric")

    @property
    def epochs(self) -> int:
        """Epochs of a training. Raises KeyError where they are missing."""
        return int(self._train["epochs"])

    @property
    def accumulation_steps(self) -> int:
        """Forwards in a step."""
        return int(self._train.get("accumulation_steps", 1))

    @property
    def implementation(self) -> str:
        """`torch` or `fused`."""
        return str(self._train.get("implementation", "torch"))

    @property
    def threads(self) -> int | str:
        """Threads of a worker, or `auto`."""
        asked: int | str = self.content.get("threads", AUTO)
        return asked

    @property
    def seeds(self) -> tuple[int, ...]:
        """Every seed. A number of seeds stands for those from 0."""
        given = self.content.get("seeds") or ()
        return tuple(range(given) if isinstance(given, int) else given)

    @property
    def factors(self) -> dict[str, Any]:
        """Factor -> its values, or the range of a search. Factors without any are left out."""
        return {name: values for name, values in (self.content.get("factors") or {}).items() if values}

    @property
    def is_listed(self) -> bool:
        """Whether the configurations are listed one by one."""
        return bool(self.content.get("configurations"))

    @property
    def levels(self) -> dict[str, list[Any]]:
        """Factor -> the values that are named, by `factors` or `configurations`."""
        return named_levels(self.content)

    @property
    def design(self) -> str:
        """Name of the design: `grid`, `one-at-a-time`, `random` or `search`."""
        given = self.content.get("design") or "grid"
        return given if isinstance(given, str) else str(next(iter(given)))

    @property
    def search(self) -> WrittenSearch:
        """The settings of a search. Raises KeyError where it is none."""
        settings = self.content["design"]["search"]
        names = ("budget_epochs", "prior", "fresh_seeds")
        return WrittenSearch(**{name: settings[name] for name in names if name in settings})

    @property
    def _train(self) -> Mapping[str, Any]:
        return self.content.get("train") or {}


def _name_of_section(section: Any) -> str:
    if isinstance(section, Mapping):
        return str(section.get("factory") or section.get("name") or "unknown")
    return str(section or "unknown")
