"""Tuning rules, replayed on recorded landscapes: which config does each choose, and how far is that from the best?

    fixed    a number of rounds for every config, interleaved; the lowest median wins
    triton   as many samples, but one config after the other, as `triton.testing.do_bench` takes them; the lowest median
             wins, as in `triton.autotune`, or the lowest mean
    race     `fusetune.bench.autotune.run_race`, with half as many samples in all
    search   `fusetune.bench.autotune.run_search`, in spaces above 200 configs: a quarter of them is timed

A landscape's rounds are split into even and odd ones. A rule chooses on one half, from several starts, and is judged on
the other. Then the halves change places.

    regret = time(chosen) / time(best) - 1, at least 0

The ratio is the pseudomedian of the ratios inside of the judge's rounds. The best is the best by all rounds. It is
found with the judge's rounds too, so chance makes the regret a little larger than it is, never smaller.

`python -m fusetune.bench.autotune_bench.replay` prints a table of all rules, for the landscapes on which the rules were
chosen (tuning) and for the others (held out).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np

from fusetune.bench.autotune import LARGE_SPACE, Rules, pseudomedian, run_race, run_search
from fusetune.bench.autotune_bench.landscape import LANDSCAPES, Landscape, load_all
from fusetune.bench.terminal import say

FIXED_ROUNDS = 20
STARTS = 5

Choice = tuple[int, int]  # the chosen code, and the samples that it took
Rule = Callable[["Half", int], Choice]


@dataclass(frozen=True)
class Half:
    """The rounds of a landscape that a rule may see, from a start on.

    Args:
        landscape: the landscape.
        rounds: indices of its rounds, in the order in which they are seen.
    """

    landscape: Landscape
    rounds: np.ndarray

    def sample(self, code: int, turn: int) -> float:
        """Return the time of a code in a round.

        One that was left out of the recording by then repeats an earlier time. That is scaled by what all codes that
        were recorded to the end took in the two rounds, for the machine is never the same.
        """
        samples, rounds = self.landscape.samples_s, self.rounds
        now = rounds[turn % len(rounds)]
        if np.isnan(samples[now, code]):
            there = rounds[~np.isnan(samples[rounds, code])]
            earlier = there[turn % len(there)]
            effects = self.landscape.round_effects
            return float(samples[earlier, code] * np.exp(effects[now] - effects[earlier]))
        return float(samples[now, code])


def fixed(half: Half, rounds: int) -> Choice:
    """Choose the lowest median of interleaved rounds."""
    codes = half.landscape.codes
    samples = np.array([[half.sample(code, turn) for code in range(codes)] for turn in range(rounds)])
    return int(np.argmin(np.median(samples, axis=0))), samples.size


def _one_after_the_other(half: Half, rounds: int) -> np.ndarray:
    """(rounds, codes): each code has the rounds after those of the code before it."""
    codes = range(half.landscape.codes)
    return np.array([[half.sample(code, code * rounds + turn) for code in codes] for turn in range(rounds)])


def triton_median(half: Half, rounds: int) -> Choice:
    """Choose the lowest median of samples taken one config after the other."""
    samples = _one_after_the_other(half, rounds)
    return int(np.argmin(np.median(samples, axis=0))), samples.size


def triton_mean(half: Half, rounds: int) -> Choice:
    """Choose the lowest mean of samples taken one config after the other."""
    samples = _one_after_the_other(half, rounds)
    return int(np.argmin(samples.mean(axis=0))), samples.size


def racing(half: Half, rounds: int, rules: Rules | None = None) -> Choice:
    """Race with half as many samples."""
    codes = half.landscape.codes
    found = run_race(
        codes, half.sample, rules=rules, most_samples=codes * rounds // 2, seed=int(half.rounds[0])
    )
    assert found.winner is not None
    return found.winner, found.timings


def searching(half: Half, rounds: int) -> Choice:
    """Search a large space, with a quarter of it timed."""
    configs = half.landscape.representatives()
    found = run_search(configs, half.sample, seed=int(half.rounds[0]))
    assert found.winner is not None
    assert len(found.tried) <= len(configs) / 4
    return found.winner, found.timings


RULES: dict[str, Rule] = {
    "fixed, median": fixed,
    "triton, median": triton_median,
    "triton, mean": triton_mean,
    "race": racing,
}


def halves(landscape: Landscape, starts: int = STARTS) -> Iterable[tuple[Half, np.ndarray]]:
    """Yield what a rule may see, and the rounds that judge it."""
    everything = np.arange(len(landscape.samples_s))
    for part in (0, 1):
        seen, judges = everything[part::2], everything[1 - part :: 2]
        for start in range(starts):
            yield Half(landscape, np.roll(seen, -(start * len(seen) // starts))), judges


def regret(landscape: Landscape, code: int, judges: np.ndarray) -> float:
    """Return how much slower a code is than the best, in the judge's rounds."""
    samples = landscape.samples_s[judges]
    ratios = np.log(samples[:, code] / samples[:, landscape.best])
    return max(0.0, float(np.expm1(pseudomedian(ratios[~np.isnan(ratios)]))))


@dataclass(frozen=True)
class Score:
    """What a rule came to on some landscapes.

    Args:
        regrets: one a landscape, half and start.
        share: the rule's samples, of those of a fixed number of rounds.
    """

    regrets: np.ndarray
    share: float

    def __str__(self) -> str:
        mean, most = 100 * self.regrets.mean(), 100 * np.quantile(self.regrets, 0.95)
        return f"mean {mean:6.2f} %   95th percentile {most:6.2f} %   samples {self.share:.2f}"


def score(
    landscapes: Sequence[Landscape], rule: Rule, *, rounds: int = FIXED_ROUNDS, starts: int = STARTS
) -> Score:
    """Replay a rule on each landscape.

    Args:
        landscapes: at least one.
        rule: `rule(half, rounds)` returns what it chose, and how many samples that took.
        rounds: of the fixed rule, by which samples are counted.
        starts: in each half, from which the rule is replayed.
    """
    regrets, taken, of = [], 0, 0
    for landscape in landscapes:
        for half, judges in halves(landscape, starts):
            code, samples = rule(half, rounds)
            regrets.append(regret(landscape, code, judges))
            taken += samples
            of += landscape.codes * rounds
    return Score(np.array(regrets), taken / of)


def is_held_out(name: str) -> bool:
    """Say whether a landscape had no part in choosing the rules: about half of them, by their names' checksums."""
    return crc32(name.encode()) % 2 == 1


def main() -> None:
    """Print the scores of all rules."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--directory", type=Path, default=LANDSCAPES)
    parser.add_argument("--rounds", type=int, default=FIXED_ROUNDS, help="of the fixed rule")
    arguments = parser.parse_args()
    every = load_all(arguments.directory)
    for title, some in (
        ("tuning", [one for one in every if not is_held_out(one.name)]),
        ("held out", [one for one in every if is_held_out(one.name)]),
        ("all", every),
    ):
        say(f"{title}: {len(some)} landscapes")
        for name, rule in RULES.items():
            if some:
                say(f"  {name:16} {score(some, rule, rounds=arguments.rounds)}")
    for landscape in every:
        if landscape.codes > LARGE_SPACE:
            say(f"search in {landscape.name}, {landscape.codes} codes: {score([landscape], searching)}")


if __name__ == "__main__":
    main()
