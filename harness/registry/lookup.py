"""Finds plug-ins by their cards, without importing their code.

A plug-in is a folder with a `card.toml`. The folder of a backbone also contains a `model.py` with
`build(*, num_classes, num_cameras, image_size, pretrained=None, **options) -> torch.nn.Module`.

Plug-ins come from three places:

- the folders `backbones/` and `datasets/` of this repository
- the entry-point groups `harness.backbones` and `harness.datasets`, whose values are packages with a card
- `--plugins DIR` or `$HARNESS_PLUGINS`

The code of a plug-in runs only if a command names the plug-in.
"""

from __future__ import annotations

import functools
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.cards import read_card
from harness.errors import HarnessError, UsageError, unknown
from harness.registry.entries import BackboneEntry, DatasetEntry
from harness.registry.imports import package_folders
from harness.registry.joined import JOINT, join
from harness.system import paths
from harness.system.paths import REPOSITORY


def backbone(name: str, plugins: Path | None = None) -> BackboneEntry:
    """Returns the backbone with this name, alias, or `name:variant`.

    Raises:
        UsageError: the backbone or variant does not exist; the message suggests a similar name.
    """
    base, _, variant = name.partition(":")
    entry = _get("backbone", base, plugins)
    card = entry.card
    if card.adapter and not variant:
        raise UsageError(f"Backbone '{card.name}' is an adapter. Add a model name, for example {card.name}:resnet50.")
    if variant and not card.adapter and variant not in card.variants:
        raise unknown(f"variant of {card.name}", variant, card.variants)
    return BackboneEntry(card, entry.folder, entry.package, variant)


def dataset(name: str, plugins: Path | None = None) -> DatasetEntry:
    """Returns the dataset with this name or alias. Underscores may be used instead of hyphens.

    `a+b` is the training images of both, with query and gallery of the first.

    Raises:
        UsageError: the dataset does not exist; the message suggests a similar name.
    """
    if JOINT in name:
        return join([dataset(part.strip(), plugins) for part in name.split(JOINT)])
    entry = _get("dataset", name.replace("_", "-"), plugins)
    return DatasetEntry(entry.card, entry.folder, entry.package)


def backbones(plugins: Path | None = None) -> list[BackboneEntry]:
    """Returns all registered backbones, sorted by name."""
    found, _ = _scan("backbone", _plugins(plugins))
    return [BackboneEntry(f.card, f.folder, f.package) for _, f in sorted(found.items())]


def datasets(plugins: Path | None = None) -> list[DatasetEntry]:
    """Returns all registered datasets, sorted by name."""
    found, _ = _scan("dataset", _plugins(plugins))
    return [DatasetEntry(f.card, f.folder, f.package) for _, f in sorted(found.items())]


def broken(plugins: Path | None = None) -> dict[str, str]:
    """Returns the plug-in folders with an invalid card, and the reasons."""
    return {**_scan("backbone", _plugins(plugins))[1], **_scan("dataset", _plugins(plugins))[1]}


@dataclass(frozen=True)
class _Found:
    card: Any
    folder: Path
    package: str


def _plugins(plugins: Path | None) -> str:
    folder = str(plugins) if plugins else paths.variable(paths.PLUGINS)
    return str(Path(folder).resolve()) if folder else ""


def _get(kind: str, name: str, plugins: Path | None) -> _Found:
    found, bad = _scan(kind, _plugins(plugins))
    for entry in found.values():
        if name == entry.card.name or name in entry.card.aliases:
            return entry
    for folder, reason in bad.items():
        if Path(folder).name.replace("_", "-") == name:
            raise UsageError(f"The {kind} '{name}' in {folder} cannot be used: {reason}")
    other = "dataset" if kind == "backbone" else "backbone"
    if name in _scan(other, _plugins(plugins))[0]:
        raise UsageError(f"'{name}' is a {other}, not a {kind}. Pass it with --{other}s or --{other}.")
    raise unknown(kind, name, found, [alias for entry in found.values() for alias in entry.card.aliases])


@functools.cache
def _scan(kind: str, plugins: str) -> tuple[dict[str, _Found], dict[str, str]]:
    """Reads all cards of one kind; returns the entries by name, and the reason of every invalid card by folder."""
    found: dict[str, _Found] = {}
    bad: dict[str, str] = {}
    for folder, package in _folders(kind, plugins):
        try:
            card = read_card(folder / "card.toml")
        except HarnessError as error:
            bad[str(folder)] = str(error)
            continue
        if card.kind != kind:
            continue
        taken = {n for e in found.values() for n in (e.card.name, *e.card.aliases)}
        if clash := taken & {card.name, *card.aliases}:
            raise UsageError(f"{folder}: the {kind} name '{min(clash)}' is already in use. Rename the plug-in.")
        found[card.name] = _Found(card, folder, package)
    return found, bad


def _folders(kind: str, plugins: str) -> list[tuple[Path, str]]:
    """Returns the folders with a card, each with the name of the package that it is imported as."""
    own = REPOSITORY / f"{kind}s"
    folders = [(card.parent, f"{kind}s.{card.parent.name}") for card in sorted(own.glob("*/card.toml"))]
    for point in sorted(importlib.metadata.entry_points(group=f"harness.{kind}s"), key=lambda p: p.name):
        folders += [(place, point.value) for place in package_folders(point.value)]
    if plugins:
        base = Path(plugins)
        if not base.is_dir():
            raise UsageError(f"The plug-in folder {base} (--plugins or ${paths.PLUGINS}) does not exist.")
        for card in sorted([*base.glob("card.toml"), *base.glob("*/card.toml"), *base.glob(f"{kind}s/*/card.toml")]):
            folders.append((card.parent, f"harness_plugins.{kind}s.{card.parent.name}"))
    return folders
