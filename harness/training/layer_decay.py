"""Layer-wise decay of the learning rate: layers near the input, which pretraining has settled, move less."""

from __future__ import annotations

from torch import nn

from harness.training.recomputation import blocks


def layer_factors(module: nn.Module, decay: float, head: float = 1.0) -> dict[str, float]:
    """Returns the factor of the learning rate of every parameter, by name.

    Layers are the repeated blocks of the network, in the order of its parameters. Parameters before the first block
    are a layer of their own, and so are those after the last one, the head. Each layer has `decay` times the factor of
    the one after it, as if that of the head were 1.

    Args:
        module: the module; without repeated blocks, all factors are 1.
        decay: factor per layer.
        head: factor of the head.
    """
    names = {id(part): name for name, part in module.named_modules()}
    prefixes = [f"{names[id(block)]}." for block in blocks(module)]
    if not prefixes:
        return {name: 1.0 for name, _ in module.named_parameters()}
    last, passed = len(prefixes) + 1, 0
    factors = {}
    for name, _ in module.named_parameters():
        inside = next((i for i, prefix in enumerate(prefixes, start=1) if name.startswith(prefix)), 0)
        passed = inside or passed
        layer = passed if inside or passed < len(prefixes) else last
        factors[name] = head if layer == last else decay ** (last - layer)
    return factors
