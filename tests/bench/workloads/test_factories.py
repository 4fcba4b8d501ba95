"""A person's own functions: found, called by keyword, and every way of failing said in one sentence."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from fusetune.bench.errors import InputError
from fusetune.bench.workloads.factories import build_model_from_factory, call_factory, load_factory

WHERE = "spec.yaml:4: model.factory"


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Write modules into an empty current directory; forget them afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    before = set(sys.modules)

    def write(path: str, source: str) -> None:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("my"):
            del sys.modules[name]


def test_function_of_a_package_in_the_current_directory_is_found(
    write_module: Callable[[str, str], None],
) -> None:
    write_module("mypackage/__init__.py", "")
    write_module(
        "mypackage/nets.py", "def add(a, b):\n    from mypackage import rest\n    return rest.plus(a, b)\n"
    )
    write_module("mypackage/rest.py", "def plus(a, b):\n    return a + b\n")
    factory = load_factory("mypackage.nets:add", WHERE)
    assert call_factory(factory, WHERE, {"a": 1, "b": 2}) == 3


@pytest.mark.parametrize(
    "reference", ["mymodule", "mymodule.make", "a:b:c", ":make", "my module:make", "a.:f", "a:f()"]
)
def test_other_forms_are_refused(reference: str) -> None:
    with pytest.raises(
        InputError, match=r"does not name a function; known: package\.module:function"
    ) as caught:
        load_factory(reference, WHERE)
    assert str(caught.value).startswith(f"{WHERE}: '{reference}'")


@pytest.mark.parametrize("reference", ["mymissing:make", "mymissing.sub:make", "math.sub:make"])
def test_module_that_is_not_there_is_named(reference: str, write_module: Callable[[str, str], None]) -> None:
    with pytest.raises(InputError, match=r"no module '(mymissing|math.sub)'; looked in .*Check the name"):
        load_factory(reference, WHERE)


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        (
            "import os\nimport mynowhere\n",
            r"ModuleNotFoundError: No module named 'mynowhere' \(mybad.py, line 2\)",
        ),
        ("\n\n1 / 0\n", r"ZeroDivisionError: division by zero \(mybad.py, line 3\)"),
        ("def f(:\n", r"SyntaxError: invalid syntax \(mybad.py, line 1\)"),
        ("import sys\nsys.exit(3)\n", r"SystemExit: 3 \(mybad.py, line 2\)"),
    ],
)
def test_module_that_fails_while_imported_shows_its_cause(
    source: str, cause: str, write_module: Callable[[str, str], None]
) -> None:
    write_module("mybad.py", source)
    with pytest.raises(InputError, match=rf"importing 'mybad' failed; {cause}\. Mend the module") as caught:
        load_factory("mybad:make", WHERE)
    assert "\n" not in str(caught.value)


def test_missing_function_lists_the_known_and_the_closest(write_module: Callable[[str, str], None]) -> None:
    write_module(
        "mynets.py", "SIZE = 3\ndef make_net():\n    pass\ndef other():\n    pass\ndef _hidden():\n    pass\n"
    )
    with pytest.raises(
        InputError,
        match=r"in module 'mynets': unknown 'make_nett'; known: make_net, other\. Did you mean 'make_net'\?",
    ):
        load_factory("mynets:make_nett", WHERE)
    with pytest.raises(InputError, match="'mynets:SIZE' is not a function; it is of type int"):
        load_factory("mynets:SIZE", WHERE)


def test_module_without_functions_is_named(write_module: Callable[[str, str], None]) -> None:
    write_module("myempty.py", "SIZE = 3\n")
    with pytest.raises(InputError, match="module 'myempty' has no 'make'; it has no functions"):
        load_factory("myempty:make", WHERE)


def make(*, input_shape: tuple[int, ...], num_classes: int, hidden: int = 4) -> nn.Module:
    """Make a model as a person might."""
    return nn.Sequential(nn.Linear(input_shape[0], hidden), nn.Linear(hidden, num_classes))


def take_by_position(depth: int, /) -> int:
    """Take what a spec cannot give."""
    return depth


@pytest.mark.parametrize(
    ("factory", "arguments", "message"),
    [
        (
            make,
            {"input_shape": (3,), "num_classes": 2, "hiden": 3},
            r"make\(\) takes no 'hiden'; known: hidden, input_shape, num_classes\. Did you mean 'hidden'\?",
        ),
        (make, {"input_shape": (3,)}, r"make\(\) needs 'num_classes'; it is given: input_shape\. Add it"),
        (take_by_position, {}, r"take_by_position\(\) cannot be called by keywords; .*'depth'"),
    ],
)
def test_keyword_that_does_not_fit_is_named(
    factory: Callable[..., Any], arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        call_factory(factory, WHERE, arguments)
    assert str(caught.value).startswith(WHERE)


def test_factory_with_any_keywords_takes_them() -> None:
    assert call_factory(lambda **rest: rest, WHERE, {"a": 1, "b": 2}) == {"a": 1, "b": 2}


def test_error_inside_the_factory_is_not_disguised() -> None:
    def broken(depth: int) -> int:
        return depth + "1"  # type: ignore[operator]

    with pytest.raises(TypeError, match="unsupported operand"):
        call_factory(broken, WHERE, {"depth": 3})


def test_model_factory_gets_shape_classes_and_the_other_keys(
    write_module: Callable[[str, str], None],
) -> None:
    write_module(
        "mymodel.py",
        "from torch import nn\n"
        "def make(*, input_shape, num_classes, hidden):\n"
        "    return nn.Sequential(nn.Linear(input_shape[0], hidden), nn.Linear(hidden, num_classes))\n",
    )
    model = build_model_from_factory(
        "mymodel:make", WHERE, input_shape=(5,), num_classes=3, parameters={"hidden": 7}
    )
    assert [tuple(parameter.shape) for parameter in model.parameters()] == [(7, 5), (7,), (3, 7), (3,)]


def test_model_factory_must_return_a_module(write_module: Callable[[str, str], None]) -> None:
    write_module("mynothing.py", "def make(*, input_shape, num_classes):\n    pass\n")
    with pytest.raises(
        InputError, match=r"'mynothing:make' returned a NoneType; a model is a torch\.nn\.Module"
    ):
        build_model_from_factory("mynothing:make", WHERE, input_shape=(5,), num_classes=3, parameters={})
