"""Small datasets in the layouts of the benchmarks, for tests of readers, preparation and validation."""

from __future__ import annotations

import os
import time
from pathlib import Path

from PIL import Image


def picture(path: Path, shade: int = 0) -> Path:
    """Writes a small image; different shades give different files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "PNG" if path.suffix.lower() == ".png" else "JPEG"
    Image.new("RGB", (8, 16), (shade % 256, (7 * shade) % 256, (31 * shade) % 256)).save(path, kind)
    return path


def market(folder: Path, style: str = "c{cam}s1_{n:06d}_01.jpg") -> Path:
    """Two training and two test identities, each seen by cameras 1 and 2; junk and a distractor in the gallery."""
    names = {
        "bounding_box_train": ["0002_c1", "0002_c2", "0007_c1", "0007_c2"],
        "query": ["0001_c1", "0003_c2"],
        "bounding_box_test": ["-1_c1", "0000_c2", "0001_c2", "0003_c1"],
    }
    n = 0
    for sub, people in names.items():
        for person in people:
            pid, cam = person.split("_c")
            n += 1
            picture(folder / sub / f"{pid}_{style.format(cam=cam, n=n)}", n)
    return folder


def msmt17(folder: Path, train: str = "train", test: str = "test") -> Path:
    """Two training identities (with a val list) and two test identities of the same numbers."""
    lists = {
        "train": (train, [(0, 0, 1), (0, 1, 15), (1, 0, 2)]),
        "val": (train, [(1, 1, 3)]),
        "query": (test, [(0, 0, 1), (1, 0, 4)]),
        "gallery": (test, [(0, 1, 12), (1, 1, 5)]),
    }
    for name, (sub, rows) in lists.items():
        text = ""
        for pid, index, cam in rows:
            image = f"{pid:04d}/{pid:04d}_{index:03d}_{cam:02d}_0303morning_0015_0.jpg"
            picture(folder / sub / image, 50 * len(text) + pid + index)
            text += f"{image} {pid}\n"
        (folder / f"list_{name}.txt").write_text(text)
    return folder


def settle(folder: Path) -> None:
    """Sets all modification times one hour back, as for data that is not being written."""
    then = time.time() - 3600
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            os.utime(path, (then, then))
