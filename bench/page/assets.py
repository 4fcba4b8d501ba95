"""What a page brings along: Vega-Lite for plots, DataTables for tables, and the page's own style and script.

Both libraries come with Python packages, so that nothing is fetched: vl-convert-python holds Vega, Vega-Lite and
Vega-Embed, and itables holds DataTables.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import resources
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkstemp

from fusetune.bench.user_cache import user_cache
from fusetune.errors import StateError
from fusetune.kernels import have_private, read_trusted

# The version of Vega-Lite in which the specifications of this project are written.
VEGA_LITE = "6.4"
SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
_EXPORTS = re.compile(r"export\s*\{([^{}]*)\}\s*;?")
# What ends a script, and what begins a stretch in which a browser does not find its end.
_ENDS = re.compile(r"</(?=script)|<!--", re.IGNORECASE)


def text_of(name: str) -> str:
    """Return a file of the page's own: its template, style or script."""
    return (resources.files(__package__) / "files" / name).read_text(encoding="utf-8")


def inside_html(script: str) -> str:
    """Return a script that an HTML page can hold: nothing in it ends the element that it stands in.

    Example:
        >>> inside_html("const end = '</script>';")
        "const end = '<\\\\/script>';"
    """
    return _ENDS.sub(lambda found: found[0][0] + "\\" + found[0][1:], script)


def exports_as_globals(script: str, names: Mapping[str, str], target: str) -> str:
    """Return a module's script with its exports as an object of the window, because a module in a page has no name.

    Args:
        script: of a module of JavaScript with one `export {...}`.
        names: exported name -> name in the object.
        target: the object.

    Raises:
        StateError: the script does not export one of the names.

    Example:
        >>> exports_as_globals("const a=1;export{a as default};", {"default": "Table"}, "made")
        'const a=1;window.made={Table:a};'
    """
    found = _EXPORTS.search(script)
    pairs = [pair.split(" as ") for pair in found[1].split(",")] if found else []
    local = {pair[-1].strip(): pair[0].strip() for pair in pairs}
    if found is None or not names.keys() <= local.keys():
        raise StateError(
            "itables", f"its script does not export {', '.join(names)}", to_do="Install itables 2.9"
        )
    made = ",".join(f"{new}:{local[name]}" for name, new in names.items())
    return f"{script[: found.start()]}window.{target}={{{made}}};{script[found.end() :]}"


@cache
def plots_script() -> str:
    """Return the script that defines `vegaEmbed`. It takes seconds to make, so the user's cache keeps it."""
    kept = _kept_script()
    if kept is not None:
        with suppress(OSError):  # what cannot be read is made again
            if content := read_trusted(kept):
                return content.decode()
    import vl_convert

    script = inside_html(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", VEGA_LITE))
    if kept is not None:
        with suppress(OSError):
            _keep(kept, script.encode())
    return script


def _kept_script() -> Path | None:
    """Return where the script is kept. None where this user has no directory that others cannot change."""
    folder = user_cache()
    if folder is None or not have_private(folder / "page"):
        return None
    return folder / "page" / f"vega-lite-{VEGA_LITE}-{version('vl-convert-python')}.js"


def _keep(path: Path, content: bytes) -> None:
    """Write a file whole, whatever other processes write at the same time."""
    handle, unfinished = mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(unfinished).replace(path)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise


def _table_file(name: str) -> str:
    """Return a file of itables, which is found and not imported: it would import pandas."""
    found = find_spec("itables")
    if found is None or not found.submodule_search_locations:
        raise StateError("itables", "is not installed", to_do="Install it: pip install itables")
    return Path(found.submodule_search_locations[0], "html", name).read_text(encoding="utf-8")


@cache
def tables_script() -> str:
    """Return the script that defines `fusetuneTables`, an object with DataTables' class."""
    script = _table_file("dt_bundle.js")
    return inside_html(exports_as_globals(script, {"default": "DataTable"}, "fusetuneTables"))
