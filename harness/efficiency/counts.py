"""Counts parameters and FLOPs; the counts are the same on every device."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from harness.contracts import extra_flops


def parameters(module: nn.Module, *, trained: bool = False) -> int:
    """Number of parameters, including those of training heads; with `trained`, only trainable ones."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained)


def inference_parameters(module: nn.Module, images: torch.Tensor, cameras: torch.Tensor) -> int:
    """Number of parameters that the test-time feature depends on: those with a gradient of its sum."""
    module.eval()
    frozen = [p for p in module.parameters() if not p.requires_grad]
    try:
        for p in frozen:
            p.requires_grad_(True)
        used = list(module.parameters())
        if not used:
            return 0
        grads = torch.autograd.grad(module(images, cameras).sum(), used, allow_unused=True)
    finally:
        for p in frozen:
            p.requires_grad_(False)
    return sum(p.numel() for p, grad in zip(used, grads, strict=True) if grad is not None)


@torch.inference_mode()
def flops(module: nn.Module, images: torch.Tensor, cameras: torch.Tensor) -> int:
    """FLOPs (two per multiply-add) of the test-time feature of one image.

    Torch counts matrix products and convolutions. Attention uses its unfused form, because the counter does not support
    the fused one on a CPU. A module adds operations that torch does not see, such as a selective scan, by
    `extra_flops()` (per image). Norms, activations and softmax are not counted for any backbone.
    """
    module.eval()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module(images[:1], cameras[:1])
    return int(counter.get_total_flops()) + extra_flops(module)
