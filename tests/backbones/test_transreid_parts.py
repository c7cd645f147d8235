"""TransReID's parts on narrow networks: patches, positions, jigsaw, rates, groups, the ImageNet start."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import DropPath, resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer

from backbones.layers import patch_grid
from backbones.transreid import imagenet
from backbones.transreid import model as transreid
from backbones.transreid.jpm import jigsaw
from harness import registry
from harness.contracts import set_camera_mode
from harness.errors import UsageError, WeightsError
from harness.spec.recipe import Optimizer, load
from harness.training.optim import parameter_groups
from tests.support import golden_weights as golden

SHAPES = [((256, 128), 16), ((256, 128), 12), ((256, 128), 11), ((384, 128), 16), ((384, 128), 12), ((70, 40), 9)]


def tiny(image_size=(64, 32), num_cameras=3, **options):
    return transreid.build(
        num_classes=5, num_cameras=num_cameras, image_size=image_size, width="tiny", **options
    ).eval()


def timm_twin(built: transreid.TransReID) -> VisionTransformer:
    """timm's own transformer of the same size, with the convolution's stride and the grid set by hand."""
    base = built.base
    twin = VisionTransformer(img_size=16, embed_dim=96, depth=4, num_heads=4, num_classes=0)
    twin.patch_embed.proj.stride = base.patch_embed.proj.stride
    twin.patch_embed.strict_img_size = False
    twin.pos_embed = torch.nn.Parameter(torch.zeros_like(base.pos_embed))
    twin.load_state_dict(base.state_dict())
    return twin.eval()


@pytest.mark.parametrize(("image_size", "stride"), SHAPES[:5])
def test_baseline_is_timms_transformer_at_any_size_and_stride(image_size, stride):
    built = tiny(image_size, jpm=False, camera_embedding=False, stride=stride)
    images = golden.images(2, *image_size, 1)
    with torch.no_grad():
        assert golden.difference(built(images), timm_twin(built)(images)) < 1e-5


@pytest.mark.parametrize(
    ("image_size", "stride", "grid"),
    [((256, 128), 16, (16, 8)), ((256, 128), 12, (21, 10)), ((256, 128), 11, (22, 11)), ((384, 128), 16, (24, 8)),
     ((384, 128), 12, (31, 10)), ((256, 256), 12, (21, 21))],
)  # fmt: skip
def test_grids_are_those_of_the_original(image_size, stride, grid):
    assert patch_grid(image_size, 16, stride) == grid


@pytest.mark.parametrize(("image_size", "stride"), SHAPES)
def test_local_features_follow_the_originals_steps(image_size, stride):
    """The steps of the original code on tensors: shift, extend, shuffle by transposing, split, one pass per part."""
    built = tiny(image_size, stride=stride)
    with torch.no_grad():
        tokens = built.base(golden.images(2, *image_size, 1), torch.tensor([0, 2]))
        expected = [built.b1(tokens)[:, 0]]
        patches = tokens[:, 1:]
        count = patches.shape[1]
        moved = torch.cat([patches[:, 4:], patches[:, :4]], dim=1)
        if count % 2:
            moved = torch.cat([moved, moved[:, -2:-1]], dim=1)
        mixed = moved.view(2, 2, -1, 96).transpose(1, 2).reshape(2, -1, 96)
        for part in range(4):
            local = mixed[:, part * (count // 4) : (part + 1) * (count // 4)]
            expected.append(built.b2(torch.cat([tokens[:, :1], local], dim=1))[:, 0])
        found = built.branch_features(golden.images(2, *image_size, 1), torch.tensor([0, 2]))
    for ours, theirs in zip(found, expected, strict=True):
        assert golden.difference(ours, theirs) < 1e-5


@given(num_patches=st.integers(4, 600), shift=st.integers(1, 9))
def test_jigsaw_permutes_shifted_patches_cut_into_quarters(num_patches, shift):
    patches = list(range(num_patches))
    shifted = patches[shift - 1 :] + patches[: shift - 1]
    if num_patches % 2:
        shifted.append(shifted[-2])
    half = len(shifted) // 2
    columns = [index for pair in zip(shifted[:half], shifted[half:], strict=True) for index in pair]
    parts = jigsaw(num_patches, shift=shift)
    assert [len(part) for part in parts] == [num_patches // 4] * 4
    assert [index for part in parts for index in part] == columns[: num_patches // 4 * 4]


def test_jigsaw_begins_as_published_and_drops_what_is_left():
    flat = [index for part in jigsaw(210) for index in part]
    assert flat[:6] == [4, 109, 5, 110, 6, 111]
    assert set(range(210)) - set(flat) == {108, 3}
    assert [set(range(n)) == {i for p in jigsaw(n) for i in p} for n in (128, 192)] == [True, True]
    with pytest.raises(UsageError, match="only 3"):
        jigsaw(3)


def test_stochastic_depth_grows_to_its_rate():
    built = transreid.build(num_classes=5, num_cameras=2, image_size=(64, 32), width="tiny", drop_path=0.3)
    blocks = [*built.base.blocks, built.b1[0], built.b2[0]]
    rates = [b.drop_path1.drop_prob if isinstance(b.drop_path1, DropPath) else 0.0 for b in blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.3])
    assert all(block.attn.fused_attn for block in blocks)
    assert {b.norm1.eps for b in blocks} | {built.b1[1].eps} == {1e-6}


def test_necks_start_as_published_and_their_bias_is_frozen():
    built = tiny()
    for suffix in built.branches:
        neck, classifier = built.get_submodule(f"bottleneck{suffix}"), built.get_submodule(f"classifier{suffix}")
        assert not neck.bias.requires_grad
        assert neck.weight.requires_grad
        assert float(neck.bias.abs().max()) == 0
        assert classifier.bias is None
        assert 0.0003 < float(classifier.weight.detach().std()) < 0.003


def test_parameter_groups_are_those_of_the_original():
    built, native = tiny(), load(registry.backbone("transreid").native_recipe).optimizer
    groups = {group["is_bias"]: group for group in parameter_groups(built, native)}
    assert {bias: (group["lr"], group["weight_decay"]) for bias, group in groups.items()} == {
        False: (0.008, 1e-4),
        True: (0.016, 1e-4),
    }
    assert {"base.cls_token", "base.pos_embed", "base.sie_embed", "b1.1.weight"} <= set(groups[False]["names"])
    assert not [name for name in groups[True]["names"] if name.startswith("bottleneck")]
    exempt = [g for g in parameter_groups(built, Optimizer(no_decay="model")) if g["weight_decay"] == 0]
    names = {name for group in exempt for name in group["names"]}
    assert {"base.cls_token", "base.pos_embed", "base.sie_embed", "b1.0.norm1.weight"} <= names
    assert "base.blocks.0.attn.qkv.weight" not in names


@settings(deadline=None, max_examples=20)
@given(rows=st.integers(1, 30), columns=st.integers(1, 30))
def test_positions_are_resized_bilinear_without_antialias(rows, columns):
    positions = golden.tensor("pos_embed", (1, 197, 8), 3)
    found = imagenet.resize_positions(positions, (rows, columns))
    if rows * columns == 196:
        assert torch.equal(found, positions)
        return
    settings_ = {"num_prefix_tokens": 1, "interpolation": "bilinear", "antialias": False}
    assert torch.equal(found, resample_abs_pos_embed(positions, [rows, columns], **settings_))


@pytest.mark.parametrize("jpm", [True, False])
@pytest.mark.parametrize("distilled", [True, False])
def test_the_imagenet_start_fills_every_part_of_the_transformer(tmp_path: Path, jpm, distilled):
    source = VisionTransformer(embed_dim=96, depth=4, num_heads=4, num_classes=10).state_dict()
    weights = {k: v.clone() for k, v in source.items()}
    if distilled:
        weights |= {"dist_token": torch.ones(1, 1, 96), "head_dist.weight": torch.ones(10, 96)}
        weights["pos_embed"] = torch.cat(
            [source["pos_embed"][:, :1], torch.ones(1, 1, 96), source["pos_embed"][:, 1:]], 1
        )
    torch.save({"model": weights}, tmp_path / "start.pth")
    built = transreid.build(
        num_classes=5, num_cameras=2, image_size=(256, 128), width="tiny", jpm=jpm, pretrained=tmp_path / "start.pth"
    )
    assert torch.equal(built.base.pos_embed, imagenet.resize_positions(source["pos_embed"], (16, 8)))
    assert torch.equal(built.base.blocks[2].mlp.fc1.weight, source["blocks.2.mlp.fc1.weight"])
    last = [built.b1, built.b2] if jpm else [(built.base.blocks[3], built.base.norm)]
    for block, norm in last:
        assert torch.equal(block.attn.qkv.weight, source["blocks.3.attn.qkv.weight"])
        assert torch.equal(norm.weight, source["norm.weight"])


def test_a_start_that_is_no_imagenet_transformer_is_refused(tmp_path: Path):
    torch.save({"fc.weight": torch.zeros(3, 3)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"missing.*unexpected: base\.fc\.weight"):
        tiny(pretrained=tmp_path / "other.pth")


def test_local_parts_weigh_a_quarter_and_the_neck_can_come_first():
    built, images, cameras = tiny(), golden.images(2, 64, 32, 3), torch.tensor([0, 2])
    built.load_published(golden.state({k: v.shape for k, v in built.state_dict().items()}, seed=4))
    with torch.no_grad():
        before = built(images, cameras).view(2, 5, 96)
        built.neck_feature = "after"
        after = built(images, cameras).view(2, 5, 96)
        branches = built.branch_features(images, cameras)
        for b, (suffix, features) in enumerate(zip(built.branches, branches, strict=True)):
            share = 0.25 if b else 1
            neck = built.get_submodule(f"bottleneck{suffix}")
            assert torch.allclose(before[:, b], features * share)
            assert torch.allclose(after[:, b], neck(features) * share)
            assert not torch.allclose(before[:, b], after[:, b], atol=1e-3)


@pytest.mark.parametrize("wrap", ["bare", "model", "state_dict", "model_state_dict", "module."])
def test_every_form_of_checkpoint_is_read(wrap):
    built = tiny()
    official = golden.state({k: v.shape for k, v in built.state_dict().items()}, seed=4)
    dead = {"base.fc.weight": (1000, 96), "base.fc.bias": (1000,), "base.norm.weight": (96,)}
    dead |= {"base.blocks.11.norm1.weight": (96,)}
    given = {f"module.{k}" if wrap == "module." else k: v for k, v in {**official, **golden.state(dead, 4)}.items()}
    given = given if wrap in ("bare", "module.") else {"epoch": 3, wrap: given}
    built.load_published(given)
    assert all(torch.equal(value, official[key]) for key, value in built.state_dict().items())
    assert transreid.infer(given, (64, 32))["num_classes"] == 5


def test_wrong_checkpoint_is_refused_and_changes_nothing():
    built = tiny()
    before = {key: value.clone() for key, value in built.state_dict().items()}
    wrong = {key: value + 1 for key, value in before.items()}
    del wrong["b1.0.norm1.weight"]
    wrong |= {"base.blocks.12.norm1.weight": torch.zeros(96), "base.pos_embed": torch.zeros(1, 211, 96)}
    with pytest.raises(WeightsError) as caught:
        built.load_published(wrong)
    for part in (
        "1 missing: b1.0.norm1.weight",
        "1 unexpected: base.blocks.12.norm1.weight",
        "1 misshaped: base.pos_embed (1x211x96 in the file, 1x9x96 in the model)",
    ):
        assert part in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in built.state_dict().items())


def test_other_classifiers_pass_in_evaluation_only():
    built = tiny()
    own = built.classifier.weight.detach().clone()
    other = {k: v[:3] if k.startswith("classifier") else v + 1 for k, v in built.state_dict().items()}
    with pytest.raises(WeightsError, match=r"classifier\.weight"):
        built.train().load_published(other)
    built.eval().load_published(other)
    assert torch.equal(built.classifier.weight, own)
    assert torch.equal(built.base.cls_token, other["base.cls_token"])


def test_cameras_move_the_feature_and_unknown_ones_are_refused():
    built, images, found = tiny(), golden.images(1, 64, 32, 3), {}
    with torch.no_grad():
        for before, mode in (("on", "on"), ("on", "off"), ("off", "mean")):
            set_camera_mode(built, mode, since=before)
            found[mode] = built(images, torch.tensor([2]))
        assert torch.equal(found["mean"], built(images, None))
        set_camera_mode(built, "on", since="mean")
        for index in (3, -1):
            with pytest.raises(UsageError, match="--camera-embedding off"):
                built(images, torch.tensor([index]))
        with pytest.raises(UsageError, match="needs the camera"):
            built(images, None)
        built.base.sie_embed.zero_()
        assert torch.equal(found["off"], built(images, torch.tensor([2])))
    assert not torch.allclose(found["on"], found["off"])
    assert not torch.allclose(found["mean"], found["off"])
    set_camera_mode(built, "auto")
    with pytest.raises(UsageError, match="none of on, off, mean"):
        built(images, torch.tensor([2]))


@pytest.mark.parametrize(("image_size", "stride"), SHAPES)
@pytest.mark.parametrize("jpm", [True, False])
def test_what_a_checkpoint_needs_is_read_off_it(image_size, stride, jpm):
    built = tiny(image_size, num_cameras=4, stride=stride, jpm=jpm)
    found = transreid.infer(built.state_dict(), image_size)
    again = transreid.build(
        image_size=image_size, **{k: found[k] for k in ("num_classes", "num_cameras")}, **found["options"]
    )
    again.load_published(built.state_dict())
    images = golden.images(1, *image_size, 1)
    with torch.no_grad():
        assert torch.equal(again.eval()(images, torch.tensor([3])), built(images, torch.tensor([3])))


def test_a_checkpoint_of_another_size_or_network_is_refused():
    state = tiny((64, 32)).state_dict()
    with pytest.raises(WeightsError, match="8 patches"):
        transreid.infer(state, (80, 48))
    with pytest.raises(WeightsError, match="no TransReID checkpoint"):
        transreid.infer({"base.conv1.weight": torch.zeros(1)}, (64, 32))


@pytest.mark.parametrize(
    ("options", "named"),
    [({"neck_feature": "middle"}, "neck_feature"), ({"stride": 0}, "stride"), ({"patch_size": 128}, "patch_size")],
)
def test_options_that_do_not_fit_are_refused(options, named):
    with pytest.raises(UsageError, match=named):
        tiny(**options)


def test_images_of_another_size_are_refused():
    with pytest.raises(UsageError, match="built for images of 64x32"):
        tiny()(golden.images(1, 48, 32, 0), torch.tensor([0]))
    assert tiny(camera_embedding="off").base.sie_embed is None
    assert tiny(num_cameras=1)(golden.images(1, 64, 32, 0), torch.tensor([0])).shape == (1, 480)
