"""What a backbone costs: parameters, FLOPs, inference throughput, peak memory."""

from __future__ import annotations

import resource
import statistics
import time
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def parameters(module: nn.Module) -> int:
    """All parameters, those of the training heads included."""
    return sum(p.numel() for p in module.parameters())


def inference_parameters(module: nn.Module, images: torch.Tensor, cameras: torch.Tensor) -> int:
    """Parameters the test-time feature depends on: those its sum has a gradient for."""
    module.eval()
    frozen = [p for p in module.parameters() if not p.requires_grad]
    try:
        for p in frozen:
            p.requires_grad_(True)
        used = [p for p in module.parameters()]
        if not used:
            return 0
        grads = torch.autograd.grad(module(images, cameras).sum(), used, allow_unused=True)
    finally:
        for p in frozen:
            p.requires_grad_(False)
    return sum(p.numel() for p, grad in zip(used, grads, strict=True) if grad is not None)


@torch.inference_mode()
def flops(module: nn.Module, images: torch.Tensor, cameras: torch.Tensor) -> int:
    """FLOPs (two per multiply-add) of one image's test-time feature.

    Counted by torch for matrix products, convolutions and attention; a module adds what torch cannot see,
    such as a selective scan, through `extra_flops()` (per image).
    """
    module.eval()
    with FlopCounterMode(display=False) as counter:
        module(images[:1], cameras[:1])
    extra = getattr(module, "extra_flops", None)
    return int(counter.get_total_flops()) + (int(extra()) if extra else 0)


@torch.inference_mode()
def inference_images_per_second(
    module: nn.Module, images: torch.Tensor, cameras: torch.Tensor, *, seconds: float = 1.0, repeats: int = 5
) -> float:
    """Median throughput over repeats of a batch, after one warm-up; synchronised on a GPU."""
    module.eval()
    module(images, cameras)
    synchronise(images.device)
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < repeats or (time.perf_counter() - started < seconds and len(times) < 100):
        before = time.perf_counter()
        module(images, cameras)
        synchronise(images.device)
        times.append(time.perf_counter() - before)
        if time.perf_counter() - started > 5 * seconds:
            break
    return len(images) / statistics.median(times)


def synchronise(device: torch.device) -> None:
    """Waits until the device has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory_bytes(device: torch.device) -> int:
    """Peak of this process: memory allocated by torch on a GPU, resident memory on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(
    module: nn.Module, *, image_size: tuple[int, int], num_cameras: int, batch_size: int, device: torch.device
) -> dict[str, Any]:
    """The efficiency block of a run's record, inference part; inputs are random images."""
    images = torch.rand(batch_size, 3, *image_size, device=device)
    cameras = torch.arange(batch_size, device=device) % max(num_cameras, 1)
    return {
        "parameters": parameters(module),
        "parameters_inference": inference_parameters(module, images[:1], cameras[:1]),
        "flops": flops(module, images, cameras),
        "inference_images_per_second": inference_images_per_second(module, images, cameras),
        "batch_size": batch_size,
        "image_size": list(image_size),
        "device": device.type,
        "precision": "fp32",
        "threads": torch.get_num_threads(),
    }
