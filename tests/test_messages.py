"""The messages of errors keep their form: `<where>: <what>; <known>. <to_do>`, in sentences that are read once."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST_WORDS = 30
# What others say in a message is not ours to shorten: one word stands for it.
HOLE = "X"


@cache
def trees() -> dict[str, ast.Module]:
    return {
        str(path.relative_to(ROOT)): ast.parse(path.read_text())
        for folder in ("kernels", "tuner", "bench")
        for path in sorted((ROOT / folder).rglob("*.py"))
    }


@cache
def classes() -> frozenset[str]:
    """Return the names of FusetuneError and of every class below it, which take the fields of a message."""
    found = {"FusetuneError", "InvalidValueError", "InvalidTypeError", "StateError"}
    bases = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for tree in trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    while more := {name for name, own in bases.items() if own & found} - found:
        found |= more
    return frozenset(found)


def text_of(node: ast.AST) -> str | None:
    """Return a literal's text, with a word in place of each value that is put in. None for what is no literal."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or HOLE for part in node.values)
    return None


def messages() -> Iterator[tuple[str, bool, list[str]]]:
    """Yield the place of each message, whether it is made of fields, and its literal parts."""
    for file, tree in trees().items():
        raised = {id(node.exc) for node in ast.walk(tree) if isinstance(node, ast.Raise)}
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            if name in classes() or name.removesuffix(".unknown") in classes() or id(node) in raised:
                given = [*node.args, *(each.value for each in node.keywords)]
                parts = [text for text in map(text_of, given) if text is not None]
                yield f"{file}:{node.lineno}", name in classes(), parts


def sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?;])\s+", text)


def test_the_messages_are_found() -> None:
    found = list(messages())
    assert len(found) > 400
    assert {"InputError", "RunDirectoryError", "DownloadError", "NoCompilerError"} <= classes()
    assert any(parts[:2] == ["model", "has no parameters to train"] for _, _, parts in found)


def test_a_message_has_no_semicolon_beyond_that_of_its_form() -> None:
    for place, of_fields, parts in messages():
        for part in parts:
            assert part.count("; ") <= (0 if of_fields else 1), f"{place}: {part}"


def test_the_sentences_of_a_message_are_short() -> None:
    for place, _, parts in messages():
        for sentence in (each for part in parts for each in sentences(part)):
            assert len(sentence.split()) <= MOST_WORDS, f"{place}: {sentence}"


def test_the_library_raises_errors_of_the_tree() -> None:
    """Where Triton, Python or the system asks for a class of its own, that is raised."""
    for file, tree in trees().items():
        if file.startswith(("kernels", "tuner")):
            for node in ast.walk(tree):
                if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                    name = ast.unparse(node.exc.func)
                    assert name not in {"Exception", "ValueError", "TypeError", "RuntimeError", "KeyError"}, (
                        f"{file}:{node.lineno}"
                    )
