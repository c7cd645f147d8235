"""Layers that several backbones share."""

from __future__ import annotations

import pytest
import torch

from backbones.parts import GeneralisedMean, HalfInstanceNorm, NonLocal, generalised_mean


def test_half_of_the_channels_are_normalised_per_image():
    norm = HalfInstanceNorm(6)
    images = torch.randn(5, 6, 4, 3) * torch.arange(1.0, 6).view(5, 1, 1, 1)
    normalised = norm(images)
    assert normalised[:, :3].var(dim=(2, 3), unbiased=False).sub(1).abs().max() < 1e-3
    assert normalised[:, 3:].var(dim=(0, 2, 3), unbiased=False).sub(1).abs().max() < 1e-3
    assert normalised[0, 3:].var() < normalised[4, 3:].var()


def test_in_evaluation_only_the_second_half_has_running_statistics():
    norm = HalfInstanceNorm(4)
    assert {name for name, _ in norm.named_buffers()} == {
        "BN.running_mean",
        "BN.running_var",
        "BN.num_batches_tracked",
    }
    images = torch.randn(2, 4, 3, 3)
    assert torch.allclose(norm.eval()(images)[:, 2:], images[:, 2:], atol=1e-4)


@pytest.mark.parametrize("power", [1.0, 3.0, 20.0])
def test_the_generalised_mean_lies_between_mean_and_maximum(power):
    values = torch.rand(3, 5, 7) + 0.1
    found = generalised_mean(values, power, dim=1)
    assert found.shape == (3, 7)
    assert bool((found >= values.mean(dim=1) - 1e-6).all() and (found <= values.amax(dim=1) + 1e-6).all())
    assert torch.allclose(generalised_mean(2 * values, power, dim=1), 2 * found, rtol=1e-4)


def test_negative_values_count_as_nearly_nothing():
    assert float(generalised_mean(torch.full((1, 4), -5.0), 3.0, dim=1)) == pytest.approx(1e-6, rel=1e-3)


def test_a_non_local_block_weighs_all_pairs_of_positions():
    block = NonLocal(6).eval()
    torch.nn.init.normal_(block.W[1].weight)
    x = torch.randn(2, 6, 4, 3)
    query, key, value = (part(x).flatten(2) for part in (block.theta, block.phi, block.g))
    pairs = query.transpose(1, 2) @ key / 12  # [B, positions, positions]
    total = (pairs @ value.transpose(1, 2)).transpose(1, 2).reshape(2, 1, 4, 3)
    assert torch.allclose(block(x), x + block.W(total), atol=1e-5)
    assert not torch.allclose(block(x), x)
    assert torch.equal(NonLocal(6)(x), x)


def test_generalised_mean_pooling_learns_its_exponent():
    pool = GeneralisedMean()
    pool(torch.rand(2, 3, 4, 4)).sum().backward()
    assert pool.p.grad is not None and float(pool.p.grad) != 0
