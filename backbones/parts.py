"""What several newer backbones share: half instance norm, generalised mean pooling, non-local blocks, a check."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.errors import UsageError

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


class GeneralisedMean(nn.Module):
    """Generalised mean pooling of a map, with one learned exponent `p`."""

    def __init__(self, power: float = 3.0) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor([power]))

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, C, H, W] to [B, C]."""
        return generalised_mean(x, self.p, dim=(2, 3))


class NonLocal(nn.Module):
    """A non-local block (Wang et al. 2018) of dot products without softmax, which starts as the identity.

    AGW's code projects to a single channel. The paper halves the channels.

    Args:
        channels: number of channels of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.g = nn.Conv2d(channels, 1, 1)
        self.theta = nn.Conv2d(channels, 1, 1)
        self.phi = nn.Conv2d(channels, 1, 1)
        norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(norm.weight)
        self.W = nn.Sequential(nn.Conv2d(1, channels, 1), norm)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, C, H, W] to the same shape."""
        query, key, value = (part(x).flatten(2) for part in (self.theta, self.phi, self.g))  # each [B, 1, positions]
        # The products of all pairs of positions are query_i * key_j, so their weighted sum needs no matrix.
        total = query * (key * value).sum(dim=2, keepdim=True) / query.shape[2]
        return x + self.W(total.unflatten(2, x.shape[2:]))


def check_image_size(images: Tensor, expected: tuple[int, int]) -> None:
    """Checks the size of images [B, 3, H, W] against the (height, width) that a model was built for.

    Raises:
        UsageError: the size differs.
    """
    if tuple(images.shape[-2:]) != expected:
        raise UsageError(
            f"The model was built for images of {expected[0]}x{expected[1]}, found {images.shape[-2]}x"
            f"{images.shape[-1]}; build it with image_size of the data."
        )
