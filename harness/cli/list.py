"""`list`: what there is, from cards alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from harness import registry
from harness.cards import read_toml
from harness.cli.groups import command as grouped
from harness.cli.options import data_root_option, format_option, plugins_option, plugins_path
from harness.errors import HarnessError
from harness.registry import imports
from harness.spec import preset, recipe
from harness.tuning import space


@grouped(epilog="Example: python -m harness list datasets --data-root DIR")
@click.argument("kind", type=click.Choice(["backbones", "datasets", "recipes", "presets", "spaces"]))
@data_root_option
@plugins_option
@format_option
def command(kind: str, data_root: str, plugins: str, form: str) -> int:
    """Lists backbones, datasets, recipes, presets or search spaces."""
    folder = plugins_path(plugins)
    rows: list[dict[str, Any]]
    if kind == "backbones":
        rows = [backbone_row(entry) for entry in registry.backbones(folder)]
    elif kind == "datasets":
        rows = [dataset_row(entry, data_root) for entry in registry.datasets(folder)]
    elif kind == "recipes":
        rows = [{"name": n, "about": _about(n)} for n in recipe.names()]
    elif kind == "presets":
        rows = [{"name": n, "about": preset.load(n).get("about", "")} for n in preset.names()]
    else:
        rows = [space_row(n) for n in space.names()]
    if form == "json":
        click.echo(json.dumps(rows, indent=1))
    else:
        click.echo("\n\n".join(_block(row) for row in rows))
    for place, reason in registry.broken(folder).items():
        click.echo(f"Warning: {place} cannot be used: {reason}", err=True)
    return 0


def backbone_row(entry: registry.BackboneEntry) -> dict[str, Any]:
    """What the card says, and what is missing here."""
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
    if name == "native":
        return "What the paper's code does, per backbone and dataset (native.toml beside each backbone)."
    return str(read_toml(recipe.find(name)).get("about", ""))


def _block(row: dict[str, Any]) -> str:
    """A name, then its facts, indented; empty facts are left out."""
    lines = [f"{row['name']}  {row.get('title', '')}".rstrip()]
    for key, value in row.items():
        if key in ("name", "title") or value in ("", [], {}, None):
            continue
        if isinstance(value, dict):
            value = "; ".join(f"{k}: {v}" if v != "" else str(k) for k, v in value.items())
        elif isinstance(value, list):
            value = "; ".join(str(v) for v in value)
        lines.append(f"  {key.replace('_', ' ')}: {value}")
    return "\n".join(lines)
