"""The `pixels` plug-in once for all tests of the package: most of them start many processes with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import PIXELS_CARD, PIXELS_MODEL
from tests.support.disks import Disks


@pytest.fixture(scope="session")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `--plugins` folder with the backbone `pixels`."""
    folder = tmp_path_factory.mktemp("plugins") / "pixels"
    folder.mkdir()
    (folder / "card.toml").write_text(PIXELS_CARD)
    (folder / "model.py").write_text(PIXELS_MODEL)
    return folder.parent


@pytest.fixture(scope="module")
def disks() -> Iterator[Disks]:
    """Small disks that only these tests see."""
    made = Disks()
    yield made
    made.close()


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """Writes content to the same file again and again."""

    def write(content: bytes | str, name: str = "file") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        return path

    return write
