"""`except Exception` stands only around code that is not ours, and says whose."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
EVERYTHING = {"Exception", "BaseException"}

# Where anything at all may be raised, because what is called there is a person's code, or another project's plug-in.
FOREIGN_CODE = {
    "bench/run/trial.py: trial_epochs": "the model",
    "bench/workers/messages.py: decode": "what a trial may have written to its worker's pipe",
    "bench/workers/trial_state.py: put_back": "settings of the process that a trial may have replaced",
    "bench/workers/worker.py: attempt": "the trial",
    "bench/workloads/factories.py: _import": "the module of a factory",
    "kernels/replace/forward_graph.py: _graphs": "the model's forward",
    "kernels/trial_launch.py: _complaint": "a release of Triton that was not tested",
    "kernels/triton_inside.py: options_elsewhere": "other backends of Triton",
    "tuner/batch_size/largest.py: _probed": "the probe",
    "tuner/memory/predict.py: trace_memory": "the model, on fake tensors and for real",
    "tuner/memory/trace.py: _build": "the model's constructor",
    "tuner/search/budget.py: _advance": "evaluate",
    "tuner/search/budget.py: _close": "evaluate",
    "tuner/training/timing_again.py: time_again": "the model",
}
# What ends a process or a thread, and hands on what it was ended by.
HANDED_ON = {"bench/workers/executors.py: _work", "kernels/static/compile.py: _work_and_exit"}


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


def found_in(node: ast.AST, function: str) -> Iterator[tuple[str, bool, int, ast.AST]]:
    """Yield the function, whether it is `BaseException`, the line and the node of what catches everything."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        function = node.name
    found = caught(node)
    if found is not None and found[0] & EVERYTHING:
        yield function, "BaseException" in found[0], found[1], node
    for child in ast.iter_child_nodes(node):
        yield from found_in(child, function)


@cache
def broad_places() -> list[tuple[str, bool, str, ast.AST]]:
    """List the place, whether it is `BaseException`, the line of code and the node of what catches everything."""
    places = []
    for folder in ("kernels", "tuner", "bench"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text()
            if any(name in text for name in (*EVERYTHING, "except:")):
                lines = text.splitlines()
                places += [
                    (f"{path.relative_to(ROOT)}: {function}", widest, lines[line - 1], node)
                    for function, widest, line, node in found_in(ast.parse(text), "")
                ]
    return places


def test_everything_is_caught_only_around_code_of_others() -> None:
    places = {place for place, widest, _, _ in broad_places() if not widest}
    assert places == set(FOREIGN_CODE)


def test_each_such_place_says_whose_code_may_raise() -> None:
    for place, widest, line, _ in broad_places():
        if not widest:
            assert "  # " in line, f"{place}: write behind it whose code may raise"


def test_what_ends_a_process_is_raised_again() -> None:
    for place, widest, _, node in broad_places():
        if widest and place not in HANDED_ON:
            assert any(isinstance(each, ast.Raise) for each in ast.walk(node)), place
