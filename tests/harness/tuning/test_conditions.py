"""Conditional and optional parameters of search spaces, and what spaces of before keep: their ids."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import registry
from harness.errors import UsageError
from harness.spec import recipe
from harness.tuning import sampler, space
from harness.tuning.sampler import Known
from harness.tuning.space import Space
from tests.support import searches

TRAINING = space.load("training")
CHAIN = {
    "a": {"key": "recipe.x", "distribution": "choice", "values": ["p", "q"]},
    "c": {"key": "recipe.z", "active_if": {"b": ["r"]}},
    "b": {"key": "recipe.y", "distribution": "choice", "values": ["r", "s"], "active_if": {"a": ["p"]}},
    "d": {"key": "recipe.w", "active_if": ["c"], "default": 0.5},
}
POSITIONS = st.fixed_dictionaries({name: st.floats(0, 1) for name in TRAINING.parameters})


@given(POSITIONS)
def test_every_optimiser_has_a_rate_of_its_own_and_only_one(positions: dict[str, float]) -> None:
    point = TRAINING.at(positions)
    rates = [name for name in ("sgd_rate", "adam_rate", "adamw_rate") if point[name] is not None]
    assert rates == [f"{point['optimizer']}_rate"]
    keys = TRAINING.recipe(point, epochs=60)
    assert keys["optimizer.lr"] == point[rates[0]] and keys["schedule.warmup_epochs"] <= 12
    assert TRAINING.canonical(point) == point and None not in keys.values()
    made = recipe.load(recipe.find("unified"), "", keys)
    assert made.optimizer.name == point["optimizer"] and made.loss.margin == point["margin"]


@given(POSITIONS)
def test_a_point_comes_back_from_its_positions(positions: dict[str, float]) -> None:
    point = TRAINING.at(positions)
    assert TRAINING.at(TRAINING.positions(point)) == point


def test_backbones_without_drop_path_are_searched_at_the_same_points() -> None:
    bare, full = TRAINING.fitting(()), TRAINING.fitting(("drop_path",))
    assert set(full.parameters) - set(bare.parameters) == {"drop_path"}
    for number in range(5):
        one, other = (sampler.suggest(s, "random", seed=3, number=number, samples=9, known=[]) for s in (bare, full))
        assert one is not None and other is not None
        assert one == {name: value for name, value in other.items() if name != "drop_path"}


def test_tpe_takes_conditional_trials() -> None:
    known: list[Known] = []
    for number in range(14):
        point = sampler.suggest(TRAINING, "tpe", seed=1, number=number, samples=14, known=known)
        assert point is not None
        known.append(Known(point, 0.1 * number))


@pytest.mark.parametrize("name", ["training", "loss"])
@pytest.mark.parametrize("backbone", ["bot", "transreid", "osnet", "timm:resnet18"])
def test_shipped_spaces_fit_every_backbone(name: str, backbone: str) -> None:
    entry = registry.backbone(backbone)
    found = space.load(name).fitting(entry.card.options)
    for position in (0.0, 0.4, 0.999):
        point = found.at(dict.fromkeys(found.parameters, position))
        entry.options(found.options(point))
        recipe.load(recipe.find("unified"), "", found.recipe(point, 120))


def test_spaces_of_before_keep_their_ids_and_files() -> None:
    assert searches.new_search().id == "ratr-pixels-market1501-de3de3aa01"
    table = searches.new_search().to_dict()
    assert "tuned" not in table["settings"] and "estimate" not in table
    assert all(keys.keys().isdisjoint(space.LATER_KEYS) for _, keys in table["space"]["parameters"])
    assert Space.from_dict(TRAINING.to_dict()) == TRAINING


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"a": {"key": "recipe.x", "active_if": {"b": [1]}}}, "parameter in active_if of a"),
        ({"a": {"key": "recipe.x", "active_if": {"a": [1]}}}, "cannot be its own condition"),
        ({"a": {"key": "recipe.x"}, "b": {"key": "recipe.x"}}, "a and b both set recipe.x"),
        ({**CHAIN, "a": {"key": "recipe.x", "active_if": ["c"], "default": 1}}, "cannot be its own condition"),
        ({**CHAIN, "c": {"key": "recipe.z", "active_if": {"b": ["t"]}}}, "needs values that b can have, found t"),
        ({**CHAIN, "c": {"key": "recipe.z", "active_if": {"b": []}}}, "found no value"),
        ({**CHAIN, "c": {"key": "option.z", "optional": True}}, "names c, which is optional"),
        ({"a": {"key": "recipe.x", "optional": True}}, "optional needs a key 'option.NAME'"),
        ({"a": {"key": "option.x", "unit": "epochs"}}, "unit needs a range of numbers"),
        ({"a": {"key": "recipe.x", "distribution": "choice", "values": [1, 1]}}, "at least two values, found 1"),
    ],
)
def test_wrong_conditions_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Space.from_dict({"name": "mine", "parameters": parameters})


@given(st.fixed_dictionaries({name: st.floats(0, 1) for name in CHAIN}))
def test_what_has_no_effect_gives_no_other_parameter_an_effect(positions: dict[str, float]) -> None:
    chain = Space.from_dict({"name": "chain", "parameters": CHAIN})
    point = chain.at(positions)
    assert list(point) == list(CHAIN) and chain.canonical(point) == point
    assert (point["b"] is None) == (point["a"] == "q") and (point["c"] is None) == (point["b"] != "r")
    assert point["c"] or point["d"] == 0.5


def test_tpe_takes_a_choice_without_effect() -> None:
    chain, known = Space.from_dict({"name": "chain", "parameters": CHAIN}), list[Known]()
    for number in range(14):
        point = sampler.suggest(chain, "tpe", seed=1, number=number, samples=14, known=known)
        assert point is not None
        known.append(Known(point, 0.1 * number))
    assert None in {trial.point["b"] for trial in known}
