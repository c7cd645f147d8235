"""What is known of the GPUs here without torch, from the driver and `nvidia-smi`."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path

DRIVER = Path("/proc/driver/nvidia")
ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
"""For processes that use GPUs: numbers then mean the same to CUDA as to `nvidia-smi` and Ray."""


def names() -> list[str]:
    """The GPUs this process may use: what `CUDA_VISIBLE_DEVICES` names, else the numbers of those that are here."""
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        shown = [name.strip() for name in given.split(",")]
        return shown[: next((i for i, name in enumerate(shown) if name in ("", "-1")), len(shown))]  # as CUDA does
    return [str(number) for number in range(max(1, len(list((DRIVER / "gpus").glob("*")))))] if driver() else []


def driver() -> bool:
    """Whether a driver is here."""
    return (DRIVER / "version").exists() or Path("/dev/dxg").exists()  # the latter under Windows


def usable() -> bool:
    """Whether this process may use a GPU; torch, which takes seconds to import, is asked where no driver is seen."""
    if driver():
        return bool(names())
    import torch

    return torch.cuda.is_available()


def ask(*fields: str, command: str = "nvidia-smi") -> list[str]:
    """What `nvidia-smi` says of the first visible GPU, a text a field; empty where it cannot be asked."""
    first = next(iter(names()), "0")
    asked = [command, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits", "-i", first]
    with suppress(OSError, IndexError, subprocess.SubprocessError):
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True).stdout
        return [part.strip() for part in answer.splitlines()[0].split(",")]
    return []
