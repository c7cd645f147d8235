"""The contract of backbones: its optional parts, and the one place that reads them."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from harness import contracts
from harness.contracts import BackboneCode, BackboneExtras
from harness.errors import WeightsError
from harness.system.paths import REPOSITORY

OPTIONAL = {*BackboneExtras.__annotations__, *(name for name in vars(BackboneExtras) if not name.startswith("_"))}
OPTIONAL |= BackboneCode.__annotations__.keys() - {"build"}


class Camera(nn.Module):
    camera_mode = "on"


class Full(nn.Module):
    feature_dim = 7

    def __init__(self):
        super().__init__()
        self.camera = Camera()

    def no_weight_decay(self):
        return ["camera.bias"]

    def load_published(self, state_dict):
        self.loaded = state_dict

    def extra_flops(self):
        return 12

    def scan_implementation(self):
        return "torch"


def test_parts_that_are_there_are_read():
    module = Full()
    assert contracts.feature_dim(module, 3) == 7
    assert contracts.no_weight_decay(module) == {"camera.bias"}
    assert contracts.extra_flops(module) == 12
    assert contracts.scan_implementation(module) == "torch"
    assert contracts.camera_parts(module) == [module.camera]
    assert contracts.set_camera_mode(module, "mean") == [module.camera]
    assert (contracts.camera_parts(module), module.camera.camera_mode) == ([], "mean")
    load = contracts.published_loader(module)
    assert load is not None
    load({"a": 1})
    assert module.loaded == {"a": 1}


def test_a_plain_module_has_none_of_them():
    module = nn.Linear(2, 2)
    assert contracts.feature_dim(module, 3) == 3
    assert contracts.no_weight_decay(module) == set()
    assert contracts.extra_flops(module) == 0
    assert contracts.scan_implementation(module) is None
    assert contracts.published_loader(module) is None
    assert contracts.set_camera_mode(module, "mean") == []


def test_what_a_checkpoint_says_is_complete_or_none():
    class Code:
        @staticmethod
        def infer(state_dict, image_size):
            return {"num_classes": len(state_dict["classifier.weight"])}

    state = {"classifier.weight": torch.zeros(5, 2)}
    assert contracts.inferred(Code, state, (8, 4)) == {"num_classes": 5, "num_cameras": 0, "options": {}}
    assert contracts.inferred(object, state, (8, 4)) is None
    with pytest.raises(WeightsError, match="sizes cannot be read off its tensors"):
        contracts.inferred(Code, {"classifier.weight": torch.tensor(1.0)}, (8, 4))


def test_optional_parts_are_read_in_one_place_and_explained():
    assert {"camera_mode", "load_published", "infer"} <= OPTIONAL
    guide = (REPOSITORY / "docs" / "own-backbone.md").read_text(encoding="utf-8")
    assert [name for name in sorted(OPTIONAL) if f"| `{name}" not in guide] == []
    for path in sorted((REPOSITORY / "harness").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        read = [name for name in sorted(OPTIONAL) if re.search(rf'getattr\([^"]*, "{name}"', text)]
        assert not read or path.name == "contracts.py", f"{path} reads {read} itself"
