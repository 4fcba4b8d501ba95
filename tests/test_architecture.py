"""The house holds: leaves import only themselves, rooms are entered by their faces, and nothing goes in circles."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import fusetune

ROOT = Path(__file__).parents[1]
FOLDERS = ("kernels", "tuner", "bench")
MODULES = {
    ".".join(("fusetune", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob("*.py"))
}
PACKAGES = {name for name, path in MODULES.items() if path.name == "__init__.py"}
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "base", "misc"}


@cache
def tree_of(module: str) -> ast.Module:
    """Return the syntax tree of one of our modules."""
    return ast.parse(MODULES[module].read_text())


@cache
def face(package: str) -> dict[str, str]:
    """Map the names that a package's `__init__` imports to the modules that it imports them from."""
    return {
        alias.name: node.module
        for node in ast.walk(tree_of(package))
        if isinstance(node, ast.ImportFrom) and node.module in MODULES
        for alias in node.names
    }


def statements(module: str) -> Iterator[tuple[str, str]]:
    """Yield each import of ours as (module or package, name), those inside of functions too."""
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            assert not any(alias.name in MODULES for alias in node.names), (
                f"{module}: write `from ... import`"
            )
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            if node.module and node.module in MODULES:
                yield from ((node.module, alias.name) for alias in node.names)


def home(package: str, name: str) -> str:
    """Return the module that an imported name comes from, through any number of faces."""
    if f"{package}.{name}" in MODULES:
        return f"{package}.{name}"
    if package in PACKAGES and name in face(package):
        return home(face(package)[name], name)
    return package


def imports(module: str) -> set[str]:
    """Return the modules of ours whose code a module uses."""
    return {home(*statement) for statement in statements(module)} - {module}


def room(module: str) -> str:
    """Return the room of a module: a folder of kernels, tuner or bench with all that is in it, or a file of theirs."""
    return ".".join(module.split(".")[:3])


def test_there_is_something_to_check() -> None:
    assert {"fusetune.bench.cli", "fusetune.tuner.training.loop", "fusetune.kernels"} <= set(MODULES)
    assert "fusetune.tuner.training.loop" in imports("fusetune.bench.run.trial")


@pytest.mark.parametrize("leaf", ["fusetune.kernels", "fusetune.tuner"])
def test_leaves_import_only_themselves(leaf: str) -> None:
    for name in MODULES:
        if f"{name}.".startswith(f"{leaf}."):
            assert all(f"{other}.".startswith(f"{leaf}.") for other in imports(name)), name


def test_no_module_imports_itself_through_others() -> None:
    graph = {name: imports(name) for name in MODULES if name not in PACKAGES}
    list(TopologicalSorter(graph).static_order())  # raises CycleError with the circle


def test_no_room_imports_itself_through_others() -> None:
    graph: dict[str, set[str]] = {}
    for module in set(MODULES) - PACKAGES:
        rooms = {room(other) for other in imports(module)} - {room(module)}
        graph.setdefault(room(module), set()).update(rooms)
    list(TopologicalSorter(graph).static_order())


def test_a_run_needs_nothing_of_the_benchmarks_of_searchers_and_finders() -> None:
    benches = ("fusetune.bench.search_bench.", "fusetune.bench.finder_bench.")
    users = {name for name in MODULES if any(f"{other}.".startswith(benches) for other in imports(name))}
    assert users
    assert all(f"{name}.".startswith(benches) for name in users)


def test_rooms_are_entered_by_their_faces() -> None:
    """Code uses its own folder and the folders above it directly, and other rooms by what their `__init__` lists."""
    for module in set(MODULES) - PACKAGES:
        for target, name in statements(module):
            package = target if target in PACKAGES else target.rpartition(".")[0]
            if f"{module}.".startswith(f"{package}."):
                continue
            assert target in PACKAGES, f"{module}: import {name} from {package}, not from {target}"
            assert name in face(target), f"{module}: {target} does not list {name}"


def test_the_public_names_stay() -> None:
    """Other people's code imports these. Type checkers see what is imported, programs what `__all__` lists."""
    public = """
        Activation FusedAdam FusedAdamW FusedSGD Kernel activation replace_activations verify_activation best_config
        fit_critical_batch largest_batch noise_scale recommend
        LayerStatistics diagnose
        Candidates confirm fit_lr_scaling lr_range_test
        StepWork predict_peak trace_memory
        SCHEDULES build_momentum build_schedule
        search
        Augment Batches EarlyStop Plan Target train
        load
        FusetuneError bench kernels tuner
    """
    tree = ast.parse((ROOT / "src" / "fusetune" / "__init__.py").read_text())
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module != "fusetune.exports"
        for alias in node.names
    }
    assert set(fusetune.__all__) == imported == set(public.split())


@pytest.mark.parametrize("package", sorted({*PACKAGES, "fusetune"}))
def test_a_face_lists_what_it_gives(package: str) -> None:
    module = import_module(package)
    listed = [*face(package)] if package in PACKAGES else fusetune.__all__
    assert sorted(getattr(module, "__all__", [])) == sorted(listed)
    folder = ROOT / Path(*package.split(".")[1:])
    for name in module.__all__ if listed else ():
        assert getattr(module, name) is not None
        if package != "fusetune":  # a file of that name would hide what the face gives
            assert not (folder / name).is_dir()
            assert not (folder / f"{name}.py").exists()


def test_no_file_sits_beside_eight_others_with_its_prefix() -> None:
    for folder in {path.parent for path in MODULES.values()}:
        prefixes = Counter(path.stem.split("_")[0] for path in folder.glob("*.py"))
        assert max(prefixes.values()) <= 8, folder


# torch.optim's own signatures, and the two calls whose keywords are what a person writes.
MANY_PARAMETERS = {
    "fusetune.kernels.optimizers.adam.FusedAdam.__init__",
    "fusetune.kernels.optimizers.adam.FusedAdamW.__init__",
    "fusetune.kernels.optimizers.sgd.FusedSGD.__init__",
    "fusetune.tuner.learning_rate.range.lr_range_test",
    "fusetune.tuner.training.loop.train",
}


def functions(node: ast.AST, name: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield the Python functions in a tree with their dotted names. Triton's kernels have their own reasons."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            inner = f"{name}.{child.name}"
            if isinstance(child, ast.FunctionDef) and "jit" not in "".join(
                map(ast.unparse, child.decorator_list)
            ):
                yield inner, child
            yield from functions(child, inner)
        else:
            yield from functions(child, name)


def test_ten_values_are_a_dataclass_and_no_list_of_parameters() -> None:
    many = set()
    for module in MODULES:
        for name, function in functions(tree_of(module), module):
            taken = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
            # A command takes one parameter for each of its options.
            if len(taken) >= 10 and not module.startswith("fusetune.bench.cli."):
                many.add(name)
    assert many - MANY_PARAMETERS == set()
    assert many >= MANY_PARAMETERS, "a name on the list needs no exception"


def test_files_have_telling_names() -> None:
    names = {path.stem for folder in (*FOLDERS, "src", "tests") for path in (ROOT / folder).rglob("*.py")}
    assert not names & FORBIDDEN_NAMES


@pytest.mark.parametrize("old", FOLDERS)
def test_an_old_name_gets_one_clear_sentence(old: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"import {old}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"ImportError: '{old}' is named 'fusetune.{old}': write `from fusetune.{old}" in done.stderr


def test_the_package_is_light() -> None:
    code = "import sys; before = set(sys.modules); import fusetune; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "src", capture_output=True, text=True)
    assert done.stdout.split() == ["fusetune", "fusetune.exports"], done.stderr


@pytest.mark.parametrize(
    "command", ["--help", "list", "schema", "report --help", "run --help", "gate --help", "compare --help"]
)
def test_quick_commands_never_import_torch(command: str) -> None:
    code = (
        "import sys\nfrom fusetune.bench.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command.split()], cwd=ROOT / "src", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
