"""The page about records has the content of the types."""

from __future__ import annotations

import json
from typing import get_type_hints

import pytest

from harness.records import documentation, schema, store
from harness.spec.names import PURPOSES, Source
from harness.spec.run_spec import RunSpec
from harness.system.paths import REPOSITORY


def test_the_tables_of_the_page_are_those_of_the_types() -> None:
    page = documentation.PAGE.read_text(encoding="utf-8")
    assert page == documentation.updated(page), "run: python -m harness.records.documentation"


def test_a_stale_table_is_noticed() -> None:
    page = documentation.PAGE.read_text(encoding="utf-8")
    stale = page.replace("| **`n_query`** | a whole number |", "| **`n_query`** | text |")
    assert stale != page and documentation.updated(stale) == page


def test_the_spec_of_a_record_has_the_fields_of_a_run_spec() -> None:
    assert set(get_type_hints(schema.Spec)) == set(RunSpec.__struct_fields__)


def test_each_purpose_has_a_source_of_its_own() -> None:
    assert sorted(purpose.source for purpose in PURPOSES.values()) == sorted(Source.__args__)


@pytest.mark.parametrize("path", sorted((REPOSITORY / "results").rglob(store.RECORD)), ids=lambda p: p.parent.name)
def test_a_committed_record_is_valid(path) -> None:
    assert schema.validate(json.loads(path.read_text(encoding="utf-8"))) == []
