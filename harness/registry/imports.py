"""Imports plug-ins from their folders, and finds modules without importing them."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

from harness.errors import UsageError


def installed(module: str) -> bool:
    """Returns whether a module can be found, without importing it or its parent packages."""
    package, _, name = module.rpartition(".")
    with contextlib.suppress(ValueError, ImportError):
        if not package:
            return bool(name) and importlib.util.find_spec(name) is not None
        return PathFinder.find_spec(module, [str(place) for place in package_folders(package)]) is not None
    return False


def package_folders(package: str) -> list[Path]:
    """Returns the folders of a package, without running its code or that of its parent packages."""
    first, *rest = package.split(".")
    with contextlib.suppress(ValueError, ImportError):
        spec = importlib.util.find_spec(first) if first else None
        for part in rest:
            spec = PathFinder.find_spec(part, spec.submodule_search_locations) if spec else None
        return [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    return []


def import_plugin(folder: Path, package: str, module: str) -> ModuleType:
    """Imports `package.module` of a plug-in.

    A plug-in outside the import path is loaded from its folder; if another folder was loaded under the same name, it
    is replaced.

    Raises:
        UsageError: the module, or a module that it imports, does not exist.
    """
    known = list(getattr(sys.modules.get(package), "__path__", []))
    if package.startswith("harness_plugins.") and known != [str(folder)]:
        forget_plugins(package)
        for parent in ("harness_plugins", package.rpartition(".")[0]):
            holder = sys.modules.setdefault(parent, ModuleType(parent))
            holder.__path__ = []
        plugin = ModuleType(package)
        plugin.__path__ = [str(folder)]
        sys.modules[package] = plugin
    try:
        return importlib.import_module(f"{package}.{module}")
    except ModuleNotFoundError as error:
        if error.name == f"{package}.{module}":
            raise UsageError(f"The plug-in in {folder} has no file {module}.py.") from error
        raise UsageError(
            f"The plug-in in {folder} needs the module '{error.name}', which is not installed. Install it with pip."
        ) from error


def forget_plugins(package: str = "harness_plugins") -> None:
    """Removes imported plug-ins from outside the import path, so that their files are read again."""
    for name in [n for n in sys.modules if n == package or n.startswith(f"{package}.")]:
        del sys.modules[name]
    importlib.invalidate_caches()
