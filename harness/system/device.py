"""Device, precision and memory format of modules."""

from __future__ import annotations

import torch
from torch import nn

from harness.cards import InputCard
from harness.errors import RunError, UsageError

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def precision_name(dtype: torch.dtype) -> str:
    """Returns the name of a dtype in recipes and records."""
    return next(name for name, known in PRECISIONS.items() if known == dtype)


def precision(name: str, device: torch.device) -> torch.dtype:
    """Returns the dtype of a precision; `auto` is float16 on a GPU and float32 on a CPU.

    Raises:
        RunError: float16 on a CPU.
    """
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    dtype = PRECISIONS[name]
    if dtype == torch.float16 and device.type == "cpu":
        raise RunError("The precision fp16 needs a GPU. Choose fp32 or bf16 on a CPU.")
    return dtype


UNTESTED = ("mps", "xpu")
"""Devices that are passed to torch, and on which nobody has tested this harness."""


def check(device: str) -> None:
    """Checks that torch can use a device.

    Raises:
        UsageError: torch has no such device on this machine.
    """
    if device == "cpu":
        return
    backend = torch.backends.mps if device == "mps" else getattr(torch, device)
    if not backend.is_available():
        version = torch.__version__
        raise UsageError(f"The device {device} cannot be used: torch {version} finds none. Pass --device cpu.")


def untested(device: str) -> str:
    """Returns a warning about a device of `UNTESTED`, or an empty string."""
    if device not in UNTESTED:
        return ""
    return f"The device {device} is untested: compare the scores with those of a CPU before you rely on them."


def exact_float32() -> None:
    """Disables TF32. By default, torch uses TF32 for convolutions on a GPU, but not for matrix products.

    torch has two interfaces for this, and raises an error where they contradict each other. The calls below set both.
    `cudnn.conv.fp32_precision` sets only the newer one, and then `torch.export` fails, which reads the older one.
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


def place(module: nn.Module, device: torch.device, card: InputCard) -> nn.Module:
    """Moves a module to a device, in the channels-last memory format if the card says so.

    Images need no conversion, because the output of a convolution has the memory format of its weights.
    """
    order = torch.channels_last if card.channels_last else torch.preserve_format
    return module.to(device).to(memory_format=order)
