"""Everything between the projections of a bidirectional Mamba mixer as one operator, which needs less memory.

A scan and a convolution store their inputs for the backward pass. In a mixer, two of these inputs per direction can be
recomputed quickly: the convolved sequence from its input, and the step sizes from their low-rank form. They are as
large as all other tensors that a mixer stores.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from backbones.selective_scan.kernels import Direction, Kernels, Operators, compute_in_float32, no_autocast, wanted
from backbones.selective_scan.shapes import MixerWeights, ScanInputs

REVERSES = (False, True)
_FIELDS = len(MixerWeights._fields)


def composed(operators: Operators, x: Tensor, z: Tensor, forward: MixerWeights, backward: MixerWeights) -> Tensor:
    """The mixer made of the other operators, for kernels with their own backward pass."""
    scans = []
    for weights, reverse in zip((forward, backward), REVERSES, strict=True):
        u = operators.causal_conv1d(x, weights.conv, weights.conv_bias, "silu", reverse)
        cast = _cast(weights, u.dtype)
        scans.append(_scan_inputs(u, F.linear(u.transpose(1, 2), cast.x_proj), cast))
    return operators.bidirectional(scans[0], scans[1], z, True)


class Mixer(torch.autograd.Function):
    """The mixer on top of a pair of kernels; products are computed in the data type of x."""

    @staticmethod
    def forward(ctx: Any, kernels: Kernels, x: Tensor, z: Tensor, *weights: Tensor) -> Tensor:
        """Stores x, z, the weights, cast and as they are, and the projection [B, L, R + 2N] of each direction."""
        projected, directions = [], []
        cast = [weight for one, _ in _directions(weights) for weight in _cast(one, x.dtype)]
        with no_autocast(x):
            for one, reverse in _directions(cast):
                u = _convolved(kernels, x, one, reverse)
                projected.append(F.linear(u.transpose(1, 2), one.x_proj))
                directions.append(_direction(kernels, u, projected[-1], one, reverse))
            (gate,) = compute_in_float32(kernels, x, (z,))
            out = kernels.scan(directions, gate, True).to(x.dtype)
        ctx.kernels = kernels
        ctx.save_for_backward(x, z, *projected, *cast, *weights)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        kernels, (x, z, *rest), both = ctx.kernels, ctx.saved_tensors, len(REVERSES)
        projected, cast, weights = rest[:both], rest[both : both + both * _FIELDS], rest[both + both * _FIELDS :]
        grad, gate = compute_in_float32(kernels, x, (grad, z))
        sequences, directions = [], []
        for (one, reverse), low in zip(_directions(cast), projected, strict=True):
            sequences.append(_convolved(kernels, x, one, reverse))
            directions.append(_direction(kernels, sequences[-1], low, one, reverse))
        scans, grad_z = kernels.scan_backward(grad, directions, gate, True)
        del directions
        grad_x, grad_weights = None, []
        for (one, reverse), low, u, scan in zip(_directions(cast), projected, sequences, scans, strict=True):
            grad_x, found = _direction_backward(kernels, x, u, low, one, scan, reverse, grad_x)
            grad_weights += found
        return None, *wanted([grad_x, grad_z, *grad_weights], [x, z, *weights], ctx.needs_input_grad[1:])


def _cast(weights: MixerWeights, dtype: torch.dtype) -> MixerWeights:
    """The weights, those of products in the data type of the products."""
    return weights._replace(x_proj=weights.x_proj.to(dtype), dt_proj=weights.dt_proj.to(dtype))


def _directions(weights: Sequence[Tensor]) -> list[tuple[MixerWeights, bool]]:
    return [(MixerWeights(*weights[i * _FIELDS : (i + 1) * _FIELDS]), reverse) for i, reverse in enumerate(REVERSES)]


def _convolved(kernels: Kernels, x: Tensor, weights: MixerWeights, reverse: bool) -> Tensor:
    """Returns the input of the scan, [B, E, L]."""
    sequence, conv, bias = compute_in_float32(kernels, x, (x, weights.conv, weights.conv_bias))
    return kernels.conv(sequence, conv, bias, True, reverse).to(x.dtype)


def _scan_inputs(u: Tensor, projected: Tensor, weights: MixerWeights) -> ScanInputs:
    """Step sizes, B and C from the projection of u; the bias of the step sizes is added inside the scan, in float32."""
    low_rank, B, C = projected.split(_widths(weights), dim=-1)
    delta = F.linear(low_rank, weights.dt_proj).transpose(1, 2)
    return ScanInputs(u, delta, weights.A, B.transpose(1, 2), C.transpose(1, 2), weights.D, weights.dt_bias)


def _direction(kernels: Kernels, u: Tensor, projected: Tensor, weights: MixerWeights, reverse: bool) -> Direction:
    return Direction(ScanInputs(*compute_in_float32(kernels, u, _scan_inputs(u, projected, weights))), reverse)


def _widths(weights: MixerWeights) -> list[int]:
    states = weights.A.shape[1]
    return [weights.dt_proj.shape[1], states, states]


def _direction_backward(
    kernels: Kernels, x: Tensor, u: Tensor, projected: Tensor, weights: MixerWeights, scan: ScanInputs, reverse: bool,
    onto: Tensor | None,
) -> tuple[Tensor, list[Tensor | None]]:  # fmt: skip
    """Gradient of x through one direction, added to ``onto``, and of its weights, from the gradients of its scan."""
    dtype = x.dtype
    low_rank = projected[..., : weights.dt_proj.shape[1]]
    grad_delta = scan.delta.to(dtype).transpose(1, 2)
    grad_dt_proj = _product(grad_delta, low_rank)
    parts = (grad_delta @ weights.dt_proj, scan.B.transpose(1, 2), scan.C.transpose(1, 2))
    grad_projected = torch.cat([part.to(dtype) for part in parts], dim=-1)
    grad_x_proj = _product(grad_projected, u.transpose(1, 2))
    grad_u = scan.u.to(dtype).transpose(1, 2).flatten(0, 1).addmm_(grad_projected.flatten(0, 1), weights.x_proj)
    grad_u = grad_u.unflatten(0, (x.shape[0], -1)).transpose(1, 2)
    grad, sequence, conv, bias = compute_in_float32(kernels, x, (grad_u, x, weights.conv, weights.conv_bias))
    grad_x, grad_conv, grad_bias = kernels.conv_backward(grad, sequence, conv, bias, True, reverse, onto)
    return grad_x, [grad_conv, grad_bias, grad_x_proj, grad_dt_proj, scan.delta_bias, scan.A, scan.D]


def _product(grad: Tensor, inputs: Tensor) -> Tensor:
    """Gradient of the weight of a linear layer, [out, in], from [B, L, out] and [B, L, in]."""
    return grad.flatten(0, 1).t() @ inputs.flatten(0, 1)
