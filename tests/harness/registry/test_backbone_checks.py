"""Contract checks of a backbone, on a tiny plug-in and on faulty variants of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from msgspec import structs

from harness import registry
from harness.registry import backbone_checks

CARD = """kind = "backbone"
name = "tiny"
title = "Tiny"
paper = "none, a test"
licence = "none"
feature_dim = 8
side_information = ["camera"]
[input]
image_size = [16, 8]
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
[options]
camera_embedding = true
[variants.blind]
about = "without cameras"
options = { camera_embedding = false }
[[parameters]]
count = 88
num_classes = 6
num_cameras = 2
image_size = [16, 8]
"""
MODEL = """
import torch
from torch import nn
from harness.contracts import TrainingOutput
from harness.errors import WeightsError

class Tiny(nn.Module):
    def __init__(self, num_classes, num_cameras, camera_embedding):
        super().__init__()
        self.feature_dim = 8
        self.camera_mode = "on" if camera_embedding else "off"
        self.stem = nn.Conv2d(3, 8, 1, bias=False)
        self.norm = nn.BatchNorm2d(8, affine=False)
        self.cameras = nn.Parameter(torch.randn(num_cameras, 8))
        self.head = nn.Linear(8, num_classes, bias=False)

    def forward(self, images, camera_ids=None):
        feature = self.norm(self.stem(images)).relu().mean((2, 3))
        if self.camera_mode == "on":
            feature = feature + self.cameras[camera_ids]
        if self.camera_mode == "mean":
            feature = feature + self.cameras.mean(0)
        if self.training:
            return TrainingOutput([self.head(feature)], [feature])
        return feature

    def no_weight_decay(self):
        return {"cameras"}

    def load_published(self, state_dict):
        if state_dict.keys() != self.state_dict().keys():
            raise WeightsError("The checkpoint does not fit.")
        self.load_state_dict(state_dict)

def build(*, num_classes, num_cameras, image_size, pretrained=None, camera_embedding):
    return Tiny(num_classes, num_cameras, camera_embedding)
"""


def check(tmp_path: Path, card: str = CARD, model: str = MODEL, name: str = "tiny") -> list[str]:
    # every test has its own folder, because a plug-in is imported once per process
    folder = tmp_path / "tiny"
    folder.mkdir(parents=True)
    (folder / "card.toml").write_text(card)
    (folder / "model.py").write_text(model)
    return [f"{f.level}: {f}" for f in backbone_checks.check(registry.backbone(name, tmp_path))]


@pytest.fixture(autouse=True)
def _fresh_import(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for module in [name for name in sys.modules if name.startswith("harness_plugins")]:
        monkeypatch.delitem(sys.modules, module)


def test_a_good_backbone_has_no_finding(tmp_path: Path) -> None:
    assert check(tmp_path) == []


def test_a_variant_without_cameras_has_no_finding(tmp_path: Path) -> None:
    assert check(tmp_path, name="tiny:blind") == [
        "warning: 1 parameters get no gradient from the logits and features. For example: cameras."
    ]


FAULTS: dict[str, tuple[str, str, str]] = {
    "wrong width in the card": (
        "card",
        "feature_dim = 8|feature_dim = 9",
        "The card says feature_dim = 9",
    ),
    "wrong width": (
        "model",
        "self.feature_dim = 8|self.feature_dim = 7",
        "The feature has the shape [4, 8], expected [4, 7]",
    ),
    "wrong count": ("card", "count = 88|count = 89", "The card says 89 parameters"),
    "hidden cameras": ("card", 'side_information = ["camera"]|', 'Add side_information = ["camera"] to the card'),
    "cameras not used": ("model", "self.cameras[camera_ids]|0.0", "the feature does not depend on it"),
    "no camera mode": ("model", 'camera_mode = "on"|camera_mode = "yes"', "does not depend on it"),
    "no feature": ("model", "[feature])|[])", "its list of features is empty"),
    "no branch": ("model", "TrainingOutput([self.head(feature)], [feature])|TrainingOutput([], [])", "has no branch"),
    "logits of another width": ("model", "nn.Linear(8, num_classes|nn.Linear(8, 1 + num_classes", "expected [4, 5]"),
    "not finite": ("model", "return feature\n|return feature * float('nan')\n", "The feature contains NaN or infinity"),
    "random evaluation": (
        "model",
        "return feature\n|return feature + torch.rand(8)\n",
        "same images give different features",
    ),
    "looks at the batch": (
        "model",
        "return feature\n|return feature - feature.mean(0)\n",
        "depends on the other images of its batch",
    ),
    "blind": (
        "model",
        "return feature\n|return feature * 0 + self.cameras[camera_ids]\n",
        "does not depend on the image",
    ),
    "a list for a feature": ("model", "return feature\n|return [feature]\n", "must be a tensor, found list"),
    "unseeded": (
        "model",
        "torch.randn(num_c|torch.randn(torch.seed() and num_c",
        "same torch seed have different weights",
    ),
    "takes any weights": ("model", "raise WeightsError|return|", "accepts a checkpoint that shares no key"),
    "crashes on weights": ("model", "raise WeightsError|raise KeyError", "of another model, found KeyError"),
    "decay of nothing": ("model", '{"cameras"}|{"camera"}', "no_weight_decay names 1 parameters that do not exist"),
    "crashes in training": (
        "model",
        "if self.training:|if self.training and undefined:",
        "NameError: name 'undefined' is not defined",
    ),
    "crashes when built": ("model", "self.feature_dim = 8|self.feature_dim = 1 // 0", "Building the model fails"),
    "unknown dataset": (
        "card",
        "[[parameters]]|[[published]]\ndataset = 'x'\nmAP=1\nrank1=1\nimage_size=[16, 8]\nsource = ''\n[[parameters]]",
        "published results of datasets that are not registered. For example: x",
    ),
    "claim about an unknown dataset": (
        "card",
        "[[parameters]]|[[claims]]\nmetric = 'mAP'\nrelation = 'above'\ncomparator = 'all'\nsource = 'abstract'\n"
        "datasets = ['x']\n[[parameters]]",
        "claims about datasets that are not registered. For example: x",
    ),
    "unknown option of a variant": (
        "card",
        "{ camera_e|{ kamera_e",
        "Variant 'blind' sets options that [options] of the card does not",
    ),
    "unknown dataset of a variant": (
        "card",
        "[[parameters]]|[variants.blind.dataset.x]\n'optimizer.lr' = 0.1\n[[parameters]]",
        "recipe keys for datasets that are not registered",
    ),
    "missing requirement": (
        "card",
        "[[parameters]]|[[requires]]\nmodule = 'no_such_module'\ndistribution = 'no-such'\n[[parameters]]",
        "cannot be built: no-such is not installed",
    ),
    "trained all the same": (
        "card",
        "feature_dim = 8|feature_dim = 8\ntrainable = false",
        "the module returns an output in training mode",
    ),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_broken_contract_is_found(kind: str, tmp_path: Path) -> None:
    where, change, sentence = FAULTS[kind]
    old, new = change.split("|")[:2]
    assert old in (CARD if where == "card" else MODEL)
    card, model = (CARD.replace(old, new), MODEL) if where == "card" else (CARD, MODEL.replace(old, new))
    if kind == "takes any weights":
        model = MODEL.replace('raise WeightsError("The checkpoint does not fit.")', "return")
    findings = check(tmp_path, card, model)
    assert any(finding.startswith("error") and sentence in finding for finding in findings), findings


@pytest.mark.parametrize("name", ["dummy", "timm:test_resnet.r160_in1k"])
def test_light_backbones_of_the_repository_keep_the_contract(name: str) -> None:
    findings = backbone_checks.check(registry.backbone(name))
    assert [str(finding) for finding in findings if finding.level == "error"] == []


SMALL = {"bot": "bot:demo", "osnet": "osnet:x0_25", "reidmamba": "reidmamba:tiny", "transreid": "transreid:demo"}
"""Variants in place of backbones that take long at full size."""
LARGE = ("agw", "lightmbn", "luperson", "mgn", "pcb")
"""Backbones that are checked on smaller images than those of their card; they take images of any size."""

NARROW = {
    "clip-reid": ({"width": "tiny"}, 160),
    "pass": ({"size": "tiny"}, 384),
    "personvit": ({"size": "tiny"}, 192),
    "solider": ({"size": "tiny"}, 768),
    "transreid-ssl": ({"size": "tiny"}, 192),
}
"""Options and width of the feature with which other large backbones are checked, on small images."""


def narrow(name: str) -> registry.BackboneEntry:
    entry = registry.backbone(SMALL.get(name, name))
    if name in LARGE:
        image = structs.replace(entry.card.input, image_size=(128, 64))
        return dataclasses.replace(entry, card=structs.replace(entry.card, input=image))
    if name not in NARROW:
        return entry
    options, width = NARROW[name]
    image = structs.replace(entry.card.input, image_size=(64, 32))
    changed = {"options": {**entry.card.options, **options}, "feature_dim": width, "input": image, "parameters": ()}
    return dataclasses.replace(entry, card=structs.replace(entry.card, **changed))


@pytest.mark.slow
@pytest.mark.parametrize("name", [e.name for e in registry.backbones() if not e.card.adapter])
def test_every_backbone_of_the_repository_keeps_the_contract(name: str) -> None:
    findings = backbone_checks.check(narrow(name))
    assert [str(finding) for finding in findings if finding.level == "error"] == []
