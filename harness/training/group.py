"""The processes that train one run together. Each holds an equal part of every batch, in the order of the images."""

from __future__ import annotations

import warnings
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

COLLECTIVE_SECONDS = 600.0
"""Seconds without an answer of the other processes after which a step fails."""
LONGEST_WAIT = timedelta(days=30)
"""How long the others wait while the first process scores the model; they end with the first process."""


class Group:
    """The processes of one run. A group of one process does nothing.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
    """

    rank, size = 0, 1

    @property
    def is_first(self) -> bool:
        """Whether this process reports, saves and scores."""
        return self.rank == 0

    def part(self, batch_size: int) -> slice:
        """Returns the images of a batch that this process holds."""
        each = batch_size // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def gather(self, tensor: Tensor) -> Tensor:
        """Returns the parts [B / size, ...] of all processes as one tensor [B, ...], without a gradient."""
        return tensor.detach()

    def mean(self, tensor: Tensor) -> None:
        """Replaces a tensor by its mean over all processes."""

    def from_first(self, number: int = 0) -> int:
        """Returns the number of the first process, and lets the others wait for it, even for hours."""
        return number


class Processes(Group):
    """Several processes, connected by NCCL on GPUs and by gloo on a CPU.

    Args:
        store: the store through which they find each other.
        rank: number of this process.
        size: number of processes.
        device: device of this process.
        seconds: time without an answer after which a step fails.
    """

    def __init__(
        self, store: dist.Store, rank: int, size: int, device: torch.device, seconds: float = COLLECTIVE_SECONDS
    ) -> None:
        self.rank, self.size, self._store, self._numbers = rank, size, store, 0
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=dist.PrefixStore("group", store),
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=seconds),
        )

    def gather(self, tensor: Tensor) -> Tensor:
        parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(self.size)]
        dist.all_gather(parts, tensor.detach().contiguous())
        return torch.cat(parts)

    def mean(self, tensor: Tensor) -> None:
        dist.all_reduce(tensor)
        tensor /= self.size

    def from_first(self, number: int = 0) -> int:
        self._numbers += 1
        name = f"number {self._numbers}"
        if self.is_first:
            self._store.set(name, str(number))
        self._store.wait([name], LONGEST_WAIT)
        return int(self._store.get(name))

    def close(self) -> None:
        """Disconnects this process."""
        dist.destroy_process_group()


def sum_of_parts(module: torch.nn.Module, group: Group) -> torch.nn.Module:
    """Wraps a module so that its gradients become their sums over all processes, while the backward pass runs.

    The module must return only tensors that will get a gradient.
    """
    if group.size == 1:
        return module
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the new name of `broadcast_buffers` is younger than torch 2.9
        parallel = torch.nn.parallel.DistributedDataParallel(
            module, broadcast_buffers=False, find_unused_parameters=True, gradient_as_bucket_view=True
        )
    parallel.register_comm_hook(None, _add)  # the default hook returns the mean
    return parallel


def _add(_, bucket):  # type: ignore[no-untyped-def]  # torch refuses annotations that are strings
    future = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
    return future.then(lambda done: done.value()[0])
