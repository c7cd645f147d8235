"""Seeds that depend on their purpose, not on the order of calls; identical in every process and on every machine."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def derive(seed: int, *purpose: Any) -> int:
    """Returns a 63-bit seed for a purpose, for example `derive(0, "epoch", 3)`."""
    text = "\0".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_torch(seed: int, *purpose: Any) -> None:
    """Seeds torch on every device for a purpose; dropout and initialisation use it."""
    import torch

    torch.manual_seed(derive(seed, *purpose))


def repeat_bit_for_bit() -> None:
    """Restricts torch to deterministic algorithms; call it before anything runs on a GPU."""
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required by cuBLAS
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def random_state(device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Returns the state of torch's random numbers, on the CPU and on the device."""
    import torch

    return torch.get_rng_state(), None if device.type == "cpu" else torch.get_device_module(device).get_rng_state()


def set_random_state(state: tuple[torch.Tensor, torch.Tensor | None], device: torch.device) -> None:
    """Returns to a state of torch's random numbers."""
    import torch

    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.get_device_module(device).set_rng_state(state[1])
