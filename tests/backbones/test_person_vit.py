"""TransReID-SSL, PersonViT and PASS have the outputs, parameter counts and checkpoints of their original code.

The golden values of 256x128 images are described in `tests/golden`. Those of options (`ssl.*`, `pv.*`, `pass.*_*`) come
from the original code with the same weights and four scenes of 64x32 pixels, cameras 0, 1, 4 and 5; every fifth logit.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from backbones import person_vit
from harness import registry
from harness.errors import UsageError, WeightsError
from harness.spec.recipe import load
from harness.training.optim import rate
from harness.weights import wanted
from tests.support import golden_weights as golden

NETWORKS = {"patch": ("transreid-ssl", {}), "ics": ("transreid-ssl", {"stem": "ics"}), "pass": ("pass", {})}
"""Backbone and options of the golden networks. That of PersonViT is `patch`."""

OPTIONS = {
    "ssl.sie": ("transreid-ssl", "patch", {"camera_embedding": True}),
    "pv.gem": ("personvit", "patch", {"pool": "gem"}),
    "pv.avg": ("personvit", "patch", {"pool": "avg"}),
    "pv.avgmax": ("personvit", "patch", {"pool": "avgmax"}),
    "pass.mean_multi": ("pass", "pass", {"part_fusion": "mean"}),
    "pass.cat_single": ("pass", "pass", {"necks": "single"}),
    "pass.mean_single": ("pass", "pass", {"part_fusion": "mean", "necks": "single"}),
}
"""Backbone, keys and options of golden values for small images."""

CAMERAS = torch.tensor([0, 1, 4, 5])
TRIO = ("transreid-ssl", "personvit", "pass")


def build(name: str, image_size: tuple[int, int] = (64, 32), classes: int = 751, **options: Any) -> Any:
    with golden.without_start():
        return registry.backbone(name).build(num_classes=classes, num_cameras=6, image_size=image_size, **options)


def tiny(name: str, classes: int = 5, **options: Any) -> Any:
    return registry.backbone(name).build(
        num_classes=classes, num_cameras=6, image_size=(64, 32), size="tiny", **options
    )


@cache
def expected() -> dict[str, torch.Tensor]:
    return golden.values("person_vit")


@cache
def network(key: str) -> Any:
    name, options = NETWORKS[key]
    built = build(name, (256, 128), drop_path=0.0, **options)
    built.load_published(golden.state(golden.shapes("person_vit")[key], seed=2))
    return built


@pytest.mark.parametrize("key", NETWORKS)
def test_test_time_features_are_the_originals(key):
    module = network(key).eval()
    with torch.no_grad():
        assert golden.difference(module(golden.images(2, 256, 128, 3)), expected()[f"{key}.feat_before"]) < 1e-5
        module.neck_feature = "after"
        assert golden.difference(module(golden.scenes(2, 256, 128, 3)), expected()[f"{key}.feat_after_scene"]) < 1e-5
    module.neck_feature = "before"


@pytest.mark.parametrize("key", NETWORKS)
def test_training_outputs_are_the_originals(key):
    module = network(key)
    before = {name: value.clone() for name, value in module.named_buffers()}
    with torch.no_grad():
        output = module.train()(golden.scenes(8, 256, 128, 4))
    for name, value in module.named_buffers():  # training moved the running statistics
        value.copy_(before[name])
    assert golden.relative(output.features[0], expected()[f"{key}.trainfeat_scene"]) < 1e-5
    assert golden.relative(output.logits[0][:, ::3], expected()[f"{key}.score_scene"]) < 1e-4


@pytest.mark.parametrize("case", OPTIONS)
def test_options_are_the_originals(case):
    name, _, options = OPTIONS[case]
    module = build(name, drop_path=0.0, **options)
    shapes = {key: value.shape for key, value in module.state_dict().items()}
    module.load_published(golden.state(shapes, seed=2))
    scenes = golden.scenes(4, 64, 32, 3)
    with torch.no_grad():
        assert golden.difference(module.eval()(scenes, CAMERAS), expected()[f"{case}.before"]) < 1e-5
        module.neck_feature = "after"
        assert golden.difference(module(scenes, CAMERAS), expected()[f"{case}.after"]) < 1e-5
        output = module.train()(scenes, CAMERAS)
    assert golden.relative(output.logits[0][:, ::5], expected()[f"{case}.score"]) < 1e-4


@pytest.mark.parametrize("key", NETWORKS)
def test_only_the_imagenet_head_of_the_official_file_has_no_place(key):
    official = golden.shapes("person_vit")[key]
    found = {name: list(value.shape) for name, value in network(key).state_dict().items()}
    assert official == found | {"base.fc.weight": [1000, 384], "base.fc.bias": [1000]}


@pytest.mark.parametrize("name", TRIO)
def test_parameter_counts_of_the_card_are_exact(name):
    for count in registry.backbone(name).card.parameters:
        with torch.device("meta"):
            built = build(name, count.image_size, **count.options)
        assert sum(p.numel() for p in built.parameters()) == count.count


@pytest.mark.parametrize("name", TRIO)
@pytest.mark.parametrize("given", [{}, {"size": "base"}, {"stride": 12}])
def test_what_the_module_needs_is_read_off_a_checkpoint(name, given):
    with torch.device("meta"):
        built = build(name, (256, 128), classes=7, **given)
    infer = registry.backbone(name).model().infer
    found = infer({"state_dict": built.state_dict()}, (256, 128))
    assert found["num_classes"] == 7
    options = registry.backbone(name).options(given)
    assert {**options, **found["options"]} == options


def test_a_checkpoint_says_which_network_it_belongs_to():
    def infer(name: str, of: str, **options: Any) -> Any:
        with torch.device("meta"):
            state = build(of, **options).state_dict()
        return registry.backbone(name).model().infer(state, (64, 32))

    assert infer("transreid-ssl", "transreid-ssl", stem="ics")["options"]["stem"] == "ics"
    assert infer("transreid-ssl", "transreid-ssl", camera_embedding=True)["num_cameras"] == 6
    for part_fusion in ("cat", "mean"):
        for necks in ("multi", "single"):
            found = infer("pass", "pass", part_fusion=part_fusion, necks=necks)["options"]
            assert (found["part_fusion"], found["necks"]) == (part_fusion, necks)
    with pytest.raises(WeightsError, match="checkpoint of PASS"):
        infer("transreid-ssl", "pass")
    with pytest.raises(WeightsError, match="no checkpoint of PASS"):
        infer("pass", "personvit")
    with pytest.raises(WeightsError, match="checkpoint of TransReID-SSL"):
        infer("personvit", "transreid-ssl", stem="ics")
    with pytest.raises(WeightsError, match="no checkpoint of such a transformer"):
        infer("personvit", "bot")


@pytest.mark.parametrize("name", TRIO)
def test_other_classifier_passes_in_evaluation_only(name):
    state = tiny(name, classes=9).state_dict()
    with pytest.raises(WeightsError, match="misshaped: classifier"):
        tiny(name).load_published(state)
    tiny(name).eval().load_published(state)
    del state["base.norm.weight"]
    with pytest.raises(WeightsError, match=r"missing: base\.norm\.weight"):
        tiny(name).eval().load_published(state)


@pytest.mark.parametrize(
    ("case", "old", "grid", "prefix"),
    [
        ("ssl_256_to_384", 129, (24, 8), 1),
        ("ssl_256_to_stride12", 129, (21, 10), 1),
        ("ssl_square_to_256", 197, (16, 8), 1),
        ("pass_256_to_384", 128, (24, 8), 0),
    ],
)
def test_positions_are_resized_as_in_the_originals(case, old, grid, prefix):
    positions = golden.tensor("pos_embed", (1, old, 8), seed=1)
    found = person_vit.resize_positions(positions, grid, prefix)
    assert golden.difference(found, expected()[case]) < 1e-6


def test_positions_of_no_grid_are_refused():
    with pytest.raises(WeightsError, match="no grid of a starting file"):
        person_vit.resize_positions(torch.zeros(1, 12, 8), (16, 8), 1)


@pytest.mark.parametrize("name", TRIO)
def test_a_teacher_of_self_supervised_training_is_the_start(name, tmp_path):
    source = tiny(name).base.state_dict()
    teacher = {f"module.backbone.{key}": value for key, value in source.items()}
    teacher |= {"module.backbone.masked_embed": torch.zeros(1, 192), "module.head.mlp.0.weight": torch.zeros(3, 192)}
    loss = np.float64(3.2)
    torch.save({"student": teacher, "teacher": teacher, "epoch": 100, "loss": loss}, tmp_path / "start.pth")
    built = tiny(name, pretrained=tmp_path / "start.pth")
    assert all(torch.equal(value, source[key]) for key, value in built.base.state_dict().items())
    torch.save({"model": {"conv1.weight": torch.zeros(3)}}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="share no key"):
        tiny(name, pretrained=tmp_path / "other.pth")


@pytest.mark.parametrize(
    ("name", "given", "file"),
    [
        ("transreid-ssl", {}, "vit_small_cfs_lup.pth"),
        ("transreid-ssl:ics", {}, "vit_small_ics_cfs_lup.pth"),
        ("transreid-ssl:base-ics-384", {}, "vit_base_ics_cfs_lup.pth"),
        ("pass:base", {}, "pass_vit_base_full.pth"),
        ("personvit:base", {}, "vitb.lup.256x128.wopt.csk.4-8.ar.375.n8.pth"),
    ],
)
def test_each_variant_has_its_starting_file(name, given, file):
    entry = registry.backbone(name)
    assert wanted(entry.card, entry.options(given)).files == (file,)


def test_personvit_is_on_the_hub():
    entry = registry.backbone("personvit")
    folder = "vits.lup.256x128.wopt.csk.4-8.ar.375.n8"
    assert wanted(entry.card, entry.options()).hub == f"lakeAGI/PersonViT:{folder}/checkpoint0220.pth"


@pytest.mark.parametrize("name", TRIO)
@pytest.mark.parametrize(
    ("epoch", "weights", "biases"),
    [
        (1, 4e-6, 4e-6),
        (2, 2.38e-5, 4.38e-5),
        (20, 3.802e-4, 7.602e-4),
        (21, 3.7326e-4, 7.4646e-4),
        (60, 2.0562e-4, 4.1086e-4),
        (120, 8.684e-7, 9.369e-7),
    ],
)
def test_the_native_rate_is_the_originals(name, epoch, weights, biases):
    recipe = load(registry.backbone(name).native_recipe, "market1501")
    moment = {"epoch": epoch, "iteration": 0, "iterations_per_epoch": 9, "epochs": recipe.training.epochs}
    for is_bias, value in ((False, weights), (True, biases)):
        found = rate(recipe.schedule, recipe.optimizer, **moment, is_bias=is_bias)
        assert found == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "options"), [("transreid-ssl", {"stem": "ics", "camera_embedding": True}), ("pass", {})]
)
def test_training_moves_every_parameter(name, options):
    built = tiny(name, drop_path=0.0, **options).train()
    output = built(golden.scenes(4, 64, 32, 1), torch.arange(4))
    torch.nn.functional.cross_entropy(output.logits[0], torch.arange(4)).backward()
    trained = {name: p.grad for name, p in built.named_parameters() if p.requires_grad}
    assert not [name for name, grad in trained.items() if grad is None or not grad.isfinite().all()]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("personvit", {"size": "huge"}, "size must be one of"),
        ("personvit", {"pool": "max"}, "pool must be one of"),
        ("personvit", {"neck_feature": "both"}, "neck_feature must be"),
        ("transreid-ssl", {"stem": "conv"}, "stem must be"),
        ("transreid-ssl", {"stem": "ics", "stride": 12}, "fixed stride of 16"),
        ("pass", {"part_fusion": "sum"}, "part_fusion must be"),
        ("pass", {"necks": "two"}, "necks must be"),
        ("personvit", {"pool": "avgmax", "image_size": (32, 16)}, "needs at least 4 patches, found 2"),
        ("transreid-ssl", {"stem": "ics", "image_size": (32, 15)}, "no patch of 16x16"),
    ],
)
def test_options_that_do_not_fit_are_refused(name, options, message):
    with pytest.raises(UsageError, match=message):
        build(name, **options)


@pytest.mark.parametrize("image_size", [(63, 33), (65, 30), (79, 47)])
def test_the_stem_has_as_many_positions_as_patches(image_size):
    built = build("transreid-ssl", image_size, classes=5, size="tiny", stem="ics").eval()
    assert built(torch.zeros(1, 3, *image_size)).shape == (1, 192)


def test_images_of_another_size_are_refused():
    with pytest.raises(UsageError, match="built for images of 64x32, found 32x32"):
        tiny("transreid-ssl", stem="ics")(torch.zeros(1, 3, 32, 32))


def test_the_network_of_pass_can_be_imported_though_its_name_is_a_keyword():
    assert importlib.import_module("backbones.pass.model").PARTS == 3


@pytest.mark.parametrize(("name", "options"), [("transreid-ssl", {"stem": "ics", "pool": "gem"}), ("pass", {})])
def test_the_network_can_be_exported_for_batches_of_any_size(name, options):
    built = tiny(name, **options).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(built, (torch.randn(2, 3, 64, 32), None), dynamic_shapes=({0: batch}, None))
    images = torch.randn(5, 3, 64, 32)
    with torch.no_grad():
        assert torch.allclose(exported.module()(images, None), built(images, None), atol=1e-5)
