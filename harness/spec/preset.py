"""Presets: named default settings for small machines. Settings given by the user take precedence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.cards import read_toml
from harness.errors import unknown

FOLDER = Path(__file__).parent / "presets"


def names() -> list[str]:
    """Returns the names of the presets of the harness."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str) -> dict[str, Any]:
    """Reads a preset: its name, command-line settings, and the tables `options`, `generate` and `tune`.

    Raises:
        UsageError: the preset does not exist.
    """
    if name not in names():
        raise unknown("preset", name, names())
    return {**read_toml(FOLDER / f"{name}.toml"), "name": name}


def lay_under(given: Mapping[str, Any], preset: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a preset, overridden by the given ones.

    Tables of the preset are left out. So is its `report_path` if the given settings have another results folder.
    """
    settings = {key: value for key, value in preset.items() if not isinstance(value, dict) and key not in OWN}
    if "results" in given:
        settings.pop("report_path", None)
    return {**settings, **given}


OWN = ("name", "about")
"""Keys of a preset that are not settings."""
