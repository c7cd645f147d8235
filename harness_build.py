"""Builds this project with setuptools, but refuses wheels; the editable install and the source archive are as usual.

The packages `harness`, `backbones` and `datasets` lie side by side in the checkout. A wheel would install all three
under these names, and `datasets` is also the name of Hugging Face's library: pip lets either overwrite the other's
files without a word.
"""

from __future__ import annotations

from typing import Any, NoReturn

from setuptools.build_meta import (
    build_editable,
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]


def build_wheel(*_: Any, **__: Any) -> NoReturn:
    """Refuses, and says what to do instead."""
    raise SystemExit(
        "reid-harness is not built as a wheel: its package 'datasets' and the Hugging Face library of the same name "
        "would overwrite each other. Run it from the checkout, installed by 'pip install --editable .'."
    )
