"""AGW and ResNet-50-IBN have the outputs, parameter counts and checkpoints of the original code."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from timm.models.resnet import Bottleneck, ResNet
from torch import nn

from backbones.agw import model as agw
from harness import registry
from harness.errors import UsageError, WeightsError
from harness.spec.recipe import load
from harness.training.optim import rate
from harness.weights import wanted
from tests.support import golden_weights as golden

ENTRY = registry.backbone("agw")
OPTIONS = {"agw": {}, "ibn": {"non_local": False, "ibn": True}}


def build(classes: int = 751, **options) -> agw.AGW:
    with golden.without_start():
        return agw.build(num_classes=classes, num_cameras=6, image_size=(256, 128), **options)


@cache
def module(case: str) -> agw.AGW:
    built = build(**OPTIONS[case])
    built.load_published(golden.state(golden.shapes("agw")[case], seed=2))
    return built


@pytest.mark.parametrize("case", OPTIONS)
def test_outputs_are_the_originals(case):
    expected, built = golden.values("agw"), module(case).eval()
    with torch.no_grad():
        assert golden.difference(built(golden.images(2, 256, 128, 3)), expected[f"{case}.feat_after"]) < 1e-5
        built.neck_feature = "before"
        found = built(golden.scenes(2, 256, 128, 3))
        assert golden.difference(found, expected[f"{case}.feat_before_scene"]) < 1e-5
        output = built.train()(golden.scenes(8, 256, 128, 4))
    built.neck_feature = "after"
    assert golden.relative(output.features[0][:, ::8], expected[f"{case}.trainfeat_scene"]) < 1e-4
    # Batch norm over eight images amplifies rounding: the original's own float32 is 7e-5 from its float64.
    assert golden.relative(output.logits[0][:, ::5], expected[f"{case}.score_scene"]) < 2e-4


@pytest.mark.parametrize("case", OPTIONS)
def test_every_entry_of_the_official_file_has_its_place(case):
    official = golden.shapes("agw")[case]
    found = {key: list(value.shape) for key, value in module(case).state_dict().items()}
    dead = {"base.fc.weight": [1000, 2048], "base.fc.bias": [1000]} if case == "ibn" else {}
    assert official == found | dead


def test_parameter_counts_of_the_card_are_exact():
    for count in ENTRY.card.parameters:
        with torch.device("meta"):
            built = build(**count.options)
        assert sum(p.numel() for p in built.parameters()) == count.count


@pytest.mark.parametrize("options", [{}, {"non_local": False}, {"ibn": True}, {"pool": "avg"}])
def test_what_the_module_needs_is_read_off_a_checkpoint(options):
    with torch.device("meta"):
        state = build(9, **options).state_dict()
        found = agw.infer(state, (256, 128))
        assert found["num_classes"] == 9
        assert found["options"] == {"non_local": True, "ibn": False, "pool": "gem"} | options
        other = build(5, **options)
        with pytest.raises(WeightsError, match="misshaped: classifier"):
            other.load_published(state)
        other.eval().load_published(state)
    with pytest.raises(WeightsError, match="no checkpoint of AGW"):
        agw.infer({"base.pos_embed": torch.zeros(1)}, (256, 128))


def test_the_imagenet_start_fills_the_resnet_and_non_local_blocks_begin_as_identity(tmp_path):
    source = ResNet(Bottleneck, (3, 4, 6, 3), num_classes=10).state_dict()
    torch.save(source, tmp_path / "start.pth")
    built = agw.build(num_classes=5, num_cameras=0, image_size=(256, 128), pretrained=tmp_path / "start.pth")
    own = built.base.state_dict()
    assert all(torch.equal(own[key], value) for key, value in source.items() if not key.startswith("fc."))
    block = built.base.get_submodule("NL_2.0").eval()
    x = torch.randn(1, 512, 4, 2)
    assert torch.equal(block(x), x)
    assert float(built.global_pool.p.detach()) == 3
    with pytest.raises(WeightsError, match=r"missing: layer1\.0\.bn1\.IN"):
        build(pretrained=tmp_path / "start.pth", ibn=True)


def test_each_variant_has_its_starting_file():
    names = {name: wanted(ENTRY.card, registry.backbone(name).options()).files[-1] for name in ("agw", "agw:ibn")}
    assert names == {"agw": "resnet50.tv_in1k.pth", "agw:ibn": "resnet50_ibn_a-d9d0bb7b.pth"}


def test_the_stem_has_a_relu_only_with_half_instance_norm():
    assert isinstance(module("agw").base.act1, nn.Identity)
    assert isinstance(module("ibn").base.act1, nn.ReLU)


@pytest.mark.parametrize(("options", "named"), [({"pool": "max"}, "pool"), ({"neck_feature": "none"}, "neck_feature")])
def test_options_that_do_not_fit_are_refused(options, named):
    with pytest.raises(UsageError, match=named):
        build(**options)


@pytest.mark.parametrize(
    ("epoch", "expected"), [(1, 3.815e-5), (5, 1.7675e-4), (10, 3.5e-4), (40, 3.5e-5), (70, 3.5e-6)]
)
def test_the_native_recipe_is_the_originals(epoch, expected):
    recipe = load(ENTRY.native_recipe, "market1501")
    found = rate(recipe.schedule, recipe.optimizer, epoch=epoch, iteration=0, iterations_per_epoch=9, epochs=120)
    assert found == pytest.approx(expected)
    assert (recipe.loss.triplet_kind, recipe.loss.center) == ("weighted", 0.0005)
