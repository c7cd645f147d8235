"""An installation never adds a second package `datasets`."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from harness.system.paths import REPOSITORY

needs_setuptools = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("setuptools", "pip")),
    reason="needs pip and setuptools: pip install setuptools",
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what an installation needs; building leaves folders of its own."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("harness", "backbones", "datasets"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "harness_build.py"):
        shutil.copyfile(REPOSITORY / name, folder / name)
    return folder


@pytest.mark.slow
@needs_setuptools
def test_a_wheel_is_refused_with_the_reason(checkout: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*words, "--wheel-dir", tmp_path / "out", checkout], capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert done.returncode != 0 and "cannot be built as a wheel" in said, said
    assert "Hugging Face" in said and "pip install --editable ." in said and "Traceback" not in said
    assert not list((tmp_path / "out").glob("*.whl"))


@pytest.mark.slow
@needs_setuptools
def test_editable_install_copies_no_package(checkout: Path, tmp_path: Path) -> None:
    code = "import sys, harness_build; print(harness_build.build_editable(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if name.startswith(("harness/", "backbones/", "datasets/"))]
    assert any(name.endswith("entry_points.txt") for name in names)
