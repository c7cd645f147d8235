"""Parameters and FLOPs: counted, not measured, and the same on every device."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from harness.contracts import extra_flops


def parameters(module: nn.Module, *, trained: bool = False) -> int:
    """All parameters, those of the training heads included; with `trained` only those training changes."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained)


def inference_parameters(module: nn.Module, images: torch.Tensor, cameras: torch.Tensor) -> int:
    """Parameters the test-time feature depends on: those its sum has a gradient for."""
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
    """FLOPs (two per multiply-add) of one image's test-time feature.

    Counted by torch for matrix products and convolutions. Attention takes its plain form meanwhile, two matrix
    products: the counter does not know the fused one of the CPU. A module adds what torch cannot see, such as a
    selective scan, through `extra_flops()` (per image). Norms, activations and softmax count nothing, for nobody.
    """
    module.eval()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module(images[:1], cameras[:1])
    return int(counter.get_total_flops()) + extra_flops(module)
