"""k-reciprocal re-ranking against golden values of the original code and a plain reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.errors import FeatureError, UsageError
from harness.metrics import evaluate_distances, evaluate_ranking, rerank
from harness.system.paths import REPOSITORY

GOLDEN = REPOSITORY / "tests" / "golden" / "rerank.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return {key: file[key] for key in file}


def plain_rerank(features, n_query, k1, k2, lambda_value):
    """The definition with whole matrices and sets; distances are squared Euclidean, in float64."""
    features = features.astype(np.float64)
    distances = ((features[:, None] - features[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distances, -1)
    nearest = np.argsort(distances, axis=1, kind="stable")
    np.fill_diagonal(distances, 0)
    scaled = distances**2 / (distances**2).max(axis=1, keepdims=True)

    def reciprocal(i, count):
        return {int(j) for j in nearest[i, :count] if i in nearest[j, :count]}

    weights = np.zeros_like(scaled)
    for i in range(len(features)):
        start = reciprocal(i, k1 + 1)
        grown = set(start)
        for candidate in start:
            more = reciprocal(candidate, int(np.around(k1 / 2)) + 1)
            if len(more & start) * 3 > len(more) * 2:
                grown |= more
        grown = sorted(grown)
        weights[i, grown] = np.exp(-scaled[i, grown]) / np.exp(-scaled[i, grown]).sum()
    weights = np.stack([weights[nearest[i, :k2]].mean(axis=0) for i in range(len(features))])
    shared = np.minimum(weights[:n_query, None], weights[None, n_query:]).sum(axis=2)
    jaccard = 1 - shared / (2 - shared)
    return (1 - lambda_value) * jaccard + lambda_value * scaled[:n_query, n_query:]


def people(n_query, n_gallery, dim=16, seed=0, dtype=np.float32):
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((9, dim))
    pids = generator.integers(9, size=n_query + n_gallery)
    features = (centres[pids] + 0.8 * generator.standard_normal((len(pids), dim))).astype(dtype)
    return features[:n_query], features[n_query:], pids


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("block_size", [None, 37])
def test_golden(golden, metric, block_size):
    """The golden features have unit norm, for which both metrics are equal."""
    query, gallery = golden["feats"][golden["q"]], golden["feats"][golden["g"]]
    distances = rerank(query, gallery, metric=metric, block_size=block_size)
    assert distances.shape == golden["dist"].shape
    np.testing.assert_allclose(distances, golden["dist"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("n_query", "n_gallery", "k1", "k2", "lambda_value"),
    [
        (7, 60, 20, 6, 0.3),
        (20, 90, 7, 3, 0.1),
        (15, 50, 6, 1, 0.5),
        (3, 8, 20, 6, 0.3),
        (1, 40, 1, 2, 0.0),
        (5, 40, 9, 30, 1.0),
    ],
)
def test_plain_reference(n_query, n_gallery, k1, k2, lambda_value):
    query, gallery, _ = people(n_query, n_gallery)
    expected = plain_rerank(np.concatenate([query, gallery]), n_query, k1, k2, lambda_value)
    distances = rerank(query, gallery, k1=k1, k2=k2, lambda_value=lambda_value)
    assert distances.dtype == np.float32
    np.testing.assert_allclose(distances, expected, rtol=0, atol=1e-5)


def test_cosine_is_euclidean_on_normalised_features():
    query, gallery, _ = people(10, 80)
    unit = [features / np.linalg.norm(features, axis=1, keepdims=True) for features in (query, gallery)]
    np.testing.assert_allclose(rerank(query, gallery, metric="cosine"), rerank(*unit), rtol=0, atol=1e-6)
    assert np.abs(rerank(query, gallery, metric="cosine") - rerank(query, gallery)).max() > 1e-2


def test_double_precision_stays():
    query, gallery, _ = people(10, 80, dtype=np.float64)
    distances = rerank(query, gallery)
    assert distances.dtype == np.float64
    expected = plain_rerank(np.concatenate([query, gallery]), 10, 20, 6, 0.3)
    np.testing.assert_allclose(distances, expected, rtol=0, atol=1e-12)


def test_euclidean_ignores_place_and_size_of_features():
    query, gallery, _ = people(10, 80)
    np.testing.assert_allclose(rerank(100 + 7 * query, 100 + 7 * gallery), rerank(query, gallery), rtol=0, atol=1e-5)


def test_tensors_and_arrays_give_the_same():
    query, gallery, _ = people(10, 80)
    expected = rerank(query, gallery)
    np.testing.assert_array_equal(rerank(torch.from_numpy(query), torch.from_numpy(gallery)), expected)
    np.testing.assert_array_equal(rerank(query, torch.from_numpy(gallery)), expected)


def test_every_image_is_its_own_neighbour_beside_copies():
    """Thirty copies of one image: more than the neighbourhood, so each must still find itself."""
    query, gallery, _ = people(10, 80)
    gallery[20:50] = query[0]
    distances = rerank(query, gallery)
    assert np.isfinite(distances).all() and (distances >= 0).all() and (distances <= 1 + 1e-6).all()


def test_re_ranking_helps_where_neighbours_agree():
    query, gallery, pids = people(60, 400)
    camids = np.random.default_rng(1).integers(4, size=460)
    labels = (pids[:60], pids[60:], camids[:60], camids[60:])
    before = evaluate_ranking(query, gallery, *labels, metric="euclidean").mAP
    after = evaluate_distances(rerank(query, gallery), *labels).mAP
    assert after > before + 0.05


def test_what_cannot_be_re_ranked_is_said():
    query, gallery, _ = people(3, 8)
    with pytest.raises(UsageError, match="lambda"):
        rerank(query, gallery, lambda_value=1.5)
    with pytest.raises(FeatureError, match="equal width"):
        rerank(query, gallery[:, :5])
    with pytest.raises(FeatureError, match="NaN"):
        rerank(query, np.where(gallery == gallery[2, 3], np.nan, gallery))


@pytest.mark.gpu
def test_gpu_agrees_with_cpu():
    query, gallery, _ = people(50, 900, dim=128)
    np.testing.assert_allclose(rerank(query, gallery, device="cuda"), rerank(query, gallery), rtol=0, atol=1e-5)
