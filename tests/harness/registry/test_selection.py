"""Names that users type for several backbones or datasets: groups and patterns."""

from __future__ import annotations

import pytest

from harness import registry
from harness.errors import UsageError

VARIANTS = registry.backbone("reidmamba").card.variants


def chosen(names: str) -> list[str]:
    return [entry.name for entry in registry.resolve_backbones(names)]


def test_a_pattern_after_a_colon_means_the_backbone_and_its_variants() -> None:
    assert chosen("reidmamba:*") == ["reidmamba", *(f"reidmamba:{name}" for name in VARIANTS)]
    assert chosen("reidmamba:tokens-*") == ["reidmamba:tokens-4", "reidmamba:tokens-8", "reidmamba:tokens-16"]
    assert chosen("osnet:x0_?") == ["osnet:x0_5"]
    assert chosen("clipreid:*") == chosen("clip-reid:*")  # an alias


def test_a_pattern_without_a_colon_means_backbones_that_can_be_trained() -> None:
    assert chosen("trans*") == ["transreid", "transreid-ssl"]
    assert chosen("*") == chosen("all") and "timm" not in chosen("*")


def test_a_group_means_its_members_once() -> None:
    members = [e.name for e in registry.backbones() if "vit" in e.card.groups]
    assert {"transreid", "pass"} <= set(members)
    assert chosen("all-vit") == members
    assert chosen("pass,all-vit,trans*") == ["pass", *(name for name in members if name != "pass")]
    assert registry.groups()["all-vit"] == members


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ("all-vti", "Unknown group of backbones 'all-vti'. Did you mean 'all-vit'?"),
        ("reidmmba:*", "No backbone matches 'reidmmba:*'. Did you mean 'reidmamba'?"),
        ("osnet:y*", "No backbone matches 'osnet:y*'."),
        ("timm:vit_*", "'timm:vit_*' is a pattern, and timm takes the name of one model."),
    ],
)
def test_names_that_mean_nothing_are_refused(names: str, sentence: str) -> None:
    with pytest.raises(UsageError) as error:
        registry.resolve_backbones(names)
    assert str(error.value).startswith(sentence)


def test_patterns_of_datasets() -> None:
    found = [entry.name for entry in registry.resolve_datasets("cuhk03_det*,market1501")]
    assert found == ["cuhk03-detected", "market1501"]
    with pytest.raises(UsageError, match="No dataset matches 'cuhk04"):
        registry.resolve_datasets("cuhk04*")
