"""Information about the GPUs of this machine from the driver and `nvidia-smi`, without importing torch."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path

DRIVER = Path("/proc/driver/nvidia")
DEVICES = Path("/dev")
ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
"""Environment for processes that use GPUs: CUDA then numbers GPUs like `nvidia-smi` and Ray."""


def names() -> list[str]:
    """Returns the GPUs that this process may use: those in `CUDA_VISIBLE_DEVICES`, or the numbers of all GPUs."""
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        shown = [name.strip() for name in given.split(",")]
        # Like CUDA, ignore everything after the first invalid entry.
        return shown[: next((i for i, name in enumerate(shown) if name in ("", "-1")), len(shown))]
    if not driver():
        return []
    found = [*(DRIVER / "gpus").glob("*")] or [*DEVICES.glob("nvidia[0-9]*")]
    return [str(number) for number in range(max(1, len(found)))]


def driver() -> bool:
    """Returns whether an NVIDIA driver is installed.

    Some containers have no `/proc/driver/nvidia`, only the devices. `dxg` is the device of WSL on Windows.
    """
    return any(sign.exists() for sign in (DRIVER / "version", DEVICES / "nvidiactl", DEVICES / "dxg"))


def usable() -> bool:
    """Returns whether this process may use a GPU. Imports torch, which takes seconds, only if no driver is found."""
    if driver():
        return bool(names())
    import torch

    return torch.cuda.is_available()


def ask(*fields: str, command: str = "nvidia-smi") -> list[str]:
    """Queries fields of the first visible GPU with `nvidia-smi`; returns one text per field, or an empty list."""
    first = next(iter(names()), "0")
    asked = [command, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits", "-i", first]
    with suppress(OSError, IndexError, subprocess.SubprocessError):
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True).stdout
        return [part.strip() for part in answer.splitlines()[0].split(",")]
    return []
