"""SOLIDER has the outputs, parameter counts and checkpoints of its original code.

The golden values of Swin-S come from images of 384x128. Those of Swin-T come from the original code with the same
weights and two images of 96x64 or 100x50 pixels, for several semantic weights. At 100x50, every map has an odd side.
"""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from backbones.solider import model as solider
from backbones.solider.swin import HIDDEN, SIZES, shift_mask
from harness import registry
from harness.errors import UsageError, WeightsError
from harness.losses import ReIDCriterion
from harness.planning.request import Request, load_recipe
from harness.spec.recipe import load
from harness.training.optim import rate
from harness.weights import wanted
from tests.support import golden_weights as golden

ENTRY = registry.backbone("solider")
CASES = {"weight_0": 0.0, "weight_1": 1.0, "off": "off", "odd": 0.2}
"""Golden values of Swin-T, and their semantic weight."""


def build(image_size: tuple[int, int], classes: int = 751, **options: Any) -> solider.SOLIDER:
    return ENTRY.build(num_classes=classes, num_cameras=6, image_size=image_size, **options)


def tiny(classes: int = 5, **options: Any) -> solider.SOLIDER:
    with golden.without_start():
        return build((64, 32), classes, size="tiny", drop_path=0.0, **options)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes Swin-T narrow and short, so that a test takes no seconds."""
    monkeypatch.setitem(SIZES, "tiny", (24, (2, 1, 1, 1), (1, 2, 4, 8)))


def official(name: str) -> dict[str, list[int]]:
    """Names and shapes of an official file, without the tables that are computed."""
    return {k: v for k, v in golden.shapes("solider")[name].items() if not k.endswith("relative_position_index")}


@cache
def expected() -> dict[str, Tensor]:
    return golden.values("solider")


@cache
def small() -> solider.SOLIDER:
    with golden.without_start():
        built = build((384, 128), drop_path=0.0)
    table = {"base.stages.0.blocks.0.attn.w_msa.relative_position_index": torch.zeros(49, 49, dtype=torch.int64)}
    built.load_published(golden.state(official("small"), seed=2) | table)
    return built


def test_test_time_features_are_the_originals():
    built = small().eval()
    with torch.no_grad():
        assert golden.difference(built(golden.images(2, 384, 128, 3)), expected()["small.feat_before"]) < 1e-5
        built.neck_feature = "after"
        assert golden.difference(built(golden.scenes(2, 384, 128, 3)), expected()["small.feat_after_scene"]) < 1e-5
    built.neck_feature = "before"


def test_training_outputs_are_the_originals():
    with torch.no_grad():
        output = small().train()(golden.scenes(8, 384, 128, 4))
    assert golden.relative(output.features[0], expected()["small.trainfeat_scene"]) < 1e-5
    assert golden.relative(output.logits[0][:, ::5], expected()["small.score_scene"]) < 1e-4


@pytest.mark.parametrize("case", CASES)
def test_weights_of_semantics_and_odd_maps_are_the_originals(case: str):
    images = golden.images(2, 100, 50, 3) if case == "odd" else golden.scenes(2, 96, 64, 3)
    height, width = images.shape[-2:]
    with golden.without_start():
        built = build((height, width), size="tiny", semantic_weight=CASES[case]).eval()
    built.load_published(golden.state(official("tiny"), seed=2))
    with torch.no_grad():
        assert golden.difference(built(images), expected()[f"tiny.{case}.before"]) < 1e-5
        built.neck_feature = "after"
        assert golden.difference(built(images), expected()[f"tiny.{case}.after"]) < 1e-5


def test_what_of_the_official_file_has_no_place():
    found = {name: list(value.shape) for name, value in small().state_dict().items()}
    missing = official("small").keys() - found.keys()
    norms = {f"base.norm{stage}.{part}" for stage in range(3) for part in ("weight", "bias")}
    controller = {f"base.semantic_embed_{kind}.3.{part}" for kind in "wb" for part in ("weight", "bias")}
    assert missing == norms | controller
    assert found == {name: shape for name, shape in official("small").items() if name not in missing}


def test_parameter_counts_of_the_card_are_exact():
    for count in ENTRY.card.parameters:
        with torch.device("meta"):
            built = build(count.image_size, **count.options)
        assert sum(p.numel() for p in built.parameters()) == count.count


@pytest.mark.parametrize("given", [{}, {"size": "tiny"}, {"size": "base"}, {"semantic_weight": "off"}])
def test_what_the_module_needs_is_read_off_a_checkpoint(given: dict[str, Any]):
    with torch.device("meta"):
        state = build((64, 32), 7, **given).state_dict()
    found = solider.infer({"state_dict": state}, (384, 128))
    assert found["num_classes"] == 7
    options = ENTRY.options(given)
    assert {**options, **found["options"]} == options


@pytest.mark.usefixtures("narrow")
def test_other_classifiers_pass_in_evaluation_only():
    state = tiny(9).state_dict()
    with pytest.raises(WeightsError, match="misshaped: classifier"):
        tiny().load_published(state)
    tiny().eval().load_published(state)
    del state["base.semantic_embed_b.1.bias"]
    with pytest.raises(WeightsError, match=r"missing: base\.semantic_embed_b\.1\.bias"):
        tiny().eval().load_published(state)
    tiny(semantic_weight="off").eval().load_published(state)
    with pytest.raises(WeightsError, match="no checkpoint of SOLIDER"):
        solider.infer({"base.pos_embed": torch.zeros(1)}, (384, 128))


def test_the_teacher_of_the_pretraining_is_the_start(tmp_path: Path):
    shapes = {name.removeprefix("base."): shape for name, shape in official("tiny").items() if name.startswith("base.")}
    source = golden.state(shapes, seed=1)
    teacher = {f"module.backbone.{name}": value for name, value in source.items()}
    teacher["module.head.mlp.0.weight"] = torch.zeros(3, 192)
    saved = {"student": teacher, "teacher": teacher, "epoch": 100, "args": argparse.Namespace(lr=np.float64(0.1))}
    torch.save(saved, tmp_path / "start.pth")
    built = tiny(pretrained=tmp_path / "start.pth")
    assert all(torch.equal(value, source[name]) for name, value in built.base.state_dict().items())


@pytest.mark.parametrize("name", ["solider", "solider:tiny", "solider:base"])
def test_each_size_has_its_starting_file(name: str):
    entry = registry.backbone(name)
    start = wanted(entry.card, entry.options())
    assert start is not None and start.files == (f"solider_swin_{entry.options()['size']}.pth",)


@pytest.mark.parametrize(
    ("epoch", "factor_weights", "factor_biases"),
    [(1, 0.01, 0.01), (2, 0.0595, 0.1095), (21, 0.93315, 1.86615), (120, 2.171e-3, 2.342e-3)],
)
def test_the_native_rate_is_the_originals(epoch: int, factor_weights: float, factor_biases: float):
    recipe = load(ENTRY.native_recipe, "market1501")
    moment = {"epoch": epoch, "iteration": 0, "iterations_per_epoch": 9, "epochs": recipe.training.epochs}
    for is_bias, factor in ((False, factor_weights), (True, factor_biases)):
        found = rate(recipe.schedule, recipe.optimizer, **moment, is_bias=is_bias)
        assert found == pytest.approx(2e-4 * factor, rel=1e-3)


@pytest.mark.parametrize(("name", "lr"), [("solider", 2e-4), ("solider:tiny", 8e-4), ("solider:base", 2e-4)])
def test_the_native_rate_depends_on_the_size(tmp_path: Path, name: str, lr: float):
    for dataset in ("market1501", "msmt17", "occluded-duke"):
        request = Request(name, dataset, recipe="native", results=tmp_path)
        assert load_recipe(request, registry.backbone(name), dataset).optimizer.lr == lr
        unified = Request(name, dataset, results=tmp_path)
        assert load_recipe(unified, registry.backbone(name), dataset).optimizer.lr == 0.008


@pytest.mark.usefixtures("narrow")
def test_a_few_steps_lower_the_loss_and_the_controller_stays():
    torch.manual_seed(0)
    built = build((64, 32), 5, size="tiny").train()
    criterion = ReIDCriterion(load(ENTRY.native_recipe, "market1501").loss, num_classes=5)
    before = {name: value.detach().clone() for name, value in built.named_parameters()}
    optimizer = torch.optim.Adam(built.parameters(), lr=1e-3)
    losses = []
    for _ in range(6):
        loss, _ = criterion(built(golden.scenes(8, 64, 32, 1)), torch.arange(8) // 2, 4, 2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    same = {name for name, value in built.named_parameters() if torch.equal(value, before[name])}
    assert same == {name for name in before if "semantic_embed" in name} | {"bottleneck.bias"}


def test_shifted_windows_hide_what_is_no_neighbour():
    """After the shift, the last three rows and columns come from the other side of the map."""
    mask = shift_mask(14, 7)
    from_above, from_left = torch.meshgrid(torch.arange(14) >= 11, torch.arange(7) >= 4, indexing="ij")
    side = (2 * from_above + from_left).reshape(2, 49)  # two windows, one above the other
    assert torch.equal(mask == 0, side[:, None] == side[:, :, None])
    assert set(mask.unique().tolist()) == {0.0, HIDDEN}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "huge"}, "size must be one of"),
        ({"neck_feature": "both"}, "neck_feature must be"),
        ({"semantic_weight": 1.5}, "a number from 0 to 1, or 'off'"),
        ({"semantic_weight": "on"}, "must have the type of its default"),
        ({"drop_path": "off"}, "must have the type of its default"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(UsageError, match=message):
        build((64, 32), **options)


@pytest.mark.usefixtures("narrow")
def test_stochastic_depth_grows_from_nothing_to_the_rate_of_the_option():
    built = build((64, 32), 5, size="tiny", drop_path=0.2)
    rates = [m.drop_prob for m in built.modules() if hasattr(m, "drop_prob")]
    assert rates == pytest.approx([0.05, 0.1, 0.15, 0.2])


def test_images_of_another_size_are_refused():
    with pytest.raises(UsageError, match="built for images of 64x32, found 32x32"):
        tiny()(torch.zeros(1, 3, 32, 32))


@pytest.mark.slow
@pytest.mark.usefixtures("narrow")
def test_the_network_can_be_exported_for_batches_of_any_size():
    built = build((64, 32), 5, size="tiny").eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(built, (torch.randn(2, 3, 64, 32), None), dynamic_shapes=({0: batch}, None))
    images = torch.randn(5, 3, 64, 32)
    with torch.no_grad():
        assert torch.allclose(exported.module()(images, None), built(images, None), atol=1e-5)
