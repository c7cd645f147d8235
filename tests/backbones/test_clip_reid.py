"""CLIP-ReID's image side has the outputs, parameter counts and checkpoints of its original code."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from backbones.clip_reid import model as clip_reid
from backbones.clip_reid.vit import QuickGELU
from backbones.transreid.imagenet import resize_positions
from harness import registry
from harness.errors import UsageError, WeightsError
from harness.losses import ReIDCriterion
from harness.spec.recipe import load
from harness.training.optim import rate
from harness.weights import wanted
from tests.support import golden_weights as golden

ENTRY = registry.backbone("clip-reid")
CAMERAS = torch.tensor([0, 4])


def build(image_size: tuple[int, int] = (256, 128), classes: int = 751, **options: Any) -> clip_reid.ClipReID:
    return ENTRY.build(num_classes=classes, num_cameras=6, image_size=image_size, **options)


def tiny(classes: int = 5, **options: Any) -> clip_reid.ClipReID:
    return build((64, 32), classes, width="tiny", **options)


@cache
def expected() -> dict[str, Tensor]:
    return golden.values("clip_reid")


@cache
def module() -> clip_reid.ClipReID:
    """The network with cameras. Without them, it is the same network with `camera_mode` off."""
    with golden.without_start():
        built = build(camera_embedding=True)
    built.load_published(golden.state(golden.shapes("clip_reid")["sie"], seed=2))
    return built


@pytest.mark.parametrize(("case", "mode"), [("plain", "off"), ("sie", "on")])
def test_test_time_features_are_the_originals(case: str, mode: str):
    built = module().eval()
    built.camera_mode = mode
    with torch.no_grad():
        found = built(golden.images(2, 256, 128, 3), CAMERAS)
        assert golden.difference(found, expected()[f"{case}.feat_before"]) < 1e-5
        built.neck_feature = "after"
        found = built(golden.scenes(2, 256, 128, 3), CAMERAS)
        assert golden.difference(found, expected()[f"{case}.feat_after_scene"]) < 1e-5
    built.neck_feature, built.camera_mode = "before", "on"


def test_training_outputs_are_the_originals():
    built = module()
    before = {name: value.clone() for name, value in built.named_buffers()}
    with torch.no_grad():
        output = built.train()(golden.scenes(8, 256, 128, 4), torch.arange(8) % 6)
    for name, value in built.named_buffers():  # training moved the running statistics
        value.copy_(before[name])
    names = ("score", "score_proj", "trainfeat_last", "trainfeat", "trainfeat_proj")
    for name, found in zip(names, [*output.logits, *output.features], strict=True):
        assert golden.relative(found[:, ::4], expected()[f"sie.{name}"]) < 1e-5


def test_every_entry_of_the_official_file_has_its_place():
    assert golden.shapes("clip_reid")["sie"] == {name: list(v.shape) for name, v in module().state_dict().items()}


def test_parameter_counts_of_the_card_are_exact():
    for count in ENTRY.card.parameters:
        with torch.device("meta"):
            built = build(count.image_size, **count.options)
        assert sum(p.numel() for p in built.parameters()) == count.count


def test_checkpoints_of_the_whole_method_load_without_their_text_side():
    state = {f"module.{name}": value for name, value in tiny(9).state_dict().items()}
    state |= {f"module.{name}": torch.zeros(1) for name in golden.shapes("clip_reid")["text"]}
    found = clip_reid.infer(state, (64, 32))
    assert found["num_classes"] == 9 and found["options"]["width"] == "tiny"
    with pytest.raises(WeightsError, match=r"2 misshaped: classifier\.weight"):
        tiny().load_published(state)
    built = tiny().eval()
    built.load_published(state)
    assert torch.equal(built.image_encoder.proj, state["module.image_encoder.proj"])
    with pytest.raises(WeightsError, match=r"unexpected: other\.weight"):
        built.load_published({**state, "module.other.weight": torch.zeros(1)})


@pytest.mark.parametrize("given", [{}, {"stride": 12}, {"camera_embedding": True}])
def test_what_the_module_needs_is_read_off_a_checkpoint(given: dict[str, Any]):
    with torch.device("meta"):
        state = build((256, 128), 7, **given).state_dict()
    found = clip_reid.infer(state, (256, 128))
    assert (found["num_classes"], found["num_cameras"]) == (7, 6 if "camera_embedding" in given else 0)
    options = ENTRY.options(given)
    assert {**options, **found["options"]} == options


def test_other_checkpoints_are_named():
    with pytest.raises(WeightsError, match="CLIP-ReID with ResNet-50"):
        clip_reid.infer({"image_encoder.layer1.0.conv1.weight": torch.zeros(1)}, (256, 128))
    with pytest.raises(WeightsError, match="no checkpoint of CLIP-ReID"):
        clip_reid.infer({"base.pos_embed": torch.zeros(1)}, (256, 128))


@pytest.mark.parametrize(("case", "grid"), [("clip_224_to_256", (16, 8)), ("clip_224_to_stride12", (21, 10))])
def test_positions_are_resized_as_in_the_original(case: str, grid: tuple[int, int]):
    positions = golden.tensor("positional_embedding", (197, 8), seed=1)
    assert golden.difference(resize_positions(positions[None], grid)[0], expected()[case]) < 1e-6


class Program(nn.Module):
    """Stands for OpenAI's file: an image encoder in half precision beside things of the text side."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual, self.positional_embedding = visual, nn.Parameter(torch.zeros(77, 64))
        self.register_buffer("context_length", torch.tensor(77))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.positional_embedding.sum()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_the_file_of_openai_is_a_start(tmp_path: Path):
    source = build((224, 224), width="tiny").image_encoder.half()
    torch.jit.trace(Program(source), torch.zeros(1).half()).save(tmp_path / "ViT-B-16.pt")
    own = tiny(pretrained=tmp_path / "ViT-B-16.pt").image_encoder
    for name, value in source.state_dict().items():
        if name != "positional_embedding":
            assert torch.equal(own.state_dict()[name], value.float())
    resized = resize_positions(source.positional_embedding.float()[None], (4, 2))
    assert torch.equal(own.positional_embedding, resized[0])


def test_the_file_of_timm_is_the_same_start(tmp_path: Path):
    """timm's network and ours have the same output for the weights of timm's file, at the size of its positions."""
    options = {"act_layer": QuickGELU, "norm_layer": nn.LayerNorm, "pre_norm": True}
    other: Any = VisionTransformer(224, 16, embed_dim=96, depth=4, num_heads=4, num_classes=64, **options).eval()
    with torch.no_grad():
        for name, value in other.named_parameters():
            value.copy_(torch.zeros_like(value) if name == "head.bias" else golden.tensor(name, value.shape, 1))
    save_file(other.state_dict(), tmp_path / "start.safetensors")
    own = build((224, 224), width="tiny", pretrained=tmp_path / "start.safetensors").eval()
    images = golden.images(1, 224, 224, 3)
    with torch.no_grad():
        assert golden.difference(own(images)[:, 96:], other(images)) < 1e-5
    save_file(
        {name: v for name, v in other.state_dict().items() if "head" not in name}, tmp_path / "headless.safetensors"
    )
    with pytest.raises(WeightsError, match="1 missing: proj"):
        tiny(pretrained=tmp_path / "headless.safetensors")


def test_the_start_can_have_two_names():
    start = wanted(ENTRY.card, ENTRY.options())
    assert start is not None and start.files[0] == "ViT-B-16.pt" and start.url.endswith("/ViT-B-16.pt")
    assert start.sha256 in start.url
    assert wanted(ENTRY.card, ENTRY.options({"width": "tiny"})) is None


@pytest.mark.parametrize(("epoch", "expected_rate"), [(1, 0.95e-6), (10, 5e-6), (29, 5e-6), (30, 5e-7), (50, 5e-8)])
def test_the_native_rate_is_the_originals(epoch: int, expected_rate: float):
    recipe = load(ENTRY.native_recipe, "market1501")
    moment = {"epoch": epoch, "iteration": 0, "iterations_per_epoch": 9, "epochs": recipe.training.epochs}
    for is_bias, factor in ((False, 1), (True, 2)):
        found = rate(recipe.schedule, recipe.optimizer, **moment, is_bias=is_bias)
        assert found == pytest.approx(factor * expected_rate)


def test_the_native_loss_adds_two_classifiers_and_three_features():
    criterion = ReIDCriterion(load(ENTRY.native_recipe, "market1501").loss, num_classes=5)
    output = tiny(camera_embedding=True).train()(golden.scenes(4, 64, 32, 1), torch.arange(4))
    pids = torch.tensor([0, 0, 1, 1])
    total, _ = criterion(output, pids, 2, 2)
    smoothed = [nn.functional.cross_entropy(logits, pids, label_smoothing=0.1) for logits in output.logits]
    apart = [torch.cdist(f.double(), f.double()) for f in output.features]
    same = pids[:, None] == pids
    triplets = [(d.where(same, 0).amax(1) - d.where(~same, 1e9).amin(1) + 0.3).relu().mean() for d in apart]
    assert (len(smoothed), len(triplets)) == (2, 3)
    assert total.item() == pytest.approx(sum(loss.item() for loss in [*smoothed, *triplets]), rel=1e-4)


def test_a_few_steps_lower_the_loss_and_move_every_parameter():
    torch.manual_seed(0)
    built = tiny(camera_embedding=True).train()
    criterion = ReIDCriterion(load(ENTRY.native_recipe, "market1501").loss, num_classes=5)
    before = {name: value.detach().clone() for name, value in built.named_parameters() if value.requires_grad}
    optimizer = torch.optim.Adam(built.parameters(), lr=1e-4)
    losses = []
    for _ in range(6):
        loss, _ = criterion(built(golden.scenes(8, 64, 32, 1), torch.arange(8) % 6), torch.arange(8) // 2, 4, 2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    after = dict(built.named_parameters())
    assert not [name for name, value in before.items() if torch.equal(value, after[name])]


def test_cameras_reach_the_class_token_alone_or_as_their_mean():
    built, images = tiny(camera_embedding=True).eval(), golden.scenes(2, 64, 32, 1)
    assert built.cv_embed is not None
    with torch.no_grad():
        built.cv_embed.copy_(torch.randn(6, 96))
        built.camera_mode = "mean"
        mean = built(images)
        built.cv_embed.copy_(built.cv_embed.mean(dim=0).expand(6, -1))
        built.camera_mode = "on"
        assert golden.difference(built(images, torch.tensor([3, 5])), mean) < 1e-5
        built.image_encoder.class_embedding.add_(built.cv_embed[0])
        built.camera_mode = "off"
        assert golden.difference(built(images), mean) < 1e-5
    built.camera_mode = "on"
    with pytest.raises(UsageError, match="needs the camera of each image"):
        built(images)
    with pytest.raises(UsageError, match="Camera 6 is outside the 6 cameras"):
        built(images, torch.tensor([0, 6]))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"width": "huge"}, "width must be one of"), ({"neck_feature": "both"}, "neck_feature must be")],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(UsageError, match=message):
        build((64, 32), **options)


def test_images_of_another_size_are_refused():
    with pytest.raises(UsageError, match="built for images of 64x32, found 32x32"):
        tiny()(torch.zeros(1, 3, 32, 32))


@pytest.mark.slow
def test_the_network_can_be_exported_for_batches_of_any_size():
    built = tiny().eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(built, (torch.randn(2, 3, 64, 32), None), dynamic_shapes=({0: batch}, None))
    images = torch.randn(5, 3, 64, 32)
    with torch.no_grad():
        assert torch.allclose(exported.module()(images, None), built(images, None), atol=1e-5)
