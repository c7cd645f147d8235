"""Measures memory: of tensors, of a call beyond them, and of activations for the backward pass."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from harness.efficiency.timing import synchronise

MMAP_THRESHOLD = -3  # of glibc's mallopt
LARGE = 1 << 20
USUAL = 32 << 20
"""The threshold that glibc reaches by itself in a process that frees large blocks."""


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory of this process: allocated by torch on a GPU, resident on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    with suppress(OSError, KeyError):
        return _status("VmHWM")
    # Only without /proc: on Linux, ru_maxrss includes the peak of the parent process.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def held(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the storages of tensors; shared storages are counted once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def working(call: Callable[[], object], device: torch.device) -> int | None:
    """Peak bytes that a call needs beyond the memory in use when it starts.

    On a GPU this is memory allocated by torch. On Linux it is resident memory, which includes the work space of
    libraries; values of small calls are inaccurate, because freed memory may be reused. Warm up and measure within
    `without_holes`: otherwise fragmentation adds about half as much again.

    Returns:
        Bytes; None if the system cannot report them.
    """
    if device.type == "cuda":
        synchronise(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = call()
        synchronise(device)
        del result
        return int(torch.cuda.max_memory_allocated(device)) - before
    _give_back()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak of resident memory
        before = _status("VmRSS")
        result = call()
        del result
        return max(_status("VmHWM") - before, 0)
    except (OSError, KeyError):
        return None


@contextmanager
def without_holes() -> Iterator[None]:
    """Lets the C library return large blocks to the system as soon as they are freed, which costs time.

    Existing holes in the heap remain, so enter it early in the process.
    """
    _set_mmap_threshold(LARGE)
    try:
        yield
    finally:
        _set_mmap_threshold(USUAL)


def saved_for_backward(forward: Callable[[], object], kept: Iterable[torch.Tensor]) -> int:
    """Bytes of activations that a forward pass keeps for the backward pass.

    Each storage is counted once; storages of `kept` (parameters and inputs) are not counted.
    """
    known = {t.untyped_storage().data_ptr() for t in kept}
    found: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            found[storage.data_ptr()] = storage  # a reference, so that no later tensor gets its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    total = sum(storage.nbytes() for storage in found.values())
    del result
    return total


def _give_back() -> None:
    """Returns freed memory to the system, if the C library supports it."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _set_mmap_threshold(size: int) -> None:
    """Sets the block size from which the C library returns freed memory to the system, if supported."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, size)


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)
