"""The fast CPU implementation: runs the tasks of ``cpu_kernels`` on ``torch.get_num_threads()`` threads.

It uses Python threads, because the kernels release the GIL. It does not use OpenMP or another threading layer of Numba,
so it works in forked processes, in Ray workers and with several calling threads. The result is the same for any number
of threads.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backbones.selective_scan import cpu_kernels as kernels
from backbones.selective_scan.kernels import Direction
from backbones.selective_scan.shapes import ScanInputs

SMALL = 1 << 18
"""Number of state updates up to which one thread is used, because starting another would cost more."""


class CpuKernels:
    """Kernels for float32 on the CPU; any strides."""

    casts = True

    def scan(self, directions: Sequence[Direction], z: Tensor | None, softplus: bool) -> Tensor:
        """Mean over the directions of the gated scan."""
        out = torch.empty_like(directions[0].inputs.u)
        arrays = out.numpy()
        for turn, (inputs, reverse) in enumerate(directions):
            arguments = (*_arrays(inputs, z), softplus, z is not None, reverse, 1 / len(directions), turn > 0)
            _share(kernels.scan, inputs.u, inputs.A.shape[1], arrays, *arguments)
        return out

    def scan_backward(
        self, grad: Tensor, directions: Sequence[Direction], z: Tensor | None, softplus: bool
    ) -> tuple[list[ScanInputs], Tensor | None]:
        """Gradients of ``scan``."""
        grad_z = torch.empty_like(grad if z is None else z)
        grads = []
        for turn, (inputs, reverse) in enumerate(directions):
            batch, channels, length = inputs.u.shape
            states, blocks = inputs.A.shape[1], _blocks(channels)
            arguments = (*_arrays(inputs, z), softplus, z is not None, reverse, 1 / len(directions), turn > 0)
            grad_u, grad_delta = torch.empty_like(inputs.u), torch.empty_like(inputs.delta)
            parts = [
                np.empty(shape, np.float32)
                for shape in (
                    (batch, channels, states),
                    (blocks, batch, states, length),
                    (blocks, batch, states, length),
                    (batch, channels),
                    (batch, channels),
                )
            ]
            out = (grad_u.numpy(), grad_delta.numpy(), *parts, grad_z.numpy())
            _share(kernels.scan_backward, inputs.u, states, grad.numpy(), *arguments, *out)
            # NumPy adds the parts in this order, independent of the number of threads.
            A, B, C, D, delta_bias = (torch.from_numpy(part.sum(0)) for part in parts)
            grads.append(ScanInputs(grad_u, grad_delta, A, B, C, D, delta_bias))
        return grads, None if z is None else grad_z

    def conv(self, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool) -> Tensor:
        """Causal depthwise convolution."""
        out = torch.empty_like(x)
        arrays = (out.numpy(), x.numpy(), weight.numpy(), _or_zeros(bias, x.shape[1]))
        _share(kernels.conv, x, weight.shape[1], *arrays, silu, reverse)
        return out

    def conv_backward(
        self, grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool,
        onto: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
        """Gradients of ``conv``."""
        grad_x = torch.empty_like(x)
        part_weight = np.empty((x.shape[0], *weight.shape), np.float32)
        part_bias = np.empty(x.shape[:2], np.float32)
        arrays = (grad.numpy(), x.numpy(), weight.numpy(), _or_zeros(bias, x.shape[1]))
        out = (grad_x.numpy(), part_weight, part_bias)
        _share(kernels.conv_backward, x, weight.shape[1], *arrays, silu, reverse, *out)
        grad_x = grad_x if onto is None else onto.add_(grad_x)
        return grad_x, torch.from_numpy(part_weight.sum(0)), torch.from_numpy(part_bias.sum(0))


def _arrays(inputs: ScanInputs, z: Tensor | None) -> tuple[np.ndarray, ...]:
    channels = inputs.u.shape[1]
    u, delta, A, B, C = (tensor.numpy() for tensor in inputs[:5])
    skip, bias = _or_zeros(inputs.D, channels), _or_zeros(inputs.delta_bias, channels)
    return u, delta, A, B, C, skip, bias, u if z is None else z.numpy()


def _or_zeros(tensor: Tensor | None, size: int) -> np.ndarray:
    return np.zeros(size, np.float32) if tensor is None else tensor.numpy()


def _blocks(channels: int) -> int:
    return -(-channels // kernels.LANES)


def _share(kernel: Callable[..., None], x: Tensor, work: int, *arguments: Any) -> None:
    """Runs all tasks of a kernel, on several threads if that is faster; ``work`` is the work per element of x."""
    batch, channels, _ = x.shape
    tasks = batch * _blocks(channels)
    threads = 1 if x.numel() * work < SMALL else min(torch.get_num_threads(), tasks)
    if threads == 1:
        kernel(*arguments, 0, tasks)
        return
    # Several ranges per thread balance the load if other programs slow down a thread.
    ranges = min(4 * threads, tasks)
    edges = [tasks * i // ranges for i in range(ranges + 1)]
    pool = _pool(threads)
    futures = [pool.submit(kernel, *arguments, a, b) for a, b in pairwise(edges)]
    for future in futures:
        future.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="selective-scan")


# Threads do not survive a fork, so the child creates its own.
os.register_at_fork(after_in_child=_pool.cache_clear)
