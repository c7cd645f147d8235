"""TransReID at full size: the original's features, training outputs, counts and checkpoints."""

from __future__ import annotations

import pytest
import torch

from backbones.transreid import model as transreid
from harness import registry
from tests.support import golden_weights as golden

CARD = registry.backbone("transreid").card
CAMERAS = torch.tensor([0, 4])


@pytest.fixture(scope="module")
def official() -> dict[str, torch.Tensor]:
    """An official checkpoint with JPM and camera embedding; the baseline's entries are among its entries."""
    return golden.state(golden.shapes("transreid")["A_jpm_sie_256_s16"]["shapes"], seed=2)


@pytest.fixture(scope="module")
def module(official) -> transreid.TransReID:
    built = registry.backbone("transreid").build(num_classes=751, num_cameras=6, image_size=(256, 128), drop_path=0.0)
    built.load_published(official)
    return built


@pytest.mark.slow
def test_test_time_features_are_the_originals(module):
    with torch.no_grad():
        found = module.eval()(golden.images(2, 256, 128, 3), CAMERAS)
    assert found.shape == (2, CARD.feature_dim) == (2, module.feature_dim)
    assert golden.difference(found, golden.values("transreid_A_jpm_sie_256_s16")["feat"]) < 1e-5


def test_training_outputs_are_the_originals(module):
    expected = golden.values("transreid_A_jpm_sie_256_s16")
    with torch.no_grad():
        output = module.train()(golden.images(4, 256, 128, 4), torch.arange(4))
    assert len(output.logits) == len(output.features) == 5
    for branch in range(5):
        assert golden.relative(output.logits[branch], expected[f"score{branch}"]) < 1e-4
        assert golden.relative(output.features[branch], expected[f"trainfeat{branch}"]) < 1e-4


def test_baseline_features_are_the_originals(official):
    names = golden.shapes("transreid")["C_base_256_s16"]["shapes"]
    with golden.without_start():
        built = registry.backbone("transreid:vit-baseline").build(num_classes=751, num_cameras=6, image_size=(256, 128))
    built.load_published({key: official[key] for key in names})
    with torch.no_grad():
        found = built.eval()(golden.images(2, 256, 128, 3), CAMERAS)
    assert golden.difference(found, golden.values("transreid_C_base_256_s16")["feat"]) < 1e-5


def test_what_the_module_needs_is_read_off_the_official_file(official):
    assert transreid.infer(official, (256, 128)) == {
        "num_classes": 751,
        "num_cameras": 6,
        "options": {"stride": 16, "jpm": True, "camera_embedding": True, "width": "base", "patch_size": 16},
    }


@pytest.mark.parametrize("count", CARD.parameters, ids=lambda c: str(c.count))
def test_parameter_counts_of_the_card_are_exact(count):
    with torch.device("meta"):
        built = registry.backbone("transreid").build(
            num_classes=count.num_classes,
            num_cameras=count.num_cameras,
            image_size=count.image_size,
            **count.options,
        )
    assert sum(p.numel() for p in built.parameters()) == count.count


def test_counts_of_the_card_follow_from_the_sizes_of_the_parts():
    block, norm, classes = 12 * 768**2 + 13 * 768, 2 * 768, 751
    shared = 16 * 16 * 3 * 768 + 768 + 768 + 129 * 768
    jpm = shared + 6 * 768 + 13 * block + 2 * norm + 5 * (norm + classes * 768)
    baseline = shared + 12 * block + norm + norm + classes * 768
    counts = {c.count for c in CARD.parameters}
    assert {jpm, baseline} <= counts
    assert jpm == 95_731_968
