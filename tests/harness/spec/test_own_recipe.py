"""docs/own-recipe.md: its tables have every key of a recipe, with the types and values of the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec import inspect
from msgspec.structs import fields

from harness.errors import UsageError
from harness.spec import recipe
from harness.spec.recipe import Recipe
from harness.system.paths import REPOSITORY

PAGE = (REPOSITORY / "docs" / "own-recipe.md").read_text(encoding="utf-8")
SECTIONS = (
    "augmentation",
    "augmentation.erasing",
    "sampler",
    "loss",
    "optimizer",
    "schedule",
    "training",
    "evaluation",
)
UNIFIED = recipe.load(recipe.FOLDER / "unified.toml")


def type_of(kind: Any) -> str:
    """A type in words, with its limits."""
    if isinstance(kind, inspect.UnionType):
        return " or ".join(map(type_of, kind.types))
    if isinstance(kind, inspect.LiteralType):
        return ", ".join(f"`{value}`" for value in kind.values)
    if isinstance(kind, inspect.BoolType):
        return "`true`, `false`"
    if isinstance(kind, inspect.TupleType):
        return several(str(len(kind.item_types)), type_of(kind.item_types[0]))
    if isinstance(kind, inspect.VarTupleType):
        return several("list of", type_of(kind.item_type))
    assert isinstance(kind, inspect.IntType | inspect.FloatType)
    word = "whole number" if isinstance(kind, inspect.IntType) else "number"
    if kind.ge is not None and kind.le is not None:
        return f"{word}, {kind.ge} to {kind.le}"
    if kind.gt is not None:
        return f"{word}, above {kind.gt}" + (f", at most {kind.le}" if kind.le is not None else "")
    return f"{word}, at least {kind.ge}" if kind.ge is not None else word


def several(count: str, one: str) -> str:
    word, comma, limits = one.partition(", ")
    return f"{count} {word}s" + (f", each {limits}" if comma else "")


def written(value: Any) -> str:
    """A value as a recipe file has it."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(written, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def keys() -> Iterator[tuple[str, str, str, str]]:
    """Key, type, value in `unified` and default of every key of the code."""
    for section in SECTIONS:
        here: Any = UNIFIED
        for part in section.split("."):
            here = getattr(here, part)
        types = inspect.type_info(type(here))
        assert isinstance(types, inspect.StructType)
        for field, shown in zip(fields(here), types.fields, strict=True):
            if not isinstance(shown.type, inspect.StructType):
                values = (getattr(here, field.name), field.default)
                yield f"{section}.{field.name}", type_of(shown.type), written(values[0]), written(values[1])


def test_the_tables_have_every_key_with_its_type_and_value() -> None:
    found = []
    for section, table in re.findall(r"^### `\[(.*?)\]`\n(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL):
        for row in re.findall(r"^\| (`\w+` .*) \|$", table, re.MULTILINE):
            key, kind, _, unified, _ = row.split(" | ")
            found.append((f"{section}.{key.strip('`')}", kind, unified.strip("`")))
    assert found == [(key, kind, unified) for key, kind, unified, _ in keys()]


def test_the_page_lists_the_keys_whose_default_is_not_that_of_unified() -> None:
    differing = {f"`{key}` {default}" for key, _, unified, default in keys() if unified != default}
    (listed,) = re.findall(r"^A key that you leave out .*?$\n(.*?)\n\n", PAGE, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"`[\w.]+` [\w.]+(?=[,.;])", listed)) == differing


def test_younger_keys_are_in_run_specs_only_if_they_are_used() -> None:
    others = {"triplet_kind": "weighted", "triplet_branches": 3, "layer_decay": 0.5, "head_lr_factor": 10.0}
    others |= {"micro_batch": 32, "gradient_checkpointing": True, "compile": "default"}
    for key, default in recipe.LATER.items():
        table, name = key.split(".")
        assert name not in UNIFIED.values()[table] and UNIFIED.values(complete=True)[table][name] == default
        used = recipe.load(recipe.find("unified"), "", {key: others[name]})
        assert name in used.values()[table]
        assert getattr(getattr(recipe.from_values("unified", used.values()), table), name) != default


def test_every_section_of_a_recipe_has_a_table() -> None:
    named = {section.partition(".")[0] for section in SECTIONS}
    assert {field.name for field in fields(Recipe)} == named | {"name", "about", "options", "sources"}


@pytest.mark.parametrize(("key", "value"), [("training.micro_batch", 8), ("training.gradient_checkpointing", True)])
def test_compiled_training_cannot_be_combined_with_savings_of_memory(key: str, value: Any) -> None:
    changed = {"training.compile": "default", key: value}
    with pytest.raises(UsageError, match=f"training.compile cannot be combined with {key}"):
        recipe.load(recipe.find("unified"), "", changed)
