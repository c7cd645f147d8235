"""The bidirectional Mamba block of MambaR: the trunk of ReIDMamba."""

from __future__ import annotations

import math

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from backbones.selective_scan import MixerWeights, bidirectional_mixer

CONV_WIDTH = 4
EXPANSION = 2
DT_RANGE = (1e-3, 1e-1)
DT_FLOOR = 1e-4


class RMSNorm(nn.RMSNorm):
    """Root-mean-square norm with the original's epsilon, computed in float32 at least."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """Normalises the last axis of [..., dim]."""
        return super().forward(x.to(torch.promote_types(x.dtype, self.weight.dtype)))


class BidirectionalMixer(nn.Module):
    """Selective scan over the token sequence in both directions (Vision Mamba, arXiv 2401.09417, section 3.3).

    Both directions share the projections in and out and the gate; each has a convolution, a step size, B, C, A and D
    of its own, those of the backward direction with the suffix `_b`. The mean of both is taken, which is the option
    `if_divide_out` of the original. Parameter names are the original's.

    Args:
        dim: Width of a token, D.
        state: Size of the state of each channel, N.
        depth: Blocks of the network; the initial output projection is divided by its root.
    """

    def __init__(self, dim: int, state: int, depth: int) -> None:
        super().__init__()
        inner, self.rank, self.state = EXPANSION * dim, math.ceil(dim / 16), state
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv1d, self.conv1d_b = (nn.Conv1d(inner, inner, CONV_WIDTH, groups=inner) for _ in range(2))
        self.x_proj, self.x_proj_b = (nn.Linear(inner, self.rank + 2 * state, bias=False) for _ in range(2))
        self.dt_proj, self.dt_proj_b = (nn.Linear(self.rank, inner) for _ in range(2))
        decay = torch.arange(1.0, state + 1).log().repeat(inner, 1)
        self.A_log, self.A_b_log = nn.Parameter(decay), nn.Parameter(decay.clone())
        self.D, self.D_b = (nn.Parameter(torch.ones(inner)) for _ in range(2))
        self.out_proj = nn.Linear(inner, dim, bias=False)
        self._initialise(depth)

    @torch.no_grad()
    def _initialise(self, depth: int) -> None:
        """Step sizes start log-uniform in `DT_RANGE`: Mamba, arXiv 2312.00752, section 3.6."""
        for direction in (self.dt_proj, self.dt_proj_b):
            nn.init.uniform_(direction.weight, -(self.rank**-0.5), self.rank**-0.5)
        low, high = (math.log(bound) for bound in DT_RANGE)
        step = torch.empty_like(self.dt_proj.bias).uniform_(low, high).exp().clamp(min=DT_FLOOR)
        self.dt_proj.bias.copy_(step + torch.log(-torch.expm1(-step)))
        # Quirk kept: the original's blanket zeroing of biases hits the backward direction only, so from a random
        # start it takes steps of about 0.7. It does not matter with ImageNet weights.
        self.dt_proj_b.bias.zero_()
        nn.init.kaiming_uniform_(self.out_proj.weight, a=math.sqrt(5))
        self.out_proj.weight /= math.sqrt(depth)

    def forward(self, tokens: Tensor) -> Tensor:
        """Mixes tokens [B, L, D]; same shape out."""
        x, z = self.in_proj(tokens).transpose(1, 2).chunk(2, dim=1)
        forward = _weights(self.conv1d, self.x_proj, self.dt_proj, self.A_log, self.D)
        backward = _weights(self.conv1d_b, self.x_proj_b, self.dt_proj_b, self.A_b_log, self.D_b)
        return self.out_proj(bidirectional_mixer(x, z, forward, backward).transpose(1, 2))

    def hidden_flops(self, plain: bool) -> int:
        """FLOPs a token that torch's counter does not see, see `ReIDMamba.extra_flops`; both directions."""
        channels, width = self.conv1d.weight.shape[0], self.conv1d.weight.shape[-1]
        recurrence, seen = 7 * channels * self.state + 3 * channels, 2 * channels * self.state
        return 2 * (recurrence - seen if plain else recurrence + 2 * channels * width)


def _weights(conv: nn.Conv1d, x_proj: nn.Linear, dt_proj: nn.Linear, A_log: Tensor, D: Tensor) -> MixerWeights:
    """The parameters of one direction as the operator takes them."""
    assert conv.bias is not None
    return MixerWeights(conv.weight.squeeze(1), conv.bias, x_proj.weight, dt_proj.weight, dt_proj.bias, -A_log.exp(), D)


class Block(nn.Module):
    """One block: add, normalise, mix (MambaR). There is no MLP.

    The addition of the previous block's output is this block's first act, so the state between blocks is a pair.
    Quirk kept: drop path acts in that addition, hence on the output of the block before, and the rates are shifted by
    one place so that the output of block i is dropped at rate p * i / (depth - 1) all the same.
    """

    def __init__(self, dim: int, state: int, depth: int, drop_path: float) -> None:
        super().__init__()
        self.norm = RMSNorm(dim)
        self.mixer = BidirectionalMixer(dim, state, depth)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, hidden: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        """Takes and gives (output of the last mixer, residual stream), both [B, L, D].

        Without a residual, `hidden` is the stream itself: the embedded tokens, or a branch's fused sequence.
        """
        residual = hidden if residual is None else residual + self.drop_path(hidden)
        return self.mixer(self.norm(residual)), residual


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """Rate of each block's drop path, [0, 0, p / (depth - 1), ...]; that of the final addition is `rate` itself."""
    return [0.0] + [rate * i / max(depth - 1, 1) for i in range(depth - 1)]
