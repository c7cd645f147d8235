"""Lists of names that users type: `all`, groups, and patterns such as `reidmamba:*`."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

from harness.errors import UsageError, suggestion, unknown
from harness.registry.entries import BackboneEntry, DatasetEntry
from harness.registry.lookup import backbone, backbones, dataset, datasets

Entry = TypeVar("Entry", BackboneEntry, DatasetEntry)
GROUP = "all-"
"""Prefix of the groups of backbones: `all-vit` is every trainable backbone whose card has the group `vit`."""
WILD = frozenset("*?[")


def resolve_backbones(names: str, plugins: Path | None = None) -> list[BackboneEntry]:
    """Resolves a comma-separated list of names, groups and patterns; each backbone comes once.

    - `all` means every trainable backbone that is not an adapter.
    - `all-GROUP` means those of a group, see `groups` of the cards.
    - A pattern with `*`, `?` or `[` means every trainable backbone with a matching name. After a colon, it matches
      variants: `reidmamba:*` means ReIDMamba and all its variants.

    Raises:
        UsageError: a name is unknown, or a pattern matches nothing.
    """
    chosen: list[str] = []
    for name in _split(names, "backbone"):
        chosen += _backbones_of(name, plugins)
    return _unique(backbone(name, plugins) for name in chosen)


def resolve_datasets(names: str, plugins: Path | None = None) -> list[DatasetEntry]:
    """Resolves a comma-separated list of names, groups and patterns; each dataset comes once.

    `all` means the datasets of the benchmark; the name of a group means all its members. A pattern with `*`, `?` or `[`
    means every dataset with a matching name.

    Raises:
        UsageError: a name is unknown, or a pattern matches nothing.
    """
    chosen: list[str] = []
    for name in (n.replace("_", "-") for n in _split(names, "dataset")):
        every = datasets(plugins)
        if WILD & set(name):
            chosen += _matching(name, [(e.name, e.name) for e in every], "dataset")
        else:
            group = [e.name for e in every if e.card.group == name or (name == "all" and e.card.in_all)]
            chosen += group or [name]
    return _unique(dataset(name, plugins) for name in chosen)


def groups(plugins: Path | None = None) -> dict[str, list[str]]:
    """Returns the names of the trainable backbones by group."""
    found: dict[str, list[str]] = {}
    for entry in _trainable(plugins):
        for group in entry.card.groups:
            found.setdefault(GROUP + group, []).append(entry.name)
    return dict(sorted(found.items()))


def _backbones_of(name: str, plugins: Path | None) -> list[str]:
    base, colon, _ = name.partition(":")
    if name == "all":
        return [entry.name for entry in _trainable(plugins)]
    if WILD & set(name):
        if colon and not WILD & set(base) and _is_adapter(base, plugins):
            raise UsageError(f"'{name}' is a pattern, and {base} takes the name of one model. Write the name in full.")
        if colon:
            name = _own_name(base, plugins) + name[len(base) :]
        return _matching(name, _names(plugins, with_variants=bool(colon)), "backbone")
    if name.startswith(GROUP) and base not in [entry.name for entry in backbones(plugins)]:
        known = groups(plugins)
        if name not in known:
            raise unknown("group of backbones", name, known)
        return known[name]
    return [name]


def _own_name(name: str, plugins: Path | None) -> str:
    """Returns the name of the backbone with this alias; any other text as it is."""
    return next((e.card.name for e in backbones(plugins) if name in e.card.aliases), name)


def _is_adapter(name: str, plugins: Path | None) -> bool:
    """Returns whether a name is that of an adapter, such as `timm`."""
    return any(entry.card.adapter and entry.card.name == name for entry in backbones(plugins))


def _names(plugins: Path | None, *, with_variants: bool) -> list[tuple[str, str]]:
    """Names of the trainable backbones, each with the text that patterns match."""
    found = []
    for entry in _trainable(plugins):
        found.append((entry.name, f"{entry.name}:" if with_variants else entry.name))
        if with_variants:
            found += [(f"{entry.name}:{variant}",) * 2 for variant in entry.card.variants]
    return found


def _trainable(plugins: Path | None) -> list[BackboneEntry]:
    return [entry for entry in backbones(plugins) if entry.card.trainable and not entry.card.adapter]


def _matching(pattern: str, names: Iterable[tuple[str, str]], kind: str) -> list[str]:
    """Names whose text matches a pattern.

    Raises:
        UsageError: no name does.
    """
    listed = list(names)
    if found := [name for name, text in listed if fnmatchcase(text, pattern)]:
        return found
    near = suggestion(pattern.rstrip("*?:"), [name for name, _ in listed])
    raise UsageError(f"No {kind} matches '{pattern}'.{near} 'python -m harness list {kind}s' shows all.")


def _split(names: str, kind: str) -> list[str]:
    if not (parts := [part.strip() for part in names.split(",") if part.strip()]):
        raise UsageError(f"No {kind} is given. Pass a comma-separated list of names, or 'all'.")
    return parts


def _unique(entries: Iterable[Entry]) -> list[Entry]:
    return list({entry.name: entry for entry in entries}.values())
