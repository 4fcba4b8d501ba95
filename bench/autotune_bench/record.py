"""Recording of landscapes: every launch config of every problem, in interleaved rounds.

`python -m fusetune.bench.autotune_bench.record` records what is not there yet, so that it can be interrupted. It takes
about ten minutes on an idle core. Name problems, or use `--again`, to record what is there already.

Configs with the same C code are timed once. In a round each code is called once untimed and then timed, in random
order, on one of four sets of tensors, which change every two rounds. A timing during which the thread had less than
90 % of the processor is repeated up to four times, and the least contended one counts. After 40 rounds those that take
more than 1.5 times as long as the best are left out, and the others are timed in up to 640.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import triton

from fusetune.bench.autotune_bench.landscape import LANDSCAPES, Landscape
from fusetune.bench.autotune_bench.problem import Config, Problem, Tensors
from fusetune.bench.autotune_bench.problems import PROBLEMS
from fusetune.bench.terminal import say
from fusetune.tuner.measure import Stopwatch, is_contended

ROUNDS_OF_ALL, ROUNDS = 40, 640
_FAR = 1.5
_LEAST_SAMPLE_S = 100e-6
_MOST_CALLS = 8
_SETS = 4
_TRIES = 5


def record(problem: Problem, *, limit_s: float = 40.0, seed: int = 0) -> Landscape:
    """Verify and time every config.

    Args:
        problem: the kernel and its space.
        limit_s: after it no round begins but the first 40 of all, and 80 in all.
        seed: of the order inside the rounds.

    Raises:
        ArithmeticError: a config is wrong.
    """
    sets = [problem.make(seed) for seed in range(_SETS)]
    codes: dict[str, int] = {}
    code_of = []
    for config in problem.configs:
        code = _verified_code(problem, sets[0], config)
        code_of.append(codes.setdefault(code, len(codes)))
    configs = [problem.configs[code_of.index(code)] for code in range(len(codes))]

    def sample(code: int, turn: int, calls: int) -> float:
        return _time(lambda: problem.launch(sets[turn // 2 % _SETS], configs[code]), calls)

    shortest = min(sample(code, 0, 1) for code in range(len(codes)) for _ in range(3))
    calls = max(1, min(_MOST_CALLS, math.ceil(_LEAST_SAMPLE_S / shortest)))
    samples = np.full((ROUNDS, len(codes)), np.nan)
    generator = np.random.default_rng(seed)
    watch = Stopwatch("cpu")
    start_s = watch.now_s()
    kept = np.arange(len(codes))
    turn = 0
    for turn in range(ROUNDS):
        if turn == ROUNDS_OF_ALL:
            medians = np.median(samples[:turn], axis=0)
            kept = np.flatnonzero(medians <= _FAR * medians.min())
        if turn >= ROUNDS // 2 and watch.now_s() - start_s > limit_s:
            break
        for code in generator.permutation(kept):
            samples[turn, code] = sample(int(code), turn, calls)
    done = ~np.isnan(samples).all(axis=1)
    facts: dict[str, object] = {
        "policy": f"wall, warm, {calls} calls",
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "seconds": round(watch.now_s() - start_s, 1),
    }
    return Landscape(problem.name, problem.configs, code_of, samples[done], facts)


def _verified_code(problem: Problem, tensors: Tensors, config: Config) -> str:
    """Launch once, compare with float64, and return a digest of the C code."""
    problem.reset(tensors)
    compiled = problem.launch(tensors, config)
    wanted = problem.reference(tensors)
    error = (problem.results(tensors).double() - wanted).abs().max() / wanted.abs().max()
    if not error <= problem.tolerance:
        raise ArithmeticError(f"{problem.name}: {config}: the error is {error:.2g}")
    return hashlib.sha256(compiled.asm["c"].encode()).hexdigest()


def _time(call: Callable[[], object], calls: int) -> float:
    """Return the seconds of a call, after one that is not timed. What others disturb is timed again."""
    call()
    tries: list[tuple[float, float]] = []
    while len(tries) < _TRIES and (not tries or is_contended(tries[-1][0])):
        watch = Stopwatch("cpu")
        thread_s = time.thread_time()
        watch.resume()
        for _ in range(calls):
            call()
        watch.lap()
        seconds = watch.laps_s()[0]
        tries.append((1 - (time.thread_time() - thread_s) / seconds, seconds))
    return min(tries)[1] / calls


def main() -> None:
    """Record the named problems, or those that are missing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="PROBLEM", help="e.g. softmax/64x512; default: all")
    parser.add_argument("--again", action="store_true", help="record what is there already too")
    parser.add_argument("--directory", type=Path, default=LANDSCAPES)
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(PROBLEMS))
    if unknown:
        parser.error(f"unknown problem '{unknown[0]}'; known: {', '.join(PROBLEMS)}")
    torch.set_num_threads(1)
    for name in arguments.names or PROBLEMS:
        path = Landscape(name, (), (), np.empty((0, 0)), {}).path(arguments.directory)
        if path.exists() and not (arguments.again or arguments.names):
            continue
        found = record(PROBLEMS[name])
        found.save(arguments.directory)
        latencies_s = found.latencies_s
        say(
            f"{name}: {len(found.configs)} configs, {found.codes} codes, {1e6 * latencies_s.min():.0f} to "
            f"{1e6 * latencies_s.max():.0f} us, {found.facts['seconds']} s"
        )


if __name__ == "__main__":
    main()
