"""The full-size stand-ins built from the official lists, and a cache of each test's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def phantoms(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Full-size stand-ins with official names and counts; half a minute to build."""
    root = tmp_path_factory.mktemp("phantoms")
    subprocess.run([sys.executable, shared / "tools" / "phantom_datasets.py", root], check=True, capture_output=True)
    return root
