"""ResNet-50 starts from the weights of LUPerson, and its checkpoints are recognised."""

from __future__ import annotations

import pytest
import torch
from timm.models.resnet import Bottleneck, ResNet
from torch import nn

from backbones.agw import model as agw
from backbones.luperson import model as luperson
from harness import registry
from harness.errors import WeightsError
from harness.weights import wanted

ENTRY = registry.backbone("luperson")


@pytest.mark.parametrize("prefix", ["", "module.encoder_q."])
def test_the_published_start_and_a_checkpoint_of_moco_fill_the_resnet(tmp_path, prefix):
    source = ResNet(Bottleneck, (3, 4, 6, 3), num_classes=10)
    state = {f"{prefix}{key}": value for key, value in source.state_dict().items()}
    if prefix:
        state |= {"module.encoder_k.conv1.weight": torch.zeros(1), "module.queue": torch.zeros(1)}
    torch.save({"state_dict": state, "epoch": 200}, tmp_path / "lup_moco_r50.pth")
    built = ENTRY.build(num_classes=5, num_cameras=0, image_size=(64, 32), pretrained=tmp_path / "lup_moco_r50.pth")
    assert isinstance(built.base.act1, nn.ReLU)
    images = torch.randn(2, 3, 64, 32)
    strided = source.eval()  # the same network, apart from the stride of its last stage
    for convolution in ("layer4.0.conv2", "layer4.0.downsample.0"):
        strided.get_submodule(convolution).stride = (1, 1)
    with torch.no_grad():
        assert torch.allclose(built.eval().base.feature_map(images), strided.forward_features(images), atol=1e-5)


def test_a_file_of_another_network_is_refused(tmp_path):
    torch.save({"base.pos_embed": torch.zeros(1)}, tmp_path / "lup_moco_r50.pth")
    with pytest.raises(WeightsError, match="share no key"):
        ENTRY.build(num_classes=5, num_cameras=0, image_size=(64, 32), pretrained=tmp_path / "lup_moco_r50.pth")


def test_what_the_module_needs_is_read_off_a_checkpoint():
    with torch.device("meta"):
        for count in ENTRY.card.parameters:
            built = luperson.build(num_classes=751, num_cameras=6, image_size=(256, 128), **count.options)
            assert sum(p.numel() for p in built.parameters()) == count.count
            found = luperson.infer(built.state_dict(), (256, 128))
            assert found == {"num_classes": 751, "num_cameras": 0, "options": {"pool": "gem"} | count.options}
        other = agw.build(num_classes=5, num_cameras=0, image_size=(256, 128))
    with pytest.raises(WeightsError, match="checkpoint of AGW"):
        luperson.infer(other.state_dict(), (256, 128))


def test_the_starting_file_has_the_name_of_the_authors():
    assert wanted(ENTRY.card, ENTRY.options()).files == ("lup_moco_r50.pth",)
