"""Speed of the training loader, against the per-image pipeline of the original toolboxes.

    python -m benchmarks.loader [--size 256x128] [--batches 20] [--rounds 5] [--threads 1]

With one thread, everything runs on one core.

Both load training batches from the same JPEG files in a temporary folder: 64 identities with 16 images of Market-1501's
size (128x64). The original pipeline decodes each image with PIL, resizes, pads, crops, flips, converts, normalises and
erases it with torchvision, and stacks the batch, in a torch DataLoader without worker processes. Rounds of both
alternate, so that other load of the machine affects both; the result is the median round.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as T

from benchmarks.machine import describe
from harness.contracts import Item
from harness.data.loader import TrainingData
from harness.data.sampler import PKSampler
from harness.spec.recipe import Augmentation, Recipe, Sampler

IDENTITIES, IMAGES = 64, 16
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def write_images(folder: Path) -> list[Item]:
    """Writes smooth random images with some noise, about 3 kB each."""
    rng, items = np.random.default_rng(0), []
    for number in range(IDENTITIES * IMAGES):
        coarse = Image.fromarray(rng.integers(0, 256, (16, 8, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((64, 128), Image.Resampling.BICUBIC), dtype=np.float64)
        grain = rng.normal(0, 3, smooth.shape)
        path = folder / f"{number:05d}.jpg"
        Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(path, quality=85)
        items.append(Item(path, number // IMAGES, number % 6))
    return items


class PerImage(Dataset):
    """The pipeline of the original toolboxes: one image at a time with PIL and torchvision."""

    def __init__(self, items: list[Item], augmentation: Augmentation) -> None:
        erasing, size = augmentation.erasing, augmentation.image_size
        self.items = items
        self.transform = T.Compose(
            [
                T.Resize(size, interpolation=T.InterpolationMode(augmentation.interpolation_train)),
                T.Pad(augmentation.pad),
                T.RandomCrop(size),
                T.RandomHorizontalFlip(augmentation.flip),
                T.ToTensor(),
                T.Normalize(MEAN, STD),
                T.RandomErasing(erasing.probability, erasing.area, erasing.aspect, value="random"),
            ]
        )

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, int]:
        path, pid, camid = self.items[index]
        with Image.open(path) as image:
            return self.transform(image.convert("RGB")), pid, camid


def rate(batches: Iterable) -> float:
    """Returns images per second; the images are the first element of a batch."""
    start, images = time.perf_counter(), 0
    for batch in batches:
        images += len(batch[0])
    return images / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="256x128", help="height x width")
    parser.add_argument("--batches", type=int, default=20, help="batches of 64 per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="threads of this loader")
    arguments = parser.parse_args()
    if arguments.threads == 1 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    height, width = map(int, arguments.size.split("x"))
    sampler = Sampler(16, 4, "fixed", arguments.batches)
    recipe = Recipe("benchmark", augmentation=Augmentation(image_size=(height, width)), sampler=sampler)
    print(describe(arguments.threads, torch.device("cpu")))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        items = write_images(folder)
        size = sum(item.path.stat().st_size for item in items) / len(items)
        options = {"mean": MEAN, "std": STD, "seed": 0, "workers": arguments.threads}
        start = time.perf_counter()
        cached = TrainingData(items, recipe, cache=folder / "cache", **options)
        built = time.perf_counter() - start
        print(f"{len(items)} JPEG files, {size / 1e3:.1f} kB on average; the cache took {built:.2f} s")
        files = TrainingData(items, recipe, **options)
        order = PKSampler([item.pid for item in items], sampler, seed=0)
        per_image = PerImage(items, recipe.augmentation)
        rates: dict[str, list[float]] = {"original": [], "files": [], "cached": []}
        for epoch in range(arguments.rounds + 1):
            original = DataLoader(per_image, batch_sampler=order.batches(epoch).tolist())
            runs = {"original": original, "files": files.epoch(epoch), "cached": cached.epoch(epoch)}
            for kind, batches in runs.items():
                rates[kind].append(rate(batches))
    print(f"{'pipeline':10}{'images/s':>10}{'times':>8}   slowest and fastest round")
    for kind, values in rates.items():
        warm = values[1:]  # the first round warms up
        times = median(warm) / median(rates["original"][1:])
        print(f"{kind:10}{median(warm):10.0f}{times:8.2f}   {min(warm):.0f} .. {max(warm):.0f}")


if __name__ == "__main__":
    main()
