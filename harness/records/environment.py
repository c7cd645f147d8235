"""The environment of a result: versions, hardware and state of the checkout; no environment variables or secrets."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness.system import gpu, processes
from harness.system.paths import REPOSITORY
from harness.system.redact import mask, readable

PACKAGES = ("torch", "torchvision", "timm", "numpy", "numba", "mamba-ssm", "causal-conv1d", "ray", "mlflow")

OWN_OUTPUT = (":!results", ":!figures", ":!BENCHMARKS.md")
"""Paths of the checkout that the harness writes; changes there do not count as changes of the code."""


def capture(device: str = "cpu") -> dict[str, Any]:
    """Returns the environment block of a record.

    Args:
        device: `cpu` or `cuda`; with `cuda`, GPU and driver are included, which imports torch.
    """
    block = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": processes.cores(),
        "memory_bytes": _memory(),
        **{name: _version(name) for name in PACKAGES},
        "packages_hash": _packages(),
        "deterministic": _deterministic(),
        **_checkout(),
    }
    return {**block, **_gpu()} if device == "cuda" else block


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def _packages() -> str:
    """Returns a hash of all installed distributions and versions; equal hashes mean equal environments."""
    found = set()
    for folder in filter(os.path.isdir, sys.path):
        found |= {name for name in os.listdir(folder) if name.endswith((".dist-info", ".egg-info"))}
    return hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()[:16]


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


@functools.cache
def _checkout() -> dict[str, Any]:
    """Returns the commit of this checkout, and whether files differ from it, except those in `OWN_OUTPUT`.

    If git fails, `git_problem` contains the reason.
    """
    if not (REPOSITORY / ".git").exists():
        return {"git_commit": None, "git_dirty": None}
    try:
        commit = _git("rev-parse", "HEAD").strip()
        return {"git_commit": commit, "git_dirty": bool(_git("status", "--porcelain", "--", ".", *OWN_OUTPUT).strip())}
    except OSError as error:
        problem = f"git cannot be started: {error.strerror or error}"
    except subprocess.CalledProcessError as error:
        problem = str(error.stderr).strip().partition("\n")[0] or f"git failed with exit code {error.returncode}"
    except subprocess.SubprocessError as error:
        problem = str(error)
    return {"git_commit": None, "git_dirty": None, "git_problem": readable(mask(problem))}


def _git(*words: str) -> str:
    """Runs git in this checkout without locking it, also if it belongs to another user, as in containers.

    By default, git refuses such a checkout, because its configuration may run programs. Here the code of the checkout
    runs anyway. A run that is killed must not leave a lock, which would stop every later git command of the user.
    """
    command = ["git", "--no-optional-locks", "-c", "safe.directory=*", "-C", str(REPOSITORY), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout


def _deterministic() -> bool | None:
    """Returns whether torch uses only deterministic algorithms; None if torch was not imported."""
    torch = sys.modules.get("torch")
    return torch.are_deterministic_algorithms_enabled() if torch else None


def _gpu() -> dict[str, Any]:
    import torch

    if not torch.cuda.is_available():
        return {}
    return {
        "gpu": torch.cuda.get_device_name(0),
        "gpu_memory_bytes": torch.cuda.get_device_properties(0).total_memory,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "driver": _driver(),
    }


def _driver() -> str | None:
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        return next(iter(gpu.ask("driver_version")), None)
    return text.splitlines()[0].split("Module")[-1].split()[0] if "Module" in text else None


def hardware(device: str) -> str:
    """Returns the name of the GPU, or of the processor with its number of cores."""
    if device == "cuda":
        (name,) = gpu.ask("name") or ["NVIDIA"]
        return name
    return f"{capture()['cpu']}, {processes.cores()} cores"
