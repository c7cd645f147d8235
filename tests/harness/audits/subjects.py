"""Small subjects of audits: people in a plane, and networks whose features are arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.audits.subject import Change, Changed, Subject
from harness.contracts import Item


def items(pids: Sequence[int], camids: Sequence[int], kind: str = "") -> list[Item]:
    numbered = enumerate(zip(pids, camids, strict=True))
    return [Item(Path(f"{kind}{row}.png"), pid, camid) for row, (pid, camid) in numbered]


def subject(
    query: Sequence[tuple[int, int, float]], gallery: Sequence[tuple[int, int, float]], **changes: Any
) -> Subject:
    """A subject from (identity, camera, angle in degrees): features lie on the unit circle."""
    sides = []
    for rows in (query, gallery):
        angles = torch.deg2rad(torch.tensor([row[2] for row in rows], dtype=torch.float64))
        sides.append(torch.stack([angles.cos(), angles.sin()], dim=1))
    listed = [items([row[0] for row in rows], [row[1] for row in rows]) for rows in (query, gallery)]
    return Subject("people", *listed, features=tuple(sides), **changes)  # type: ignore[misc]


def crowd(people: int = 24, images: int = 6, cameras: int = 3, noise: float = 1.0, seed: int = 0) -> Subject:
    """Noisy features of some people; each has one query per camera and further images in the gallery."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(people, 8))
    sides = []
    for count, kind in ((cameras, "q"), (images, "g")):
        pids, camids = np.repeat(np.arange(people), count), np.tile(np.arange(count) % cameras, people)
        features = centres[pids] + noise * draw.normal(size=(len(pids), 8))
        sides.append((items(pids.tolist(), camids.tolist(), kind), features.astype(np.float32)))
    (query, q), (gallery, g) = sides
    return Subject("people", query, gallery, features=(torch.tensor(q), torch.tensor(g)))


class Linear:
    """A network whose features are a projection of the pixels, plus a multiple of the camera."""

    def __init__(self, pictures: dict[str, np.ndarray], weight: float, mode: str = "on") -> None:
        self.pictures, self.weight, self.camera_mode = pictures, weight, mode
        self.passes = 0
        self.mix = np.random.default_rng(0).normal(size=(12, 6))

    def images(self, listed: Sequence[Item]) -> list[np.ndarray]:
        return [self.pictures[item.path.name] for item in listed]

    def features(self, listed: Sequence[Item], *, change: Change | None = None, cameras: str = "") -> torch.Tensor:
        self.passes += 1
        images: Any = self.images(listed)
        changed = images if change is None else Changed(images, change)
        pixels = np.stack([changed[row].reshape(-1) for row in range(len(listed))]).astype(np.float64)
        ids = {"": np.array([item.camid for item in listed], dtype=float), "mean": 1.0, "off": 0.0}[cameras]
        return torch.tensor(pixels @ self.mix + self.weight * np.broadcast_to(ids, len(listed))[:, None])


def pictured(weight: float, mode: str = "on") -> Subject:
    """A crowd whose people have a colour each, seen by a `Linear` network."""
    made = crowd()
    draw = np.random.default_rng(1)
    colours = draw.integers(0, 200, size=(24, 3, 2, 2))
    pictures = {
        item.path.name: (colours[item.pid] + draw.integers(0, 56, size=(3, 2, 2))).astype(np.uint8)
        for item in (*made.query, *made.gallery)
    }
    made.network = Linear(pictures, weight, mode)
    made.open_images = made.network.images
    made.features = made.network.features(made.query), made.network.features(made.gallery)
    return made


def values(found: Any) -> dict[tuple[str, str], float]:
    """Values of rows by name and setting."""
    rows = [row for row in found if not isinstance(row, str)]
    return {(row.name, " ".join(f"{k}={v}" for k, v in row.setting.items())): row.value for row in rows}
