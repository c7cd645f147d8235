"""Images of datasets for the view of queries; only made if they are asked for."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, UsageError
from harness.records import ranked_lists

HEIGHT = 192
"""Largest height of an image on the site, in pixels."""

QUALITY = 80


class Images:
    """Opens and shrinks images of datasets.

    Attributes:
        files: JPEG files by path within the site.

    Args:
        root: folder that holds the datasets.
        plugins: folder of further plug-ins.
    """

    def __init__(self, root: Path, plugins: Path | None) -> None:
        self.root, self.plugins = root, plugins
        self.files: dict[str, bytes] = {}
        self._known: dict[str, tuple[Mapping[str, Path], tuple[float, float] | None]] = {}

    def add(self, record: Mapping[str, Any], dataset: str, name: str) -> str:
        """Adds an image; returns its path within the site.

        Args:
            record: a run that was scored on it.
            dataset: name of its dataset.
            name: its path in the ranked lists.

        Raises:
            UsageError: the dataset or the image cannot be read.
        """
        if dataset not in self._known:
            self._known[dataset] = self._load(record, dataset)
        paths, value_range = self._known[dataset]
        if name not in paths:
            raise UsageError(
                f"{dataset} in {self.root} has no image {name}, but a ranked list has. Pass the data of the runs with "
                "--data-root, or leave out --with-images."
            )
        content = _shrunk(paths[name], value_range)
        path = f"images/{hashlib.sha256(content).hexdigest()[:16]}.jpg"
        self.files[path] = content
        return path

    def _load(self, record: Mapping[str, Any], dataset: str) -> tuple[Mapping[str, Path], tuple[float, float] | None]:
        """Paths of the test images by their name in ranked lists, and the range of gray values."""
        from datasets import layouts
        from harness import registry

        options = (record["spec"].get("dataset_options") or {}).get(dataset, {})
        try:
            entry = registry.dataset(dataset, self.plugins)
            splits = layouts.load(entry, self.root, splits=("query", "gallery"), **options)
        except HarnessError as error:
            raise UsageError(f"The images of {dataset} cannot be read: {error} Leave out --with-images.") from error
        queries, galleries = ranked_lists.names_of(splits.query, splits.gallery)
        files = [item.path for item in (*splits.query, *splits.gallery)]
        return dict(zip((*queries, *galleries), files, strict=True)), splits.value_range


def _shrunk(path: Path, value_range: tuple[float, float] | None) -> bytes:
    from PIL import Image

    from harness.data.images import to_rgb8

    try:
        with Image.open(path) as opened:
            image = to_rgb8(opened, value_range)
    except (OSError, HarnessError) as error:
        raise UsageError(f"The image {path} cannot be read ({error}). Leave out --with-images.") from error
    image.thumbnail((HEIGHT, HEIGHT))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=QUALITY)
    return content.getvalue()
