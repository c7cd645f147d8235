"""`list` prints short tables, and everything about the names that follow the kind."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from harness import registry
from harness.cli.list import command


def printed(*words: str) -> str:
    found = CliRunner().invoke(command, list(words), catch_exceptions=False, standalone_mode=False)
    return found.output


def test_the_table_of_backbones_has_a_line_or_two_per_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    page = printed("backbones")
    rows, hints = page.split("\n\n")
    assert len(rows.splitlines()) <= 1.3 * len(registry.backbones()) + 1
    assert all(len(line) <= 100 for line in page.splitlines())
    assert "people: LUPerson" in rows and ", + " in rows
    assert "all-vit" in hints


def test_names_are_shown_with_everything_that_is_known() -> None:
    page = printed("backbones", "reidmamba", "pcb")
    assert "tokens-16" in page and "groups: mamba" in page and "PCB (ResNet-50)" in page and "LightMBN" not in page


def test_backbones_are_named_as_in_other_commands() -> None:
    page = printed("backbones", "osnet:x0_*", "clipreid", "all-mamba", "osnet", "timm")
    assert [line.split()[0] for line in page.splitlines() if line[:1].strip()] == [
        *("osnet", "clip-reid", "reidmamba", "timm")
    ]


def test_names_choose_the_rows_of_json() -> None:
    rows = json.loads(printed("backbones", "transreid", "--format", "json"))
    assert [(row["name"], row["start"], row["groups"]) for row in rows] == [("transreid", "ImageNet-21k", ["vit"])]


def test_a_wrong_name_gets_a_suggestion() -> None:
    with pytest.raises(Exception, match="Did you mean 'pcb'"):
        printed("backbones", "pbc")
