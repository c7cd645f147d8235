"""Gradient checkpointing: keeps the inputs of a network's blocks, and computes the rest again in the backward pass."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from harness.training.part_of_batch import PartOfBatch
from harness.training.running_statistics import RunningStatistics


def recompute_blocks(module: nn.Module) -> int:
    """Lets every block of a module keep only its inputs for the backward pass; returns the number of blocks.

    The random numbers of a block are repeated, and its running statistics change once per step.
    """
    found = blocks(module)
    for block in found:
        block.forward = partial(_forward, block, block.forward, RunningStatistics(block))
    return len(found)


def blocks(module: nn.Module) -> list[nn.Module]:
    """Returns the repeated blocks of a network: members of lists and sequences whose type occurs more than once.

    Members without submodules, such as activations, are no blocks. Blocks inside blocks are left out.
    """
    kinds = Counter(type(member) for part in module.modules() for member in _members(part))
    return _repeated(module, {kind for kind, count in kinds.items() if count > 1})


def _members(module: nn.Module) -> list[nn.Module]:
    lists = nn.ModuleList | nn.Sequential
    found = module.children() if isinstance(module, lists) else ()
    return [member for member in found if any(member.children()) and not isinstance(member, lists)]


def _repeated(module: nn.Module, kinds: set[type]) -> list[nn.Module]:
    members, found = _members(module), list[nn.Module]()
    for child in module.children():
        found += [child] if child in members and type(child) in kinds else _repeated(child, kinds)
    return found


def _forward(
    block: nn.Module, forward: Callable[..., Any], statistics: RunningStatistics, *args: Any, **kwargs: Any
) -> Any:
    if not (block.training and torch.is_grad_enabled()):
        return forward(*args, **kwargs)

    def contexts() -> tuple[Any, Any]:
        return contextlib.nullcontext(), _again(statistics, PartOfBatch.active)

    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)


@contextlib.contextmanager
def _again(statistics: RunningStatistics, part: PartOfBatch | None) -> Any:
    """The context in which a block is computed again."""
    with statistics.unchanged(), part.again() if part else contextlib.nullcontext():
        yield
