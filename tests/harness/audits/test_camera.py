"""The camera audit: mutual information and centring by hand, and what cameras that are ignored must not change."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from harness.audits.checks import camera
from harness.audits.clusters import k_means, normalised_mutual_information
from tests.harness.audits.subjects import crowd, pictured, subject, values

LABELS = arrays.arrays(np.int64, 30, elements=st.integers(0, 4))


def test_mutual_information_by_hand() -> None:
    assert normalised_mutual_information([0, 0, 1, 1], [1, 1, 0, 0]) == pytest.approx(1)
    assert normalised_mutual_information([0, 0, 1, 1], [0, 1, 0, 1]) == pytest.approx(0)
    assert normalised_mutual_information([0, 0, 0], [0, 0, 0]) == 0
    # Three of one cluster: H = 2 ln 2 - 3/4 ln 3 and ln 2, joint 3/2 ln 2; all of the mean of entropies.
    first, second, joint = 2 * math.log(2) - 0.75 * math.log(3), math.log(2), 1.5 * math.log(2)
    expected = (first + second - joint) / ((first + second) / 2)
    assert normalised_mutual_information([0, 0, 0, 1], [0, 0, 1, 1]) == pytest.approx(expected)


@given(LABELS, LABELS, st.permutations(range(5)))
def test_mutual_information_is_symmetric_and_blind_to_names(a: np.ndarray, b: np.ndarray, names: list[int]) -> None:
    value = normalised_mutual_information(a, b)
    assert 0 <= value <= 1 + 1e-12
    assert normalised_mutual_information(b, a) == pytest.approx(value, abs=1e-12)
    assert normalised_mutual_information(np.array(names)[a], b) == pytest.approx(value, abs=1e-12)


def test_clusters_that_are_apart_are_found() -> None:
    made = crowd(people=5, images=20, noise=0.01)
    found = k_means(made.features[1], 5, seed=3)
    assert normalised_mutual_information(found, made.pids[1]) > 0.8
    assert (k_means(made.features[1], 5, seed=3) == found).all()


def test_centring_by_hand() -> None:
    query, gallery = np.array([[1.0, 2.0]]), np.array([[3.0, 6.0], [10.0, 10.0], [20.0, 10.0], [7.0, 7.0]])
    q, g = camera.per_camera(query, gallery, np.array([0]), np.array([0, 1, 1, 2]), scale=False)
    assert q.tolist() == [[-1, -2]] and g.tolist() == [[1, 2], [-5, 0], [5, 0], [7, 7]]  # one image stays as it is
    q, g = camera.per_camera(query, gallery, np.array([0]), np.array([0, 1, 1, 2]), scale=True)
    assert q.tolist() == [[-1, -1]] and g.tolist() == [[1, 1], [-1, 0], [1, 0], [7, 7]]


def test_cameras_that_are_ignored_change_nothing() -> None:
    made = pictured(weight=0.0)
    found = list(camera.run(made))
    assert "The features do not depend on cameras." in found
    embedding = camera._features(made, made.network, "", shuffle=True)  # type: ignore[arg-type]
    assert all((a == b).all() for a, b in zip(embedding, made.features, strict=True))


def test_cameras_that_are_used_change_the_score() -> None:
    found = values(camera.run(pictured(weight=900.0)))
    evaluated, off = found["mAP", "cameras=as evaluated"], found["mAP", "cameras=off"]
    assert evaluated < found["mAP", "features=centred per camera"]
    assert len({evaluated, off, found["mAP", "cameras=shuffled"]}) == 3
    assert found["gain in mAP", "cameras=off"] == pytest.approx(off - evaluated)
    assert {setting for name, setting in found if name == "rank-1"} >= {"cameras=mean", "cameras=off"}


def test_an_offset_per_camera_is_found_and_removed() -> None:
    clean, biased = crowd(noise=0.3), crowd(noise=0.3)
    shift = np.random.default_rng(2).normal(size=(3, 8)).astype(np.float32) * 6
    biased.features = tuple(
        features + torch.tensor(shift[camids]) for features, camids in zip(biased.features, biased.camids, strict=True)
    )  # type: ignore[assignment]
    before, after = values(camera.run(clean)), values(camera.run(biased))
    key = "NMI of clusters and cameras", "features=as they are"
    assert after[key] > before[key] + 0.2
    assert after["NMI of clusters and cameras", "features=centred per camera"] < after[key] - 0.2
    name = "mAP", "features=centred per camera"
    assert after[name] == pytest.approx(before[name], abs=1e-6)


def test_pairs_by_hand() -> None:
    made = subject(
        [(1, 0, 0.0), (2, 1, 90.0)],
        [(1, 1, 30.0), (3, 1, 20.0), (1, 2, 10.0), (2, 0, 80.0), (3, 2, 85.0)],
    )
    found = {
        (row.setting["query camera"], row.setting["gallery camera"]): (row.value, row.queries)
        for row in camera.run(made)
        if not isinstance(row, str) and row.name == "mAP of camera pairs"
    }
    assert found == {(0, 1): (0.5, 1), (0, 2): (1.0, 1), (1, 0): (1.0, 1)}


def test_unknown_cameras_are_said() -> None:
    made = crowd()
    made.knows_cameras = False
    assert [type(one) for one in camera.run(made)] == [str]


def test_without_a_network_the_embedding_is_left_out() -> None:
    assert any("stored" in one for one in camera.run(crowd()) if isinstance(one, str))
