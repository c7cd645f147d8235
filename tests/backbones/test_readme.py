"""The guide "add your own backbone": its example is a plug-in that keeps the contract."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from harness import registry
from harness.contracts import TrainingOutput
from harness.errors import UsageError
from harness.registry import backbone_checks
from harness.system.paths import REPOSITORY

GUIDE = REPOSITORY / "backbones" / "README.md"


@pytest.fixture(scope="module")
def plugins(tmp_path_factory) -> Path:
    blocks = dict(re.findall(r"```(toml|python)\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL))
    folder = tmp_path_factory.mktemp("plugins") / "stripes"
    folder.mkdir()
    (folder / "card.toml").write_text(blocks["toml"], encoding="utf-8")
    (folder / "model.py").write_text(blocks["python"], encoding="utf-8")
    return folder.parent


def test_the_example_builds_trains_and_gives_features(plugins: Path):
    entry = registry.backbone("stripes:fine", plugins)
    module = entry.build(num_classes=5, num_cameras=2, image_size=(64, 32), channels=8)
    images = torch.rand(3, 3, 64, 32)
    output = module.train()(images, torch.zeros(3, dtype=torch.long))
    assert isinstance(output, TrainingOutput)
    assert output.logits[0].shape == (3, 5)
    assert module.eval()(images, None).shape == (3, 32) == (3, module.feature_dim)
    again = entry.model().infer(module.state_dict(), (64, 32))
    assert (again["num_classes"], again["options"]) == (5, {"channels": 8})
    with pytest.raises(UsageError, match="Did you mean 'stripes'"):
        entry.build(num_classes=5, num_cameras=2, image_size=(64, 32), stripe=3)


def test_the_example_keeps_the_contract(plugins: Path):
    findings = backbone_checks.check(registry.backbone("stripes", plugins))
    assert [str(finding) for finding in findings if finding.level != "info"] == []


def test_the_guide_names_every_backbone():
    text = GUIDE.read_text(encoding="utf-8")
    assert [entry.name for entry in registry.backbones() if f"`{entry.name}" not in text] == []
