"""Layers that several newer backbones share: a norm that is half instance norm, and generalised mean pooling."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SMALLEST = 1e-6
"""Generalised means raise smaller values to this one, so that every power is defined."""


class HalfInstanceNorm(nn.Module):
    """IBN-a (Pan et al. 2018): instance norm on the first half of the channels, batch norm on the others.

    Args:
        channels: number of channels, even.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.IN = nn.InstanceNorm2d(channels // 2, affine=True)
        self.BN = nn.BatchNorm2d(channels - channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, C, H, W] to the same shape."""
        first, second = x.split([self.IN.num_features, self.BN.num_features], dim=1)
        return torch.cat([self.IN(first), self.BN(second)], dim=1)


def generalised_mean(x: Tensor, power: float | Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Returns the generalised mean (Radenovic et al. 2018): 1 is the mean, and large powers approach the maximum.

    Args:
        x: any tensor; values below `SMALLEST` count as `SMALLEST`.
        power: the exponent.
        dim: dimensions to average over, which the result does not have.
    """
    return x.clamp(min=SMALLEST).pow(power).mean(dim=dim).pow(1 / power)
