"""Turns a pair of kernels (forward, backward) into differentiable operators that keep only their inputs."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from backbones.selective_scan.shapes import ScanInputs


class Direction(NamedTuple):
    """One scan direction: its tensors in the computing data type, and which way it runs."""

    inputs: ScanInputs
    reverse: bool


class Kernels(Protocol):
    """What an implementation has to provide; all tensors are float32 or float64 unless it asks for raw ones.

    Attributes:
        casts: Whether half-precision tensors are to be cast to float32 before the call; a kernel that reads
            them itself and accumulates in float32 sets this to False.
    """

    casts: bool

    def scan(self, directions: Sequence[Direction], z: Tensor | None, softplus: bool) -> Tensor:
        """Mean over the directions of the gated scan, [B, D, L]."""
        ...

    def scan_backward(
        self, grad: Tensor, directions: Sequence[Direction], z: Tensor | None, softplus: bool
    ) -> tuple[list[ScanInputs], Tensor | None]:
        """Gradients of ``scan``: one ``ScanInputs`` a direction, and that of z."""
        ...

    def conv(self, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool) -> Tensor:
        """Causal depthwise convolution of [B, D, L] with [D, W]."""
        ...

    def conv_backward(
        self, grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Gradients of ``conv`` in x, weight and bias."""
        ...


class Differentiable:
    """The operators of ``backbones.selective_scan`` on top of a pair of kernels."""

    def __init__(self, kernels: Kernels) -> None:
        self._kernels = kernels

    def scan(self, inputs: ScanInputs, z: Tensor | None, softplus: bool, reverse: bool) -> Tensor:
        """See ``operators.selective_scan``."""
        return _Scan.apply(self._kernels, softplus, (reverse,), z, *inputs)

    def bidirectional(self, forward: ScanInputs, backward: ScanInputs, z: Tensor | None, softplus: bool) -> Tensor:
        """See ``operators.bidirectional_scan``."""
        return _Scan.apply(self._kernels, softplus, (False, True), z, *forward, *backward)

    def causal_conv1d(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None, reverse: bool
    ) -> Tensor:
        """See ``operators.causal_conv1d``."""
        return _Conv.apply(self._kernels, activation == "silu", reverse, x, weight, bias)


_FIELDS = len(ScanInputs._fields)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, kernels: Kernels, softplus: bool, reverses: tuple[bool, ...], *tensors: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(*tensors)
        ctx.kernels, ctx.softplus, ctx.reverses = kernels, softplus, reverses
        lead = tensors[1]
        assert lead is not None
        z, *rest = _compute_in_float32(kernels, lead, tensors)
        with _no_autocast(lead):
            return kernels.scan(_directions(rest, reverses), z, softplus).to(lead.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        grad, z, *rest = _compute_in_float32(ctx.kernels, tensors[1], (grad, *tensors))
        grads, grad_z = ctx.kernels.scan_backward(grad, _directions(rest, ctx.reverses), z, ctx.softplus)
        found = [grad_z, *(tensor for direction in grads for tensor in direction)]
        return None, None, None, *_wanted(found, tensors, ctx.needs_input_grad[3:])


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernels: Kernels, silu: bool, reverse: bool, *tensors: Tensor | None) -> Tensor:
        ctx.save_for_backward(*tensors)
        ctx.kernels, ctx.silu, ctx.reverse = kernels, silu, reverse
        lead = tensors[0]
        assert lead is not None
        x, weight, bias = _compute_in_float32(kernels, lead, tensors)
        with _no_autocast(lead):
            return kernels.conv(x, weight, bias, silu, reverse).to(lead.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        grad, x, weight, bias = _compute_in_float32(ctx.kernels, tensors[0], (grad, *tensors))
        found = ctx.kernels.conv_backward(grad, x, weight, bias, ctx.silu, ctx.reverse)
        return None, None, None, *_wanted(found, tensors, ctx.needs_input_grad[3:])


def _no_autocast(lead: Tensor) -> torch.autocast:
    """The cast is done; autocast would undo it in kernels that are made of torch's operations."""
    return torch.autocast(lead.device.type, enabled=False)


def _compute_in_float32(kernels: Kernels, lead: Tensor, tensors: Sequence[Tensor | None]) -> list[Any]:
    """Casts every tensor to the data type of the computation: float64 for float64, else float32."""
    if not kernels.casts:
        return list(tensors)
    dtype = torch.float64 if lead.dtype == torch.float64 else torch.float32
    return [None if tensor is None else tensor.detach().to(dtype) for tensor in tensors]


def _directions(tensors: Sequence[Any], reverses: tuple[bool, ...]) -> list[Direction]:
    return [
        Direction(ScanInputs(*tensors[i * _FIELDS : (i + 1) * _FIELDS]), reverse) for i, reverse in enumerate(reverses)
    ]


def _wanted(
    grads: Sequence[Tensor | None], tensors: Sequence[Tensor | None], needed: Sequence[bool]
) -> list[Tensor | None]:
    """Drops the gradients nobody asked for and casts the others to the data type of their tensors."""
    return [
        grad.to(tensor.dtype) if need and grad is not None and tensor is not None else None
        for grad, tensor, need in zip(grads, tensors, needed, strict=True)
    ]
