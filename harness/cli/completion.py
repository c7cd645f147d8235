"""Shell completion of names, from cards and file names alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from harness.errors import HarnessError

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
Named = tuple[str, str]
"""A name, and a line about it."""


def backbones(context: click.Context, start: str) -> list[Named]:
    """Names of backbones and, once `all` was typed, of their groups; those of their variants after a colon."""
    from harness import registry

    entries = registry.backbones(_plugins(context))
    if start.startswith("all"):
        return [(name, f"Group: {', '.join(found)}") for name, found in registry.groups(_plugins(context)).items()]
    if ":" not in start:
        return [(f"{e.card.name}:" if e.card.adapter else e.card.name, e.card.title) for e in entries]
    return [(f"{e.card.name}:{name}", variant.about) for e in entries for name, variant in e.card.variants.items()]


def datasets(context: click.Context, start: str) -> list[Named]:
    """Names of datasets and of their groups."""
    from harness import registry

    cards = [entry.card for entry in registry.datasets(_plugins(context))]
    groups = dict.fromkeys(card.group for card in cards if card.group)
    return [*((card.name, card.title) for card in cards), *((name, "Group of datasets") for name in groups)]


def recipes(context: click.Context, start: str) -> list[Named]:
    """Names of recipes."""
    from harness.planning.budget import TUNED
    from harness.spec import recipe

    return [(name, "") for name in sorted([*recipe.names(), TUNED])]


def presets(context: click.Context, start: str) -> list[Named]:
    """Names of presets."""
    from harness.spec import preset

    return [(name, str(preset.load(name).get("about", ""))) for name in preset.names()]


def spaces(context: click.Context, start: str) -> list[Named]:
    """Names of search spaces."""
    from harness.tuning import space

    return [(name, "") for name in space.names()]


def one(names: Callable[[click.Context, str], Iterable[Named]], *, files: bool = False) -> Completer:
    """Completes one name.

    Args:
        names: gives the names.
        files: whether a path may be given instead; then the shell completes it where no name fits.
    """

    def complete(context: click.Context, param: click.Parameter, start: str) -> list[CompletionItem]:
        found = [CompletionItem(name, help=about or None) for name, about in _all(names, context, start)]
        found = [item for item in found if item.value.startswith(start)]
        return found if found or not files else [CompletionItem(start, type="file")]

    return complete


def many(names: Callable[[click.Context, str], Iterable[Named]]) -> Completer:
    """Completes the last name of a comma list; a name is not offered twice, and `all` only as the first."""

    def complete(context: click.Context, param: click.Parameter, start: str) -> list[CompletionItem]:
        before, comma, last = start.rpartition(",")
        taken = {name.strip() for name in before.split(",")}
        known = [*_all(names, context, last), *([] if comma else [("all", "All that are registered for it")])]
        return [
            CompletionItem(f"{before}{comma}{name}", help=about or None)
            for name, about in known
            if name.startswith(last) and name not in taken
        ]

    return complete


def _all(names: Callable[[click.Context, str], Iterable[Named]], context: click.Context, start: str) -> list[Named]:
    """The names, or none where a card or folder cannot be read: an error would garble the prompt."""
    try:
        return list(names(context, start))
    except (HarnessError, OSError):
        return []


def _plugins(context: click.Context) -> Path | None:
    folder: Any = context.params.get("plugins")
    return Path(folder) if folder else None
