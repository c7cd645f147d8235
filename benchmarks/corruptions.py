"""Cost of corruption audits beside that of the features they need, on one core.

    python -m benchmarks.corruptions [--backbones bot,transreid,reidmamba] [--images 64] [--rounds 5] [--device cuda]

First the time of each corruption per image of Market-1501's size. Then, per backbone, passes over clean images from the
cache and over images with random corruptions take turns; the result is the median of the paired ratios. Last the
ranking: three rankings and intervals with the counts of Market-1501, as each pass of `corruption-kinds` has them. The
total is (features of a corrupted pass + rankings) / (features of a clean pass), at the counts of Market-1501.
The networks have random weights, which do not change the cost. On the CPU, times are processor times of one thread, as
these hardly depend on what else runs. On a GPU they are wall times, and all cores prepare images.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.loader import MEAN, STD, write_images
from benchmarks.machine import describe
from harness import metrics, registry
from harness.audits.audit import mean_row
from harness.audits.corrupting import always, corrupting, drawn
from harness.contracts import Item
from harness.data.corruptions import KINDS, LEVELS
from harness.data.loader import EvaluationData
from harness.data.reader import Reader
from harness.data.transforms import Images
from harness.worker.audit import AuditedNetwork

SIZE, BATCH = (256, 128), 64
QUERIES, GALLERY, IDENTITIES, CAMERAS = 3_368, 15_913, 750, 6


def per_image(reader: Reader, items: list[Item]) -> None:
    """Prints milliseconds per image of every kind and level, without resizing."""
    originals = reader.originals(items)
    print(f"\n| milliseconds per image | {' | '.join(map(str, LEVELS))} |\n|---|{'---|' * len(LEVELS)}")
    every = []
    for kind in KINDS:
        cells = []
        for level in LEVELS:
            change = corrupting(items, always(kind, level))
            change(originals[0], 0)  # compiles, and computes what all images share
            start = time.process_time()
            for row in range(len(items)):
                change(originals[row], row)
            cells.append(1e3 * (time.process_time() - start) / len(items))
        every += cells
        print(f"| {kind.replace('_', ' ')} | {' | '.join(f'{cell:.2f}' for cell in cells)} |", flush=True)
    print(f"Mean of all: {np.mean(every):.2f} ms")


def batches(items: list[Item], images: Images, workers: int, pin: bool) -> EvaluationData:
    """Returns evaluation batches."""
    return EvaluationData(
        items, image_size=SIZE, interpolation="bicubic", mean=MEAN, std=STD, batch_size=BATCH, images=images,
        workers=workers, pin_memory=pin,
    )  # fmt: skip


def passes(name: str, reader: Reader, items: list[Item], rounds: int, device: torch.device) -> tuple[float, float]:
    """Returns seconds per image of clean passes, and the median ratio of corrupted ones to them."""
    module = registry.backbone(name).build(num_classes=1, num_cameras=1, image_size=SIZE).to(device).eval()
    workers = len(os.sched_getaffinity(0)) if device.type == "cuda" else 1
    load = partial(batches, workers=workers, pin=device.type == "cuda")
    network = AuditedNetwork(module, device, reader, load, lambda *_, **__: None)
    items = [item._replace(camid=0) for item in items]
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    ratios, clean = [], []
    for number in range(rounds + 1):
        times = []
        for change in (None, corrupting(items, drawn(number))):
            start = clock()
            network.features(items, change=change, original=True)
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append(clock() - start)
        if number:  # the first round warms up
            ratios.append(times[1] / times[0])
            clean.append(times[0] / len(items))
    return median(clean), median(ratios)


def ranking(dim: int) -> float:
    """Returns the seconds of the three rankings and the interval of one pass."""
    rng = np.random.default_rng(0)
    (q_pids, g_pids), (q_cams, g_cams) = (
        tuple(rng.integers(below, size=count) for count in (QUERIES, GALLERY)) for below in (IDENTITIES, CAMERAS)
    )
    query, gallery = (torch.from_numpy(rng.standard_normal((n, dim), np.float32)) for n in (QUERIES, GALLERY))
    times = []
    for _ in range(2):
        start = time.perf_counter()
        for _ in range(3):
            found = metrics.evaluate_ranking(query, gallery, q_pids, g_pids, q_cams, g_cams)
        mean_row("mAP", {}, found.average_precision, q_pids, resamples=1_000)
        times.append(time.perf_counter() - start)
    return times[-1]  # the first one compiles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", default="bot,transreid,reidmamba")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    device = torch.device(given.device)
    if device.type == "cpu":
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        torch.set_num_threads(1)
    print(describe(torch.get_num_threads(), device))
    with tempfile.TemporaryDirectory() as name:
        items = write_images(Path(name))[: given.images]
        reader = Reader(SIZE, "bicubic", folder=Path(name) / "cache", workers=1)
        per_image(reader, items[:64])
        print(
            "\n| backbone | clean, ms per image | corrupted / clean | three rankings | total |\n|---|---|---|---|---|"
        )
        for backbone in given.backbones.split(","):
            seconds, ratio = passes(backbone, reader, items, given.rounds, device)
            rank = ranking(registry.backbone(backbone).card.feature_dim) / (seconds * (QUERIES + GALLERY))
            cells = f"{1e3 * seconds:.1f} | {ratio:.3f} | {rank:.3f} | {ratio + rank:.3f}"
            print(f"| {backbone} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
