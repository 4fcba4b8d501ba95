"""`make test` runs every example in a docstring: pytest looks for them, sees each that is written, and skips none."""

from __future__ import annotations

import ast
import doctest
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "fusetune"


def python_files(folder: Path) -> Iterator[Path]:
    """Yield the files of a package. Its folders may be links."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from python_files(path)
        elif path.suffix == ".py" and path.stem != "__main__":
            yield path


def written_examples(name: str, node: ast.AST) -> Iterator[str]:
    """Yield the dotted name of each docstring in a syntax tree that holds an example."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ">>>" in (
        ast.get_docstring(node) or ""
    ):
        yield name
    for child in ast.iter_child_nodes(node):
        inner = f"{name}.{child.name}" if isinstance(child, ast.ClassDef | ast.FunctionDef) else name
        yield from written_examples(inner, child)


def test_pytest_looks_for_examples(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.getoption("doctestmodules")
    assert "src/fusetune" in pytestconfig.getini("testpaths")


def test_every_example_is_seen_and_none_is_skipped() -> None:
    """A decorator that puts another object in a function's place, as `triton.jit` does, hides its docstring."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    written: set[str] = set()
    seen: set[str] = set()
    for path in python_files(PACKAGE):
        module = ".".join(("fusetune", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
            ".__init__"
        )
        written |= set(written_examples(module, ast.parse(path.read_text())))
        for test in finder.find(import_module(module)):
            assert not any(doctest.SKIP in example.options for example in test.examples), test.name
            seen |= {test.name} if test.examples else set()
    assert written == seen
    assert "fusetune.tuner.schedules.table.build_schedule" in seen
