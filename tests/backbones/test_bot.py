"""The strong baseline has the features, training outputs, parameter counts and checkpoints of the original code."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from timm.models.resnet import Bottleneck, ResNet
from torch import nn

from backbones.bot import model as bot
from harness import registry
from harness.errors import UsageError, WeightsError
from harness.spec.recipe import load
from harness.training.optim import parameter_groups
from tests.support import golden_weights as golden

ENTRY = registry.backbone("bot")


@pytest.fixture(scope="module")
def official() -> dict[str, torch.Tensor]:
    return golden.state(golden.shapes("bot")["shapes"], seed=2)


@pytest.fixture(scope="module")
def module(official) -> bot.BagOfTricks:
    with golden.without_start():
        built = ENTRY.build(num_classes=751, num_cameras=6, image_size=(256, 128))
    built.load_published(official)
    return built


def tiny(**options) -> bot.BagOfTricks:
    return bot.build(num_classes=5, num_cameras=0, image_size=(64, 32), width="tiny", **options)


@pytest.mark.parametrize("neck_feature", ["before", "after"])
def test_test_time_features_are_the_originals(module, neck_feature):
    module.neck_feature = neck_feature
    with torch.no_grad():
        found = module.eval()(golden.images(2, 256, 128, 3))
    module.neck_feature = "after"
    assert found.shape == (2, ENTRY.card.feature_dim) == (2, module.feature_dim)
    assert golden.difference(found, golden.values("bot")[f"feat_{neck_feature}"]) < 1e-5


def test_training_outputs_are_the_originals(module, official):
    expected = golden.values("bot")
    with torch.no_grad():
        output = module.train()(golden.images(4, 256, 128, 4))
    module.load_published(official)  # training moved the running statistics
    assert len(output.logits) == len(output.features) == 1
    assert golden.relative(output.features[0], expected["trainfeat"]) < 1e-4
    # Batch norm over four images amplifies rounding: in float64 these logits differ from the golden ones by 1.3e-4.
    assert golden.relative(output.logits[0], expected["score"]) < 3e-4


def test_the_network_is_the_originals_with_its_quirks(module):
    assert isinstance(module.base.act1, nn.Identity)
    assert module.base.maxpool.kernel_size == 3
    strides = {name: part.stride for name, part in module.base.named_modules() if isinstance(part, nn.Conv2d)}
    assert strides["layer4.0.conv2"] == strides["layer4.0.downsample.0"] == (1, 1)
    assert strides["layer3.0.conv2"] == strides["layer3.0.downsample.0"] == (2, 2)
    assert strides["layer3.0.conv1"] == (1, 1)
    assert {p.dilation for p in module.base.modules() if isinstance(p, nn.Conv2d)} == {(1, 1)}
    with torch.no_grad():
        assert module.eval().base.forward_features(torch.zeros(1, 3, 256, 128)).shape == (1, 2048, 16, 8)
    assert not module.bottleneck.bias.requires_grad
    assert module.classifier.bias is None


def test_every_entry_of_the_official_file_has_its_place(module):
    official = golden.shapes("bot")["shapes"]
    assert {key: list(value.shape) for key, value in module.state_dict().items()} == official
    assert len(official) == 324


@pytest.mark.parametrize("count", ENTRY.card.parameters, ids=lambda c: str(c.count))
def test_parameter_counts_of_the_card_are_exact(count):
    with torch.device("meta"):
        built = ENTRY.build(
            num_classes=count.num_classes,
            num_cameras=count.num_cameras,
            image_size=count.image_size,
            **count.options,
        )
    assert sum(p.numel() for p in built.parameters()) == count.count
    assert sum(p.numel() for p in built.parameters() if not p.requires_grad) == 2048


def test_the_card_counts_what_the_original_counts():
    assert 25_050_176 in {count.count for count in ENTRY.card.parameters}


def test_what_the_module_needs_is_read_off_a_checkpoint(official):
    assert bot.infer({"model": official}, (256, 128)) == {
        "num_classes": 751,
        "num_cameras": 0,
        "options": {"width": "resnet50"},
    }
    assert bot.infer(tiny().state_dict(), (64, 32))["options"] == {"width": "tiny"}
    with pytest.raises(WeightsError, match="no checkpoint of the ResNet-50"):
        bot.infer({"base.pos_embed": torch.zeros(1)}, (256, 128))


@pytest.mark.parametrize("wrap", ["bare", "model", "state_dict", "module."])
def test_every_form_of_checkpoint_is_read(wrap):
    built = tiny()
    official = golden.state({key: value.shape for key, value in built.state_dict().items()}, seed=4)
    given = {f"module.{key}" if wrap == "module." else key: value for key, value in official.items()}
    built.load_published(given if wrap in ("bare", "module.") else {wrap: given})
    assert all(torch.equal(value, official[key]) for key, value in built.state_dict().items())


def test_a_wrong_checkpoint_is_refused_by_its_keys():
    wrong = tiny().state_dict()
    del wrong["base.bn1.weight"]
    wrong |= {"base.fc.weight": torch.zeros(1), "base.conv1.weight": torch.zeros(64, 3, 3, 3)}
    with pytest.raises(WeightsError) as caught:
        tiny().load_published(wrong)
    for part in ("missing: base.bn1.weight", "unexpected: base.fc.weight", "misshaped: base.conv1.weight"):
        assert part in str(caught.value)


def test_other_classifier_passes_in_evaluation_only():
    other = {key: value[:3] if key == "classifier.weight" else value for key, value in tiny().state_dict().items()}
    with pytest.raises(WeightsError, match=r"classifier\.weight"):
        tiny().load_published(other)
    tiny().eval().load_published(other)


def test_the_imagenet_start_fills_the_resnet_and_leaves_the_neck(tmp_path: Path):
    source = ResNet(Bottleneck, (1, 1, 1, 1), channels=(16, 32, 64, 128), num_classes=10).state_dict()
    torch.save(source, tmp_path / "start.pth")
    built = tiny(pretrained=tmp_path / "start.pth")
    assert all(torch.equal(value, source[key]) for key, value in built.base.state_dict().items())
    assert float(built.bottleneck.weight.detach().min()) == 1
    torch.save({"pos_embed": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="missing"):
        tiny(pretrained=tmp_path / "other.pth")


def test_all_parameters_decay_at_one_rate_as_in_the_original():
    groups = parameter_groups(tiny(), load(ENTRY.native_recipe).optimizer)
    assert {(group["lr"], group["weight_decay"]) for group in groups} == {(3.5e-4, 5e-4)}
    assert "bottleneck.bias" not in {name for group in groups for name in group["names"]}


@pytest.mark.parametrize(
    ("options", "named"), [({"neck_feature": "none"}, "neck_feature"), ({"width": "r18"}, "width")]
)
def test_options_that_do_not_fit_are_refused(options, named):
    with pytest.raises(UsageError, match=named):
        bot.build(num_classes=5, num_cameras=0, image_size=(64, 32), **options)
