"""Read YAML safely, and remember on which line each key stands.

PyYAML's safe loader does the parsing, with YAML 1.2's scalars: `1e-3` is a number, `no` and `on` are words, `010` and
`1:30` are not numbers. On top of it: duplicate keys, alias bombs, NaN and infinity, and large files are refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fusetune.bench.errors import InputError
from fusetune.bench.path_checks import entries, is_folder, is_pipe

MAX_BYTES = 2**20
MAX_NODES = 20_000
MAX_LEVELS = 40
MOST = 2**63  # whole numbers beyond it fit into no tensor

KeyPath = tuple["str | int", ...]
_MERGE = "tag:yaml.org,2002:merge"
_PLAIN_COLLECTIONS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


@dataclass(frozen=True)
class Document:
    """Plain data, and the place of each key path in it (`specs/cifar.yaml:12`, `--set train.epochs`)."""

    name: str
    data: dict[str, Any]
    places: dict[KeyPath, str]

    def where(self, path: KeyPath) -> str:
        """Return the place of `path`, or of the nearest key above it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return self.name

    def merged(self, over: dict[str, Any], places: dict[KeyPath, str]) -> Document:
        """Return this document with `over` merged over it: mappings key by key, everything else replaced.

        An empty mapping in `over` empties the mapping at its place. Merged, it would have no effect.
        """
        data = _merge(self.data, over) if over else self.data
        kept = {
            path: place
            for path, place in self.places.items()
            if _holds(data, path) and not any(path[:length] in places for length in range(1, len(path)))
        }
        return Document(self.name, data, kept | places)


def read_yaml(path: Path) -> Document:
    """Read one YAML mapping from a file. Raises InputError with file, line and what to do."""
    try:
        if is_folder(path):
            raise InputError(path, "is a directory", to_do="Name a YAML file")
        if is_pipe(path) and not path.is_relative_to("/dev") and not path.is_relative_to("/proc"):
            raise InputError(path, "is a pipe, which may never end", to_do="Name a YAML file")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InputError(path, f"no such file{_specs_nearby(path)}") from None
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})") from None
    except ValueError:
        raise InputError(path, "is no path", to_do="Name a YAML file") from None
    if len(content) > MAX_BYTES:
        raise InputError(path, "larger than 1 MiB", "a spec is a page or two", "Check that this is one")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(path, f"not UTF-8 text (byte {error.start})", to_do="Save it as UTF-8") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, name: str) -> Document:
    """Read one YAML mapping from `text`. Error messages name it `name`."""
    data, places = _parse(text, name)
    if not isinstance(data, dict):
        raise InputError(name, f"must be a mapping (key: value), not {_kind(data)}")
    return Document(name, data, places)


def parse_value(text: str, name: str) -> Any:
    """Read one YAML value, as on the right of `--set key=value`."""
    return _parse(text, name)[0]


def _parse(text: str, name: str) -> tuple[Any, dict[KeyPath, str]]:
    """Compose the node tree, check its size, then build data and places from it."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        problem = " ".join(str(error.problem or error.context).split())
        raise InputError(f"{name}:{line}", f"not valid YAML: {problem}") from None
    except yaml.YAMLError as error:
        raise InputError(name, f"not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise InputError(name, "nested too deeply", to_do="A spec is a few levels deep") from None
    if node is None:
        return None, {}
    size, height = _expanded_size(node, name, {}, set())
    if size > MAX_NODES:
        raise InputError(name, f"expands to more than {MAX_NODES:,} values", to_do="Check its aliases")
    if height > MAX_LEVELS:
        raise InputError(
            name, f"nested {height} levels deep", f"at most {MAX_LEVELS}", "A spec is a few levels deep"
        )
    places: dict[KeyPath, str] = {}
    return _build(node, (), loader, name, places), places


class _Loader(yaml.SafeLoader):
    """The safe loader with YAML 1.2's plain scalars."""


_NUMBER_START = list("-+0123456789.")
_MOST_DIGITS = 30
_MOST_SHOWN = 60
# The tags that a scalar can have, by what they call it.
_SCALARS = {f"tag:yaml.org,2002:{kind}": kind for kind in ("str", "int", "float", "bool", "null")} | {
    "!": "str"
}
_PATTERNS: dict[str, re.Pattern[str]] = {}
_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", _NUMBER_START),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        _NUMBER_START,
    ),
    ("null", r"~|null|Null|NULL|", [*"~nN", ""]),
    ("merge", r"<<", ["<"]),
):
    _PATTERNS[_tag] = re.compile(rf"(?:{_pattern})\Z")
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _PATTERNS[_tag], _first)


def _expanded_size(
    node: yaml.Node, name: str, sizes: dict[int, tuple[int, int]], open_nodes: set[int]
) -> tuple[int, int]:
    """Count values and levels with aliases expanded.

    Each node is measured once, so that an expansion bomb is recognised at no cost.
    """
    if id(node) in open_nodes:
        raise InputError(f"{name}:{node.start_mark.line + 1}", "an alias that contains itself")
    if id(node) not in sizes:
        open_nodes.add(id(node))
        inside = [_expanded_size(child, name, sizes, open_nodes) for child in _children(node)]
        sizes[id(node)] = (
            1 + sum(size for size, _ in inside),
            1 + max((height for _, height in inside), default=0),
        )
        open_nodes.discard(id(node))
    return sizes[id(node)]


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _build(node: yaml.Node, path: KeyPath, loader: _Loader, name: str, places: dict[KeyPath, str]) -> Any:
    """Turn a node into plain data and record the places of its parts."""
    if isinstance(node, yaml.CollectionNode) and node.tag not in _PLAIN_COLLECTIONS:
        raise InputError(
            _place(name, node.start_mark.line + 1, path), f"the tag '{node.tag}' is not known here"
        )
    if isinstance(node, yaml.MappingNode):
        return _build_mapping(node, path, loader, name, places)
    if isinstance(node, yaml.SequenceNode):
        values = []
        for index, item in enumerate(node.value):
            place = (*path, index)
            places[place] = f"{name}:{item.start_mark.line + 1}"
            values.append(_build(item, place, loader, name, places))
        return values
    where = _place(name, node.start_mark.line + 1, path)
    value = _scalar(node, loader, where)
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(where, f"{_shortened(node.value)} is not a finite number", to_do="Write a number")
    return value


def _scalar(node: yaml.Node, loader: _Loader, where: str) -> Any:
    """Turn a scalar into a text, a number, true, false or null. A tag may name the type, if the scalar has its form."""
    kind = _SCALARS.get(node.tag)
    if kind is None:
        raise InputError(where, f"the tag '{node.tag}' is not known here", to_do="Plain YAML values only")
    if kind != "str" and not _PATTERNS[kind].match(node.value):
        raise InputError(
            where, f"{_shortened(node.value)} does not read as {kind}", to_do="Plain YAML values only"
        )
    if kind == "int" and len(node.value) > _MOST_DIGITS:
        raise InputError(where, f"is a number of {len(node.value)} digits", to_do="Write it like 1e30")
    value = loader.construct_object(node)
    if kind == "int" and not -MOST <= value < MOST:
        raise InputError(where, f"{node.value} needs more than 64 bits", to_do="Write it like 1e30")
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        raise InputError(where, f"{_shortened(value)} holds half a character", to_do="Write the whole one")
    return value


def _shortened(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= _MOST_SHOWN else f"{shown[: _MOST_SHOWN - 3]}..."


def _build_mapping(
    node: yaml.MappingNode, path: KeyPath, loader: _Loader, name: str, places: dict[KeyPath, str]
) -> dict[str, Any]:
    """Build a mapping. Its own keys override those of `<<`. A repeated key is an error."""
    own: dict[str, Any] = {}
    lines: dict[str, int] = {}
    merged: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if key_node.tag == _MERGE:
            sources = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
            for source in sources:
                if not isinstance(source, yaml.MappingNode):
                    raise InputError(_place(name, line, path), "'<<' must name a mapping")
                inherited = _build_mapping(source, path, loader, name, places)
                merged = inherited | merged
            continue
        is_scalar = isinstance(key_node, yaml.ScalarNode)
        key = _scalar(key_node, loader, _place(name, line, path)) if is_scalar else None
        if not isinstance(key, str):
            shown = _shortened(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "a collection"
            raise InputError(_place(name, line, path), f"a key must be a word, not {shown}")
        if key in own:
            raise InputError(
                _place(name, line, (*path, key)),
                f"written twice, first on line {lines[key]}",
                to_do="Keep one",
            )
        lines[key] = line
        own[key] = _build(value_node, (*path, key), loader, name, places)
    places.update({(*path, key): f"{name}:{line}" for key, line in lines.items()})
    return merged | own


def _merge(under: Any, over: Any) -> Any:
    """Merge mappings key by key. Anything else is replaced, also by an empty mapping."""
    if isinstance(under, dict) and isinstance(over, dict) and over:
        return under | {key: _merge(under.get(key), value) for key, value in over.items()}
    return over


def _holds(data: Any, path: KeyPath) -> bool:
    """Whether `path` exists in `data`."""
    for key in path:
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            return False
    return True


def _place(name: str, line: int, path: KeyPath) -> str:
    return f"{name}:{line}: {dotted(path)}" if path else f"{name}:{line}"


def dotted(path: KeyPath) -> str:
    """Format a key path as people write it.

    Example:
        >>> dotted(("factors", "batch_size", 2))
        'factors.batch_size[2]'
    """
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else str(key)
    return text


def _kind(value: object) -> str:
    kinds = {type(None): "empty", list: "a list", str: "a text", bool: "true or false", dict: "a mapping"}
    return kinds.get(type(value), "a number")


def _specs_nearby(path: Path) -> str:
    """List the YAML files in the directory of a missing one, and in specs/."""
    folders = dict.fromkeys((path.parent, Path("specs")))
    found = [str(file) for folder in folders for file in entries(folder) if file.match("*.y*ml")][:8]
    return f"; known here: {', '.join(found)}" if found else ""
