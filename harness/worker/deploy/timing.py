"""Times an exported file beside the PyTorch network it was made from, in turns, so that other load hits both alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch

from harness import registry
from harness.contracts import set_camera_mode
from harness.system import processes
from harness.system.device import place
from harness.system.paths import expand
from harness.worker.deploy import formats
from harness.worker.deploy.graph import CAMERAS, INPUT, Contract, Exported

LEAST = 3
"""Minimum number of calls of each."""


class Timing(NamedTuple):
    """Speed of a file and of PyTorch at one batch size.

    Attributes:
        batch: images per call.
        file_ms: median duration of a call of the file, in milliseconds.
        pytorch_ms: likewise of PyTorch.
        file_cpu_ms: median processor time of a call of the file, in milliseconds.
        pytorch_cpu_ms: likewise of PyTorch.
        repeats: number of calls of each.
    """

    batch: int
    file_ms: float
    pytorch_ms: float
    file_cpu_ms: float
    pytorch_cpu_ms: float
    repeats: int

    @property
    def speedup(self) -> float:
        """How many times as many images per second the file computes as PyTorch."""
        return self.pytorch_ms / self.file_ms


def measure(
    path: Path, *, batches: Sequence[int], threads: int = 0, seconds: float = 3.0, plugins: str = ""
) -> list[Timing]:
    """Times a file on the CPU under onnxruntime, or torch for `.pt2`, beside its network with random weights.

    Both get the same inputs and do the same work, from pixels to features of unit length.

    Args:
        path: a file of `export`.
        batches: images per call; a file with a fixed batch is timed with that one.
        threads: number of CPU threads of each; 0 is all cores.
        seconds: time limit per batch size, for both together.
        plugins: folder of further plug-ins.

    Raises:
        WeightsError: the file is missing, or not one of `export`.
    """
    about, contract = formats.description(path), formats.contract_of(path)
    threads = threads or processes.cores()
    torch.set_num_threads(threads)
    network = _network(about["network"], contract, Path(expand(plugins)) if plugins else None)
    file = formats.Deployed(path, contract, threads)
    found = []
    for batch in [contract.batch] if contract.batch else batches:
        inputs = network.example(batch)
        named = {name: t.numpy() for name, t in zip((INPUT, CAMERAS), inputs, strict=False)}
        with torch.inference_mode():
            times = _in_turns([partial(file.call, named), partial(network, *inputs)], seconds)
        ours, theirs = ([1000 * median(pair[i] for pair in own) for i in (0, 1)] for own in times)
        found.append(Timing(batch, ours[0], theirs[0], ours[1], theirs[1], len(times[0])))
    return found


def _network(named: dict[str, object], contract: Contract, plugins: Path | None) -> Exported:
    entry = registry.backbone(str(named["backbone"]), plugins)
    options = named["options"]
    assert isinstance(options, dict)
    module = entry.build(
        num_classes=1, num_cameras=contract.num_cameras or 1, image_size=contract.image_size, **options
    )
    module = place(module, torch.device("cpu"), entry.input).eval()
    if contract.camera == "mean":
        set_camera_mode(module, "mean")
    return Exported(module, contract).eval()


def _in_turns(calls: Sequence[Callable[[], object]], seconds: float) -> list[list[tuple[float, float]]]:
    """Durations and processor times of calls that take turns, in seconds; the first call of each is not counted."""
    for call in calls:
        call()
    times: list[list[tuple[float, float]]] = [[] for _ in calls]
    end = time.perf_counter() + seconds
    while len(times[0]) < LEAST or time.perf_counter() < end:
        for call, own in zip(calls, times, strict=True):
            started, busy = time.perf_counter(), time.process_time()
            call()
            own.append((time.perf_counter() - started, time.process_time() - busy))
    return times
