"""Small networks with all that may depend on the batch as a whole: dropout, stochastic depth, batch norm."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.contracts import TrainingOutput


class Layer(nn.Module):
    """A residual block with dropout and stochastic depth; with batch norm on request."""

    def __init__(self, width: int, norm: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width) if norm else nn.LayerNorm(width)
        self.mix, self.drop = nn.Linear(width, width), nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.drop(torch.tanh(self.mix(self.norm(x))))
        if self.training:
            branch = branch * x.new_empty((len(x), 1)).bernoulli_(0.8) / 0.8
        return x + branch


class Network(nn.Module):
    """Two branches on small images, and a parameter that nothing uses."""

    def __init__(self, classes: int, norm: bool, width: int = 12) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 4, 4, bias=not norm)
        self.stem_norm: nn.Module = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.into = nn.Linear(4, width)
        self.layers = nn.ModuleList(Layer(width, norm) for _ in range(2))
        self.heads = nn.ModuleList(nn.Linear(width, classes) for _ in range(2))
        self.unused = nn.Linear(3, 3)

    def forward(self, images: Tensor, camera_ids: Tensor | None = None) -> TrainingOutput:
        x = self.into(self.stem_norm(self.stem(images.to(self.into.weight.dtype))).flatten(2).mean(2))
        features = []
        for layer in self.layers:
            rows = torch.stack([x, x.flip(1)], dim=1).flatten(0, 1)  # two rows per image, like stripes or windows
            x = layer(rows).unflatten(0, (-1, 2)).mean(1)
            features.append(x)
        return TrainingOutput([head(F.relu(f)) for head, f in zip(self.heads, features, strict=True)], features)
