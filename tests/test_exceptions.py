"""`except Exception` stands only around code that is not ours, and says whose."""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
EVERYTHING = {"Exception", "BaseException"}

# Where anything at all may be raised, because what is called there is a person's code, or another project's plug-in.
# A row is a file, how many such places it has, and whose code that is.
FOREIGN_CODE = {
    "bench/cli/page_file.py": (1, "the libraries that make a page"),
    "bench/finder_bench/child.py": (1, "the finders of others"),
    "bench/kernels/inspection.py": (1, "make_inputs"),
    "bench/kernels/subject.py": (2, "make_inputs, the reference, and how their objects are pickled"),
    "bench/own_modules.py": (2, "a person's module or file"),
    "bench/run/rank_process.py": (2, "the trial, and torch where processes do not meet"),
    "bench/run/trial.py": (1, "the model"),
    "bench/tracking/sender.py": (1, "the tracker"),
    "bench/workers/messages.py": (1, "what a trial may have written to its worker's pipe"),
    "bench/workers/trial_state.py": (1, "settings of the process that a trial may have replaced"),
    "bench/workers/worker.py": (1, "the trial"),
    "kernels/replace/forward_graph.py": (1, "the model's forward"),
    "kernels/trial_launch.py": (1, "a release of Triton that was not tested"),
    "kernels/triton_inside.py": (1, "other backends of Triton"),
    "tuner/batch_size/largest.py": (1, "the probe"),
    "tuner/memory/predict.py": (2, "the model, on fake tensors and for real"),
    "tuner/memory/trace.py": (1, "the model's constructor"),
    "tuner/parallel/data_parallel.py": (
        1,
        "a forward on the host of a model that may run on its device alone",
    ),
    "tuner/search/budget.py": (2, "evaluate"),
    "tuner/training/timing_again.py": (1, "the model"),
}
# What ends a process or a thread, and hands on what it was ended by.
HANDED_ON = {
    "bench/kernels/subject.py",
    "bench/workers/pool.py",
    "bench/workers/preloaded.py",
    "kernels/static/compile.py",
}


def caught(node: ast.AST) -> tuple[set[str], int] | None:
    """Return the names that a handler or a `suppress` catches and its line, or None for any other node."""
    if isinstance(node, ast.ExceptHandler):
        named = [node.type] if node.type is not None else []
    elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "suppress":
        named = list(node.args)
    else:
        return None
    names = {each.id for part in named for each in ast.walk(part) if isinstance(each, ast.Name)}
    return names or EVERYTHING, node.lineno


@cache
def broad_places() -> list[tuple[str, bool, str, ast.AST]]:
    """List the file, whether it is `BaseException`, the line of code and the node of what catches everything."""
    places = []
    for folder in ("kernels", "tuner", "bench"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text()
            if any(name in text for name in (*EVERYTHING, "except:")):
                for node in ast.walk(ast.parse(text)):
                    found = caught(node)
                    if found is not None and found[0] & EVERYTHING:
                        line = text.splitlines()[found[1] - 1]
                        places.append((str(path.relative_to(ROOT)), "BaseException" in found[0], line, node))
    return places


def test_everything_is_caught_only_around_code_of_others() -> None:
    places = Counter(file for file, widest, _, _ in broad_places() if not widest)
    assert places == {file: number for file, (number, _) in FOREIGN_CODE.items()}


def test_each_such_place_says_whose_code_may_raise() -> None:
    for file, widest, line, _ in broad_places():
        if not widest:
            assert "  # " in line, f"{file}: write behind `{line.strip()}` whose code may raise"


def test_what_ends_a_process_is_raised_again() -> None:
    for file, widest, line, node in broad_places():
        if widest and file not in HANDED_ON:
            assert any(isinstance(each, ast.Raise) for each in ast.walk(node)), f"{file}: {line.strip()}"
