"""The precision of losses: float32, also under autocast."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor


def full(tensor: Tensor) -> Tensor:
    """Converts half precision to float32; float64 stays float64."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def no_autocast(tensor: Tensor) -> torch.autocast:
    """Returns a context that switches autocast off on the device of `tensor`."""
    return torch.autocast(tensor.device.type, enabled=False)


def products(tensor: Tensor, autocast: bool) -> AbstractContextManager[Any]:
    """Returns the context for matrix products: the caller's autocast precision, or no autocast."""
    return contextlib.nullcontext() if autocast else no_autocast(tensor)
