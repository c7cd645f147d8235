"""`list`: backbones, datasets, recipes, presets and search spaces, from cards alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from harness import registry, weights
from harness.cards import read_toml
from harness.cli.groups import MAIN, option
from harness.cli.groups import command as grouped
from harness.cli.options import data_root_option, format_option, plugins_option, plugins_path
from harness.cli.tables import Column, prose, table
from harness.contracts import SPLITS
from harness.errors import HarnessError, unknown
from harness.planning.budget import TUNED
from harness.registry import imports
from harness.spec import preset, recipe
from harness.system import terminal
from harness.system.redact import readable
from harness.tuning import space


@grouped(example="python -m harness list backbones reidmamba")
@click.argument(
    "kind",
    metavar="KIND",
    type=click.Choice(["backbones", "datasets", "recipes", "presets", "spaces"]),
)
@click.argument("names", metavar="[NAMES]...", nargs=-1)
@option(MAIN, "--details", is_flag=True, help="Show everything that is known of each.")
@data_root_option
@plugins_option
@format_option
def command(kind: str, names: tuple[str, ...], details: bool, data_root: str, plugins: str, form: str) -> int:
    """List backbones, datasets, recipes, presets or search spaces.

    KIND is backbones, datasets, recipes, presets or spaces. With NAMES, shows everything that is known of these. With
    --data-root, the table of datasets shows whether they are there.
    """
    folder = plugins_path(plugins)
    rows = _chosen(_rows(kind, data_root, folder), kind, names, folder)
    if form == "json":
        click.echo(json.dumps(rows, indent=1))
    elif details or names:
        click.echo("\n\n".join(_block(row) for row in rows))
    else:
        click.echo(table(COLUMNS[kind], [[_cell(row, column) for column in COLUMNS[kind]] for row in rows]))
        click.echo("\n" + "\n".join(_hints(kind, folder)))
    for place, reason in registry.broken(folder).items():
        click.echo(f"Warning: {place} cannot be used: {reason}", err=True)
    return 0


def _rows(kind: str, data_root: str, folder: Path | None) -> list[dict[str, Any]]:
    if kind == "backbones":
        return [backbone_row(entry) for entry in registry.backbones(folder)]
    if kind == "datasets":
        return [dataset_row(entry, data_root) for entry in registry.datasets(folder)]
    if kind == "recipes":
        return [{"name": n, "about": _about(n)} for n in sorted([*recipe.names(), TUNED])]
    if kind == "presets":
        return [{"name": n, "about": preset.load(n).get("about", "")} for n in preset.names()]
    return [space_row(n) for n in space.names()]


def _chosen(rows: list[dict[str, Any]], kind: str, names: tuple[str, ...], folder: Path | None) -> list[dict[str, Any]]:
    """The rows with these names, in their order; all without names.

    Backbones may be named as in --backbones: by aliases, variants, patterns and groups.

    Raises:
        UsageError: a name does not exist.
    """
    known = {row["name"]: row for row in rows}
    found: list[str] = []
    for name in names:
        if name in known:
            found.append(name)
        elif kind == "backbones":
            found += [entry.card.name for entry in registry.resolve_backbones(name, folder)]
        else:
            raise unknown(kind.removesuffix("s"), name, known)
    return [known[name] for name in dict.fromkeys(found)] or rows


def _hints(kind: str, folder: Path | None) -> list[str]:
    """What to type next, below a table."""
    hints = [f"Run `python -m harness list {kind} NAME` for everything that is known of one."]
    if kind == "backbones":
        groups = ", ".join(registry.groups(folder))
        hints.append(
            prose(f"--backbones takes names, NAME:VARIANT, patterns such as 'osnet:*', and groups: all, {groups}.")
        )
    return hints


def backbone_row(entry: registry.BackboneEntry) -> dict[str, Any]:
    """What the card says, and what is not installed."""
    card = entry.card
    optional = [
        f"{r.distribution} is not installed: {r.why}"
        for r in card.requires
        if r.optional and not imports.installed(r.module)
    ]
    return {
        "name": card.name,
        "title": card.title,
        "about": card.about,
        "variants": {name: variant.about for name, variant in card.variants.items()},
        "options": card.options,
        "start": "see the model" if card.adapter else weights.kind_of_start(card),
        "groups": list(card.groups),
        "side_information": list(card.side_information),
        "licence": card.licence,
        "paper": card.paper,
        "source": card.source,
        "state": "; ".join(entry.missing()) or "ready",
        "notes": optional,
    }


def dataset_row(entry: registry.DatasetEntry, data_root: str) -> dict[str, Any]:
    """What the card says, and, with a data root, whether the data is there."""
    card = entry.card
    row = {
        "name": card.name,
        "title": card.title,
        "about": card.about,
        "access": card.access,
        "protocol": card.protocol,
        "expected": {name: f"{c.images} images, {c.identities} ids" for name, c in card.expected.items()},
        "paper": card.reference,
        "licence": card.licence,
        "ask": card.ask,
        "notice": card.notice,
    }
    if data_root:
        from datasets import layouts

        try:
            if any(":" in layout.reader for layout in card.layouts):  # its own code, which nobody named
                layouts.find(entry, Path(data_root))
            else:
                entry.fingerprint(data_root)
            row["state"] = "found"
        except HarnessError as error:
            row["state"] = str(error)
    return row


def space_row(name: str) -> dict[str, Any]:
    """What a search space searches."""
    found = space.load(name)
    return {
        "name": name,
        "about": found.about,
        "parameters": {key: f"{p.distribution} of {p.key}" for key, p in found.parameters.items()},
        "points": [point.name for point in found.points],
    }


def _about(name: str) -> str:
    if name == TUNED:
        return "The same search for every backbone, then final runs with the chosen settings (docs/tuning.md)."
    if name == "native":
        return "What the paper's code does, per backbone and dataset (native.toml beside each backbone)."
    return str(read_toml(recipe.find(name)).get("about", ""))


def _block(row: dict[str, Any]) -> str:
    """A name, then its facts, indented and wrapped; empty facts are left out."""
    lines = [click.style(row["name"], bold=True) if terminal.colours(sys.stdout) else row["name"]]
    if title := row.get("title", ""):
        lines[0] += f"  {title}"
    for key, value in row.items():
        if key in ("name", "title") or value in ("", [], {}, None):
            continue
        head = f"  {key.replace('_', ' ')}: "
        if isinstance(value, dict) and key in LONG:
            widest = max(map(len, value))
            lines.append(head.rstrip())
            about = [(f"    {name:{widest}}  ", str(text)) for name, text in value.items()]
            lines += [prose(readable(text), " " * len(first), first) for first, text in about]
            continue
        if isinstance(value, dict):
            value = "; ".join(f"{k}: {v}" if v != "" else str(k) for k, v in value.items())
        elif isinstance(value, list):
            value = "; ".join(str(v) for v in value)
        lines.append(prose(readable(str(value)), "    ", head))
    return "\n".join(lines)


def _cell(row: dict[str, Any], column: Column) -> str:
    """A fact in a few words; `--details` prints why something cannot be used."""
    value = row.get(column.title, "")
    if column.title == "state" and value not in ("", *READY):
        return "not found" if "access" in row else str(value).partition(":")[0]
    if column.title in SPLITS:
        number = str(row["expected"].get(column.title, "")).partition(" images")[0]
        return "" if number == "0" else number  # an expected number of 0 is not checked
    if column.title == "variants":
        return _few(list(value))
    return readable(", ".join(value) if isinstance(value, dict | list) else str(value))


def _few(names: list[str]) -> str:
    """The first names, and how many there are beyond them."""
    shown = list(names)
    while len(shown) > 1 and len(", ".join(shown)) > WIDEST_VARIANTS:
        shown.pop()
    rest = len(names) - len(shown)
    return ", ".join(shown) + (f", + {rest}" if rest else "")


WIDEST_VARIANTS = 32
"""Columns for the variants of a backbone in the table; more are counted."""

READY = {"ready": "green", "found": "green"}
STATE = Column("state", folds=True, colours={**READY, "not found": "red"})

COLUMNS = {
    "backbones": (
        Column("name"),
        Column("title", folds=True),
        Column("start"),
        Column("variants", folds=True),
        STATE,
    ),
    "datasets": (
        Column("name"),
        Column("title", folds=True),
        *(Column(split, right=True) for split in SPLITS),
        Column("access"),
        STATE,
    ),
    **dict.fromkeys(("recipes", "presets", "spaces"), (Column("name"), Column("about", folds=True))),
}
"""Columns by kind. The numbers of a dataset are images that its card expects."""

LONG = ("variants", "parameters")
"""Facts that get a line per entry."""
