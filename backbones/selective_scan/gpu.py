"""The Triton implementation: layouts, work space and launches for ``gpu_kernels``.

It is fastest if channels are contiguous in memory (a [B, L, D] tensor viewed as [B, D, L], the output of a linear
layer), because neighbouring threads process neighbouring channels. Other layouts work, too.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from backbones.selective_scan import gpu_kernels as kernels
from backbones.selective_scan.kernels import Direction
from backbones.selective_scan.shapes import ScanInputs


class Tile(NamedTuple):
    """What a program processes at a time; `benchmarks/gpu_compiled.py` shows what the compiler makes of it."""

    channels: int
    steps: int
    warps: int = 1  # a single warp need not wait for others


FORWARD = Tile(32, 4)
BACKWARD = Tile(16, 4)  # two threads per channel, eight states each: more would not fit the registers
CONVOLUTION = Tile(32, 8)


class GpuKernels:
    """Kernels for float32, float16 and bfloat16; they read these types and accumulate in float32."""

    casts = False

    def scan(self, directions: Sequence[Direction], z: Tensor | None, softplus: bool) -> Tensor:
        """Mean over the directions of the gated scan."""
        launch = _Launch(directions, z, softplus, FORWARD)
        out = launch.like_u()
        partial = launch.workspace(len(directions) > 1)
        _run(
            kernels.scan_forward, launch.grid, out, *launch.one, *launch.two, launch.z, partial, *launch.numbers,
            **launch.constants,
        )  # fmt: skip
        return out

    def scan_backward(
        self, grad: Tensor, directions: Sequence[Direction], z: Tensor | None, softplus: bool
    ) -> tuple[list[ScanInputs], Tensor | None]:
        """Gradients of ``scan``."""
        launch = _Launch(directions, z, softplus, BACKWARD)
        partial = launch.workspace(len(directions) > 1 and z is not None)
        grad_z = launch.like_u(launch.z.dtype)
        sequences = [(launch.like_u(u.dtype), launch.like_u(delta.dtype)) for u, delta, *_ in launch.sides]
        matrices, vectors = launch.matrix_sums(), launch.vector_sums()
        found = [
            (*sequences[i], *vectors.parts[3 * i : 3 * i + 3], *matrices.parts[2 * i : 2 * i + 2])
            for i in range(len(directions))
        ]
        _run(
            kernels.scan_backward, launch.grid, launch.in_layout(grad),
            *launch.one, *launch.two, launch.z, partial, launch.starts(), grad_z,
            *found[0], *found[-1], vectors.stride, matrices.stride, *launch.numbers, **launch.constants,
        )  # fmt: skip
        vector, matrix = vectors.totals(), matrices.totals(launch.one[3].dtype)
        grads = [
            ScanInputs(u, delta, vector[3 * i], *matrix[2 * i : 2 * i + 2], *vector[3 * i + 1 : 3 * i + 3])
            for i, (u, delta) in enumerate(sequences)
        ]
        return grads, None if z is None else grad_z

    def conv(self, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool) -> Tensor:
        """Causal depthwise convolution."""
        out = torch.empty_like(x)
        grid, numbers, constants = _convolution(x, weight, out, silu, reverse)
        bias = _or_zeros(bias, x, x.shape[1])
        _run(kernels.conv_forward, grid, x, weight.contiguous(), bias, out, *numbers, **constants)
        return out

    def conv_backward(
        self, grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool,
        onto: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
        """Gradients of ``conv``."""
        batch, channels, _ = x.shape
        grad_x = torch.empty_like(x) if onto is None else onto
        sums = _Sums((batch,), [tuple(weight.shape), (channels,)], x.device)
        grid, numbers, constants = _convolution(x, weight, grad_x, silu, reverse)
        _run(
            kernels.conv_backward, grid, _with_strides(grad, grad_x), x, weight.contiguous(),
            _or_zeros(bias, x, channels), grad_x, *sums.parts, sums.stride, *numbers, ADD=onto is not None, **constants,
        )  # fmt: skip
        grad_weight, grad_bias = sums.totals()
        return grad_x, grad_weight, grad_bias


def _run(kernel: Any, grid: tuple[int, ...], lead: Tensor, *arguments: Any, **constants: Any) -> None:
    """Launches a kernel on the device of its first tensor; Triton launches on the current device."""
    with torch.cuda.device_of(lead):
        kernel[grid](lead, *arguments, **constants)


class _Sums:
    """Parts of several gradients in one buffer, so that one call sums them all over the leading dimensions.

    Attributes:
        parts: For each shape, the view [*lead, numel] of its parts, uninitialised.
        stride: Elements between the parts of two programs.
    """

    def __init__(self, lead: tuple[int, ...], shapes: Sequence[tuple[int, ...]], device: torch.device) -> None:
        self._shapes, self._sizes = shapes, [math.prod(shape) for shape in shapes]
        self.stride = sum(self._sizes)
        self._buffer = torch.empty(*lead, self.stride, dtype=torch.float32, device=device)
        self.parts = self._buffer.split(self._sizes, -1)

    def totals(self, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        """The sums over the first dimension, [*rest of lead, *shape]."""
        parts = self._buffer.sum(0).to(dtype).split(self._sizes, -1)
        return [part.unflatten(-1, shape) for part, shape in zip(parts, self._shapes, strict=True)]


def _convolution(
    x: Tensor, weight: Tensor, out: Tensor, silu: bool, reverse: bool
) -> tuple[tuple[int, int], tuple[int, ...], dict[str, int]]:
    """Returns the grid, the numbers and the constants that both kernels of the convolution share."""
    batch, channels, length = x.shape
    width, tile = weight.shape[1], CONVOLUTION
    numbers = (channels, length, triton.cdiv(length + width - 1, tile.steps), *x.stride(), *out.stride())
    constants = {
        "REVERSE": reverse,
        "SILU": silu,
        "WIDTH": width,
        "TAPS": triton.next_power_of_2(width),
        "STEPS": tile.steps,
        "CHANNELS": tile.channels,
        "num_warps": tile.warps,
    }
    return (triton.cdiv(channels, tile.channels), batch), numbers, constants


class _Launch:
    """The arguments that both scan kernels share.

    The sequences of both directions must have the layout of the first u, and the matrices B and C one common layout;
    other tensors are copied. In a model all have the same layout and nothing is copied. z keeps its own strides,
    because it is half of a projection.
    """

    def __init__(self, directions: Sequence[Direction], z: Tensor | None, softplus: bool, tile: Tile) -> None:
        lead = directions[0].inputs
        self._u, self._device = torch.empty_like(lead.u, device="meta"), lead.u.device
        batch, channels, length = lead.u.shape
        states = lead.A.shape[1]
        self._tile, self._blocks, self._states = (
            tile,
            triton.cdiv(channels, tile.channels),
            triton.next_power_of_2(states),
        )
        self._chunks = triton.cdiv(length, tile.steps)
        self.one = self._tensors(lead, lead.B)
        self.two = self._tensors(directions[-1].inputs, lead.B) if len(directions) > 1 else self.one
        self.sides = (self.one, self.two)[: len(directions)]
        self.z = self.one[0] if z is None else z
        self.grid = (self._blocks, batch)
        strides = (*self._u.stride(), *self.z.stride(), *self.one[3].stride())
        self.numbers = (channels, states, length, self._chunks, *strides, 1.0 / len(directions))
        self.constants = {
            "REVERSE": directions[0].reverse,
            "BOTH": len(directions) > 1,
            "SOFTPLUS": softplus,
            "GATED": z is not None,
            "STEPS": tile.steps,
            "STATES": self._states,
            "CHANNELS": tile.channels,
            "num_warps": tile.warps,
        }

    def in_layout(self, tensor: Tensor) -> Tensor:
        """The tensor with the strides of u."""
        return _with_strides(tensor, self._u)

    def like_u(self, dtype: torch.dtype | None = None) -> Tensor:
        """Uninitialised, in the layout of u."""
        return torch.empty_like(self._u, dtype=dtype or self._u.dtype, device=self._device)

    def workspace(self, needed: bool) -> Tensor:
        """Returns float32 memory for the ungated output of the first of two directions, or any unused tensor."""
        return self.like_u(torch.float32) if needed else self.one[0]

    def starts(self) -> Tensor:
        """The state at the start of each chunk, for one direction at a time."""
        shape = (self._blocks, self.grid[1], self._chunks, self._states, self._tile.channels)
        return torch.empty(shape, dtype=torch.float32, device=self._device)

    def matrix_sums(self) -> _Sums:
        """Parts of the gradients of B and C, for each block of channels and sequence."""
        states, length = self.one[2].shape[1], self._u.shape[2]
        return _Sums((self._blocks, self.grid[1]), [(states, length)] * 2 * len(self.sides), self._device)

    def vector_sums(self) -> _Sums:
        """Parts of the gradients of A, D and delta_bias, for each sequence."""
        channels, states = self.one[2].shape
        return _Sums((self.grid[1],), [(channels, states), (channels,), (channels,)] * len(self.sides), self._device)

    def _tensors(self, inputs: ScanInputs, matrix: Tensor) -> tuple[Tensor, ...]:
        channels = inputs.u.shape[1]
        return (
            self.in_layout(inputs.u),
            self.in_layout(inputs.delta),
            inputs.A.float().contiguous(),
            _with_strides(inputs.B, matrix),
            _with_strides(inputs.C, matrix),
            _or_zeros(inputs.D, inputs.u, channels),
            _or_zeros(inputs.delta_bias, inputs.u, channels),
        )


def _with_strides(tensor: Tensor, layout: Tensor) -> Tensor:
    """Returns the tensor if it has the strides of the other one, and a copy with these strides otherwise."""
    if tensor.stride() == layout.stride():
        return tensor
    copy = torch.empty_strided(layout.shape, layout.stride(), dtype=tensor.dtype, device=tensor.device)
    return copy.copy_(tensor)


def _or_zeros(tensor: Tensor | None, like: Tensor, size: int) -> Tensor:
    if tensor is None:
        return torch.zeros(size, dtype=torch.float32, device=like.device)
    return tensor.float().contiguous()
