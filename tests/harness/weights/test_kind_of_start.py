"""The kind of start of a training, as cards and options tell it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import registry
from harness.cards import read_card
from harness.errors import UsageError
from harness.weights import kind_of_start


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("bot", "ImageNet-1k"),
        ("bot:demo", "none"),
        ("dummy", "none"),
        ("transreid", "ImageNet-21k"),
        ("transreid:deit", "ImageNet-1k"),
        ("luperson", "people: LUPerson"),
        ("timm:resnet50", "unknown"),
        ("timm:vit_base_patch16_224.augreg_in21k_ft_in1k", "ImageNet-21k"),
        ("timm:tf_efficientnet_lite0.in1k", "ImageNet-1k"),
        ("timm:vit_base_patch16_clip_224.openai", "CLIP"),
        ("timm:vit_base_patch16_siglip_256.webli", "SigLIP"),
        ("timm:vit_base_patch14_dinov2.lvd142m", "web images"),
        ("timm:vit_small_patch16_224.dino", "ImageNet-1k"),
    ],
)
def test_the_kind_follows_the_file_that_the_options_choose(name: str, kind: str) -> None:
    entry = registry.backbone(name)
    assert kind_of_start(entry.card, entry.options()) == kind
    assert kind_of_start(entry.card, entry.options(), "none") == "none"


def test_every_card_with_a_file_tells_the_kind() -> None:
    cards = [entry.card for entry in registry.backbones() if entry.card.pretrained]
    assert [card.name for card in cards if not (card.pretrained.kind or card.pretrained.kinds)] == []


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    card = (registry.backbone("bot").folder / "card.toml").read_text(encoding="utf-8")
    (tmp_path / "bot").mkdir()
    path = tmp_path / "bot" / "card.toml"
    for kind in ("imagenet", "people: "):
        path.write_text(card.replace('kind = "ImageNet-1k"', f'kind = "{kind}"'), encoding="utf-8")
        with pytest.raises(UsageError, match=r"pretrained\.kind must be one of ImageNet-1k"):
            read_card(path)
