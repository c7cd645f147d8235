"""OSNet and OSNet-AIN have the features, training outputs, parameter counts and checkpoints of the original code."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from backbones.osnet import model as osnet
from harness import registry
from harness.errors import UsageError, WeightsError
from harness.spec.recipe import load
from harness.training.optim import rate
from harness.weights import wanted
from tests.support import golden_weights as golden

ENTRY = registry.backbone("osnet")
GOLDEN = ("osnet_x1_0", "osnet_x0_25", "osnet_ibn_x1_0", "osnet_ain_x1_0")
SMALLEST = "osnet_x0_25"


def official(arch: str) -> dict[str, torch.Tensor]:
    return golden.state(golden.shapes("osnet")[arch], seed=2)


@cache
def module(arch: str) -> osnet.OSNet:
    with golden.without_start():
        built = osnet.build(num_classes=751, num_cameras=6, image_size=(256, 128), arch=arch)
    built.load_published(official(arch))
    return built


def small(classes: int = 5, arch: str = SMALLEST, image_size: tuple[int, int] = (64, 32), **options) -> osnet.OSNet:
    return osnet.build(num_classes=classes, num_cameras=0, image_size=image_size, arch=arch, **options)


@pytest.mark.parametrize("arch", GOLDEN)
def test_test_time_features_are_the_originals(arch):
    expected = golden.values("osnet")
    for name, images in (("feat", golden.images), ("feat_scene", golden.scenes)):
        with torch.no_grad():
            found = module(arch).eval()(images(2, 256, 128, 3))
        assert found.shape == (2, ENTRY.card.feature_dim)
        assert golden.difference(found, expected[f"{arch}.{name}"]) < 1e-5


@pytest.mark.parametrize("arch", GOLDEN)
def test_training_outputs_are_the_originals(arch):
    expected = golden.values("osnet")
    with torch.no_grad():
        output = module(arch).train()(golden.scenes(8, 256, 128, 4))
    module(arch).load_published(official(arch))  # training moved the running statistics
    # Batch norm over eight images amplifies rounding: the original's own float32 is 8e-5 from its float64.
    assert golden.relative(output.features[0], expected[f"{arch}.trainfeat_scene"]) < 2e-4
    assert golden.relative(output.logits[0], expected[f"{arch}.score_scene"]) < 2e-4


@pytest.mark.parametrize("arch", GOLDEN)
def test_every_entry_of_the_official_file_has_its_place(arch):
    found = {key: list(value.shape) for key, value in module(arch).state_dict().items()}
    assert found == golden.shapes("osnet")[arch]


@pytest.mark.parametrize("count", ENTRY.card.parameters, ids=lambda c: c.options.get("arch", "osnet_x1_0"))
def test_parameter_counts_of_the_card_are_exact(count):
    with torch.device("meta"):
        built = ENTRY.build(num_classes=count.num_classes, num_cameras=6, image_size=(256, 128), **count.options)
    assert sum(p.numel() for p in built.parameters()) == count.count


def test_the_card_counts_every_architecture():
    counted = {count.options.get("arch", "osnet_x1_0") for count in ENTRY.card.parameters}
    named = {variant.options["arch"] for variant in ENTRY.card.variants.values()}
    assert counted == named | {"osnet_x1_0"} == set(osnet.ARCHS)


@pytest.mark.parametrize("arch", osnet.ARCHS)
def test_what_the_module_needs_is_read_off_a_checkpoint(arch):
    with torch.device("meta"), golden.without_start():
        state = small(7, arch).state_dict()
    found = osnet.infer({"state_dict": state, "rank1": 0.9, "epoch": 150}, (256, 128))
    assert found == {"num_classes": 7, "num_cameras": 0, "options": {"arch": arch}}


def test_other_checkpoints_are_refused():
    with pytest.raises(WeightsError, match="no checkpoint of OSNet"):
        osnet.infer({"base.conv1.weight": torch.zeros(16, 3, 7, 7)}, (256, 128))
    wrong = small().state_dict()
    del wrong["conv2.0.gate.fc1.weight"]
    with pytest.raises(WeightsError, match=r"missing: conv2\.0\.gate\.fc1\.weight"):
        small().load_published(wrong)


def test_a_file_of_torchreid_loads_without_its_classifier(tmp_path):
    trained = {f"module.{key}": value for key, value in small(9).state_dict().items()}
    torch.save({"state_dict": trained, "epoch": 150, "rank1": 0.912, "optimizer": {}}, tmp_path / "model.pth.tar-150")
    state = torch.load(tmp_path / "model.pth.tar-150", weights_only=True)
    built = small(5)
    with pytest.raises(WeightsError, match=r"misshaped: classifier"):
        built.load_published(state)
    built.eval().load_published(state)
    assert torch.equal(built.conv1.conv.weight, trained["module.conv1.conv.weight"])


def test_the_imagenet_start_fills_all_but_the_classifier(tmp_path):
    source = small(1000).state_dict()
    torch.save(source, tmp_path / "start.pth")
    built = small(1000, pretrained=tmp_path / "start.pth")
    same = {key for key, value in built.state_dict().items() if torch.equal(value, source[key])}
    assert source.keys() - same == {"classifier.weight"}


def test_each_architecture_has_its_own_starting_file():
    names = [wanted(ENTRY.card, {"arch": arch}).files for arch in osnet.ARCHS]
    assert names == [(f"{arch}_imagenet.pth",) for arch in osnet.ARCHS]


@pytest.mark.parametrize(
    ("variant", "epoch", "expected"),
    [("", 60, 0.0015), ("", 61, 0.00015), ("x0_25", 80, 0.003), ("x0_25", 161, 3e-5), ("ain_x1_0", 51, 0.00075)],
)
def test_the_native_rate_is_that_of_torchreid(variant, epoch, expected):
    keys = ENTRY.card.variants[variant].native if variant else {}
    recipe = load(ENTRY.native_recipe, "market1501", keys)
    moment = {"epoch": epoch, "iteration": 0, "iterations_per_epoch": 9, "epochs": recipe.training.epochs}
    found = rate(recipe.schedule, recipe.optimizer, **moment)
    assert found == pytest.approx(expected)


def test_training_moves_every_parameter():
    built = small(arch="osnet_ain_x0_25").train()
    output = built(golden.scenes(8, 64, 32, 1))
    torch.nn.functional.cross_entropy(output.logits[0], torch.arange(8) % 5).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in built.parameters())


def test_an_unknown_architecture_is_refused():
    with pytest.raises(UsageError, match=r"osnet\.arch must be one of"):
        small(arch="osnet_x2_0")


def test_images_that_would_shrink_to_nothing_are_refused():
    assert small(image_size=(13, 13)).eval()(torch.zeros(1, 3, 13, 13)).shape == (1, 512)
    with pytest.raises(UsageError, match="at least 13 pixels per side, found 64x12"):
        small(image_size=(64, 12))
