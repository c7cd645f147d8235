"""Presets: named settings for small machines. They stand under what the user gives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.cards import read_toml
from harness.errors import unknown

FOLDER = Path(__file__).parent / "presets"


def names() -> list[str]:
    """Names of the presets that come with the harness."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str) -> dict[str, Any]:
    """Reads a preset: its name, settings as on the command line, and the tables `options`, `generate` and `tune`.

    Raises:
        UsageError: no preset has this name.
    """
    if name not in names():
        raise unknown("preset", name, names())
    return {**read_toml(FOLDER / f"{name}.toml"), "name": name}


def lay_under(given: Mapping[str, Any], preset: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the given settings, and below them those of a preset.

    Tables of the preset are read elsewhere. Its page is left out where another results folder is given.
    """
    settings = {key: value for key, value in preset.items() if not isinstance(value, dict) and key not in OWN}
    if "results" in given:
        settings.pop("report_path", None)
    return {**settings, **given}


OWN = ("name", "about")
"""Keys of a preset that are no settings."""
