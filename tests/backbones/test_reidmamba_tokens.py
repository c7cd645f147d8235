"""Class tokens between the patches: where they sit, how branches fuse them, which ones an ImageNet start takes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backbones.reidmamba.pretrained import resample_positions, token_map
from backbones.reidmamba.tokens import GeneralizedMean, class_tokens_of, fuse, gather, positions, spread
from harness.errors import WeightsError


@pytest.mark.parametrize(
    ("num_patches", "expected"),
    [  # from the original's function
        (128, [9, 19, 29, 39, 49, 59, 69, 79, 89, 99, 109, 119]),
        (128, [18, 37, 56, 75, 94, 113]),
        (128, [32, 65, 98]),
        (192, [27, 55, 83, 111, 139, 167]),
        (310, [23, 47, 71, 95, 119, 143, 167, 191, 215, 239, 263, 287]),
        (310, [44, 89, 134, 179, 224, 269]),
        (310, [77, 155, 233]),
    ],
)
def test_positions_are_those_of_the_original(num_patches: int, expected: list[int]) -> None:
    assert positions(num_patches, len(expected)) == expected


@settings(deadline=None)
@given(num_patches=st.integers(1, 60), num_tokens=st.integers(1, 16))
def test_spreading_puts_tokens_at_their_positions(num_patches: int, num_tokens: int) -> None:
    patches = torch.arange(num_patches).reshape(1, -1, 1)
    tokens = 1000 + torch.arange(num_tokens).reshape(1, -1, 1)
    sequence = spread(patches, tokens)
    assert sequence.shape == (1, num_patches + num_tokens, 1)
    assert torch.equal(sequence[:, positions(num_patches, num_tokens)], tokens)
    assert torch.equal(sequence[sequence < 1000], patches.flatten())
    back, taken = gather(sequence, num_tokens)
    assert torch.equal(back, patches) and torch.equal(taken, tokens)
    assert torch.equal(class_tokens_of(sequence, num_tokens), tokens)


def test_fusion_joins_neighbours() -> None:
    tokens = torch.tensor([1.0, 3.0, 2.0, 8.0]).reshape(1, 4, 1)
    assert fuse(tokens, 2, "max").flatten().tolist() == [3.0, 8.0]
    assert fuse(tokens, 2, "mean").flatten().tolist() == [2.0, 5.0]
    assert fuse(tokens, 4, "mean").flatten().tolist() == [3.5]


def test_generalised_mean_lies_between_mean_and_max() -> None:
    gem = GeneralizedMean()
    tokens = torch.tensor([1.0, 3.0]).reshape(1, 2, 1)
    assert fuse(tokens, 2, "gem", gem).item() == pytest.approx(((1**3 + 3**3) / 2) ** (1 / 3))
    assert fuse(-tokens, 2, "gem", gem).item() == pytest.approx(1e-6)
    with torch.no_grad():
        gem.p.fill_(1.0)
    assert fuse(tokens, 2, "gem", gem).item() == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("num_patches", "chosen"),
    [  # from the original's mapping, on the grids 16x8 and 31x10
        (128, [6]),
        (128, [4, 8]),
        (128, [3, 6, 10]),
        (128, [2, 5, 7, 10]),
        (128, [1, 3, 5, 7, 9, 11]),
        (128, [1, 2, 4, 5, 7, 8, 10, 11]),
        (128, [0, 1, 3, 4, 5, 6, 8, 9, 10, 11]),
        (128, list(range(12))),
        (310, [3, 8]),
        (310, [2, 6, 9]),
        (310, [1, 3, 5, 7, 9, 10]),
        (310, [0, 2, 3, 5, 6, 8, 9, 11]),
    ],
)
def test_fewer_tokens_start_from_the_nearest_old_ones(num_patches: int, chosen: list[int]) -> None:
    assert token_map(num_patches, len(chosen)) == (chosen, list(range(len(chosen))))


def test_more_tokens_start_in_the_middle() -> None:
    assert token_map(128, 16) == (list(range(12)), list(range(2, 14)))
    with pytest.raises(WeightsError, match="must be even"):
        token_map(128, 15)


def test_only_positions_of_another_grid_are_resampled() -> None:
    embedding = torch.randn(1, 196, 5, generator=torch.Generator().manual_seed(0))
    assert resample_positions(embedding, (14, 14)) is embedding
    constant = torch.full((1, 196, 3), 0.7)
    assert torch.allclose(resample_positions(constant, (16, 8)), torch.full((1, 128, 3), 0.7), atol=1e-6)
