"""Native recipes say where every value comes from, also those of one dataset."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import registry
from harness.cards import read_toml
from harness.planning.request import Request, chosen_options, load_recipe, make

NATIVE = {entry.name: entry.native_recipe for entry in registry.backbones() if entry.native_recipe.is_file()}


def keys(table: dict[str, Any], before: str = "") -> Iterator[str]:
    for key, value in table.items():
        yield from keys(value, f"{before}{key}.") if isinstance(value, dict) else [before + key]


@pytest.mark.parametrize("name", NATIVE)
def test_every_value_has_a_source(name: str) -> None:
    whole = read_toml(NATIVE[name])
    for dataset, table in {"": whole, **whole.get("dataset", {})}.items():
        parts = {k: v for k, v in table.items() if isinstance(v, dict) and k not in ("sources", "dataset")}
        found, sources = set(keys(parts)), table["sources"]
        bare = {key for key in found if not any(f"{key}.".startswith(f"{source}.") for source in sources)}
        assert found and not bare, f"{dataset or 'all datasets'}: no source for {sorted(bare)}"
        assert all(text.strip() for text in sources.values())


def test_variant_differs_only_under_its_native_recipe(tmp_path: Path) -> None:
    entry = registry.backbone("transreid:deit-stride12")
    assert entry.settings.dataset == {"msmt17": {"optimizer.lr": 0.005}}

    def rate(recipe: str, dataset: str) -> float:
        request = Request("transreid", dataset, recipe=recipe, results=tmp_path)
        return load_recipe(request, entry, dataset).optimizer.lr

    assert rate("native", "msmt17") == 0.005
    assert rate("native", "market1501") == rate("unified", "msmt17") == 0.008


def test_these_backbones_have_native_recipes() -> None:
    by_branches = {"lightmbn", "mgn", "pcb"}
    people = {"pass", "personvit", "transreid-ssl"}
    assert (
        set(NATIVE) >= {"agw", "bot", "osnet", "clip-reid", "reidmamba", "solider", "transreid"} | by_branches | people
    )


def test_a_preset_leaves_alone_what_a_variant_sets() -> None:
    """The rows of an ablation would have names that are not true."""
    preset = {"name": "small", "options": {"reidmamba": {"width": "tiny", "class_tokens": 4}}}
    request = make("reidmamba:tokens-8", "market1501", {"options": {"reidmamba": {"branches": 2}}}, preset)
    found = {name: chosen_options(request, registry.backbone(name)) for name in ("reidmamba:tokens-8", "reidmamba")}
    assert found["reidmamba:tokens-8"] == {"width": "tiny", "branches": 2}
    assert found["reidmamba"] == {"width": "tiny", "class_tokens": 4, "branches": 2}
