"""The run id changes with every field, but not with order or representation."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from harness.spec.run_spec import RunSpec, canonical

BASE = RunSpec("bot", "market1501", "unified", {"optimizer": {"lr": 0.1}}, 0, "cpu", "1.0", "2.14")

OTHER: dict[str, Any] = {
    "backbone": "transreid",
    "dataset": "dukemtmc",
    "recipe": "native",
    "values": {"optimizer": {"lr": 0.2}},
    "seed": 1,
    "device": "cuda",
    "protocol": "1.1",
    "torch": "2.15",
    "source": "abc",
    "pretrained": "sha256:1",
    "fingerprint": "f",
    "options": {"stride": 12},
    "dataset_options": {"market1501": {"version": "x"}},
    "evaluate_on": (("msmt17", "f"),),
    "purpose": "search",
    "holdout": {"seed": 0},
}


def test_every_field_is_tested_here() -> None:
    assert set(OTHER) == set(RunSpec.__struct_fields__)


@pytest.mark.parametrize("field", sorted(OTHER))
def test_each_field_alone_changes_the_id(field: str) -> None:
    assert replace(BASE, **{field: OTHER[field]}).run_id != BASE.run_id


def test_round_trip_through_json_keeps_the_id() -> None:
    spec = replace(BASE, **OTHER)
    assert RunSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert RunSpec.from_dict(spec.to_dict()).run_id == spec.run_id


@given(
    st.dictionaries(
        st.text(), st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(), max_size=6
    ),
    st.randoms(),
)
def test_order_of_keys_does_not_matter(table: dict[str, Any], random: Any) -> None:
    items = list(table.items())
    random.shuffle(items)
    assert canonical(dict(items)) == canonical(table)


def test_nan_has_no_canonical_form() -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical(float("nan"))
