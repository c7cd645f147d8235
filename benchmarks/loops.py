"""Compares implementation choices of the training and evaluation loops with their alternatives.

    python -m benchmarks.loops [--device cpu] [--threads 1] [--size 256x128] [--rounds 3] [--tiny]

It measures whether channels-last makes ResNet-50 faster, fused implementations make optimisers faster, and larger
batches make extraction faster. The loops use a choice only if it is faster here. Alternatives take turns. `--tiny` uses
small builds, to try the script.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import nn

from benchmarks.machine import describe
from harness import efficiency, registry

CLASSES, CAMERAS = 751, 6
Call = Callable[[], object]
OPTIMISERS = {
    "SGD": lambda trained, **how: torch.optim.SGD(trained, lr=1e-6, momentum=0.9, weight_decay=1e-4, **how),
    "AdamW": lambda trained, **how: torch.optim.AdamW(trained, lr=1e-6, **how),
}


def build(name: str, size: tuple[int, int], device: torch.device) -> nn.Module:
    """Builds a backbone with random weights."""
    module = registry.backbone(name).build(num_classes=CLASSES, num_cameras=CAMERAS, image_size=size)
    return module.to(device)


def inference(module: nn.Module, images: torch.Tensor, cameras: torch.Tensor) -> Call:
    """Returns a function that computes the test-time features of a batch."""
    module.eval()

    def call() -> None:
        with torch.inference_mode():
            module(images, cameras)

    return call


def training(module: nn.Module, images: torch.Tensor, cameras: torch.Tensor) -> Call:
    """Returns a function that runs forward and backward pass of a batch, with a simple loss on the features."""
    module.train()

    def call() -> None:
        module.zero_grad(set_to_none=True)
        sum(feature.square().mean() for feature in module(images, cameras).features).backward()

    return call


def optimiser(kind: str, module: nn.Module, **how: bool) -> Call:
    """Returns a function that runs one optimiser step over all parameters."""
    trained = [p for p in module.parameters() if p.requires_grad]
    for p in trained:
        p.grad = torch.full_like(p, 1e-3)
    return OPTIMISERS[kind](trained, **how).step


def compare(
    title: str, calls: dict[str, Call], device: torch.device, rounds: int, images: dict[str, int] | None = None
) -> None:
    """Times functions in turn and prints medians, the range, and the ratio to the first.

    Args:
        title: title of the comparison.
        calls: functions by name; the first is the reference.
        device: device to synchronise after every call.
        rounds: number of timed calls of each function.
        images: number of images per call, by name, to print images per second instead of milliseconds.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            efficiency.synchronise(device)
            before = time.perf_counter()
            call()
            efficiency.synchronise(device)
            times[name].append(time.perf_counter() - before)
    print(f"\n{title}")
    counts = images or dict.fromkeys(calls, 1)
    alternative = next(iter(calls))
    first = median(times[alternative]) / counts[alternative]
    for name, found in times.items():
        seconds = median(found) / counts[name]
        shown = f"{1 / seconds:9.2f} images/s" if images else f"{1000 * seconds:9.2f} ms"
        spread = f"({1000 * min(found):,.1f} .. {1000 * max(found):,.1f} ms)"
        print(f"  {name:<28} {shown}  {first / seconds:5.2f} x  {spread}", flush=True)


def main() -> None:
    """Runs all comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", default="256x128")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    device = torch.device(chosen.device)
    height, width = (int(part) for part in chosen.size.split("x"))
    size = (height, width)
    print(describe(chosen.threads, device))

    cnn = build("bot:demo" if chosen.tiny else "bot", size, device)
    last = copy.deepcopy(cnn).to(memory_format=torch.channels_last)
    images, cameras = efficiency.random_batch(chosen.batch, size, CAMERAS, device)
    turned = images.contiguous(memory_format=torch.channels_last)
    for what, loop in (("inference", inference), ("forward and backward", training)):
        calls = {"contiguous": loop(cnn, images, cameras), "channels last": loop(last, turned, cameras)}
        taken = dict.fromkeys(calls, chosen.batch)
        compare(f"BoT, {what}, batch {chosen.batch}", calls, device, chosen.rounds, taken)

    for name in ("transreid:demo",) if chosen.tiny else ("transreid:demo", "transreid"):
        vit = build(name, size, device)
        for kind in OPTIMISERS:
            steps = {how: optimiser(kind, vit, **{how: True}) for how in ("foreach", "fused")}
            calls = {"one by one": optimiser(kind, vit, foreach=False), **steps}
            compare(f"{kind} step of {name}", calls, device, chosen.rounds * 3)

    for name in ("bot:demo", "reidmamba:tiny") if chosen.tiny else ("bot", "reidmamba"):
        module, batches = build(name, size, device), {f"batch {number}": number for number in (1, 8, 32)}
        inputs = {key: efficiency.random_batch(number, size, CAMERAS, device) for key, number in batches.items()}
        calls = {key: inference(module, *given) for key, given in inputs.items()}
        compare(f"{name}, extraction", calls, device, chosen.rounds, batches)


if __name__ == "__main__":
    main()
