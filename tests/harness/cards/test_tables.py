"""Tables become typed values; errors name the wrong key, the expected type and the found value."""

from __future__ import annotations

import datetime
import math
from typing import Any

import pytest

from harness.cards import BackboneCard, DatasetCard, from_table
from harness.errors import UsageError
from harness.spec import recipe
from harness.spec.recipe import Recipe
from harness.spec.run_spec import canonical

BACKBONE = {
    "name": "a",
    "title": "A",
    "feature_dim": 8,
    "input": {"image_size": [256, 128], "mean": [0.5], "std": [1]},
}
DATASET = {"name": "a", "title": "A", "layouts": []}
VARIANT = {"about": "x"}

REFUSED = {
    "a key of another name": (
        Recipe,
        {"loss": {"margn": 1.0}},
        "Unknown key in x: loss 'margn'. Did you mean 'margin'?",
    ),
    "a table of another name": (Recipe, {"los": {}}, "Unknown key in x 'los'. Did you mean 'loss'?"),
    "text for a table": (Recipe, {"loss": "soft"}, "x: loss must be a table, found 'soft'."),
    "a number for text": (Recipe, {"about": 3}, "x: about must be text, found 3."),
    "a number for a switch": (
        Recipe,
        {"evaluation": {"flip": 1}},
        "x: evaluation.flip must be true or false, found 1.",
    ),
    "a switch for a number": (
        Recipe,
        {"loss": {"triplet": True}},
        "x: loss.triplet must be a number of at least 0, found True.",
    ),
    "a fraction of epochs": (
        Recipe,
        {"training": {"epochs": 2.5}},
        "x: training.epochs must be a whole number of at least 0, found 2.5.",
    ),
    "a value of a list": (
        Recipe,
        {"augmentation": {"erasing": {"area": [0.1, 2]}}},
        "x: augmentation.erasing.area[1] must be a number from 0 to 1, found 2.",
    ),
    "a list too short": (
        Recipe,
        {"augmentation": {"image_size": [64]}},
        "x: augmentation.image_size must be a list of 2 values, found [64].",
    ),
    "a wrong choice": (
        Recipe,
        {"sampler": {"epoch": "one-pas"}},
        "x: sampler.epoch must be one of fixed, images-ceil, images-floor, one-pass, found 'one-pas'. Did you mean",
    ),
    "a wrong margin": (
        Recipe,
        {"loss": {"margin": "sofft"}},
        "x: loss.margin must be 'soft' or a number of at least 0, found 'sofft'. Did you mean 'soft'?",
    ),
    "no finite number": (Recipe, {"training": {"grad_clip": math.inf}}, "x: training.grad_clip must be plain data"),
    "not a number": (Recipe, {"options": {"a": [1, math.nan]}}, "x: options.a[1] must be plain data"),
    "a number too large": (Recipe, {"training": {"epochs": 2**63}}, "x: training.epochs must be plain data"),
    "a date": (
        BackboneCard,
        {**BACKBONE, "options": {"a": datetime.date(2020, 1, 1)}},
        "x: options.a must be plain data",
    ),
    "half a surrogate pair": (BackboneCard, {**BACKBONE, "\ud800": 1}, "x contains text that is not valid Unicode"),
    "keys that lack": (BackboneCard, {"name": "a"}, "x lacks feature_dim, input, title."),
    "an entry of a list": (
        BackboneCard,
        {**BACKBONE, "published": [{"dataset": "d", "mAP": 1}]},
        "x: published[0] lacks image_size, rank1, source.",
    ),
    "an entry by name": (
        BackboneCard,
        {**BACKBONE, "variants": {"a": VARIANT, "b": {"about": 3}}},
        "x: variants.b.about must be text, found 3.",
    ),
    "a key of an entry": (
        BackboneCard,
        {**BACKBONE, "variants": {"a": VARIANT, "b": {"abot": "x"}}},
        "Unknown key in x: variants.b 'abot'. Did you mean 'about'?",
    ),
    "a size in words": (
        DatasetCard,
        {**DATASET, "image_size": "vary"},
        "x: image_size must be a list of 2 values or '' or 'varies', found 'vary'. Did you mean",
    ),
    "a long value": (
        DatasetCard,
        {**DATASET, "cameras": "9" * 500},
        f"x: cameras must be a whole number, found '{'9' * 79}...",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(case: str) -> None:
    kind, table, message = REFUSED[case]
    with pytest.raises(UsageError) as caught:
        from_table(kind, {"name": "a", **table}, "x")
    assert str(caught.value).startswith(message)


def test_whole_numbers_become_numbers_where_a_fraction_may_stand() -> None:
    """Run ids are made of the values, so `1` and `1.0` must be one value."""
    table: dict[str, Any] = {"name": "a", "loss": {"triplet": 1, "margin": 1}, "schedule": {"milestones": [40, 70]}}
    found = from_table(Recipe, table, "x")
    assert [type(v) for v in (found.loss.triplet, found.loss.margin, *found.schedule.milestones)] == [
        float,
        float,
        int,
        int,
    ]


def test_soft_margin_is_a_word_for_people_only() -> None:
    path = recipe.find("unified")
    soft = [recipe.load(path, overrides={"loss.margin": value}) for value in ("soft", -1, -1.0)]
    assert {found.loss.margin for found in soft} == {"soft"}
    assert {canonical(found.values()["loss"]["margin"]) for found in soft} == {"-1.0"}
    assert recipe.from_values("again", soft[0].values()).loss.margin == "soft"
    assert recipe.shown("loss.margin", -1.0) == "soft" and recipe.shown("loss.triplet", -1.0) == -1.0
