"""The held-out split: disjoint identities, and a match from another camera for every query."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from harness.contracts import Item
from harness.data.holdout import holdout_split
from harness.errors import DataError, UsageError


def make(cameras_of_images: list[list[int]], seed: int = 0) -> list[Item]:
    items = [
        Item(Path(f"{pid}_{number}.jpg"), pid, camera)
        for pid, cameras in enumerate(cameras_of_images)
        for number, camera in enumerate(cameras)
    ]
    return [items[i] for i in np.random.default_rng(seed).permutation(len(items))]


people = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=9), min_size=2, max_size=25)


@given(people, st.integers(0, 2**40), st.floats(0.01, 0.99))
@settings(max_examples=300, deadline=None)
def test_laws(cameras_of_images, seed, fraction):
    items = make(cameras_of_images)
    try:
        train, query, gallery = holdout_split(items, seed=seed, fraction=fraction)
    except DataError:
        assume(False)
    assert sorted(map(str, [*train, *query, *gallery])) == sorted(map(str, items))
    held = {item.pid for item in [*query, *gallery]}
    assert held.isdisjoint(item.pid for item in train)
    assert 1 <= len(held) <= max(1, round(fraction * len(cameras_of_images)))
    assert {item.camid for item in [*query, *gallery]} <= {item.camid for item in train}
    assert len({(item.pid, item.camid) for item in query}) == len(query) > 0
    for item in query:
        assert any(other.pid == item.pid and other.camid != item.camid for other in gallery)
    for part in (train, query, gallery):
        assert part == [item for item in items if item in set(part)]


def only(items, pid):
    return [item for item in items if item.pid == pid]


@pytest.mark.parametrize(
    ("cameras", "queries"),
    [
        ([0, 0, 0], 0),  # one camera: a distractor
        ([0], 0),
        ([0, 1], 1),
        ([0, 1, 1, 1], 1),  # a query of camera 1 would find nothing of camera 0
        ([0, 0, 1, 1], 2),
        ([0, 0, 1, 1, 2], 3),
        ([0, 1, 2], 2),
        ([0, 1, 2, 2], 2),
    ],
)
def test_as_many_queries_as_can_have_a_match(cameras, queries):
    """One identity of interest among others that all look alike and always give queries."""
    items = make([cameras, *[[0, 0, 1, 1, 2, 2]] * 30])
    for seed in range(200):
        train, query, gallery = holdout_split(items, seed=seed, fraction=0.5)
        if not only(train, 0):
            assert len(only(query, 0)) == queries
            assert len(only(gallery, 0)) == len(cameras) - queries
            return
    pytest.fail("the identity was never held out")


def test_the_split_depends_on_the_seed_alone():
    items = make([[0, 0, 1, 1]] * 40)
    first, again, other = (holdout_split(items, seed=seed, fraction=0.25) for seed in (3, 3, 4))
    assert first == again != other
    assert len({item.pid for item in first[1]}) == 10


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, 2.0])
def test_a_fraction_outside_is_an_error(fraction):
    with pytest.raises(UsageError, match="between 0 and 1"):
        holdout_split(make([[0, 1]] * 4), seed=0, fraction=fraction)


def test_one_camera_gives_no_query():
    with pytest.raises(DataError, match="images from one camera only"):
        holdout_split(make([[0, 0, 0]] * 4), seed=0, fraction=0.5)
