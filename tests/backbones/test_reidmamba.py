"""ReIDMamba has the values of the original code; behaviour that users rely on."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.reidmamba.model import ReIDMamba, build, infer
from harness import registry
from harness.contracts import TrainingOutput, set_camera_mode
from harness.errors import UsageError, WeightsError
from harness.losses import ReIDCriterion
from harness.planning.request import Request, load_recipe
from harness.spec.recipe import Recipe, load
from tests.support.golden_weights import difference, images, relative, shapes, state, values, without_start

CARD = registry.backbone("reidmamba").card
SHAPES = shapes("reidmamba_shapes")
SMALL = {"num_classes": 751, "num_cameras": 6, "image_size": (256, 128)}
TINY = {
    "num_classes": 5,
    "num_cameras": 3,
    "image_size": (32, 16),
    "width": "tiny",
    "patch_size": 8,
    "stride": 8,
    "class_tokens": 4,
    "drop_path": 0.0,
}


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def tiny(**options: object) -> ReIDMamba:
    torch.manual_seed(0)
    return build(**{**TINY, **options})


def tiny_batch() -> tuple[Tensor, Tensor]:
    return images(4, 32, 16, seed=1), torch.tensor([0, 1, 2, 0])


@torch.no_grad()
def evaluated(model: nn.Module, batch: Tensor, cameras: list[int]) -> Tensor:
    return model.eval()(batch, torch.tensor(cameras))


# The original's values -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["default", pytest.param("strong-baseline", marks=pytest.mark.slow)])
def test_features_are_those_of_the_original(variant: str) -> None:
    with without_start():
        model = build(**SMALL, branches=3 if variant == "default" else 1)
    model.load_published(state(SHAPES[variant], seed=2))
    features = evaluated(model, images(2, 256, 128, seed=3), [0, 4])
    expected = values("reidmamba_features")[variant]
    assert features.shape == expected.shape == (2, model.feature_dim)
    assert difference(features, expected) < 1e-5


def sines(name: str, shape: tuple[int, ...]) -> Tensor:
    """Returns values between -1 and 1 that depend on a name, for the table below."""
    numbers = np.arange(1, int(np.prod(shape)) + 1, dtype=np.float64)
    values = np.sin(12.9898 * numbers + zlib.crc32(name.encode()) % 1000) * 43758.5453
    return torch.from_numpy((2 * (values - np.floor(values)) - 1).reshape(shape).astype(np.float32))


def fill_with_sines(model: nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            u = sines(name, tuple(parameter.shape))
            if name.endswith(("A_log", "A_b_log")):
                u = torch.arange(1.0, 17).log() + 0.1 * u
            elif name.endswith((".D", ".D_b", "norm.weight")) or name.startswith(("norm_fs.", "norm_necks.")):
                u = 1 + 0.1 * u
            elif name in ("pos_embed", "cls_token", "pos_embed_cls", "sie_embed"):
                u = 0.5 * u
            elif u.ndim == 1:
                u = 0.1 * u
            else:
                u = u * (3 * u.shape[0] / u.numel()) ** 0.5
            parameter.copy_(u)


TABLE = {  # image, stride, tokens, branches, fusion; one row per branch: first four values of the first image, its
    # last two, the sum of its magnitudes, its cosine with the second image
    (64, 32, 16, 4, 3, "max"): (
        (-0.044351, 0.008814, 0.169891, 0.042642, -0.001981, 0.001282, 15.48378, 0.045527),
        (-0.033032, -0.053035, 0.063730, 0.078293, -0.074851, 0.018739, 15.32051, 0.164522),
        (0.083543, -0.035416, -0.006680, -0.016794, 0.005864, 0.035864, 15.59830, 0.507559),
    ),
    (64, 32, 12, 4, 2, "mean"): (
        (-0.140794, -0.051543, 0.035981, -0.028576, -0.042228, -0.089750, 15.75892, 0.098925),
        (-0.027224, 0.050844, 0.024105, 0.078474, -0.041203, -0.021045, 15.74624, -0.021871),
    ),
    (256, 128, 16, 12, 3, "max"): (
        (-0.017668, -0.044986, 0.027473, -0.002504, 0.024288, 0.047455, 27.10724, 0.086827),
        (0.004770, -0.010420, 0.065594, 0.004046, -0.047895, -0.007941, 27.19597, 0.213903),
        (0.020144, -0.023941, -0.028733, -0.015547, 0.004616, 0.026077, 26.74934, 0.486377),
    ),
    (384, 128, 12, 12, 3, "max"): (
        (-0.037820, 0.001045, 0.022516, 0.031259, 0.030761, 0.026105, 27.11739, 0.084826),
        (-0.010311, -0.021080, 0.018602, 0.025940, -0.054108, -0.029893, 27.38651, 0.209554),
        (0.047746, 0.002454, -0.019829, -0.007228, 0.028901, -0.020331, 26.72397, 0.532587),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", TABLE, ids=str)
def test_other_shapes_and_fusions_agree_too(case: tuple[int, int, int, int, int, str]) -> None:
    *image_size, stride, tokens, branches, fusion = case
    options = {"stride": stride, "class_tokens": tokens, "branches": branches, "fusion": fusion}
    with without_start():
        model = build(num_classes=3, num_cameras=6, image_size=tuple(image_size), **options)
    fill_with_sines(model)
    features = evaluated(model, sines("image", (2, 3, *image_size)), [1, 4]).chunk(branches, dim=1)
    for feature, row in zip(features, TABLE[case], strict=True):
        first, second = feature
        found = [*first[:4].tolist(), *first[-2:].tolist(), first.abs().sum().item(), (first @ second).item()]
        assert found[:6] == pytest.approx(row[:6], abs=1e-5 / 2)
        assert found[6:] == pytest.approx(row[6:], abs=2e-5)


@pytest.mark.slow
def test_training_equals_the_original() -> None:
    golden, arrays = shapes("reidmamba_train"), values("reidmamba_train")
    with without_start():
        model = build(num_classes=31, num_cameras=6, image_size=(128, 64), drop_path=0.0)
    model.load_published(state({**SHAPES["default"], **golden["shapes_that_differ"]}, seed=5))
    output = model.train()(images(16, 128, 64, seed=9), torch.arange(16) % 6)
    for b in range(3):
        for found, expected in ((output.features[b][:, ::4], arrays[f"tri{b}"]), (output.logits[b], arrays[f"log{b}"])):
            assert relative(found, expected) < 1e-4

    criterion = ReIDCriterion(load(registry.backbone("reidmamba").native_recipe).loss)
    total, parts = criterion(output, torch.arange(4).repeat_interleave(4), 4, 4)
    losses = golden["losses"]
    assert total.item() == pytest.approx(losses["total"], rel=1e-4)
    expected_parts = {
        "identity": np.mean(losses["ce"]),
        "triplet": np.mean(losses["triplet"]),
        "ratr_intra": losses["ratr_intra"],
        "ratr_inter": losses["ratr_inter"],
    }
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(expected_parts, rel=1e-4)

    total.backward()
    norms = {name: p.grad.norm().item() for name, p in model.named_parameters() if p.grad is not None}
    assert norms == pytest.approx(golden["grad_norms"], rel=1e-4)
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == golden["nograd"]


@pytest.fixture(scope="module")
def mambar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mambar_small_patch16_224.pth"
    torch.save({"model": state(SHAPES["mambar"], seed=1)}, path)
    return path


def test_the_imagenet_start_is_that_of_the_original(mambar: Path) -> None:
    model = build(**SMALL, pretrained=mambar)
    golden = values("reidmamba_features")
    assert difference(model.cls_token, golden["cls_token"]) < 1e-6
    assert difference(model.pos_embed_cls, golden["pos_embed_cls"]) < 1e-6
    assert difference(model.pos_embed[:, ::7], golden["pos_embed"]) < 1e-6
    source, start = state(SHAPES["mambar"], seed=1), model.state_dict()
    for branch in range(3):
        assert torch.equal(start[f"norm_fs.{branch}.weight"], source["norm_f.weight"])
        for own, name in (("0", "layers.22"), ("1", "layers.23")):
            leaf = "mixer.dt_proj_b.weight"
            assert torch.equal(start[f"multi_layers.{branch}.{own}.{leaf}"], source[f"{name}.{leaf}"])
    assert torch.equal(start["layers.21.mixer.A_log"], source["layers.21.mixer.A_log"])


def test_weights_of_another_width_are_refused(mambar: Path) -> None:
    with pytest.raises(WeightsError, match="MambaR weights of this width: 'cls_token' is of shape"):
        build(**TINY, pretrained=mambar)


# What is built -------------------------------------------------------------------------------------------------------


def test_names_and_shapes_are_those_of_published_checkpoints() -> None:
    with torch.device("meta"):
        models = {"default": build(**SMALL), "strong-baseline": build(**SMALL, branches=1)}
    for name, model in models.items():
        assert {key: list(tensor.shape) for key, tensor in model.state_dict().items()} == SHAPES[name]


@pytest.mark.parametrize("expected", CARD.parameters, ids=str)
def test_parameter_counts_are_exact(expected) -> None:
    with torch.device("meta"):
        model = build(
            num_classes=expected.num_classes,
            num_cameras=expected.num_cameras,
            image_size=expected.image_size,
            **expected.options,
        )
    assert sum(p.numel() for p in model.parameters()) == expected.count


def test_drop_path_rises_to_the_last_addition_one_block_late() -> None:
    with torch.device("meta"):
        model = build(**SMALL)
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for block in (*model.layers, *model.multi_layers[2])]
    assert rates[:3] == pytest.approx([0.0, 0.0, 0.3 / 23])
    assert rates[21:] == pytest.approx([0.26087, 0.27391, 0.28696], abs=1e-5)
    assert model.drop_path.drop_prob == 0.3


def test_weight_decay_spares_embeddings_state_space_and_vectors() -> None:
    with torch.device("meta"):
        model = build(**SMALL)
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    spared = model.no_weight_decay() & trainable.keys()
    assert (len(trainable), len(spared)) == (497, 266)
    assert {"cls_token", "sie_embed", "layers.3.mixer.A_b_log", "layers.3.mixer.D", "norm_fs.1.weight"} <= spared
    decayed = {name.rpartition(".")[0].rpartition(".")[2] for name in trainable.keys() - spared}
    projections = {"in_proj", "out_proj", "x_proj", "x_proj_b", "dt_proj", "dt_proj_b", "conv1d", "conv1d_b"}
    assert decayed - projections == {"proj", "cls", "0", "1", "2"}


def test_the_shift_of_every_bn_neck_is_frozen_at_zero() -> None:
    model = tiny(branches=3)
    assert all(not neck.bn.bias.requires_grad and not neck.bn.bias.any() for neck in model.bnnecks)


# What a user sees ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("branches", "fusion"), [(1, "max"), (2, "mean"), (3, "max"), (3, "gem")])
def test_every_parameter_learns_and_branches_have_unit_length(branches: int, fusion: str) -> None:
    model = tiny(branches=branches, fusion=fusion)
    output = model(*tiny_batch())
    assert isinstance(output, TrainingOutput)
    assert [tuple(t.shape) for t in output.logits] == [(4, 5)] * branches
    assert [tuple(t.shape) for t in output.features] == [(4, 64)] * branches
    sum(logits.square().sum() for logits in output.logits).backward()
    still = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert still == ({"gems.1.p", "gems.3.p"} if fusion == "gem" else set())
    features = evaluated(model, *[tiny_batch()[0], [0, 1, 2, 0]])
    assert features.shape == (4, model.feature_dim)
    assert torch.allclose(features.unflatten(1, (branches, -1)).norm(dim=2), torch.ones(4, branches), atol=1e-6)


def test_branches_start_equal_but_are_not_shared() -> None:
    model = tiny()
    first, second = model.multi_layers[0][0].mixer.in_proj.weight, model.multi_layers[1][0].mixer.in_proj.weight
    assert torch.equal(first, second) and first.data_ptr() != second.data_ptr()


def test_the_camera_is_side_information() -> None:
    model, batch = tiny(), tiny_batch()[0]
    seen = evaluated(model, batch, [0, 0, 0, 0])
    assert not torch.allclose(seen, evaluated(model, batch, [1, 1, 1, 1]))
    with pytest.raises(UsageError, match="--camera-embedding"):
        evaluated(model, batch, [0, 1, 2, 3])
    set_camera_mode(model, "mean")
    mean = evaluated(model, batch, [0, 1, 2, 3])
    set_camera_mode(model, "off", since="mean")
    off = evaluated(model, batch, [7, 7, 7, 7])
    assert not torch.allclose(mean, off) and not torch.allclose(mean, seen)
    assert torch.equal(off, model(batch))


def test_without_camera_embedding_there_is_no_parameter_for_it() -> None:
    model = tiny(camera_embedding=False)
    assert "sie_embed" not in model.state_dict()
    assert evaluated(model, tiny_batch()[0], [9, 9, 9, 9]).shape == (4, model.feature_dim)
    assert "sie_embed" not in tiny(camera_embedding="off").state_dict()


@pytest.mark.parametrize("layout", ["bare", "model", "model_state_dict", "module."])
def test_checkpoints_load_in_every_layout_the_original_writes(layout: str) -> None:
    saved = tiny().state_dict()
    wrapped = {
        "bare": saved,
        "model": {"epoch": 3, "model": saved, "scaler": {}},
        "model_state_dict": {"epoch": 3, "model_state_dict": saved, "best_mAP": 0.5},
        "module.": {f"module.{key}": value for key, value in saved.items()},
    }[layout]
    torch.manual_seed(1)
    model = build(**TINY)
    model.load_published(wrapped)
    assert all(torch.equal(value, saved[key]) for key, value in model.state_dict().items())


def test_a_checkpoint_that_does_not_fit_is_refused_by_name() -> None:
    model = tiny()
    saved = model.state_dict()
    extra = {**saved, "head.bias": torch.zeros(3), "cls_token": torch.zeros(1, 5, 64)}
    del extra["norm_fs.0.weight"]
    with pytest.raises(WeightsError) as error:
        model.load_published(extra)
    assert all(key in str(error.value) for key in ("norm_fs.0.weight", "head.bias", "cls_token"))


def test_other_classifiers_do_not_hinder_evaluation() -> None:
    saved = tiny(num_classes=9).state_dict()
    with pytest.raises(WeightsError, match="bnnecks"):
        tiny().train().load_published(saved)
    model = tiny().eval()
    model.load_published(saved)
    assert torch.equal(model.pos_embed, saved["pos_embed"])


@pytest.mark.parametrize("options", [{}, {"stride": 4, "branches": 2, "camera_embedding": False}, {"fusion": "gem"}])
def test_a_checkpoint_says_how_to_build_its_model(options: dict[str, object]) -> None:
    saved = tiny(**options).state_dict()
    found = infer({"model": saved}, (32, 16))
    rebuilt = build(
        num_classes=found["num_classes"], num_cameras=found["num_cameras"], image_size=(32, 16), **found["options"]
    )
    rebuilt.load_published(saved)
    with pytest.raises(WeightsError, match="no ReIDMamba checkpoint"):
        infer({"fc.weight": torch.zeros(1)}, (32, 16))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_tokens": 6}, "multiple of 4"),
        ({"width": "smal"}, "Did you mean 'small'"),
        ({"fusion": "avg"}, "max, mean"),
        ({"neck_reduction": 5}, "must divide 64"),
        ({"drop_path": 1.0}, "below 1"),
        ({"camera_embedding": "of"}, "Did you mean 'off'"),
    ],
)
def test_options_that_do_not_fit_say_why(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tiny(**options)


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(UsageError, match="built for images of 32x16"):
        evaluated(tiny(), images(1, 40, 16, seed=0), [0])


def test_variants_are_the_papers_ablation() -> None:
    baseline, mgfe = (registry.backbone(f"reidmamba:{name}") for name in ("strong-baseline", "mgfe"))
    full = load(baseline.native_recipe, "market1501")
    assert (full.loss.ratr_intra, full.loss.ratr_inter) == (1.0, 1.0)
    for entry, branches in ((baseline, 1), (mgfe, 3)):
        loss = load(entry.native_recipe, "market1501", entry.settings.recipe).loss
        assert (entry.options()["branches"], loss.ratr_intra, loss.ratr_inter) == (branches, 0.0, 0.0)


DATASETS = [d.name for d in registry.datasets() if d.name != "synthetic"]


def native(variant: str, dataset: str) -> Recipe:
    name = f"reidmamba:{variant}" if variant else "reidmamba"
    return load_recipe(Request(name, dataset, recipe="native"), registry.backbone(name), dataset)


@pytest.mark.parametrize("variant", ["", "stride12", "strong-baseline", "mgfe", "base"])
def test_the_native_recipe_is_what_main_py_runs_on_every_dataset(variant: str) -> None:
    assert {"market1501", "dukemtmc", "msmt17", "cuhk03-detected", "occluded-duke"} <= {*DATASETS}
    for recipe in (native(variant, dataset) for dataset in DATASETS):
        schedule = recipe.schedule
        assert (schedule.warmup_iterations, schedule.period, recipe.training.grad_clip) == (1200, 155, 10.0)
        assert recipe.options == {} and recipe.loss.precision == "fp32"


def test_stride_12_is_a_variant_of_its_own() -> None:
    """The published run has another stride, so it is another network and needs its own variant."""
    assert registry.backbone("reidmamba").options()["stride"] == 16
    assert registry.backbone("reidmamba:stride12").options()["stride"] == 12
    market = [row for row in CARD.published if row.dataset == "market1501"]
    assert market and all(row.variant == "stride12" for row in market)


def test_the_search_script_is_a_variant_of_its_own() -> None:
    found = {name: native("search-script", name) for name in DATASETS}
    other = {name: (r.schedule.warmup_iterations, r.training.grad_clip) for name, r in found.items()}
    assert other["market1501"] == other["cuhk03-detected"] == other["cuhk03-labeled"] == (1000, 25.0)
    assert other["msmt17"] == other["msmt17-train"] == (2500, 30.0)
    assert (other["dukemtmc"], other["occluded-duke"]) == ((1200, 30.0), (1200, 10.0))
    assert {recipe.schedule.period for recipe in found.values()} == {155}


def test_half_precision_is_near_and_its_stream_is_float32() -> None:
    model, (batch, cameras) = tiny().eval(), tiny_batch()
    with torch.no_grad():
        full = model(batch, cameras)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(batch, cameras)
            hidden, stream = model.layers[1](*model.layers[0](model._embed(batch, cameras), None))
    assert (hidden.dtype, stream.dtype) == (torch.bfloat16, torch.float32)
    assert F.cosine_similarity(full, half.float()).min() > 0.99


@pytest.mark.slow
def test_one_compiled_block_serves_all_drop_path_rates() -> None:
    from torch._dynamo.testing import CompileCounter

    from backbones.reidmamba.mixer import Block

    torch._dynamo.reset()
    counter, frames = CompileCounter(), []
    hidden, residual = torch.randn(2, 2, 9, 16)
    for rate in (0.1, 0.2, 0.3):
        torch.compile(Block(16, 4, 6, rate), backend=counter)(hidden, residual)
        frames.append(counter.frame_count)
    assert frames[0] > 0 and frames == frames[:1] * 3


@pytest.mark.slow
def test_the_camera_embedding_is_part_of_a_compiled_graph() -> None:
    from backbones.layers import camera_term

    torch._dynamo.reset()
    embedding, cameras = torch.randn(3, 1, 4), torch.tensor([0, 2])
    found = torch.compile(camera_term, backend="eager", fullgraph=True)(embedding, cameras)
    assert torch.equal(found, camera_term(embedding, cameras))


def test_drop_path_drops_samples_at_its_rate_and_keeps_the_mean() -> None:
    from backbones.layers import DropPath

    torch.manual_seed(0)
    drop, x = DropPath(0.25), torch.ones(4000, 2, 3)
    found = drop(x)
    assert found.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(found.amin((1, 2)), found.amax((1, 2))), "a sample is dropped as a whole"
    assert found.mean() == pytest.approx(1, abs=0.03)
    assert drop.eval()(x) is x and not drop.state_dict()
    assert DropPath(0.5)(x.bfloat16()).dtype == torch.bfloat16
