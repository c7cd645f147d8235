"""MGN, PCB and LightMBN have the features, training outputs, parameter counts and checkpoints of the original code."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from timm.models.resnet import Bottleneck, ResNet
from torch import nn
from torch.nn import functional as F

from backbones.branches import stripes
from backbones.mgn import model as mgn
from harness import registry
from harness.errors import UsageError, WeightsError
from harness.losses import ReIDCriterion
from harness.spec.recipe import load
from harness.training.optim import build_optimizer, parameter_groups, rate
from tests.support import golden_weights as golden

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "mgn": ("mgn", {"pool": "max"}),
    "lightmbn_osnet": ("lightmbn", {}),
    "lightmbn_resnet50": ("lightmbn", {"trunk": "resnet50"}),
    "pcb_p6": ("pcb", {}),
}
"""Backbone and build options, by the name of the shapes in the golden file."""
PARTS = {"mgn": 8, "lightmbn": 7, "pcb": 6}
FAST = ("lightmbn_osnet", "pcb_p6")
SLOW = [pytest.param(case, marks=() if case in FAST else pytest.mark.slow) for case in CASES]


def build(backbone: str, classes: int = 751, size: tuple[int, int] = (384, 128), **options: Any) -> nn.Module:
    with golden.without_start():
        return registry.backbone(backbone).build(num_classes=classes, num_cameras=6, image_size=size, **options)


@cache
def small(backbone: str) -> nn.Module:
    return registry.backbone(backbone).build(num_classes=5, num_cameras=0, image_size=(64, 32))


def features(module: nn.Module, parts: int) -> torch.Tensor:
    """Every eighth number of each part of the test-time features of two images."""
    with torch.no_grad():
        return module.eval()(golden.scenes(2, 384, 128, 3)).view(2, parts, -1)[..., ::8]


@pytest.mark.parametrize("case", SLOW)
def test_outputs_are_the_originals(case: str) -> None:
    """MGN and LightMBN: values of LightMBN's repository and of MGN-pytorch; PCB: values of torchreid."""
    (backbone, options), expected = CASES[case], golden.values("branches")
    built, parts = build(backbone, **options), PARTS[backbone]
    built.load_published(golden.state(golden.shapes("branches")[case], seed=2))
    if backbone == "mgn":
        built.pool = mgn.POOLS["avg"]
        assert golden.difference(features(built, parts), expected["mgn_avg.feat_scene"]) < 1e-5
        built.pool, case = mgn.POOLS["max"], "mgn_max"
    assert golden.difference(features(built, parts), expected[f"{case}.feat_scene"]) < 1e-5
    for part in built.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    with torch.no_grad():
        output = built.train()(golden.scenes(8, 384, 128, 4))
    # Batch norm over eight images amplifies rounding: the original's own float32 is up to 5e-4 from its float64.
    for i, logits in enumerate(output.logits):
        assert golden.relative(logits[:, ::25], expected[f"{case}.score{i}_scene"]) < 2e-4
    for i in range(3 if backbone != "pcb" else 0):
        assert golden.relative(output.features[i][:, ::8], expected[f"{case}.trainfeat{i}_scene"]) < 2e-4


@pytest.mark.parametrize("case", CASES)
def test_every_entry_of_the_official_file_has_its_place(case: str) -> None:
    backbone, options = CASES[case]
    with torch.device("meta"):
        found = {key: list(value.shape) for key, value in build(backbone, **options).state_dict().items()}
    assert golden.shapes("branches")[case] == found


@pytest.mark.parametrize("backbone", PARTS)
def test_parameter_counts_of_the_card_are_exact(backbone: str) -> None:
    for count in registry.backbone(backbone).card.parameters:
        with torch.device("meta"):
            built = build(backbone, count.num_classes, **count.options)
        assert sum(p.numel() for p in built.parameters()) == count.count


@pytest.mark.parametrize(
    ("backbone", "options"),
    [("mgn", {"feats": 128}), ("lightmbn", {}), ("lightmbn", {"trunk": "resnet50"}), ("pcb", {"parts": 4})],
)
def test_what_the_module_needs_is_read_off_a_checkpoint(backbone: str, options: dict[str, Any]) -> None:
    entry = registry.backbone(backbone)
    with torch.device("meta"):
        state = build(backbone, 9, **options).state_dict()
        found = entry.model().infer({"state_dict": {f"module.{k}": v for k, v in state.items()}}, (384, 128))
        assert found["num_classes"] == 9
        told = {"parts": 6, "trunk": "osnet", **options}
        assert found["options"].items() <= {**entry.options(), **told}.items()
        other = build(backbone, 5, **options)
        with pytest.raises(WeightsError, match="misshaped"):
            other.load_published(state)
        other.eval().load_published(state)
    with pytest.raises(WeightsError, match="no checkpoint of"):
        entry.model().infer({"base.pos_embed": torch.zeros(1)}, (384, 128))


def test_a_file_of_the_authors_of_pcb_has_other_names() -> None:
    built = small("pcb")
    theirs = {}
    for key, value in built.state_dict().items():
        first, _, rest = key.partition(".")
        if first == "classifier":
            theirs[f"instance{rest}"] = value
        elif first == "conv5":
            theirs[rest.replace("layers.0", "local_conv").replace("layers.1", "feat_bn2d")] = value
        else:
            theirs[f"base.{key}"] = value
    theirs |= {"base.fc.weight": torch.zeros(1000, 2048), "base.fc.bias": torch.zeros(1000)}
    built.load_published({"state_dict": theirs, "epoch": 60, "best_top1": 0})
    headless = {key: value for key, value in theirs.items() if not key.startswith("instance")}
    assert registry.backbone("pcb").model().infer(headless, (384, 128))["options"] == {"reduced": 256}
    assert registry.backbone("pcb").model().infer(theirs, (384, 128))["options"] == {"parts": 6, "reduced": 256}


@pytest.mark.parametrize("backbone", ["mgn", "pcb"])
def test_the_imagenet_start_fills_every_copy_of_the_resnet(backbone: str, tmp_path) -> None:
    source = ResNet(Bottleneck, (3, 4, 6, 3), num_classes=10).state_dict()
    torch.save(source, tmp_path / "start.pth")
    built = build(backbone, 5, pretrained=tmp_path / "start.pth")
    last = [value for key, value in built.state_dict().items() if key.endswith("2.conv3.weight") and len(value) == 2048]
    assert len(last) == (3 if backbone == "mgn" else 1)
    assert all(torch.equal(value, source["layer4.2.conv3.weight"]) for value in last)


@pytest.mark.parametrize("backbone", [pytest.param("mgn", marks=pytest.mark.slow), "lightmbn", "pcb"])
def test_the_native_recipe_trains_a_few_steps(backbone: str) -> None:
    recipe = load(registry.backbone(backbone).native_recipe, "market1501")
    module, criterion = small(backbone).train(), ReIDCriterion(recipe.loss, 5)
    optimizer = build_optimizer(module, recipe.optimizer)
    images, pids = golden.scenes(8, 64, 32, 1), torch.arange(4).repeat_interleave(2)
    losses = []
    for _ in range(2):
        output = module(images)
        assert len(output.logits) == len(output.features) == PARTS[backbone]
        loss, _ = criterion(output, pids, 4, 2)
        optimizer.zero_grad()
        loss.backward()
        used = criterion.used(output)
        assert len(used.features) == (0 if backbone == "pcb" else 3)
        assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters() if p.requires_grad)
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] != losses[0]
    assert module.eval()(images).shape == (8, module.feature_dim)


@pytest.mark.parametrize(
    ("backbone", "epoch", "expected"),
    [
        *(("lightmbn", e, lr) for e, lr in ((1, 6e-5), (10, 6e-4), (11, 6e-4), (71, 2.963e-4), (130, 6e-7))),
        *(("mgn", e, lr) for e, lr in ((1, 2e-5), (10, 2e-4), (50, 2e-4), (51, 2e-5), (111, 2e-7))),
        *(("pcb", e, lr) for e, lr in ((1, 0.01), (40, 0.01), (41, 0.001))),
    ],
)
def test_the_native_rate_is_the_originals(backbone: str, epoch: int, expected: float) -> None:
    recipe = load(registry.backbone(backbone).native_recipe, "market1501")
    moment = {"epoch": epoch, "iteration": 0, "iterations_per_epoch": 9, "epochs": recipe.training.epochs}
    assert rate(recipe.schedule, recipe.optimizer, **moment) == pytest.approx(expected, rel=1e-3)


def test_new_layers_of_pcb_have_ten_times_the_rate() -> None:
    recipe = load(registry.backbone("pcb").native_recipe, "market1501")
    groups = parameter_groups(small("pcb"), recipe.optimizer)
    fast = {name.split(".")[0] for group in groups if group["layer_factor"] == 10 for name in group["names"]}
    assert fast == {"conv5", "classifier"}


@pytest.mark.parametrize(("height", "count"), [(24, 6), (24, 3), (16, 6), (7, 3), (3, 4)])
def test_stripes_are_those_of_adaptive_pooling(height: int, count: int) -> None:
    x = torch.randn(2, 3, height, 4)
    found = torch.stack([stripe.mean(dim=(2, 3)) for stripe in stripes(x, count)], dim=2)
    assert torch.allclose(found, F.adaptive_avg_pool2d(x, (count, 1)).squeeze(3), atol=1e-6)


@pytest.mark.parametrize(
    ("backbone", "options", "named"),
    [
        ("mgn", {"pool": "gem"}, "mgn.pool"),
        ("mgn", {"feats": 0}, "mgn.feats"),
        ("pcb", {"parts": 0}, "pcb.parts"),
        ("lightmbn", {"trunk": "vit"}, "lightmbn.trunk"),
        ("lightmbn", {"feats": -1}, "lightmbn.feats"),
        ("lightmbn", {"size": (32, 12)}, "at least 13 pixels per side, found 32x12"),
    ],
)
def test_options_that_do_not_fit_are_refused(backbone: str, options: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named), torch.device("meta"):
        build(backbone, **options)
