"""Builds this project with setuptools, but refuses wheels. Editable installs and source archives work as usual.

A wheel would install the packages `harness`, `backbones` and `datasets` under these names. `datasets` is also the name
of Hugging Face's library, and pip would overwrite the files of one with those of the other without a warning.
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
    """Refuses to build a wheel.

    Raises:
        SystemExit: always; says how to install the project.
    """
    raise SystemExit(
        "reid-harness cannot be built as a wheel, because its package 'datasets' and the Hugging Face library of the "
        "same name would overwrite each other. Install it from the checkout with 'pip install --editable .'."
    )
