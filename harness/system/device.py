"""How a module and its numbers lie on a device."""

from __future__ import annotations

import torch
from torch import nn

from harness.cards import InputCard
from harness.errors import RunError

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def precision_name(dtype: torch.dtype) -> str:
    """The name of a precision in recipes and records."""
    return next(name for name, known in PRECISIONS.items() if known == dtype)


def precision(name: str, device: torch.device) -> torch.dtype:
    """`auto` is float16 on a GPU and float32 on a CPU; float16 on a CPU is refused."""
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    dtype = PRECISIONS[name]
    if dtype == torch.float16 and device.type == "cpu":
        raise RunError("training.precision 'fp16' needs a GPU; use fp32 or bf16 on a CPU.")
    return dtype


def exact_float32() -> None:
    """Makes `fp32` mean 32 bits: left alone, a GPU's convolutions round to TF32 and its matrix products do not."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def place(module: nn.Module, device: torch.device, card: InputCard) -> nn.Module:
    """Puts a module on a device, with its channels last in memory where the card says so.

    A convolution hands that order on to what follows, so images need not have it.
    """
    order = torch.channels_last if card.channels_last else torch.preserve_format
    return module.to(device).to(memory_format=order)
