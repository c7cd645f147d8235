"""Memory: what tensors hold, what a call needs on top, and what it keeps for the backward pass."""

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
"""What glibc arrives at by itself in a process that frees large blocks."""


def peak_memory_bytes(device: torch.device) -> int:
    """Peak of this process: memory allocated by torch on a GPU, resident memory on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    with suppress(OSError, KeyError):
        return _status("VmHWM")
    # Only where /proc is missing: on Linux ru_maxrss begins with the peak of the process that started this one.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def held(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the tensors' storages, each counted once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def working(call: Callable[[], object], device: torch.device) -> int | None:
    """Peak bytes that a call needs beyond what is held when it starts; call it once before, to be warm.

    On a GPU what torch allocates. On Linux resident memory, so libraries' work space counts too, and small calls are
    coarse: some memory freed before may serve again. Warm up and ask within `without_holes`; otherwise holes between
    blocks count, half as much again as is needed. None where neither can be asked.
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
    """Within it the C library gives every large block back to the system as soon as it is freed, which takes time.

    Holes that the heap has before stay: enter it while the process is young.
    """
    _returned_from(LARGE)
    try:
        yield
    finally:
        _returned_from(USUAL)


def saved_for_backward(forward: Callable[[], object], kept: Iterable[torch.Tensor]) -> int:
    """Bytes of the activations that a forward pass keeps for the backward pass.

    Each storage counts once; those of `kept` (parameters, inputs) do not.
    """
    known = {t.untyped_storage().data_ptr() for t in kept}
    found: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            found[storage.data_ptr()] = storage  # held, so that no later tensor gets its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    total = sum(storage.nbytes() for storage in found.values())
    del result
    return total


def _give_back() -> None:
    """Returns freed memory to the system, where the C library can."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _returned_from(size: int) -> None:
    """From which size on the C library gives a freed block back to the system, where it can be told."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, size)


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)
