"""Our search and random search on ten spaces with a narrow good region.

    python -m fusetune.bench.search_bench.narrow

One point in 25 to one in 250 is good. Around the region trainings diverge, fail, run out of memory, or have equal
values, so no gradient leads to it. A space counts as found where most seeds reach its region within the budget.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table as Printed

from fusetune.bench.terminal import SafeConsole
from fusetune.tuner.search import Space, search

EPOCHS = 4
_GOOD, _POOR = 0.9, 0.5
Config = Mapping[str, Any]


@dataclass(frozen=True)
class Narrow:
    """A space with a narrow good region.

    Args:
        space: as for `tuner.search`.
        is_good: whether a configuration lies in the region.
        outside: how a training outside ends: "diverges", "fails", "does not fit" or "is poor".
        budget_epochs: a budget with which random search finds the region in more than half of the seeds.
        late: whether a good training has a poor value until its last epoch.
    """

    space: dict[str, Any]
    is_good: Callable[[Config], bool]
    outside: str
    budget_epochs: int
    late: bool = False

    def evaluate(self, config: Config, seed: int) -> Iterator[float]:
        """Yield a training's value after each epoch. All points of the region are equal, and so are all others."""
        good = self.is_good(config)
        for epoch in range(1, EPOCHS + 1):
            if good:
                yield (_POOR if self.late and epoch < EPOCHS else _GOOD) - 0.01 * (EPOCHS - epoch)
            elif self.outside == "diverges":
                yield math.nan
            elif self.outside == "fails":
                raise RuntimeError("no such configuration")
            elif self.outside == "does not fit":
                raise MemoryError
            else:
                yield _POOR - 0.01 * (EPOCHS - epoch)


_LR = {"low": 1e-6, "high": 1e3, "log": True}
NARROW: dict[str, Narrow] = {
    "a rate below 0.05 on a linear range to 10": Narrow(
        {"lr": {"low": 0.001, "high": 10.0}}, lambda c: c["lr"] < 0.05, "diverges", 600
    ),
    "half a decade of nine": Narrow({"lr": _LR}, lambda c: 1e-3 < c["lr"] < 3e-3, "diverges", 60),
    "one hundredth of a flat range": Narrow(
        {"x": {"low": 0.0, "high": 1.0}}, lambda c: 0.366 < c["x"] < 0.376, "is poor", 800
    ),
    "a momentum near 1 with a small rate": Narrow(
        {"lr": {"low": 1e-5, "high": 1.0, "log": True}, "momentum": {"low": 0.0, "high": 0.999}},
        lambda c: c["momentum"] > 0.9 and c["lr"] < 3e-4,
        "diverges",
        120,
    ),
    "betas between 0.999 and 0.99999": Narrow(
        {"beta": {"low": 0.999, "high": 0.99999}}, lambda c: 0.9995 < c["beta"] < 0.99953, "is poor", 240
    ),
    "a few hundred of 100,000 widths": Narrow(
        {"width": {"low": 1, "high": 100_000}}, lambda c: 4200 < c["width"] < 5600, "fails", 240
    ),
    "one optimizer of twelve at a tenth of the rates": Narrow(
        {"optimizer": [f"optimizer-{i}" for i in range(12)], "lr": {"low": 1e-5, "high": 1.0, "log": True}},
        lambda c: c["optimizer"] == "optimizer-7" and 1e-3 < c["lr"] < 3.2e-3,
        "diverges",
        300,
    ),
    "a valley along which rate times decay is one number": Narrow(
        {
            "lr": {"low": 1e-4, "high": 1.0, "log": True},
            "weight_decay": {"low": 1e-6, "high": 1e-1, "log": True},
        },
        lambda c: abs(math.log10(c["lr"] * c["weight_decay"]) + 5) < 0.08,
        "is poor",
        240,
    ),
    "batches that fit, of a million": Narrow(
        {"batch_size": {"low": 1, "high": 1_000_000}}, lambda c: c["batch_size"] <= 8000, "does not fit", 240
    ),
    "late bloomers in a corner of five factors": Narrow(
        {name: {"low": 0.0, "high": 1.0} for name in "abcde"},
        lambda c: c["a"] > 0.8 and c["b"] < 0.2,
        "is poor",
        200,
        late=True,
    ),
}


def finds(narrow: Narrow, seed: int) -> bool:
    """Whether `tuner.search` with its defaults finds the region within the budget."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        result = search(
            narrow.space, narrow.evaluate, max_epochs=EPOCHS, budget_epochs=narrow.budget_epochs, seed=seed
        )
    return result.best is not None and result.best.value >= _GOOD


def random_finds(narrow: Narrow, seed: int) -> bool:
    """Whether random search with full trainings finds the region. A diverged or failed training costs one epoch."""
    space, rng, used = Space(narrow.space), np.random.default_rng(seed), 0
    while used < narrow.budget_epochs:
        shares = rng.random(len(space.factors))
        point = [factor.spread(share[None])[0] for factor, share in zip(space.factors, shares, strict=True)]
        good = narrow.is_good(space.configuration(np.array(point)))
        used += EPOCHS if good or narrow.outside == "is poor" else 1
        if good and used <= narrow.budget_epochs:
            return True
    return False


def shares_found(names: Sequence[str], seeds: Sequence[int]) -> dict[str, tuple[float, float]]:
    """Return for each space the share of seeds in which our search and random search found its region."""
    return {
        name: (
            float(np.mean([finds(NARROW[name], seed) for seed in seeds])),
            float(np.mean([random_finds(NARROW[name], seed) for seed in range(200)])),
        )
        for name in names
    }


def main() -> None:
    """Search all spaces and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="searches of each space")
    seeds = range(parser.parse_args().seeds)
    printed = Printed(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    printed.add_column("space")
    for column in ("epochs", "tuner.search", "random"):
        printed.add_column(column, justify="right")
    found = 0
    for name, narrow in NARROW.items():
        ours, chance = shares_found([name], seeds)[name]
        found += ours > 0.5
        printed.add_row(name, str(narrow.budget_epochs), f"{ours:.0%}", f"{chance:.0%}")
    console = SafeConsole(width=100)
    console.print(printed)
    console.print(f"found in most of {len(seeds)} seeds: {found} of {len(NARROW)} spaces. Random: 200 seeds.")


if __name__ == "__main__":
    main()
