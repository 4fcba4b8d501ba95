"""C functions that the functions of a module share. Equal texts are one function."""

from __future__ import annotations


class SharedFunctions:
    """C functions by their text."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def name(self, text: str, prefix: str) -> str:
        """The name of a function, new or known, by its text with `{name}` in place of the name.

        Example:
            >>> functions = SharedFunctions()
            >>> functions.name("void {name}() {}", "stage"), functions.name("void {name}() {}", "stage")
            ('stage1', 'stage1')
        """
        return self._names.setdefault(text, f"{prefix}{len(self._names) + 1}")

    def definitions(self) -> list[str]:
        """The functions, in the order of their first use."""
        return [text.replace("{name}", name) for text, name in self._names.items()]
