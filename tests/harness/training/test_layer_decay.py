"""Layer-wise decay of the learning rate, and the recipe that uses it."""

from __future__ import annotations

import timm
import torch
from torch import nn

from harness.spec import recipe
from harness.spec.recipe import Optimizer
from harness.training.layer_decay import layer_factors
from harness.training.optim import parameter_groups


def transformer(blocks: int = 3) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model("vit_tiny_patch16_224", num_classes=5, depth=blocks, img_size=(64, 32))


def test_each_layer_has_a_part_of_the_rate_of_the_next_one():
    found = layer_factors(transformer(), 0.5)
    for name, factor in found.items():
        if name.startswith("blocks."):
            assert factor == 0.5 ** (3 - int(name.split(".")[1]))
        else:
            assert factor == (1.0 if name.startswith(("norm", "head")) else 0.5**4), name


def test_the_head_can_have_a_rate_of_its_own():
    found = layer_factors(transformer(), 1.0, head=10.0)
    assert {name for name, factor in found.items() if factor == 10} == {
        "norm.weight",
        "norm.bias",
        "head.weight",
        "head.bias",
    }
    assert set(found.values()) == {1.0, 10.0}


def test_groups_have_the_rates_of_their_layers():
    groups = parameter_groups(transformer(), Optimizer(lr=1.0, layer_decay=0.5, no_decay="model"))
    assert {group["lr"] for group in groups} == {0.5**i for i in range(5)}
    assert sum(len(group["params"]) for group in groups) == len(list(transformer().parameters()))


def test_parts_between_blocks_belong_to_the_block_before_them():
    block = lambda: nn.Sequential(nn.Linear(2, 2))  # noqa: E731
    stages = nn.Sequential(nn.Linear(2, 2), nn.ModuleList([_Block()]), block(), nn.ModuleList([_Block()]), block())
    found = layer_factors(stages, 0.5)
    assert [found[f"{name}.weight"] for name in ("0", "1.0.part", "2.0", "3.0.part", "4.0")] == [
        0.125,
        0.25,
        0.25,
        0.5,
        1.0,
    ]


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Linear(2, 2)


def test_a_network_without_blocks_has_one_rate():
    assert set(layer_factors(nn.Linear(2, 2), 0.5, head=10.0).values()) == {1.0}


def test_the_recipe_for_pretrained_transformers_changes_only_how_they_are_optimised():
    ours, unified = (recipe.load(recipe.find(name)).values() for name in ("foundation", "unified"))
    assert {key for key in unified if ours[key] != unified[key]} == {"name", "optimizer", "schedule"}
    assert ours["optimizer"]["layer_decay"] == 0.65 and "layer_decay" not in unified["optimizer"]
