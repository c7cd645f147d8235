"""Speed of generating people on one core: drawing only, and including writing to disk.

    python -m benchmarks.synthetic [--size 128x64] [--images 600] [--rounds 5]

It prints images per second for every world. The best of several rounds counts, because other load of the machine only
makes rounds slower. The target is 200 images per second at 128x64, including encoding and writing.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import replace

from datasets.synthetic import LAYOUTS, SCALES, generate
from datasets.synthetic.writing import render

TARGET = 200


def drawing_rate(name: str, size: tuple[int, int], images: int, seed: int) -> float:
    """Returns images per second for drawing without encoding."""
    layout = LAYOUTS[name]
    seen = [file.seen for file in layout.plan(SCALES["demo"], seed).files][:images]
    start = time.perf_counter()
    for one in seen:
        render(layout, one, seed, size)
    return len(seen) / (time.perf_counter() - start)


def writing_rate(name: str, size: tuple[int, int], images: int, seed: int) -> float:
    """Returns images per second for a dataset of about ``images`` images, written to a temporary folder."""
    scale = replace(SCALES["demo"], train_identities=max(2, images // 20), test_identities=max(2, images // 24))
    counted: list[int] = []
    with tempfile.TemporaryDirectory() as root:
        start = time.perf_counter()
        generate(root, layouts=[name], scale=scale, seed=seed, size=size, progress=lambda done, _: counted.append(done))
        return counted[-1] / (time.perf_counter() - start)


def main() -> int:
    """Prints the table; the exit code is 1 if the slowest world misses the target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="128x64", help="height x width")
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    height, width = (int(side) for side in given.size.split("x"))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    slowest = float("inf")
    print(f"{height}x{width}, one core, best of {given.rounds} rounds\n{'world':18} {'drawn/s':>9} {'written/s':>9}")
    for name in ("market1501", "dukemtmc", "msmt17", "cuhk03-detected", "synthetic"):
        # every round has its own seed, so that no person or place is cached from an earlier round
        drawn = max(drawing_rate(name, (height, width), given.images, seed) for seed in range(given.rounds))
        written = max(writing_rate(name, (height, width), given.images, seed) for seed in range(given.rounds))
        slowest = min(slowest, written)
        print(f"{name:18} {drawn:9.0f} {written:9.0f}")
    print(f"slowest {slowest:.0f} images/s; target {TARGET} at 128x64")
    return int(slowest < TARGET)


if __name__ == "__main__":
    raise SystemExit(main())
