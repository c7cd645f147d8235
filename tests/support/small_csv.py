"""A small dataset in one table, and a tiny backbone that embeds cameras, as plug-ins: for tests of whole runs."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

CARD = """kind = "dataset"
name = "{name}"
title = "Our office"
{more}
[[layouts]]
name = "{name}"
reader = "csv"
folders = ["{name}"]
"""

Row = tuple[str, int, int, str]
"""Path, identity, camera and split."""


def rows(cameras: Sequence[int] = (0, 1), test_cameras: Sequence[int] = ()) -> list[Row]:
    """Eight training and six test identities, two images from each of two cameras."""
    found: list[Row] = []
    for pid in range(14):
        for place, camid in enumerate(cameras if pid < 8 else test_cameras or cameras):
            for shot in range(2):
                split = "train" if pid < 8 else "gallery" if shot or place else "query"
                found.append((f"{split}/{pid:02d}_{place}_{shot}.png", pid, camid, split))
    return found


def write(root: Path, table: Sequence[Row], name: str = "office", size: tuple[int, int] = (32, 16)) -> Path:
    """Writes the images and `items.csv` of a table below a data root; returns the dataset's folder."""
    folder = root / name
    for number, (path, pid, _, _) in enumerate(table):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng([pid, number]).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels // 2 + np.uint8(9 * pid)).save(folder / path)
    with (folder / "items.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "pid", "camid", "split"), *table])
    return folder


def card(plugins: Path, name: str = "office", more: str = "") -> None:
    """Writes the card of a table's dataset into a folder of plug-ins."""
    (plugins / name).mkdir(parents=True, exist_ok=True)
    (plugins / name / "card.toml").write_text(CARD.format(name=name, more=more))


VIEWS_CARD = """kind = "backbone"
name = "views"
title = "A thumbnail and its camera"
feature_dim = 24
side_information = ["camera"]

[options]
camera_embedding = true

[input]
image_size = [64, 32]
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
"""

VIEWS_MODEL = """
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d

from harness.contracts import TrainingOutput


class Views(nn.Module):
    feature_dim = 24

    def __init__(self, num_classes, num_cameras, camera_embedding):
        super().__init__()
        self.mix = nn.Linear(24, 24)
        self.cameras = nn.Embedding(num_cameras, 24) if camera_embedding else None
        self.classify = nn.Linear(24, num_classes)

    def forward(self, images, camera_ids):
        features = self.mix(adaptive_avg_pool2d(images, (4, 2)).flatten(1))
        if self.cameras is not None:
            features = features + self.cameras(camera_ids)
        return TrainingOutput([self.classify(features)], [features]) if self.training else features


def build(*, num_classes, num_cameras, image_size, pretrained=None, camera_embedding=True):
    return Views(num_classes, num_cameras, camera_embedding)
"""


def views(plugins: Path) -> None:
    """Writes the backbone `views`, which embeds the camera of every image."""
    (plugins / "views").mkdir(parents=True, exist_ok=True)
    (plugins / "views" / "card.toml").write_text(VIEWS_CARD)
    (plugins / "views" / "model.py").write_text(VIEWS_MODEL)
