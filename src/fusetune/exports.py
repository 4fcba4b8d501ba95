"""Rooms with a face: a package's `__init__` lists the names that others may use, and loads each when it is first used.

    TYPE_CHECKING = False
    if TYPE_CHECKING:
        from fusetune.tuner.training.loop import train
    else:
        __getattr__ = load_on_use(__name__)

    __all__ = ["train"]

Type checkers and editors read the imports. At run time none of them happens before a name is asked for (PEP 562), so
`import fusetune` is quick, and `bench --help` does without torch. This module imports nothing at its top: it runs
before the import path is known to be safe.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


def load_on_use(package: str) -> "Callable[[str], object]":
    """Return a package's `__getattr__`: it imports a name of the `TYPE_CHECKING` block when that name is first used.

    Args:
        package: the `__name__` of a package whose source can be read.

    Raises:
        AttributeError: from the returned function, for a name that the block does not import.
        ModuleNotFoundError: from the returned function, for a name that needs Triton where there is none.

    Example:
        >>> load_on_use("fusetune.tuner.training")("higher_is_better")("val_accuracy")
        True
    """
    homes: dict[str, str] = {}

    def load(name: str) -> object:
        import sys
        from importlib import import_module

        module = sys.modules[package]
        if not homes and not name.startswith("__"):
            homes.update(_homes(_source(module)))
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        # `from package import room` names a package within this one.
        home = homes[name]
        try:
            value = (
                import_module(f"{package}.{name}") if home == package else getattr(import_module(home), name)
            )
        except ModuleNotFoundError as error:
            if error.name != "triton":
                raise
            # Said here, where the name is known, and not by whichever file happens to import Triton first.
            raise ModuleNotFoundError(
                f"{package}.{name} needs Triton, which is not installed; it is published for Linux. "
                f"Run pip install triton, or use PyTorch's own optimizers and activations.",
                name="triton",
            ) from None
        setattr(module, name, value)
        return value

    return load


def _source(module: "ModuleType") -> str:
    """Return a package's source. pytest loads packages that bring a plug-in by a loader that cannot give it."""
    get_source = getattr(module.__spec__ and module.__spec__.loader, "get_source", None)
    if get_source is not None:
        return str(get_source(module.__name__))
    with open(str(module.__file__), encoding="utf-8") as file:
        return file.read()


def _homes(source: str) -> dict[str, str]:
    """Map each name that a `TYPE_CHECKING` block imports to the module that it is imported from."""
    import ast

    return {
        alias.name: statement.module or ""
        for block in ast.parse(source).body
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
