"""The colour histogram counts the colours of each stripe and has no parameters."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backbones.dummy import model as dummy
from harness import registry
from harness.errors import HarnessError, UsageError

ENTRY = registry.backbone("dummy")


def build(stripes: int = 6) -> torch.nn.Module:
    return ENTRY.build(num_classes=5, num_cameras=2, image_size=(48, 16), stripes=stripes).eval()


@settings(deadline=None, max_examples=25)
@given(height=st.integers(6, 40), width=st.integers(1, 20), stripes=st.integers(1, 6), seed=st.integers(0, 99))
def test_bins_are_shares_of_pixels_counted_one_by_one(height, width, stripes, seed):
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed))
    expected = torch.zeros(2, stripes, 8, 8, 8)
    for b in range(2):
        for row in range(height):
            for column in range(width):
                r, g, blue = (min(7, int(float(c) * 8)) for c in images[b, :, row, column])
                expected[b, row * stripes // height, r, g, blue] += 1
    found = build(stripes)(images)
    assert torch.allclose(found * height * width, expected.flatten(1), atol=1e-3)
    assert torch.allclose(found.sum(dim=1), torch.ones(2))


def test_colours_at_the_ends_are_in_the_last_bins():
    images = torch.tensor([0.0, 1.0, -0.5, 1.5]).view(1, 1, 4, 1).expand(1, 3, 4, 1)
    found = build(1)(images)[0]
    assert found.nonzero().flatten().tolist() == [0, 511]


def test_card_asks_for_colours_as_they_are():
    assert (ENTRY.card.input.mean, ENTRY.card.input.std) == ((0.0,) * 3, (1.0,) * 3)
    assert not ENTRY.card.trainable
    assert "dummy" not in {entry.name for entry in registry.resolve_backbones("all")}
    module = build()
    assert not list(module.parameters())
    assert module(torch.rand(3, 3, 48, 16), torch.tensor([0, 9, 3])).shape == (3, ENTRY.card.feature_dim)
    with pytest.raises(UsageError, match="nothing to train"):
        module.train()(torch.rand(1, 3, 48, 16))


def test_checkpoints_are_refused():
    with pytest.raises(HarnessError):
        build().load_published({"a": torch.zeros(1)})
    with pytest.raises(UsageError, match="no checkpoints"):
        dummy.infer({"a": torch.zeros(1)}, (48, 16))
