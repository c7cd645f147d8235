"""The mixer operator has the values and gradients of its parts, and stores less for the backward pass."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from backbones.selective_scan import MixerWeights, bidirectional_mixer
from backbones.selective_scan.choice import implementation_serving
from backbones.selective_scan.mixer import composed

CHANNELS, STATES, RANK, WIDTH = 70, 4, 3, 4


def weights(dtype, generator, channels=CHANNELS, device="cpu"):
    """Returns the weights of one direction, as leaves that require gradients."""

    def leaf(*shape, scale=1.0):
        return (scale * torch.randn(*shape, generator=generator)).to(device, dtype).requires_grad_()

    A = (-0.1 - 4 * torch.rand(channels, STATES, generator=generator)).to(device, dtype).requires_grad_()
    return MixerWeights(
        conv=leaf(channels, WIDTH),
        conv_bias=leaf(channels),
        x_proj=leaf(RANK + 2 * STATES, channels, scale=channels**-0.5),
        dt_proj=leaf(channels, RANK),
        dt_bias=leaf(channels),
        A=A,
        D=leaf(channels),
    )


def inputs(dtype=torch.float32, weight_dtype=None, batch=2, length=21, channels=CHANNELS, device="cpu"):
    """x and z as halves of one projection, and the weights of both directions."""
    generator = torch.Generator().manual_seed(0)
    projected = torch.randn(batch, length, 2 * channels, generator=generator).to(device, dtype).requires_grad_()
    x, z = projected.transpose(1, 2).chunk(2, dim=1)
    forward, backward = (weights(weight_dtype or dtype, generator, channels, device) for _ in range(2))
    return projected, x, z, forward, backward


def values(function, projected, x, z, forward, backward):
    """The output and all gradients."""
    out = function(x, z, forward, backward)
    grad = torch.linspace(-1, 1, out.numel()).view_as(out).to(out.dtype)
    return [out, *torch.autograd.grad(out, [projected, *forward, *backward], grad)]


def by_parts(implementation):
    def function(x, z, forward, backward):
        return composed(implementation_serving(x, implementation), x, z, forward, backward)

    return function


def largest_difference(found, expected):
    return max(
        ((a.double() - b.double()).norm() / b.double().norm()).item() for a, b in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize(("implementation", "dtype"), [("cpu", torch.float32), ("torch", torch.float64)])
def test_the_same_as_its_parts(implementation, dtype):
    found = values(lambda *a: bidirectional_mixer(*a, implementation=implementation), *inputs(dtype))
    assert largest_difference(found, values(by_parts(implementation), *inputs(dtype))) < 1e-6


def test_gradients_against_differences():
    generator = torch.Generator().manual_seed(1)
    x, z = (torch.randn(1, CHANNELS, 3, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2))
    forward, backward = weights(torch.float64, generator), weights(torch.float64, generator)

    def function(x, z, *tensors):
        return bidirectional_mixer(x, z, MixerWeights(*tensors[:7]), MixerWeights(*tensors[7:])).sum(1)

    assert torch.autograd.gradcheck(function, (x, z, *forward, *backward), fast_mode=True)


def test_half_precision_sequences_with_single_precision_weights():
    """Like under autocast: the input projection has half precision, the parameters float32."""
    found = values(bidirectional_mixer, *inputs(torch.bfloat16, torch.float32))
    exact = values(bidirectional_mixer, *inputs(torch.float32))
    assert found[0].dtype == found[1].dtype == torch.bfloat16 and found[2].dtype == torch.float32
    assert largest_difference(found, exact) < 0.03
    with torch.autocast("cpu", torch.bfloat16):
        again = values(bidirectional_mixer, *inputs(torch.bfloat16, torch.float32))
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


def test_frozen_weights_get_no_gradient():
    _, x, z, forward, backward = inputs()
    frozen = MixerWeights(*(tensor.detach() for tensor in backward))
    bidirectional_mixer(x, z, forward, frozen).sum().backward()
    assert all(tensor.grad is not None for tensor in forward) and all(tensor.grad is None for tensor in frozen)


def kept(function, x, z, forward, backward):
    """Returns the additional bytes stored for the backward pass."""
    before = {tensor.untyped_storage().data_ptr() for tensor in (x, z, *forward, *backward)}
    found = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in before:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        out = function(x, z, forward, backward)
    assert out.requires_grad
    return sum(found.values())


def test_keeps_no_more_than_the_low_rank_projections():
    _, *tensors = inputs(length=40)
    sequence = tensors[0].numel() * 4
    projections = 2 * sequence * (RANK + 2 * STATES) // CHANNELS
    assert kept(bidirectional_mixer, *tensors) == projections
    assert kept(by_parts("cpu"), *tensors) > 4 * sequence


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_proj": torch.zeros(3, CHANNELS)}, r"x_proj must have the shape \(11, 70\), found \(3, 70\)"),
        ({"conv": torch.zeros(CHANNELS, 1, WIDTH)}, "conv, dt_proj and A matrices"),
        ({"D": torch.zeros(CHANNELS, dtype=torch.int64)}, "D must be real floating point"),
    ],
)
def test_what_does_not_fit_is_a_sentence(change, message):
    _, x, z, forward, backward = inputs()
    with pytest.raises(ValueError, match=message):
        bidirectional_mixer(x, z, forward, backward._replace(**change))
