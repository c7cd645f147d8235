"""What is known of the GPUs here without torch, from the driver and `nvidia-smi`."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path

DRIVER = Path("/proc/driver/nvidia")
ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
"""For processes that use GPUs: numbers then mean the same to CUDA as to `nvidia-smi` and Ray."""


def visible() -> list[str] | None:
    """Numbers or names in `CUDA_VISIBLE_DEVICES`; None where it is not set, so that all are visible."""
    value = os.environ.get("CUDA_VISIBLE_DEVICES")
    return None if value is None else [part.strip() for part in value.split(",") if part.strip() not in ("", "-1")]


def there() -> bool:
    """Whether the driver shows a GPU that is not hidden."""
    driver = (DRIVER / "version").exists() or Path("/dev/dxg").exists()  # the latter under Windows
    return driver and visible() != []


def count() -> int:
    """Number of GPUs that are not hidden."""
    if not there():
        return 0
    shown = visible()
    return max(1, len(list((DRIVER / "gpus").glob("*")))) if shown is None else len(shown)


def ask(*fields: str, command: str = "nvidia-smi") -> list[str]:
    """What `nvidia-smi` says of the first visible GPU, a text a field; empty where it cannot be asked."""
    chosen = ["-i", shown[0]] if (shown := visible()) else ["-i", "0"]
    asked = [command, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits", *chosen]
    with suppress(OSError, IndexError, subprocess.SubprocessError):
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True).stdout
        return [part.strip() for part in answer.splitlines()[0].split(",")]
    return []
