"""Layer-wise decay of the learning rate: layers near the input, which pretraining has settled, move less."""

from __future__ import annotations

from torch import nn

from harness.training.recomputation import blocks


def layer_factors(module: nn.Module, decay: float) -> dict[str, float]:
    """Returns the factor of the learning rate of every parameter, by name.

    Layers are the repeated blocks of the network, in the order of its parameters. Parameters before the first block
    are a layer of their own, and so are those after the last one, whose factor is 1. Each layer has `decay` times the
    factor of the one after it.

    Args:
        module: the module; without repeated blocks, all factors are 1.
        decay: factor per layer.
    """
    names = {id(part): name for name, part in module.named_modules()}
    prefixes = [f"{names[id(block)]}." for block in blocks(module)]
    last, passed = len(prefixes) + 1, 0
    factors = {}
    for name, _ in module.named_parameters():
        inside = next((i for i, prefix in enumerate(prefixes, start=1) if name.startswith(prefix)), 0)
        passed = inside or passed
        layer = passed if inside or passed < len(prefixes) else last
        factors[name] = decay ** (last - layer) if prefixes else 1.0
    return factors
