"""Export of each backbone at full size: duration, size of the file, and images per second beside PyTorch.

    python -m benchmarks.exported

The networks have random weights, which do not change the cost. With one thread, images per second of processor time
hardly depend on what else runs; with more threads, waiting threads count as busy, so wall time is used.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

import harness
from benchmarks.machine import describe
from harness import registry

BACKBONES = "bot,transreid,reidmamba"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbones", default=BACKBONES)
    parser.add_argument("--image-size", default="256x128")
    parser.add_argument("--batch", default="1,8")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20.0)
    asked = parser.parse_args()
    size = tuple(int(side) for side in asked.image_size.split("x"))
    batches = [int(number) for number in asked.batch.split(",")]
    torch.set_num_threads(asked.threads)
    print(describe(asked.threads, torch.device("cpu")), flush=True)
    print(
        "| backbone | export | size | batch | onnxruntime | PyTorch | ratio |\n|---|---|---|---|---|---|---|",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.backbones.split(","):
            row(name, size, batches, Path(folder), asked)


def row(name: str, size: tuple[int, ...], batches: list[int], folder: Path, asked: argparse.Namespace) -> None:
    checkpoint, out = folder / "net.pt", folder / "net.onnx"
    entry = registry.backbone(name)
    module = entry.build(num_classes=751, num_cameras=6, image_size=size, **entry.options())
    torch.save(module.state_dict(), checkpoint)
    started = time.perf_counter()
    result = harness.export(name, checkpoint=checkpoint, image_size=size, out=out)
    total = time.perf_counter() - started
    for timing in harness.profile_exported(out, batches=batches, threads=asked.threads, seconds=asked.seconds):
        one = asked.threads == 1
        pair = (timing.file_cpu_ms, timing.pytorch_cpu_ms) if one else (timing.file_ms, timing.pytorch_ms)
        ours, theirs = (1000 * timing.batch / ms for ms in pair)
        print(
            f"| {name} | {result.seconds:.0f} s ({total:.0f} s) | {out.stat().st_size / 1e6:.1f} MB | {timing.batch} "
            f"| {ours:.1f} images/s | {theirs:.1f} images/s | {ours / theirs:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
