"""docs/own-backbone.md: its example is a valid plug-in, and its table has every key of a card."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
import torch
from msgspec.structs import fields

from harness import registry
from harness.cards import BackboneCard, Published
from harness.contracts import TrainingOutput
from harness.errors import UsageError
from harness.registry import backbone_checks
from harness.system.paths import REPOSITORY

GUIDE = REPOSITORY / "docs" / "own-backbone.md"
TEXT = GUIDE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def plugins(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plugins") / "stripes"
    folder.mkdir()
    for name in ("card.toml", "model.py"):
        shown = re.search(rf"`plugins/stripes/{name}`:.*?```\w+\n(.*?)```", TEXT, re.DOTALL)
        assert shown
        (folder / name).write_text(textwrap.dedent(shown[1]), encoding="utf-8")
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


def test_the_guide_explains_every_key_of_a_card():
    assert keys_below("## Keys of the card") == {field.name for field in fields(BackboneCard)}
    assert keys_below("### Published results") == {field.name for field in fields(Published)}


def keys_below(heading: str) -> set[str]:
    """Names in the first column of the tables between a heading and the next one."""
    text = TEXT[TEXT.index(heading) + len(heading) :].split("\n#")[0]
    return {key for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for key in re.findall(r"`(\w+)`", row)}


def test_the_overview_names_every_backbone():
    text = (REPOSITORY / "backbones" / "README.md").read_text(encoding="utf-8")
    assert [entry.name for entry in registry.backbones() if f"`{entry.name}" not in text] == []
