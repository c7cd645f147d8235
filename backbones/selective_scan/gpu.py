"""The Triton implementation: layouts, work space and launches for ``gpu_kernels``.

It is fastest if channels are contiguous in memory (a [B, L, D] tensor viewed as [B, D, L], the output of a linear
layer), because neighbouring threads process neighbouring channels. Other layouts work, too.
"""

from collections.abc import Sequence
from typing import NamedTuple

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
        kernels.scan_forward[launch.grid](
            *launch.one, *launch.two, launch.z, out, partial, *launch.numbers, **launch.constants
        )
        return out

    def scan_backward(
        self, grad: Tensor, directions: Sequence[Direction], z: Tensor | None, softplus: bool
    ) -> tuple[list[ScanInputs], Tensor | None]:
        """Gradients of ``scan``."""
        launch = _Launch(directions, z, softplus, BACKWARD)
        partial = launch.workspace(len(directions) > 1 and z is not None)
        starts = launch.starts()
        grad_z = launch.like_u(launch.z.dtype)
        found = [launch.gradients(one) for one in (launch.one, launch.two)[: len(directions)]]
        kernels.scan_backward[launch.grid](
            launch.in_layout(grad), *launch.one, *launch.two, launch.z, partial, starts, grad_z,
            *found[0], *found[-1], *launch.numbers, **launch.constants,
        )  # fmt: skip
        grads = [ScanInputs(u, delta, *(part.sum(0) for part in parts)) for u, delta, *parts in found]
        return grads, None if z is None else grad_z

    def conv(self, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool) -> Tensor:
        """Causal depthwise convolution."""
        out = torch.empty_like(x)
        grid, numbers, constants = _convolution(x, weight, out, silu, reverse)
        bias = _or_zeros(bias, x, x.shape[1])
        kernels.conv_forward[grid](x, weight.contiguous(), bias, out, *numbers, **constants)
        return out

    def conv_backward(
        self, grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Gradients of ``conv``."""
        batch, channels, _ = x.shape
        grad_x = torch.empty_like(x)
        part_weight = torch.empty(batch, *weight.shape, dtype=torch.float32, device=x.device)
        part_bias = torch.empty(batch, channels, dtype=torch.float32, device=x.device)
        grid, numbers, constants = _convolution(x, weight, grad_x, silu, reverse)
        kernels.conv_backward[grid](
            _with_strides(grad, grad_x), x, weight.contiguous(), _or_zeros(bias, x, channels),
            grad_x, part_weight, part_bias, *numbers, **constants,
        )  # fmt: skip
        return grad_x, part_weight.sum(0), part_bias.sum(0)


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
        self._u = torch.empty_like(lead.u, device="meta")
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
        return torch.empty_like(self._u, dtype=dtype or self._u.dtype, device=self.one[0].device)

    def workspace(self, needed: bool) -> Tensor:
        """Returns float32 memory for the ungated output of the first of two directions, or any unused tensor."""
        return self.like_u(torch.float32) if needed else self.one[0]

    def starts(self) -> Tensor:
        """The state at the start of each chunk, for one direction at a time."""
        return self._float32(self._blocks, self.grid[1], self._chunks, self._states, self._tile.channels)

    def gradients(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Gradients of u and delta, and the parts of the others, all uninitialised."""
        u, delta, A = tensors[:3]
        batch, channels, length = u.shape
        matrix = (self._blocks, batch, A.shape[1], length)
        return (
            self.like_u(u.dtype),
            self.like_u(delta.dtype),
            self._float32(batch, *A.shape),
            self._float32(*matrix),
            self._float32(*matrix),
            self._float32(batch, channels),
            self._float32(batch, channels),
        )

    def _float32(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=self.one[0].device)

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
