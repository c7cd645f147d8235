"""Measures the cost of a backbone: parameters, FLOPs, time and memory.

`measure` is the short measurement at the end of a run; `harness.worker.profile_cell` measures a cell of `profile`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from harness.contracts import scan_implementation
from harness.efficiency.conditions import Conditions
from harness.efficiency.counts import flops, inference_parameters, parameters
from harness.efficiency.memory import peak_memory_bytes
from harness.efficiency.timing import Timing, repeat, synchronise

__all__ = [
    "Timing",
    "flops",
    "inference_parameters",
    "inference_speed",
    "measure",
    "parameters",
    "peak_memory_bytes",
    "random_batch",
    "repeat",
    "synchronise",
]


def random_batch(
    batch_size: int, image_size: tuple[int, int], num_cameras: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random images [B, 3, H, W] on the device, and camera ids [B] on the CPU, as in a real batch.

    The content of images does not affect the cost.
    """
    images = torch.rand(batch_size, 3, *image_size, device=device)
    cameras = torch.arange(batch_size) % max(num_cameras, 1)
    return images, cameras.pin_memory() if device.type == "cuda" else cameras


def inference_speed(
    module: nn.Module, images: torch.Tensor, cameras: torch.Tensor, *, seconds: float = 1.0
) -> dict[str, Any]:
    """Median throughput of a batch in evaluation mode, and the use of the device by other processes."""
    module.eval()
    watch = Conditions(images.device, thorough=False)
    watch.start()
    with torch.inference_mode():
        timing = repeat(lambda: module(images, cameras), images.device, seconds=seconds)
    return {"inference_images_per_second": len(images) / timing.median, "conditions": watch.stop(timing.drift)}


def measure(
    module: nn.Module, *, image_size: tuple[int, int], num_cameras: int, batch_size: int, device: torch.device
) -> dict[str, Any]:
    """Measures the inference part of the `efficiency` block of a record, with random images."""
    images, cameras = random_batch(batch_size, image_size, num_cameras, device)
    return {
        "parameters": parameters(module),
        "parameters_inference": inference_parameters(module, images[:1], cameras[:1]),
        "flops": flops(module, images, cameras),
        **inference_speed(module, images, cameras),
        "batch_size": batch_size,
        "image_size": list(image_size),
        "device": device.type,
        "precision": "fp32",
        "threads": torch.get_num_threads(),
        "scan": scan_implementation(module),
    }
