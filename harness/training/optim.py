"""Optimisers with their parameter groups, and learning-rate schedules as pure functions.

The training loop calls `rate` before every iteration and sets the result on every group. Schedules have no state, so
resuming a run needs none.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from harness.contracts import no_weight_decay
from harness.spec.recipe import Optimizer, Schedule
from harness.training.layer_decay import layer_factors

if TYPE_CHECKING:
    import torch
    from torch import nn


def is_bias(name: str) -> bool:
    """Returns whether a parameter of this name uses the learning rate of biases."""
    return name.endswith("bias")


def parameter_groups(module: nn.Module, optimizer: Optimizer) -> list[dict[str, Any]]:
    """Groups trainable parameters by bias or weight, by weight decay or none, and by layer if rates differ by layer.

    Each group has the keys `params`, `names`, `is_bias`, `weight_decay`, the factor `layer_factor` of its rate and the
    base rate `lr`. Empty groups are left out.

    Args:
        module: the module; `no_weight_decay()` may name parameters without weight decay. Frozen parameters are left
            out.
        optimizer: with `no_decay` `none`, all parameters have weight decay. With `model`, parameters of at most one
            dimension and those named by the module have none.
    """
    exempt: set[str] = set()
    if optimizer.no_decay == "model":
        exempt = {name for name, parameter in module.named_parameters() if parameter.ndim <= 1}
        exempt |= no_weight_decay(module)
    decay, head = optimizer.layer_decay, optimizer.head_lr_factor
    factors = layer_factors(module, decay, head) if decay != 1 or head != 1 else {}
    groups: dict[tuple[bool, bool, float], dict[str, Any]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        bias, decays, factor = is_bias(name), name not in exempt, factors.get(name, 1.0)
        group = groups.setdefault(
            (bias, decays, factor),
            {
                "params": [],
                "names": [],
                "is_bias": bias,
                "weight_decay": optimizer.weight_decay if decays else 0.0,
                "layer_factor": factor,
                "lr": optimizer.lr * (optimizer.bias_lr_factor if bias else 1.0) * factor,
            },
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def build_optimizer(module: nn.Module, optimizer: Optimizer) -> torch.optim.Optimizer:
    """Builds the optimiser: SGD with momentum, Adam or AMSGrad with L2 weight decay, or AdamW.

    All are fused (see docs/speed.md).

    Momentum buffers are initialised with zeros, which changes no step. Otherwise, fused SGD would leave them
    uninitialised when a gradient scaler skips the first step.
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
    if optimizer.name == "adamw":
        return torch.optim.AdamW(groups, lr=optimizer.lr, fused=True)
    return torch.optim.Adam(groups, lr=optimizer.lr, amsgrad=optimizer.name == "amsgrad", fused=True)


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
        schedule: kind and settings of the schedule.
        optimizer: base learning rate, and the factor of biases.
        epoch: current epoch, from 1 to `epochs`.
        iteration: number of iterations since the start of training, from 0.
        iterations_per_epoch: number of iterations of an epoch.
        epochs: number of epochs.
        is_bias: whether the group contains biases.
    """
    base = optimizer.lr
    value = base * (optimizer.bias_lr_factor if is_bias else 1.0)
    if schedule.kind == "transreid":
        return _transreid(schedule, base, value, epoch, epochs)
    if schedule.kind == "transreid-ssl":  # its code makes the step of an epoch after it, not before it
        return _transreid(schedule, base, value, epoch - 1, epochs)
    if schedule.kind == "bot":
        return _bot(schedule, value, epoch)
    if schedule.kind == "lightmbn":
        return _lightmbn(schedule, value, epoch, epochs)
    if schedule.kind == "reidmamba":
        return _reidmamba(schedule, value, epoch, iteration, iterations_per_epoch, epochs)
    if schedule.kind == "cosine-iterations":
        return _cosine_iterations(schedule, value, iteration, iterations_per_epoch, epochs)
    return value


def _cosine(start: float, end: float, progress: float) -> float:
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * min(1.0, progress)))


def _transreid(schedule: Schedule, base: float, value: float, epoch: int, epochs: int) -> float:
    """Linear warm-up per epoch, then cosine decay over the absolute epoch.

    Weights and biases start the warm-up and end the decay at the same rate, which depends on the rate of weights.
    Source: TransReID, solver/scheduler_factory.py and solver/cosine_lr.py.
    """
    start = schedule.warmup_factor * base
    if epoch < schedule.warmup_epochs:
        return start + epoch * (value - start) / schedule.warmup_epochs
    return _cosine(value, schedule.final_factor * base, epoch / (schedule.period or epochs))


def _bot(schedule: Schedule, value: float, epoch: int) -> float:
    """Linear warm-up per epoch, then a step at the start of each milestone epoch (BoT, solver/lr_scheduler.py)."""
    steps = sum(epoch >= milestone for milestone in schedule.milestones)
    return _warmed_up(schedule, value, epoch) * schedule.gamma**steps


def _lightmbn(schedule: Schedule, value: float, epoch: int, epochs: int) -> float:
    """Linear warm-up per epoch, then cosine decay per epoch (LightMBN, optim/warmup_cosine_scheduler.py)."""
    first = schedule.warmup_epochs + 1
    if epoch < first:
        return _warmed_up(schedule, value, epoch)
    return _cosine(value, schedule.final_factor * value, (epoch - first) / (schedule.period or max(1, epochs - first)))


def _warmed_up(schedule: Schedule, value: float, epoch: int) -> float:
    done = min(1.0, epoch / schedule.warmup_epochs) if schedule.warmup_epochs else 1.0
    return value * (schedule.warmup_factor * (1 - done) + done)


def _reidmamba(
    schedule: Schedule, value: float, epoch: int, iteration: int, iterations_per_epoch: int, epochs: int
) -> float:
    """Linear warm-up per iteration, then cosine decay per epoch (ReIDMamba, optims/lr_schedulers.py).

    The decay makes one step at the end of every epoch after the warm-up.
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
    """Linear warm-up per iteration, then cosine decay per iteration to `final_factor` times the rate."""
    warmup = _warmup_iterations(schedule, iterations_per_epoch)
    if iteration < warmup:
        return _linear(schedule, value, iteration / warmup)
    left = max(1.0, epochs * iterations_per_epoch - warmup)
    return _cosine(value, schedule.final_factor * value, (iteration - warmup) / left)


def _linear(schedule: Schedule, value: float, done: float) -> float:
    return value * (schedule.warmup_factor + (1 - schedule.warmup_factor) * done)


def _warmup_iterations(schedule: Schedule, iterations_per_epoch: int) -> float:
    """Returns `warmup_iterations` if set, otherwise `warmup_epochs` in iterations."""
    return schedule.warmup_iterations or schedule.warmup_epochs * iterations_per_epoch
