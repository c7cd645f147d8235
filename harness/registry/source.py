"""Finds the source files that define a model. Their hash is part of the run id."""

from __future__ import annotations

import ast
from pathlib import Path

from harness.errors import UsageError
from harness.system.paths import REPOSITORY


def source_files(folder: Path) -> list[Path]:
    """Returns the plug-in's Python files, and all files of `backbones` that they import, directly or indirectly."""
    pending = [p for p in sorted(folder.rglob("*.py")) if "__pycache__" not in p.parts]
    seen: dict[Path, None] = {}
    while pending:
        if (path := pending.pop(0)) in seen:
            continue
        seen[path] = None
        for name in _imported(path):
            pending += _files_of(name)
    return sorted(seen)


def _imported(path: Path) -> set[str]:
    names: set[str] = set()
    try:
        tree = ast.parse(path.read_bytes())
    except (ValueError, SyntaxError, RecursionError) as error:
        raise UsageError(f"{path} is not valid Python: {error}.") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in names if name.startswith("backbones.")}


def _files_of(name: str) -> list[Path]:
    base = REPOSITORY.joinpath(*name.split("."))
    if base.is_dir():
        return [p for p in sorted(base.rglob("*.py")) if "__pycache__" not in p.parts]
    return [base.with_suffix(".py")] if base.with_suffix(".py").is_file() else []
