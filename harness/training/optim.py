"""Optimisers with their parameter groups, and learning-rate schedules as pure functions.

The training loop asks `rate` before every iteration and sets it on every group; no scheduler holds state,
so a resumed run needs none.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from harness.contracts import no_weight_decay
from harness.spec.recipe import Optimizer, Schedule

if TYPE_CHECKING:
    import torch
    from torch import nn


def is_bias(name: str) -> bool:
    """Whether a parameter of this name learns at the bias rate."""
    return name.endswith("bias")


def parameter_groups(module: nn.Module, optimizer: Optimizer) -> list[dict[str, Any]]:
    """Sorts trainable parameters into groups: biases apart from weights, decayed apart from not decayed.

    Each group holds `params`, `names`, `is_bias`, `weight_decay` and the base rate `lr`; empty groups are left out.

    Args:
        module: may name parameters that never decay in `no_weight_decay()`; frozen parameters are left out.
        optimizer: with `no_decay` of `none` every tensor decays; with `model` those of at most one dimension
            and those the module names do not.
    """
    exempt: set[str] = set()
    if optimizer.no_decay == "model":
        exempt = {name for name, parameter in module.named_parameters() if parameter.ndim <= 1}
        exempt |= no_weight_decay(module)
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        bias, decays = is_bias(name), name not in exempt
        group = groups.setdefault(
            (bias, decays),
            {
                "params": [],
                "names": [],
                "is_bias": bias,
                "weight_decay": optimizer.weight_decay if decays else 0.0,
                "lr": optimizer.lr * (optimizer.bias_lr_factor if bias else 1.0),
            },
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def build_optimizer(module: nn.Module, optimizer: Optimizer) -> torch.optim.Optimizer:
    """Builds the optimiser: SGD with plain momentum, Adam with coupled decay, or AdamW; all fused (docs/speed.md).

    Momentum begins at zero, which changes no step. Left to fused SGD, it would begin as whatever lies in memory
    where a loss scaler skips the first step.
    """
    import torch

    groups = parameter_groups(module, optimizer)
    if optimizer.name == "sgd":
        sgd = torch.optim.SGD(groups, lr=optimizer.lr, momentum=optimizer.momentum, fused=True)
        if optimizer.momentum:
            for group in sgd.param_groups:
                for parameter in group["params"]:
                    sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter, requires_grad=False)
        return sgd
    kind = torch.optim.Adam if optimizer.name == "adam" else torch.optim.AdamW
    return kind(groups, lr=optimizer.lr, fused=True)


def rate(
    schedule: Schedule,
    optimizer: Optimizer,
    *,
    epoch: int,
    iteration: int,
    iterations_per_epoch: int,
    epochs: int,
    is_bias: bool = False,
) -> float:
    """Returns the learning rate of one iteration.

    Args:
        schedule: kind and settings.
        optimizer: base rate, and the factor of biases.
        epoch: the running epoch, from 1 to `epochs`.
        iteration: iterations finished since training began, so the first is 0.
        iterations_per_epoch: length of an epoch.
        epochs: length of training.
        is_bias: whether the group holds biases.
    """
    base = optimizer.lr
    value = base * (optimizer.bias_lr_factor if is_bias else 1.0)
    if schedule.kind == "transreid":
        return _transreid(schedule, base, value, epoch, epochs)
    if schedule.kind == "bot":
        return _bot(schedule, value, epoch)
    if schedule.kind == "reidmamba":
        return _reidmamba(schedule, value, epoch, iteration, iterations_per_epoch, epochs)
    if schedule.kind == "cosine-iterations":
        return _cosine_iterations(schedule, value, iteration, iterations_per_epoch, epochs)
    return value


def _cosine(start: float, end: float, progress: float) -> float:
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * min(1.0, progress)))


def _transreid(schedule: Schedule, base: float, value: float, epoch: int, epochs: int) -> float:
    """Per epoch, set at its start: linear warm-up, then cosine over the absolute epoch.

    Both groups share the warm-up's start and the cosine's end, which follow from the rate of weights
    (TransReID, solver/scheduler_factory.py and solver/cosine_lr.py).
    """
    start = schedule.warmup_factor * base
    if epoch < schedule.warmup_epochs:
        return start + epoch * (value - start) / schedule.warmup_epochs
    return _cosine(value, schedule.final_factor * base, epoch / (schedule.period or epochs))


def _bot(schedule: Schedule, value: float, epoch: int) -> float:
    """Per epoch: linear warm-up, then a step down at each milestone, inclusive (BoT, solver/lr_scheduler.py)."""
    done = min(1.0, epoch / schedule.warmup_epochs) if schedule.warmup_epochs else 1.0
    steps = sum(epoch >= milestone for milestone in schedule.milestones)
    return value * (schedule.warmup_factor * (1 - done) + done) * schedule.gamma**steps


def _reidmamba(
    schedule: Schedule, value: float, epoch: int, iteration: int, iterations_per_epoch: int, epochs: int
) -> float:
    """Linear warm-up per iteration, then cosine per epoch (ReIDMamba, optims/lr_schedulers.py).

    The cosine moves at each end of an epoch that finished more iterations than the warm-up has.
    """
    warmup = _warmup_iterations(schedule, iterations_per_epoch)
    if iteration < warmup:
        return _linear(schedule, value, iteration / warmup)
    warmup_epochs = int(warmup // iterations_per_epoch)
    period = schedule.period or max(1, epochs - warmup_epochs)
    moves = max(0, epoch - 1 - warmup_epochs)
    return _cosine(value, schedule.final_factor * value, moves / period)


def _cosine_iterations(
    schedule: Schedule, value: float, iteration: int, iterations_per_epoch: int, epochs: int
) -> float:
    """Linear warm-up per iteration, then cosine per iteration down to `final_factor` of the rate."""
    warmup = _warmup_iterations(schedule, iterations_per_epoch)
    if iteration < warmup:
        return _linear(schedule, value, iteration / warmup)
    left = max(1.0, epochs * iterations_per_epoch - warmup)
    return _cosine(value, schedule.final_factor * value, (iteration - warmup) / left)


def _linear(schedule: Schedule, value: float, done: float) -> float:
    return value * (schedule.warmup_factor + (1 - schedule.warmup_factor) * done)


def _warmup_iterations(schedule: Schedule, iterations_per_epoch: int) -> float:
    """`warmup_iterations` where given, else `warmup_epochs` in iterations."""
    return schedule.warmup_iterations or schedule.warmup_epochs * iterations_per_epoch
