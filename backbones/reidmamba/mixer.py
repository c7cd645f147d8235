"""The bidirectional Mamba block of MambaR: the trunk of ReIDMamba."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from backbones.layers import DropPath
from backbones.selective_scan import MixerWeights, bidirectional_mixer

CONV_WIDTH = 4
EXPANSION = 2
DT_RANGE = (1e-3, 1e-1)
DT_FLOOR = 1e-4


class RMSNorm(nn.RMSNorm):
    """Root-mean-square norm with the epsilon of the original code, computed in float32 or float64."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """Normalises the last axis of [..., dim]."""
        return super().forward(x.to(torch.promote_types(x.dtype, self.weight.dtype)))


class BidirectionalMixer(nn.Module):
    """Selective scan over the token sequence in both directions (Vision Mamba, arXiv 2401.09417, section 3.3).

    Both directions share the input and output projections and the gate. Each has its own convolution, step size, A, B,
    C and D; those of the backward direction have the suffix `_b`. The result is the mean of both, the option
    `if_divide_out` of the original code. Parameters have the names of the original code.

    Args:
        dim: Width of a token, D.
        state: Size of the state of each channel, N.
        depth: Number of blocks; the initial output projection is divided by its square root.
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
        # As in the original code, zeroing of all biases affects only the backward direction, so from a random
        # start its step sizes are about 0.7. With ImageNet weights this has no effect.
        self.dt_proj_b.bias.zero_()
        nn.init.kaiming_uniform_(self.out_proj.weight, a=math.sqrt(5))
        self.out_proj.weight /= math.sqrt(depth)

    def forward(self, tokens: Tensor) -> Tensor:
        """Maps tokens [B, L, D] to tokens of the same shape."""
        x, z = self.in_proj(tokens).transpose(1, 2).chunk(2, dim=1)
        forward = _weights(self.conv1d, self.x_proj, self.dt_proj, self.A_log, self.D)
        backward = _weights(self.conv1d_b, self.x_proj_b, self.dt_proj_b, self.A_b_log, self.D_b)
        return self.out_proj(bidirectional_mixer(x, z, forward, backward).transpose(1, 2))

    def hidden_flops(self, plain: bool) -> int:
        """FLOPs per token of both directions that torch's counter misses; see `ReIDMamba.extra_flops`."""
        channels, width = self.conv1d.weight.shape[0], self.conv1d.weight.shape[-1]
        recurrence, seen = 7 * channels * self.state + 3 * channels, 2 * channels * self.state
        return 2 * (recurrence - seen if plain else recurrence + 2 * channels * width)


def _weights(conv: nn.Conv1d, x_proj: nn.Linear, dt_proj: nn.Linear, A_log: Tensor, D: Tensor) -> MixerWeights:
    """Returns the parameters of one direction as arguments of the operator."""
    assert conv.bias is not None
    return MixerWeights(conv.weight.squeeze(1), conv.bias, x_proj.weight, dt_proj.weight, dt_proj.bias, -A_log.exp(), D)


class Block(nn.Module):
    """One block of MambaR: add, normalise, mix. There is no MLP.

    A block first adds the output of the previous block to the residual stream, so blocks pass on a pair. As in the
    original code, drop path is applied in this addition, to the output of the previous block. Rates are shifted by one
    block, so that the output of block i is still dropped with rate p * i / (depth - 1).
    """

    def __init__(self, dim: int, state: int, depth: int, drop_path: float) -> None:
        super().__init__()
        self.norm = RMSNorm(dim)
        self.mixer = BidirectionalMixer(dim, state, depth)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, hidden: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        """Maps (output of the last mixer, residual stream) to the same pair after this block; all [B, L, D].

        Without a residual stream, `hidden` is the stream: the embedded tokens, or the fused sequence of a branch.
        """
        residual = hidden if residual is None else residual + self.drop_path(hidden)
        return self.mixer(self.norm(residual)), residual


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """Returns the drop-path rate of each block, [0, 0, p / (depth - 1), ...]; the final addition has the rate p."""
    return [0.0] + [rate * i / max(depth - 1, 1) for i in range(depth - 1)]
