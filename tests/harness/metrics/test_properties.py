"""Properties of the metrics, compared with slow and simple references, with many ties and copies."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from harness.errors import HarnessError
from harness.metrics import (
    counting,
    distance_histogram,
    evaluate_distances,
    evaluate_ranking,
    evaluate_single_shot,
    ranked_list,
)
from harness.metrics.protocol import find_matches
from harness.metrics.similarity import full_precision

COUNTERS = {"compiled": counting._count_compiled, "sorted": counting._count_sorted}


@pytest.fixture(params=COUNTERS)
def counter(request, monkeypatch):
    """Runs a test with both counters: compiled, and by sorting (for small inputs and GPUs)."""
    monkeypatch.setattr(counting, "_counter", lambda similarity: COUNTERS[request.param])
    return request.param


def test_little_is_sorted_and_much_is_counted_by_compiled_code():
    little, much = torch.zeros(2, 3), torch.zeros(1, 1).expand(1, counting.SMALL + 1)
    assert [counting._counter(scores) for scores in (little, much)] == [COUNTERS["sorted"], COUNTERS["compiled"]]


def plain_scores(beats, query_pids, gallery_pids, query_camids, gallery_camids):
    """CMC ranks, AP and INP by the definition, one query after another.

    `beats(q, negative, match)` returns whether a negative ranks ahead of a match: nearer, or tied.
    """
    rows = []
    for q, (pid, camid) in enumerate(zip(query_pids, query_camids, strict=True)):
        matches, negatives = [], []
        for g, (other, camera) in enumerate(zip(gallery_pids, gallery_camids, strict=True)):
            if other < 0 or (other == pid and camera == camid):
                continue
            (matches if other == pid else negatives).append(g)
        ahead = sorted(sum(beats(q, negative, match) for negative in negatives) for match in matches)
        ranks = [count + position for position, count in enumerate(ahead, start=1)]
        if ranks:
            precision = sum(position / rank for position, rank in enumerate(ranks, start=1)) / len(ranks)
            rows.append((precision, len(ranks) / ranks[-1], ranks[0]))
        else:
            rows.append((np.nan, np.nan, 0))
    return [np.array(column) for column in zip(*rows, strict=True)]


def assert_scores(result, expected, max_rank=50):
    precision, penalty, first = expected
    np.testing.assert_allclose(result.average_precision, precision, rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.inverse_negative_penalty, penalty, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(result.first_match_rank, first)
    assert result.mAP == pytest.approx(np.nanmean(precision), abs=1e-12)
    assert result.mINP == pytest.approx(np.nanmean(penalty), abs=1e-12)
    valid = first > 0
    np.testing.assert_array_equal(result.valid, valid)
    expected_cmc = [(first[valid] <= k).mean() for k in range(1, max_rank + 1)]
    np.testing.assert_allclose(result.cmc, expected_cmc, rtol=0, atol=1e-12)


@st.composite
def lattice(draw):
    """Features with small whole numbers, so that there are many ties and copies, which are known exactly."""
    n_query, n_gallery, dim = draw(st.integers(1, 6)), draw(st.integers(2, 40)), draw(st.integers(2, 4))
    features = draw(arrays(np.int64, (n_query + n_gallery, dim), elements=st.integers(-2, 2)))
    features[(features == 0).all(axis=1)] = 1
    pids = draw(arrays(np.int64, n_query + n_gallery, elements=st.integers(-1, 3)))
    pids[:n_query] = np.abs(pids[:n_query])
    camids = draw(arrays(np.int64, n_query + n_gallery, elements=st.integers(0, 2)))
    return (
        features[:n_query],
        features[n_query:],
        (pids[:n_query], pids[n_query:], camids[:n_query], camids[n_query:]),
    )


def exact_order(query, gallery, metric):
    """Returns `beats` in exact arithmetic: signed squared cosine, or squared distance, as fractions."""

    def nearness(q, g):
        a, b = query[q].tolist(), gallery[g].tolist()
        if metric == "euclidean":
            return -sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return Fraction(dot * abs(dot), sum(y * y for y in b))

    return lambda q, negative, match: nearness(q, negative) >= nearness(q, match)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_agrees_with_exact_arithmetic(counter, metric, dtype):
    @settings(max_examples=60, deadline=None)
    @given(lattice(), st.integers(1, 7))
    def check(case, block_size):
        query, gallery, labels = case
        options = {"metric": metric, "block_size": block_size}
        try:
            result = evaluate_ranking(query.astype(dtype), gallery.astype(dtype), *labels, **options)
        except HarnessError:
            # No query with a match, or all features alike: nothing to compare.
            return
        assert_scores(result, plain_scores(exact_order(query, gallery, metric), *labels))

    check()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_the_definition_in_float64(counter, metric, seed):
    generator = np.random.default_rng(seed)
    query, gallery = generator.standard_normal((30, 20)), generator.standard_normal((200, 20))
    gallery[50:120] = gallery[generator.integers(50, size=70)]
    query, gallery = query.astype(np.float32), gallery.astype(np.float32)
    pids, camids = generator.integers(-1, 8, size=230), generator.integers(3, size=230)
    pids[:30] = np.abs(pids[:30])
    labels = (pids[:30], pids[30:], camids[:30], camids[30:])

    left, right = query.astype(np.float64), gallery.astype(np.float64)
    if metric == "cosine":
        left, right = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (left, right))
    distances = ((left[:, None] - right[None]) ** 2).sum(axis=2)
    expected = plain_scores(lambda q, n, m: distances[q, n] <= distances[q, m] + 1e-14, *labels)
    result = evaluate_ranking(query, gallery, *labels, metric=metric)
    assert_scores(result, expected)
    assert result.tied_queries > 0


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_given_distances_agree_with_the_definition(data):
    n_query, n_gallery = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 30))
    distances = data.draw(arrays(np.int64, (n_query, n_gallery), elements=st.integers(0, 6)))
    pids = data.draw(arrays(np.int64, n_query + n_gallery, elements=st.integers(0, 3)))
    camids = data.draw(arrays(np.int64, n_query + n_gallery, elements=st.integers(0, 2)))
    labels = (pids[:n_query], pids[n_query:], camids[:n_query], camids[n_query:])
    try:
        result = evaluate_distances(distances.astype(np.float32), *labels)
    except HarnessError:
        return
    assert_scores(result, plain_scores(lambda q, n, m: distances[q, n] <= distances[q, m], *labels))


@pytest.mark.parametrize("n_gallery", [5, 17, 333])
@pytest.mark.parametrize("block_size", [1, 3, 7, 16, 20])
def test_copies_tie_wherever_they_lie_in_the_matrix_product(n_gallery, block_size):
    generator = torch.Generator().manual_seed(n_gallery)
    person = torch.rand(3456, generator=generator)
    gallery = torch.randn(n_gallery, 3456, generator=generator)
    copies = torch.randperm(n_gallery, generator=generator)[: n_gallery // 2 + 1]
    gallery[copies] = person
    query = person + 0.05 * torch.randn(20, 3456, generator=generator)
    pids = np.full(n_gallery, 2)
    pids[copies[0]] = 1
    result = evaluate_ranking(query, gallery, [1] * 20, pids, [0] * 20, [1] * n_gallery, block_size=block_size)
    assert result.first_match_rank.tolist() == [len(copies)] * 20
    assert result.tied_queries == 20


@given(lattice(), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_order_of_the_gallery_does_not_matter(case, random):
    query, gallery, (query_pids, gallery_pids, query_camids, gallery_camids) = case
    order = list(range(len(gallery)))
    random.shuffle(order)
    try:
        one = evaluate_ranking(query, gallery, query_pids, gallery_pids, query_camids, gallery_camids)
    except HarnessError:
        return
    other = evaluate_ranking(
        query, gallery[order], query_pids, gallery_pids[order], query_camids, gallery_camids[order]
    )
    np.testing.assert_allclose(one.average_precision, other.average_precision, rtol=0, atol=1e-12)
    assert one.tied_queries == other.tied_queries


@given(lattice())
@settings(max_examples=40, deadline=None)
def test_ranked_lists_are_what_is_scored(case):
    query, gallery, labels = case
    try:
        result = evaluate_ranking(query, gallery, *labels)
    except HarnessError:
        return
    lists = ranked_list(query, gallery, *labels, k=len(gallery))
    query_pids, gallery_pids, query_camids, gallery_camids = labels
    for q in range(len(query)):
        shown = lists.indices[q][lists.indices[q] >= 0]
        ignored = (gallery_pids < 0) | ((gallery_pids == query_pids[q]) & (gallery_camids == query_camids[q]))
        assert sorted(shown) == np.flatnonzero(~ignored).tolist()
        hits = lists.is_match[q][: len(shown)]
        np.testing.assert_array_equal(hits, gallery_pids[shown] == query_pids[q])
        assert (np.diff(lists.distances[q][: len(shown)]) > -1e-6).all()
        if result.valid[q]:
            ranks = np.flatnonzero(hits) + 1
            assert np.mean(np.arange(1, len(ranks) + 1) / ranks) == pytest.approx(result.average_precision[q])


def random_case(n_query=40, n_gallery=300, dim=24, seed=0):
    generator = np.random.default_rng(seed)
    pids, camids = generator.integers(12, size=n_query + n_gallery), generator.integers(4, size=n_query + n_gallery)
    centres = generator.standard_normal((12, dim))
    features = (centres[pids] + 1.5 * generator.standard_normal((len(pids), dim))).astype(np.float32)
    pids[n_query : n_query + 9] = -1
    return features[:n_query], features[n_query:], (pids[:n_query], pids[n_query:], camids[:n_query], camids[n_query:])


def test_short_lists_are_the_beginning_of_long_ones():
    query, gallery, labels = random_case()
    long, short = ranked_list(query, gallery, *labels, k=100), ranked_list(query, gallery, *labels, k=7)
    np.testing.assert_array_equal(long.indices[:, :7], short.indices)
    expected = 1 - (query[3] @ gallery[short.indices[3]].T) / np.linalg.norm(query[3]) / np.linalg.norm(
        gallery[short.indices[3]], axis=1
    )
    np.testing.assert_allclose(short.distances[3], expected, atol=1e-6)


@pytest.mark.parametrize(("metric", "limits"), [("cosine", (0.0, 2.0)), ("euclidean", (0.0, 20.0))])
def test_histogram_counts_every_pair_once(metric, limits):
    query, gallery, labels = random_case()
    histogram = distance_histogram(query, gallery, *labels, bins=40, limits=limits, metric=metric)
    left, right = query.astype(np.float64), gallery.astype(np.float64)
    if metric == "cosine":
        left, right = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (left, right))
        distances = 1 - left @ right.T
    else:
        distances = np.linalg.norm(left[:, None] - right[None], axis=2)
    query_pids, gallery_pids, query_camids, gallery_camids = labels
    same_pid = query_pids[:, None] == gallery_pids[None]
    match = same_pid & (query_camids[:, None] != gallery_camids[None])
    negative = ~same_pid & (gallery_pids >= 0)[None]
    np.testing.assert_allclose(histogram.same, np.histogram(distances[match], 40, limits)[0], atol=1)
    np.testing.assert_allclose(histogram.different, np.histogram(distances[negative], 40, limits)[0], atol=1)
    assert histogram.same.sum() == match.sum() and histogram.different.sum() == negative.sum()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("bins", [1, 7, 80])
def test_filled_histogram_covers_close_features(metric, bins):
    query, gallery, labels = random_case()
    fine = distance_histogram(1 + query / 20, 1 + gallery / 20, *labels, metric=metric)
    filled = fine.filled(bins)
    assert len(filled.same) <= bins < 2 * len(filled.same)
    assert filled.same.sum() == fine.same.sum() and filled.different.sum() == fine.different.sum()
    assert (filled.same + filled.different)[[0, -1]].all()
    coarse = [fine.different[(fine.edges[:-1] >= a) & (fine.edges[:-1] < b)].sum() for a, b in pairwise(filled.edges)]
    np.testing.assert_array_equal(filled.different, coarse)


def test_single_shot_mean_is_the_expectation():
    query, gallery, labels = random_case()
    result = evaluate_single_shot(query, gallery, *labels, draws=400, seed=1)
    query_pids, gallery_pids, query_camids, gallery_camids = labels
    left, right = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (query, gallery))
    similarity = left @ right.T
    first = []
    for q, scores in enumerate(similarity):
        match = scores[(gallery_pids == query_pids[q]) & (gallery_camids != query_camids[q])]
        rivals = [scores[gallery_pids == pid] for pid in set(gallery_pids) - {-1, query_pids[q]}]
        first.append(np.mean([np.prod([(rival < score).mean() for rival in rivals]) for score in match]))
    assert result.cmc[0] == pytest.approx(np.mean(first), abs=0.02)


def test_training_switches_do_not_reach_the_product():
    query, gallery, labels = random_case(dim=256)
    expected = evaluate_ranking(query, gallery, *labels)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = evaluate_ranking(query, gallery, *labels)
        with full_precision(torch.device("cpu")):
            assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    np.testing.assert_array_equal(inside.average_precision, expected.average_precision)


def test_threads_and_blocks_change_nothing():
    query, gallery, labels = random_case()
    expected = evaluate_ranking(query, gallery, *labels)
    before = torch.get_num_threads()
    try:
        for threads, block_size in [(1, None), (2, 1), (3, 11), (8, 40)]:
            torch.set_num_threads(threads)
            result = evaluate_ranking(query, gallery, *labels, block_size=block_size)
            np.testing.assert_array_equal(result.average_precision, expected.average_precision)
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_pairs_removed_on_msmt17_are_those_of_its_lists(shared):
    labels = []
    for part in ("query", "gallery"):
        lines = (shared / "protocols" / "msmt17" / f"list_{part}.txt").read_text().split("\n")
        entries = [line.split() for line in lines if line]
        labels.append(([int(pid) for _, pid in entries], [int(name.split("_")[2]) for name, _ in entries]))
    (query_pids, query_camids), (gallery_pids, gallery_camids) = labels
    matches = find_matches(query_pids, gallery_pids, query_camids, gallery_camids)
    assert matches.n_same_camera == 88_450
    positives = matches.n_positives
    assert (positives.min(), np.median(positives), positives.max()) == (1, 21, 160)


@pytest.mark.gpu
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_gpu_agrees_with_cpu(metric):
    query, gallery, labels = random_case(n_query=500, n_gallery=5000, dim=768)
    gallery[1000:1500] = gallery[500:1000]
    expected = evaluate_ranking(query, gallery, *labels, metric=metric)
    for options in ({}, {"block_size": 33}):
        result = evaluate_ranking(query, gallery, *labels, metric=metric, device="cuda", **options)
        assert result.mAP == pytest.approx(expected.mAP, abs=1e-6)
        assert result.mINP == pytest.approx(expected.mINP, abs=1e-6)
        np.testing.assert_allclose(result.cmc, expected.cmc, atol=1e-2)
    tensors = [torch.from_numpy(features).cuda() for features in (query, gallery)]
    assert evaluate_ranking(*tensors, *labels, metric=metric).mAP == pytest.approx(expected.mAP, abs=1e-6)
    assert distance_histogram(*tensors, *labels).same.sum() == distance_histogram(query, gallery, *labels).same.sum()
    np.testing.assert_array_equal(
        ranked_list(*tensors, *labels, k=3).is_match, ranked_list(query, gallery, *labels, k=3).is_match
    )


@pytest.mark.gpu
def test_msmt17_is_ranked_on_a_gpu_in_bounded_memory():
    pids, camids = torch.arange(93_820) % 3060, torch.arange(93_820) // 3060 % 15
    features = torch.randn(len(pids), 768, generator=torch.Generator().manual_seed(0)).cuda()
    before, cut = torch.cuda.memory_allocated(), 11_659
    torch.cuda.reset_peak_memory_stats()
    labels = [part for values in (pids, camids) for part in (values[:cut], values[cut:])]
    assert 0 < evaluate_ranking(features[:cut], features[cut:], *labels).mAP < 0.01
    assert torch.cuda.max_memory_allocated() - before < 3 << 30
