"""Parts of the queries, precision at matches and the worst queries."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from harness.audits.checks import breakdown
from harness.audits.subject import Subject
from tests.harness.audits.subjects import crowd, pictured, subject


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40))
def test_parts_cover_each_query_once(numbers: list[int]) -> None:
    values = np.array(numbers, dtype=float)
    found = list(breakdown.parts(values))
    assert 1 <= len(found) <= 4
    assert (np.sum(found, axis=0) == 1).all()
    for one, next_ in itertools.pairwise(found):
        assert values[one].max() < values[next_].min()


def test_parts_of_distinct_values_are_quarters() -> None:
    assert [part.sum() for part in breakdown.parts(np.arange(8.0))] == [2, 2, 2, 2]


def test_brightness_is_luma() -> None:
    made = subject([(1, 0, 0.0), (2, 0, 9.0)], [(1, 1, 1.0)])
    red, white = np.zeros((3, 2, 2), np.uint8), np.full((3, 2, 2), 255, np.uint8)
    red[0] = 255
    made.open_images = lambda items: [red, white]
    assert breakdown.brightness(made) == pytest.approx([0.299, 1.0])


def ran(made: Subject, files: dict[str, str] | None = None) -> list[Any]:
    made.keep = lambda name, text: (files if files is not None else {}).update({name: text})
    return list(breakdown.run(made))


def test_rows_of_a_crowd(tmp_path: Any) -> None:
    made = pictured(weight=0.0)
    images = made.network.pictures  # type: ignore[union-attr]
    for number, item in enumerate(made.query):
        Image.new("RGB", (4, 8 + number % 2)).save(tmp_path / item.path.name)
    made.query = [item._replace(path=tmp_path / item.path.name) for item in made.query]
    files: dict[str, str] = {}
    found = ran(made, files)
    rows = [row for row in found if not isinstance(row, str)]
    assert images and "All queries have the same number of matches." in found
    heights = [row for row in rows if "image height" in row.setting and row.name == "mAP"]
    assert [(row.setting["image height"], row.queries) for row in heights] == [("8", 36), ("9", 36)]
    mean = np.average([row.value for row in heights], weights=[row.queries for row in heights])
    assert mean == pytest.approx(made.ranking.mAP)
    lines = files["matches.people.csv"].splitlines()
    assert lines[0] == "query,rank,camid,gallery" and len(lines) == 1 + made.ranking.n_positives.sum()
    table = np.array([line.split(",") for line in lines[1:]], dtype=int)
    own = table[table[:, 0] == 5]
    assert np.mean(np.arange(1, len(own) + 1) / own[:, 1]) == pytest.approx(made.ranking.average_precision[5])
    assert [made.gallery[row].camid for row in own[:, 3]] == own[:, 2].tolist()


def test_precision_at_matches_by_hand() -> None:
    made = subject(
        [(1, 0, 0.0)],
        [(1, 1, 1.0), (2, 1, 2.0), (1, 2, 3.0), (1, 1, 4.0)],
    )
    made.open_images = lambda items: [np.zeros((3, 2, 2), np.uint8)] * len(items)
    rows = [row for row in ran(made) if not isinstance(row, str) and row.name == "precision at matches"]
    found = {row.setting["gallery camera"]: row.value for row in rows}
    assert found == {1: pytest.approx((1 + 3 / 4) / 2), 2: pytest.approx(2 / 3)}


def test_the_worst_queries() -> None:
    made = crowd(people=110, noise=1.5)
    made.open_images = lambda items: [np.zeros((3, 2, 2), np.uint8)] * len(items)
    rows = [row for row in ran(made) if not isinstance(row, str)]
    worst = [row.value for row in rows if row.name == "AP of a worst query"]
    assert worst == sorted(made.ranking.average_precision)[:4]
    parts = {row.setting["queries"]: row for row in rows if "queries" in row.setting}
    assert parts["worst 1 %"].value == pytest.approx(np.mean(worst)) and parts["worst 1 %"].queries == 4
    assert parts["all but the worst 1 %"].queries == 326
