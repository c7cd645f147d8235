"""The adapter for timm models: input from the configuration, pooled features, refusals with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
import torchvision

from backbones.timm import model as adapter
from harness import registry, weights
from harness.contracts import TrainingOutput
from harness.errors import UsageError, WeightsError
from tests.support import golden_weights as golden


def build(name: str, image_size=(64, 32), **options) -> adapter.PooledModel:
    return registry.backbone(f"timm:{name}").build(num_classes=5, num_cameras=0, image_size=image_size, **options)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_convnext"])
def test_features_are_the_models_pooled_ones(name):
    built = build(name, neck_feature="before").eval()
    images = golden.images(2, 64, 32, 1)
    with torch.no_grad():
        pooled = built.base.forward_head(built.base.forward_features(images), pre_logits=True)
        assert torch.equal(built(images), pooled)
        built.neck_feature = "after"
        assert torch.equal(built(images), built.bottleneck(pooled))
        output = built.train()(images)
    assert isinstance(output, TrainingOutput)
    assert output.logits[0].shape == (2, 5)
    assert output.features[0].shape == (2, built.feature_dim)
    assert not built.bottleneck.bias.requires_grad


def test_input_is_that_of_the_pretrained_configuration():
    card = adapter.input_card("vit_base_patch16_224.orig_in21k_ft_in1k")
    assert (card.image_size, card.mean, card.std) == ((224, 224), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    card = adapter.input_card("resnet50.tv_in1k")
    assert card.mean == (0.485, 0.456, 0.406)


def test_unknown_models_and_tags_are_refused_with_the_nearest():
    with pytest.raises(UsageError, match="Did you mean 'resnet50'"):
        adapter.input_card("resnet_50")
    with pytest.raises(UsageError, match=r"no weights tagged 'tv_in2k'.*Did you mean 'tv_in1k'"):
        build("resnet18.tv_in2k")
    with pytest.raises(UsageError, match=r"'tv_resnet50' is now called 'resnet50.tv_in1k'"):
        build("tv_resnet50")
    with pytest.raises(UsageError, match="Did you mean 'resnet18'"):
        build("hf_hub:timm/ResNet18")
    with pytest.raises(UsageError, match="Name a timm model"):
        adapter.build(num_classes=5, num_cameras=0, image_size=(64, 32))


def test_model_that_cannot_take_the_size_is_refused():
    with pytest.raises(UsageError, match=r"cannot take images of 250x120: .*must match.*pretrained at 224x224"):
        build("efficientformer_l1", (250, 120))


def test_weights_of_a_model_load_without_classifier(tmp_path: Path):
    source = timm.create_model("test_resnet")
    torch.save(source.state_dict(), tmp_path / "test_resnet.r160_in1k.pth")
    entry = registry.backbone("timm:test_resnet.r160_in1k")
    found = weights.locate(entry.card, tmp_path, entry.options())
    assert found == tmp_path / "test_resnet.r160_in1k.pth"
    built = build("test_resnet.r160_in1k", pretrained=found)
    own = source.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in built.base.state_dict().items())
    assert built.base.state_dict().keys() == build("test_resnet").base.state_dict().keys()
    with pytest.raises(WeightsError, match="does not fit timm model 'test_vit'"):
        build("test_vit", pretrained=found)


@pytest.mark.parametrize("classes", [0, 7])
def test_classifier_may_be_absent_or_over_other_classes(tmp_path: Path, classes):
    source = timm.create_model("test_resnet", num_classes=classes)
    torch.save(source.state_dict(), tmp_path / "file.pth")
    own = build("test_resnet", pretrained=tmp_path / "file.pth").base.state_dict()
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in own.items())


@pytest.mark.parametrize(("theirs", "ours"), [("resnet18", "resnet18"), ("regnet_y_400mf", "regnety_004")])
def test_torchvisions_names_are_taken_where_timm_converts_them(tmp_path: Path, theirs, ours):
    torch.manual_seed(0)
    source = torchvision.models.get_model(theirs, weights=None).eval()
    torch.save(source.state_dict(), tmp_path / "file.pth")
    source.fc = torch.nn.Identity()
    built = build(ours, pretrained=tmp_path / "file.pth", neck_feature="before").eval()
    with torch.no_grad():
        assert torch.allclose(built(images := golden.images(2, 64, 32, 1)), source(images), rtol=1e-4, atol=1e-5)


def test_a_file_that_does_not_fit_names_a_few_keys_of_both_sides(tmp_path: Path):
    torch.save(torchvision.models.get_model("mobilenet_v2", weights=None).state_dict(), tmp_path / "file.pth")
    with pytest.raises(WeightsError, match="They share no key") as caught:
        build("mobilenetv2_100", pretrained=tmp_path / "file.pth")
    for part in ("missing: conv_stem.weight, bn1.weight", "unexpected: features.0.0.weight", "mobilenetv2_100"):
        assert part in str(caught.value)
    assert len(str(caught.value)) < 600
    torch.save(timm.create_model("test_resnet").state_dict() | {"more.weight": torch.ones(1)}, tmp_path / "file.pth")
    with pytest.raises(WeightsError, match=r"1 unexpected: more\.weight"):
        build("test_resnet", pretrained=tmp_path / "file.pth")


def test_positions_of_a_transformer_are_resized_to_the_image(tmp_path: Path):
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "file.pth")
    assert build("test_vit", (128, 64), pretrained=tmp_path / "file.pth").base.pos_embed.shape[1] == 8 * 4 + 1


def test_what_timm_does_not_decay_is_named_below_base():
    named = build("test_vit").no_weight_decay()
    assert "base.pos_embed" in named
    assert named <= dict(build("test_vit").named_parameters()).keys()


def test_own_checkpoints_are_read_back_strictly():
    built = build("test_resnet")
    state = {key: value + 1 for key, value in built.state_dict().items()}
    built.load_published({"model": state})
    assert torch.equal(built.classifier.weight, state["classifier.weight"])
    assert adapter.infer(state, (64, 32))["num_classes"] == 5
    del state["base.bn1.weight"]
    with pytest.raises(WeightsError):
        built.load_published(state)
