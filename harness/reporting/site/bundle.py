"""The fixed files of a site, its first page, and the scripts that hold data."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import orjson

from harness.reporting.site.folder import MARK
from harness.reporting.site.source import Source
from harness.system.version import __version__

VENDORS = (
    ("Tabulator", "6.5.3", "https://tabulator.info", "tabulator.LICENSE.txt"),
    ("Plotly.js (basic)", "4.1.1", "https://plotly.com/javascript", "plotly.LICENSE.txt"),
)
"""Name, version, address and licence file of the libraries in `vendor/`."""

PAGES = (
    ("overview", "Overview"),
    ("leaderboard", "Leaderboard"),
    ("cost", "Accuracy and cost"),
    ("curves", "CMC curves"),
    ("significance", "Significance"),
    ("queries", "Queries"),
    ("efficiency", "Efficiency"),
    ("training", "Training"),
    ("searches", "Searches"),
    ("claims", "Claims"),
    ("audits", "Audits"),
    ("failures", "Failed and blocked"),
    ("environments", "Environments"),
    ("records", "Runs"),
    ("about", "About"),
)
"""Views of the site in the order of the menu: name and title."""

HERE = resources.files("harness.reporting.site")


def assets() -> dict[str, bytes]:
    """All fixed files but the first page, by path."""
    return {f"{top}/{path}": content for top in ("assets", "vendor") for path, content in _below(HERE / top) if content}


def _below(folder: Traversable, prefix: str = "") -> list[tuple[str, bytes]]:
    found = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            found += _below(entry, f"{prefix}{entry.name}/")
        else:
            found.append((prefix + entry.name, entry.read_bytes()))
    return found


def script(name: str, value: Any) -> bytes:
    """A script that hands data to the page; pages opened from the disk may load scripts, but no other files."""
    return b"site.put(%s, %s)\n" % (orjson.dumps(name), orjson.dumps(_json(value).decode()))


def _json(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:  # text that is no Unicode, such as a file name in an error message
        return orjson.dumps(_plain(value))


def _plain(value: Any) -> Any:
    """The value with unpaired surrogates escaped."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_plain(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def page(source: Source, base: str) -> bytes:
    """The first page.

    Args:
        source: records and tables.
        base: name of the folder with the other files.
    """
    import jinja2

    from harness.reporting.site.views import overview

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (HERE / "templates" / name).read_text(encoding="utf-8")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    html = environment.get_template("index.html").render(
        base=base,
        mark=MARK,
        version=__version__,
        pages=PAGES,
        vendors=[(*rest, (HERE / "vendor" / licence).read_text(encoding="utf-8")) for *rest, licence in VENDORS],
        letters=source.letters,
        images=source.images is not None,
        overview=overview.grid(source),
        counts=overview.counts(source),
        views=[name for name, _ in PAGES],
    )
    return html.encode("utf-8", "backslashreplace")
