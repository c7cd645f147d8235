"""Class tokens distributed over the patch sequence, and their fusion in the branches.

MambaR (arXiv 2405.14858, which calls them registers) puts its k class tokens evenly between the n patches instead of
in front of them: with S = n // (k + 1), the sequence is

    S patches, token 0, S patches, token 1, ..., S patches, token k - 1, the remaining n - kS patches

so token j is at position (j + 1) S + j. ReIDMamba's coarser branches fuse neighbouring tokens and distribute the
remaining tokens over the same patches.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def positions(num_patches: int, num_tokens: int) -> list[int]:
    """Returns the positions of the class tokens in the sequence, like `get_cls_idx` of the original code."""
    span = num_patches // (num_tokens + 1)
    return [(j + 1) * span + j for j in range(num_tokens)]


def spread(patches: Tensor, tokens: Tensor) -> Tensor:
    """Puts class tokens [B, k, D] evenly between patches [B, n, D]; returns the sequence [B, n + k, D]."""
    num_tokens = tokens.shape[1]
    span = patches.shape[1] // (num_tokens + 1)
    groups = patches[:, : num_tokens * span].unflatten(1, (num_tokens, span))
    return torch.cat([torch.cat([groups, tokens[:, :, None]], 2).flatten(1, 2), patches[:, num_tokens * span :]], 1)


def gather(sequence: Tensor, num_tokens: int) -> tuple[Tensor, Tensor]:
    """Undoes `spread`: returns patches [B, n, D] in their order and class tokens [B, k, D]."""
    groups, rest = _split(sequence, num_tokens)
    return torch.cat([groups[:, :, :-1].flatten(1, 2), rest], 1), groups[:, :, -1]


def class_tokens_of(sequence: Tensor, num_tokens: int) -> Tensor:
    """Returns a view of the class tokens [B, k, D] of a sequence."""
    return _split(sequence, num_tokens)[0][:, :, -1]


def _split(sequence: Tensor, num_tokens: int) -> tuple[Tensor, Tensor]:
    """Returns groups [B, k, S + 1, D], each ending with a class token, and the remaining patches."""
    span = (sequence.shape[1] - num_tokens) // (num_tokens + 1)
    end = num_tokens * (span + 1)
    return sequence[:, :end].unflatten(1, (num_tokens, span + 1)), sequence[:, end:]


class GeneralizedMean(nn.Module):
    """Generalised mean over the last but one axis with a learnt exponent `p`, which starts at 3 (fusion "gem")."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.full((1,), 3.0))

    def forward(self, groups: Tensor) -> Tensor:
        """Maps groups of tokens [B, k / m, m, D] to [B, k / m, D]."""
        return groups.clamp(min=1e-6).pow(self.p).mean(-2).pow(1 / self.p)


def fuse(tokens: Tensor, size: int, fusion: str, gem: nn.Module | None = None) -> Tensor:
    """Token fusion of the multi-granularity feature extractor: every `size` neighbouring tokens become one.

    Args:
        tokens: [B, k, D].
        size: Tokens in a group; divides k.
        fusion: "max" (element-wise), "mean" (the original's `avg`), or "gem".
        gem: The `GeneralizedMean` of this branch, for "gem".

    Returns:
        [B, k / size, D].
    """
    groups = tokens.unflatten(1, (-1, size))
    if fusion == "gem":
        assert gem is not None
        return gem(groups)
    return groups.mean(2) if fusion == "mean" else groups.amax(2)
