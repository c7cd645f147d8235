"""Differentiable operators from pairs of forward and backward kernels; they store only their inputs."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from backbones.selective_scan.kernels import Direction, Kernels, compute_in_float32, no_autocast, wanted
from backbones.selective_scan.mixer import Mixer
from backbones.selective_scan.shapes import MixerWeights, ScanInputs


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

    def mixer(self, x: Tensor, z: Tensor, forward: MixerWeights, backward: MixerWeights) -> Tensor:
        """See ``operators.bidirectional_mixer``."""
        return Mixer.apply(self._kernels, x, z, *forward, *backward)


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
        z, *rest = compute_in_float32(kernels, lead, tensors)
        with no_autocast(lead):
            return kernels.scan(_directions(rest, reverses), z, softplus).to(lead.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        grad, z, *rest = compute_in_float32(ctx.kernels, tensors[1], (grad, *tensors))
        grads, grad_z = ctx.kernels.scan_backward(grad, _directions(rest, ctx.reverses), z, ctx.softplus)
        found = [grad_z, *(tensor for direction in grads for tensor in direction)]
        return None, None, None, *wanted(found, tensors, ctx.needs_input_grad[3:])


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernels: Kernels, silu: bool, reverse: bool, *tensors: Tensor | None) -> Tensor:
        ctx.save_for_backward(*tensors)
        ctx.kernels, ctx.silu, ctx.reverse = kernels, silu, reverse
        lead = tensors[0]
        assert lead is not None
        x, weight, bias = compute_in_float32(kernels, lead, tensors)
        with no_autocast(lead):
            return kernels.conv(x, weight, bias, silu, reverse).to(lead.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        grad, x, weight, bias = compute_in_float32(ctx.kernels, tensors[0], (grad, *tensors))
        found = ctx.kernels.conv_backward(grad, x, weight, bias, ctx.silu, ctx.reverse)
        return None, None, None, *wanted(found, tensors, ctx.needs_input_grad[3:])


def _directions(tensors: Sequence[Any], reverses: tuple[bool, ...]) -> list[Direction]:
    return [
        Direction(ScanInputs(*tensors[i * _FIELDS : (i + 1) * _FIELDS]), reverse) for i, reverse in enumerate(reverses)
    ]
