"""Scores do not depend on rounding: float32 features have the scores of the same numbers in float64."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import HarnessError
from harness.metrics import counting, evaluate_distances, evaluate_ranking, evaluate_single_shot, ranked_list
from harness.metrics.exact import ExactDistances, TieRule
from harness.metrics.features import row_sums
from harness.metrics.similarity import FeatureSimilarity

COUNTERS = {"compiled": counting._count_compiled, "sorted": counting._count_sorted}


@pytest.fixture(params=COUNTERS)
def counter(request, monkeypatch):
    """Runs a test with both counters: compiled, and by sorting (for small inputs and GPUs)."""
    monkeypatch.setattr(counting, "_counter", lambda similarity: COUNTERS[request.param])
    return request.param


def assert_same(one, other):
    """Asserts that two rankings are the same, rank by rank."""
    np.testing.assert_array_equal(one.average_precision, other.average_precision)
    np.testing.assert_array_equal(one.inverse_negative_penalty, other.inverse_negative_penalty)
    np.testing.assert_array_equal(one.first_match_rank, other.first_match_rank)
    np.testing.assert_array_equal(one.cmc, other.cmc)
    assert (one.mAP, one.mINP) == (other.mAP, other.mINP)
    assert (one.tied_queries, one.tie_loss) == (other.tied_queries, other.tie_loss)


def assert_float32_is_float64(query, gallery, labels, **options):
    """Scores features in float32 and the same numbers in float64; asserts equality and returns the float64 result."""
    assert query.dtype == gallery.dtype == np.float32
    double = evaluate_ranking(query.astype(np.float64), gallery.astype(np.float64), *labels, **options)
    assert_same(evaluate_ranking(query, gallery, *labels, **options), double)
    return double


KINDS = ("noise", "clusters", "near-copies", "copies", "few values", "common part", "outlier")


def draw_features(kind, n, dim, generator, scale):
    """Draws float32 features [n, dim], half of them in the way that `kind` says."""
    x = generator.standard_normal((n, dim))
    source = generator.integers(n, size=n // 2)
    if kind == "clusters":
        x = x[generator.integers(min(4, n), size=n)] + 10.0 ** -generator.integers(1, 9) * x
    if kind == "few values":
        x = np.sign(x.round() + 0.5)
    if kind == "common part":
        x = 1 + 10.0 ** -generator.integers(1, 6) * x
    x = (x * scale).astype(np.float32)
    if kind == "near-copies":
        x[: n // 2] = np.nextafter(x[source], np.float32(np.inf) * generator.choice([-1, 1], size=(n // 2, dim)))
    if kind == "copies":
        x[: n // 2] = x[source] * 2.0 ** generator.integers(-3, 4, size=(n // 2, 1)).astype(np.float32)
    if kind == "outlier":
        x[0] *= np.float32(1e6)
    x[~x.any(axis=1)] = np.float32(scale)
    return x


def draw_labels(n_query, n_gallery, generator):
    """Draws pids and camids with junk, own-camera views and distractors."""
    pids, camids = generator.integers(-1, 6, size=n_query + n_gallery), generator.integers(3, size=n_query + n_gallery)
    pids[:n_query] = np.abs(pids[:n_query])
    return pids[:n_query], pids[n_query:], camids[:n_query], camids[n_query:]


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_float32_scores_as_float64(counter, metric):
    @settings(max_examples=80, deadline=None)
    @given(
        kind=st.sampled_from(KINDS),
        dim=st.sampled_from([1, 2, 3, 16, 64, 191, 192, 193, 500]),
        sizes=st.tuples(st.integers(1, 8), st.integers(2, 60)),
        scale=st.sampled_from([1.0, 1e-20, 1e-38, 1e-3, 1e5, 1e25]),
        block_size=st.integers(1, 9),
        seed=st.integers(0, 2**32 - 1),
    )
    def check(kind, dim, sizes, scale, block_size, seed):
        generator = np.random.default_rng(seed)
        features = draw_features(kind, sum(sizes), dim, generator, scale)[generator.permutation(sum(sizes))]
        query, gallery = features[: sizes[0]], features[sizes[0] :]
        labels, options = draw_labels(*sizes, generator), {"metric": metric, "block_size": block_size}
        try:
            double = evaluate_ranking(query.astype(np.float64), gallery.astype(np.float64), *labels, **options)
        except HarnessError as error:
            with pytest.raises(type(error)):
                evaluate_ranking(query, gallery, *labels, **options)
            return
        assert_same(evaluate_ranking(query, gallery, *labels, **options), double)

    check()


def exactly_nearer(query, negative, match, metric):
    """Returns, in exact arithmetic, whether a negative is at least as near as a match."""
    q, n, m = ([Fraction(float(value)) for value in row] for row in (query, negative, match))
    if metric == "euclidean":
        return sum((a - b) ** 2 for a, b in zip(q, n, strict=True)) <= sum(
            (a - b) ** 2 for a, b in zip(q, m, strict=True)
        )
    cosines = []
    for other in (n, m):
        dot = sum(a * b for a, b in zip(q, other, strict=True))
        cosines.append(dot * abs(dot) / sum(b * b for b in other))
    return cosines[0] >= cosines[1]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("kind", ["noise", "clusters", "near-copies", "copies", "common part"])
def test_ranks_are_those_of_exact_arithmetic(counter, kind, metric):
    for seed in range(10):
        generator = np.random.default_rng(seed)
        features = draw_features(kind, 43, 24, generator, 1.0)
        query, gallery = features[-3:] + features[:3] * np.float32(1e-6), features[:40]
        pids = np.arange(40)
        matches = generator.integers(40, size=3)
        result = evaluate_ranking(query, gallery, matches, pids, [0] * 3, [1] * 40, metric=metric)
        for q, match in enumerate(matches):
            nearer = [exactly_nearer(query[q], gallery[g], gallery[match], metric) for g in range(40)]
            assert result.first_match_rank[q] == sum(nearer)


def trained_features(pids, dim, noise, seed):
    """Draws float32 features [n, dim] around one centre per identity."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((pids.max() + 2, dim))
    return (centres[pids] + noise * generator.standard_normal((len(pids), dim))).astype(np.float32)


@pytest.fixture(scope="module")
def market(shared):
    """Identities and cameras of Market-1501's query and gallery, from its official label files."""
    from scipy.io import loadmat

    names = {"queryID": "queryID", "testID": "testID", "queryCam": "queryCAM", "testCam": "testCAM"}
    folder = shared / "protocols" / "market1501"
    return [loadmat(folder / f"{name}.mat")[key].ravel().astype(int) for name, key in names.items()]


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_market_1501_labels_with_features_of_64_dimensions(market, metric):
    query, gallery = (trained_features(pids, 64, 1.1, seed) for seed, pids in enumerate(market[:2]))
    result = assert_float32_is_float64(query, gallery, market, metric=metric)
    assert 0.4 < result.mAP < 0.95
    assert result.n_valid == 3368 and result.tied_queries == 0 and result.tie_loss == 0


def test_market_1501_ranks_equal_plain_float64(market):
    query, gallery = (trained_features(pids, 64, 1.1, seed) for seed, pids in enumerate(market[:2]))
    query, labels = query[::8], [market[0][::8], market[1], market[2][::8], market[3]]
    result = evaluate_ranking(query, gallery, *labels)
    left, right = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in map(np.float64, (query, gallery)))
    for q, scores in enumerate(left @ right.T):
        ignored = (labels[1] < 0) | ((labels[1] == labels[0][q]) & (labels[3] == labels[2][q]))
        hits = (labels[1] == labels[0][q])[~ignored][np.argsort(-scores[~ignored])]
        ranks = np.flatnonzero(hits) + 1
        assert np.mean(np.arange(1, len(ranks) + 1) / ranks) == pytest.approx(result.average_precision[q], abs=1e-12)


def case(seed=0, n_query=40, n_gallery=600, dim=64):
    """Draws query, gallery and labels with near-copies and copies."""
    generator = np.random.default_rng(seed)
    pids, camids = generator.integers(12, size=n_query + n_gallery), generator.integers(4, size=n_query + n_gallery)
    features = trained_features(pids, dim, 1.5, seed)
    source = generator.integers(n_query, n_query + n_gallery, size=150)
    features[-150:] = np.nextafter(features[source], np.float32(np.inf))
    features[-50:] = features[source[:50]]
    return features[:n_query], features[n_query:], (pids[:n_query], pids[n_query:], camids[:n_query], camids[n_query:])


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_counters_threads_and_blocks_agree(metric, monkeypatch):
    query, gallery, labels = case()
    expected, before = None, torch.get_num_threads()
    for counter in COUNTERS.values():
        monkeypatch.setattr(counting, "_counter", lambda similarity, counter=counter: counter)
        for threads, block_size in [(1, 1), (2, 7), (2, None)]:
            torch.set_num_threads(threads)
            result = evaluate_ranking(query, gallery, *labels, metric=metric, block_size=block_size)
            assert_same(result, expected or result)
            expected = result
    torch.set_num_threads(before)
    assert expected.tied_queries > 0


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_room_for_pairs_may_run_out(metric, monkeypatch):
    query, gallery, labels = case()
    expected = evaluate_ranking(query, gallery, *labels, metric=metric)
    monkeypatch.setattr(counting, "_PAIRS", 5)
    assert_same(evaluate_ranking(query, gallery, *labels, metric=metric), expected)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_compiled_and_torch_distances_are_the_same_bits(metric):
    from harness.metrics.compiled import _squared

    query, gallery, _ = case(dim=77)
    exact, columns = next(FeatureSimilarity(query, gallery, metric=metric).blocks()).exact, torch.arange(600)
    arrays = tuple(tensor.numpy() for tensor in (exact.query, exact.gallery, exact.index, exact.inverse))
    for row in range(3):
        compiled = [_squared(row, column, arrays) for column in range(600)]
        np.testing.assert_array_equal(exact.squared(torch.full_like(columns, row), columns).numpy(), compiled)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int8, torch.uint8, torch.int16])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_other_types_are_cast_exactly(dtype, metric, counter):
    query, gallery, labels = case()
    stored = [torch.from_numpy(20 * features).to(dtype) for features in (query, gallery)]
    for features in stored:
        features[:, 0] = 1
    result = evaluate_ranking(*stored, *labels, metric=metric)
    assert_same(result, evaluate_ranking(*(features.double() for features in stored), *labels, metric=metric))


def test_long_integers_keep_their_last_digit():
    gallery = np.array([[2**30, 0], [2**30 + 1, 0], [0, 1]])
    for dtype in (np.int64, np.int32, np.float64):
        query = np.array([[2**30 + 2, 0]]).astype(dtype)
        result = evaluate_ranking(query, gallery.astype(dtype), [1], [1, 2, 3], [0], [1] * 3, metric="euclidean")
        assert result.first_match_rank.tolist() == [2]


def adversarial(dim, generator):
    """Draws unit vectors whose products differ in size, cancel, or grow in order: what makes sums round badly."""
    sizes = [np.ones(dim), np.logspace(-7, 0, dim), np.logspace(0, -7, dim), np.arange(1.0, dim + 1)]
    rows = [size * signs for size in sizes for signs in (1, generator.choice([-1, 1], dim), (-1.0) ** np.arange(dim))]
    rows += [generator.standard_normal(dim), generator.random(dim), generator.standard_cauchy(dim)]
    rows = np.array(rows) * (1 + 1e-3 * generator.random((len(rows), dim)))
    rows[::2, : dim // 2] *= 1e4
    return rows.astype(np.float32)


@pytest.mark.parametrize("dim", [1, 5, 64, 192, 200, 768, 2048, 3457])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_rounding_stays_within_its_bound(dim, metric):
    from harness.metrics import compiled

    generator = np.random.default_rng(dim)
    query, gallery = adversarial(dim, generator), adversarial(dim, generator)
    gallery = np.concatenate([gallery, query, (1 + 1e-3 * query).astype(np.float32)])
    block = next(FeatureSimilarity(query, gallery, metric=metric).blocks())
    left, right = np.float64(query), np.float64(gallery)
    if metric == "cosine":
        left, right = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (left, right))
    similarity = FeatureSimilarity(query, gallery, metric=metric)
    left, right = ((x - similarity._centre.numpy()) / similarity._scale for x in (left, right))
    reach = block.slope.numpy().astype(float)[:, None] / (2 if metric == "euclidean" else 1)
    expected = (left @ right.T + (similarity._amid - (right**2).sum(axis=1)) / 2) / reach
    assert_within(np.abs(block.similarity.numpy() - expected), block.margin)
    work = np.empty(block.again.gallery.shape[1] // 4, np.float32)
    again = [[compiled._product(q, g, work) for g in block.again.gallery.numpy()] for q in block.again.queries.numpy()]
    assert_within(np.abs(np.array(again) - expected), block.again.margin)
    assert dim < 64 or block.again.margin.lift.max() < block.margin.lift.max() / 2


def assert_within(error, margin):
    assert (error <= (margin.lift[:, None] * margin.height + margin.base[:, None]).numpy()).all()


@pytest.mark.parametrize("columns", [1, 3, 16, 100, 2049])
@pytest.mark.parametrize("rows", [1, 2, 17, 300])
def test_a_step_of_the_product_is_summed_before_it_is_added(rows, columns):
    """Added one by one, products of less than half the last digit of the sum would vanish."""
    for step in (192, 392, 868):
        out = torch.ones(rows, columns)
        out.addmm_(torch.full((rows, step), 0.75 * 2.0**-24), torch.ones(columns, step).T)
        assert (out == 1 + 0.75 * step * 2.0**-24).all()


@pytest.mark.parametrize("dim", [1, 2, 3, 7, 64, 100])
def test_row_sums(dim):
    values = torch.randn(50, dim, dtype=torch.float64)
    np.testing.assert_allclose(row_sums(values.clone()).numpy(), values.sum(dim=1).numpy(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_copies_of_any_length_tie_also_beside_the_query(dtype, counter):
    generator = np.random.default_rng(0)
    one, other = generator.standard_normal((2, 97))
    one = one.astype(np.float32).astype(dtype)
    lengths = [1, 2, 0.25, 1024] if dtype == np.float32 else [1, 3, 0.1, 1e7]
    gallery = np.stack([*(dtype(length) * one for length in lengths), other.astype(dtype)])
    for query in (one, dtype(8) * one, one + dtype(0.5) * other.astype(dtype)):
        result = evaluate_ranking(query[None], gallery, [1], [1, 2, 3, 4, 5], [0], [1] * 5)
        assert result.first_match_rank.tolist() == [4] and result.tied_queries == 1


def test_one_last_digit_is_no_tie(counter):
    generator = np.random.default_rng(1)
    match = generator.standard_normal(64).astype(np.float32)
    negative = match.copy()
    negative[5] = np.nextafter(match[5], np.float32(9))
    gallery, labels = np.stack([match, negative, -match]), ([1], [1, 2, 3], [0], [1] * 3)
    for metric in ("cosine", "euclidean"):
        for query, rank in [(match, 1), (negative, 2)]:
            result = evaluate_ranking(query[None], gallery, *labels, metric=metric)
            assert result.first_match_rank.tolist() == [rank] and result.tied_queries == 0


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_no_pair_is_settled_twice(metric, monkeypatch):
    """Binary features tie with most of the gallery at every match; the work stays that of one pass over it."""
    generator = np.random.default_rng(0)
    labels = draw_labels(20, 800, generator)
    features = np.sign(generator.standard_normal((820, 32))).astype(np.float32)
    pairs, squared = [], ExactDistances.squared
    monkeypatch.setattr(ExactDistances, "squared", lambda *a: pairs.append(len(a[1])) or squared(*a))
    result = evaluate_ranking(features[:20], features[20:], *labels, metric=metric)
    assert result.tied_queries > 15
    assert 20 * 100 < sum(pairs) <= 20 * 800


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("spread", [1e-2, 1e-5, 1e-6])
def test_collapsed_features(metric, spread, counter):
    generator = np.random.default_rng(0)
    labels = draw_labels(20, 800, generator)
    features = (1 + spread * generator.standard_normal((820, 32))).astype(np.float32)
    assert_float32_is_float64(features[:20], features[20:], labels, metric=metric)


def test_features_close_together_keep_a_narrow_margin():
    """What all features have in common is taken out before the product, so an untrained network costs no more."""
    generator = np.random.default_rng(0)
    spread = generator.standard_normal((900, 256))
    margins = []
    for features in (spread, 1 + 1e-3 * spread):
        block = next(FeatureSimilarity(features[:100].astype(np.float32), features[100:].astype(np.float32)).blocks())
        margin = 2 * float(block.margin.lift.max()) * block.margin.tallest + 2 * float(block.margin.base.max())
        margins.append(margin / float(block.similarity.std()))
    assert margins[1] < 3 * margins[0]


def test_given_distances_tie_only_where_they_are_equal():
    close = np.nextafter(np.float32(0.5), np.float32(1))
    for dtype in (np.float32, np.float64):
        near = np.array([[0.5, close, 2.0]], dtype=dtype)
        result = evaluate_distances(near, [1], [1, 2, 3], [0], [1] * 3)
        assert result.mAP == 1 and result.tied_queries == 0
        assert evaluate_distances(near[:, [0, 0, 2]], [1], [1, 2, 3], [0], [1] * 3).tied_queries == 1


def test_single_shot_and_lists_follow_the_same_order():
    generator = np.random.default_rng(0)
    match = generator.standard_normal(64).astype(np.float32)
    closer = np.nextafter(match, np.float32(np.inf))
    gallery, labels = np.stack([match, closer, match, -match]), ([1], [1, 2, 3, 4], [0], [1] * 4)
    for metric in ("cosine", "euclidean"):
        for query, rank, order in [(closer, 3, [1, 2, 0, 3]), (match, 2, [2, 0, 1, 3])]:
            arguments = query[None], gallery, *labels
            assert evaluate_ranking(*arguments, metric=metric).first_match_rank.tolist() == [rank]
            assert evaluate_single_shot(*arguments, metric=metric).cmc[rank - 2 : rank].tolist() == [0, 1]
            assert ranked_list(*arguments, k=4, metric=metric).indices.tolist() == [order]


def test_the_rule_for_ties_is_float64s():
    rule = TieRule.of(3456, euclidean=False)
    assert float(rule.slack(torch.tensor(2.0))) < 1e-13
    assert float(rule.slack(torch.tensor(1e-14, dtype=torch.float64))) < 1e-21
