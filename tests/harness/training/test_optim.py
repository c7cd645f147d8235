"""Learning rates against the formulas of the original schedules, for every epoch; parameter groups; optimisers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from harness import registry
from harness.spec.recipe import Optimizer, Recipe, Schedule, Training, load
from harness.training.optim import build_optimizer, parameter_groups, rate

LENGTHS = {"market1501": 203, "msmt17": 510}


def native(backbone: str, dataset: str = "market1501") -> Recipe:
    return load(registry.backbone(backbone).native_recipe, dataset)


def rates(recipe: Recipe, length: int, is_bias: bool = False) -> list[float]:
    """The rate of every iteration of a training."""
    epochs = recipe.training.epochs
    return [
        rate(
            recipe.schedule,
            recipe.optimizer,
            epoch=j // length + 1,
            iteration=j,
            iterations_per_epoch=length,
            epochs=epochs,
            is_bias=is_bias,
        )
        for j in range(epochs * length)
    ]


@pytest.mark.parametrize(("is_bias", "v"), [(False, 0.008), (True, 0.016)])
def test_transreid_follows_its_formula_in_every_epoch(is_bias, v):
    b, length = 0.008, 4
    found = rates(native("transreid"), length, is_bias)
    assert len(found) == 120 * length
    for e in range(1, 121):
        if e < 5:
            expected = 0.01 * b + e * (v - 0.01 * b) / 5
        elif e < 120:
            expected = 0.002 * b + 0.5 * (v - 0.002 * b) * (1 + math.cos(math.pi * e / 120))
        else:
            expected = 0.002 * b
        assert found[(e - 1) * length : e * length] == pytest.approx([expected] * length, rel=1e-12)


def test_transreid_gives_the_rates_its_code_printed():
    found, bias = rates(native("transreid"), 1), rates(native("transreid"), 1, is_bias=True)
    printed = {1: 1.664e-3, 2: 3.248e-3, 4: 6.416e-3, 5: 7.96585e-3, 30: 6.83077e-3, 60: 4.008e-3, 90: 1.18523e-3}
    printed |= {119: 1.7368e-5, 120: 1.6e-5}
    assert [found[e - 1] for e in printed] == pytest.approx(list(printed.values()), rel=1e-5)
    assert (bias[0], bias[119]) == pytest.approx((3.264e-3, 1.6e-5))


def test_bot_follows_its_formula_in_every_epoch():
    length = 3
    found = rates(native("bot"), length)
    for e in range(1, 121):
        warm = 0.01 * (1 - e / 10) + e / 10 if e < 10 else 1.0
        expected = 3.5e-4 * warm * 0.1 ** ((e >= 40) + (e >= 70))
        assert found[(e - 1) * length : e * length] == pytest.approx([expected] * length, rel=1e-12)


def test_bot_gives_the_rates_its_code_printed():
    found = rates(native("bot"), 1)
    printed = {1: 3.815e-5, 2: 7.28e-5, 5: 1.7675e-4, 9: 3.1535e-4, 10: 3.5e-4, 39: 3.5e-4}
    printed |= {40: 3.5e-5, 69: 3.5e-5, 70: 3.5e-6, 120: 3.5e-6}
    assert [found[e - 1] for e in printed] == pytest.approx(list(printed.values()), rel=1e-9)


def reidmamba_by_counting(warmup: int, period: int, length: int, epochs: int) -> list[float]:
    """The rates of a loop with a scheduler: one step per iteration, then one step per epoch."""
    found, finished, moves = [], 0, 0
    for _ in range(epochs):
        for _ in range(length):
            warm = 0.008 * (0.01 + 0.99 * finished / warmup)
            cosine = 8e-6 + (0.008 - 8e-6) * (1 + math.cos(math.pi * moves / period)) / 2
            found.append(warm if finished < warmup else cosine)
            finished += 1
        moves += finished > warmup
    return found


@pytest.mark.parametrize(("warmup", "length"), [(1200, 203), (1000, 203), (2500, 510), (1000, 200), (30, 100)])
def test_reidmamba_moves_as_a_loop_with_its_scheduler(warmup, length):
    schedule = Schedule(kind="reidmamba", warmup_iterations=warmup, period=155, final_factor=0.001)
    found = rates(Recipe("r", schedule=schedule, optimizer=Optimizer(lr=0.008)), length)
    assert found == pytest.approx(reidmamba_by_counting(warmup, 155, length, 120), rel=1e-12)


def test_reidmamba_gives_the_rates_of_its_log():
    schedule = Schedule(kind="reidmamba", warmup_iterations=1200, period=155, final_factor=0.001)
    for epoch, logged in ((28, "7.6093e-03"), (80, "4.2872e-03"), (160, "8.8208e-06")):
        found = rate(
            schedule,
            Optimizer(lr=0.008),
            epoch=epoch,
            iteration=(epoch - 1) * 203,
            iterations_per_epoch=203,
            epochs=160,
        )
        assert f"{found:.4e}" == logged


def test_native_reidmamba_names_the_schedule_of_its_log():
    recipe = native("reidmamba")
    found = rates(recipe, LENGTHS["market1501"])
    assert recipe.schedule.kind == "reidmamba"
    assert found[0] == pytest.approx(0.01 * recipe.optimizer.lr)
    assert max(found) == recipe.optimizer.lr
    assert found[-1] < 2 * recipe.schedule.final_factor * recipe.optimizer.lr


@given(
    lr=st.floats(1e-5, 1.0),
    warmup=st.floats(0, 5),
    first=st.floats(0.001, 1.0),
    last=st.floats(0, 0.5),
    epochs=st.integers(6, 12),
    length=st.integers(1, 7),
)
def test_cosine_by_iterations_rises_then_falls(lr, warmup, first, last, epochs, length):
    schedule = Schedule(warmup_epochs=warmup, warmup_factor=first, final_factor=last)
    recipe = Recipe("r", schedule=schedule, optimizer=Optimizer(lr=lr), training=Training(epochs=epochs))
    found = rates(recipe, length)
    top = math.ceil(warmup * length)
    rising, falling = found[:top], found[top:]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)
    assert max(found) <= lr * (1 + 1e-9)
    assert min(falling) >= last * lr * (1 - 1e-9)
    if warmup:
        assert found[0] == pytest.approx(first * lr)


def test_cosine_by_iterations_has_its_formula():
    schedule = Schedule(warmup_epochs=2.0, warmup_factor=0.1, final_factor=0.01)
    recipe = Recipe("r", schedule=schedule, optimizer=Optimizer(lr=0.5, bias_lr_factor=3.0))
    found, bias = rates(recipe, 10), rates(recipe, 10, is_bias=True)
    assert found[5] == pytest.approx(0.5 * (0.1 + 0.9 * 5 / 20))
    assert found[20] == pytest.approx(0.5)
    assert found[610] == pytest.approx(0.005 + 0.5 * 0.495 * (1 + math.cos(math.pi * 590 / 1180)))
    assert bias == pytest.approx([3 * value for value in found])


def test_a_constant_rate_is_constant():
    recipe = Recipe("r", schedule=Schedule(kind="constant"), optimizer=Optimizer(lr=0.3))
    assert set(rates(recipe, 2)) == {0.3}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.zeros(1, 2, 3))
        self.linear = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.norm.bias.requires_grad_(False)

    def no_weight_decay(self) -> set[str]:
        return {"embedding"}


def by_name(optimizer: Optimizer) -> dict[str, tuple[float, float]]:
    groups = parameter_groups(Net(), optimizer)
    assert all(len(group["params"]) == len(group["names"]) for group in groups)
    return {name: (group["lr"], group["weight_decay"]) for group in groups for name in group["names"]}


def test_every_tensor_decays_unless_the_model_is_asked():
    everything = by_name(Optimizer(lr=1.0, weight_decay=0.1, bias_lr_factor=2.0))
    assert everything == {
        "embedding": (1.0, 0.1),
        "linear.weight": (1.0, 0.1),
        "linear.bias": (2.0, 0.1),
        "norm.weight": (1.0, 0.1),
    }
    asked = by_name(Optimizer(lr=1.0, weight_decay=0.1, no_decay="model"))
    assert {name: decay for name, (_, decay) in asked.items()} == {
        "embedding": 0.0,
        "linear.weight": 0.1,
        "linear.bias": 0.0,
        "norm.weight": 0.0,
    }


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sgd", torch.optim.SGD),
        ("adam", torch.optim.Adam),
        ("amsgrad", torch.optim.Adam),
        ("adamw", torch.optim.AdamW),
    ],
)
def test_optimisers_are_the_named_ones_and_step(name, kind):
    module = Net()
    built = build_optimizer(module, Optimizer(name=name, lr=0.1, momentum=0.9, weight_decay=0.0))
    assert type(built) is kind
    assert not any(group.get("nesterov") for group in built.param_groups)
    assert {group.get("amsgrad", False) for group in built.param_groups} == {name == "amsgrad"}
    assert all(group["momentum"] == 0.9 for group in built.param_groups if "momentum" in group)
    before = module.linear.weight.detach().clone()
    module.linear(torch.ones(1, 3)).sum().backward()
    built.step()
    assert float((module.linear.weight.detach() - before).abs().max()) == pytest.approx(0.1, rel=1e-3)
