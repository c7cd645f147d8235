"""Rankings small enough to score by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.errors import FeatureError, HarnessError
from harness.metrics import ProtocolError, evaluate_distances, evaluate_ranking, evaluate_single_shot


def at_angles(*degrees: float) -> np.ndarray:
    """Unit vectors in the plane: the smaller the angle to a query at 0, the more similar."""
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


QUERY = at_angles(0)


def score(gallery: np.ndarray, pids: list[int], camids: list[int] | None = None, **options):
    """Ranks a gallery for one query of identity 1 seen by camera 0."""
    return evaluate_ranking(QUERY, gallery, [1], pids, [0], camids or [1] * len(pids), **options)


def test_matches_at_one_three_and_six():
    result = score(at_angles(10, 20, 30, 40, 50, 60), [1, 2, 1, 3, 2, 1])
    assert result.average_precision == pytest.approx([(1 / 1 + 2 / 3 + 3 / 6) / 3])
    assert result.inverse_negative_penalty == pytest.approx([3 / 6])
    assert result.mAP == pytest.approx(0.72222, abs=1e-5)
    assert result.cmc[0] == 1 and result.first_match_rank.tolist() == [1] and result.n_positives.tolist() == [3]


def test_first_match_at_two():
    result = score(at_angles(10, 20), [2, 1])
    assert result.mAP == 0.5 and result.mINP == 0.5
    assert result.cmc[:3].tolist() == [0, 1, 1]
    assert result.rank(1) == 0 and result.rank(5) == 1 and result.first_hit.tolist() == [0]
    with pytest.raises(HarnessError, match="Rank 51 is outside the CMC curve of ranks 1 to 50"):
        result.rank(51)


def test_same_identity_and_camera_is_neither_hit_nor_mistake():
    result = score(at_angles(5, 10, 20), [1, 2, 1], [0, 1, 1])
    assert result.average_precision.tolist() == [1 / 2]
    assert result.n_same_camera == 1


def test_another_identity_of_the_same_camera_is_a_mistake():
    assert score(at_angles(5, 20), [2, 1], [0, 1]).mAP == 0.5


def test_junk_leaves_the_gallery_and_distractors_stay():
    result = score(at_angles(5, 10, 20), [-1, 0, 1])
    assert result.mAP == 0.5 and result.n_junk == 1


def test_junk_may_hold_anything_because_nobody_looks():
    gallery = at_angles(5, 10, 20)
    gallery[0] = np.nan
    assert score(gallery, [-1, 0, 1]).mAP == 0.5


def test_query_without_match_is_counted_and_left_out():
    gallery = at_angles(10, 20, 30)
    result = evaluate_ranking(at_angles(0, 1, 2), gallery, [1, 7, 2], [2, 1, 2], [0, 0, 1], [1, 1, 1])
    assert result.valid.tolist() == [True, False, False]
    assert (result.n_query, result.n_valid) == (3, 1)
    assert result.mAP == 0.5 and result.cmc[:2].tolist() == [0, 1]
    assert np.isnan(result.average_precision[1:]).all() and np.isnan(result.inverse_negative_penalty[1:]).all()
    assert result.first_match_rank.tolist() == [2, 0, 0] and result.n_positives.tolist() == [1, 0, 0]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 0, 2]])
def test_tie_never_helps_wherever_it_stands_in_the_gallery(order):
    gallery, pids = at_angles(10, 10, 30)[order], np.array([1, 2, 1])[order]
    result = score(gallery, pids.tolist())
    assert result.average_precision == pytest.approx([(1 / 2 + 2 / 3) / 2])
    assert result.tied_queries == 1
    assert result.tie_loss == pytest.approx((1 + 2 / 3) / 2 - (1 / 2 + 2 / 3) / 2)


def test_ties_among_matches_or_among_negatives_are_no_ties():
    result = score(at_angles(10, 10, 30, 30), [1, 1, 2, 2])
    assert result.mAP == 1 and result.tied_queries == 0 and result.tie_loss == 0


def test_ties_far_down_the_list_are_not_counted():
    distances = np.concatenate([[0.0], np.linspace(1, 2, 5000), [3.0, 3.0]])[None]
    pids = [1] + [2] * 5001 + [1]
    assert evaluate_distances(distances, [1], pids, [0], [1] * len(pids)).tied_queries == 0


def test_copies_of_another_length_tie_under_cosine():
    result = score(np.array([[3.0, 1.0], [9.0, 3.0], [0.0, 1.0]], dtype=np.float32), [1, 2, 3])
    assert result.mAP == 0.5 and result.tied_queries == 1


def test_one_gallery_image():
    result = score(at_angles(10), [1])
    assert result.mAP == result.mINP == 1 and result.cmc.tolist() == [1] * 50


def test_curve_goes_on_beyond_the_gallery():
    assert score(at_angles(10, 20, 30), [2, 3, 1], max_rank=6).cmc.tolist() == [0, 0, 1, 1, 1, 1]


def test_cosine_ignores_length_and_euclidean_does_not():
    gallery = np.array([[10.0, 1.0], [1.0, 0.5]])
    labels = ([1], [1, 2], [0], [1, 1])
    query = np.array([[1.0, 0.0]])
    assert evaluate_ranking(query, gallery, *labels).mAP == 1
    assert evaluate_ranking(query, gallery, *labels, metric="euclidean").mAP == 0.5


def test_euclidean_keeps_its_digits_far_from_the_origin():
    query = np.array([[0.0, 0.0]], dtype=np.float32) + 1000
    gallery = np.array([[0.3, 0.0], [0.0, 0.2], [0.1, 0.0]], dtype=np.float32) + 1000
    result = evaluate_ranking(query, gallery, [1], [2, 3, 1], [0], [1, 1, 1], metric="euclidean")
    assert result.mAP == 1


def test_given_distances_follow_the_same_protocol():
    distances = np.array([[0.1, 0.2, 0.2, 0.4]])
    result = evaluate_distances(distances, [1], [1, 1, 2, -1], [0], [0, 1, 1, 1])
    assert result.mAP == 0.5 and result.tied_queries == 1
    assert (result.n_junk, result.n_same_camera) == (1, 1)


def test_single_shot_with_one_image_per_identity_is_full_ranking():
    gallery, pids = at_angles(10, 20, 30), [2, 1, 3]
    full = score(gallery, pids)
    single = evaluate_single_shot(QUERY, gallery, [1], pids, [0], [1, 1, 1])
    assert single.cmc.tolist() == full.cmc.tolist() == [0] + [1] * 49
    assert single.mAP == full.mAP


def test_single_shot_by_hand():
    # Rival 2 beats the match with one of its two images, rival 3 with one of its four: rank 1 in 1/2 * 3/4 of draws.
    gallery = at_angles(20, 10, 30, 15, 40, 50, 60)
    pids, camids = [1, 2, 2, 3, 3, 3, 3], [1] * 7
    result = evaluate_single_shot(QUERY, gallery, [1], pids, [0], camids, draws=4000)
    assert result.cmc[0] == result.first_hit[0] == pytest.approx(3 / 8, abs=0.03)
    assert result.cmc[1] == pytest.approx(1 - 1 / 8, abs=0.03)
    assert result.cmc[2:].tolist() == [1] * 48
    assert result.mAP == pytest.approx(1 / 3)


def test_single_shot_draws_follow_the_seed():
    gallery, pids = at_angles(20, 10, 30), [1, 2, 2]
    curves = [
        evaluate_single_shot(QUERY, gallery, [1], pids, [0], [1] * 3, seed=seed).cmc[0] for seed in (0, 0, 1, 2, 3)
    ]
    assert curves[0] == curves[1]
    assert len(set(curves)) > 1


def test_single_shot_draws_the_own_identity_from_its_matches():
    gallery = at_angles(1, 20, 10)
    result = evaluate_single_shot(QUERY, gallery, [1], [1, 1, 2], [0], [0, 1, 1])
    assert result.cmc[:2].tolist() == [0, 1]


def test_single_shot_ties_do_not_help():
    result = evaluate_single_shot(QUERY, at_angles(10, 10), [1], [1, 2], [0], [1, 1])
    assert result.cmc[:2].tolist() == [0, 1]


GALLERY = at_angles(10, 20, 30)


def broken(value: float) -> np.ndarray:
    features = GALLERY.copy()
    features[1] = value
    return features


@pytest.mark.parametrize(
    ("query", "gallery", "message"),
    [
        (QUERY, broken(np.nan), r"gallery feature at index 1 contains NaN"),
        (QUERY, broken(np.inf), r"gallery feature at index 1 contains NaN"),
        (QUERY, broken(0.0), r"gallery feature at index 1 has zero norm"),
        (QUERY * np.nan, GALLERY, r"query feature at index 0 contains NaN"),
        (QUERY * 0, GALLERY, r"query feature at index 0 has zero norm"),
        (QUERY, np.repeat(QUERY, 3, axis=0), r"All 1 query and 3 gallery features are the same"),
        (QUERY, np.ones((3, 5)), r"2 dimensions and gallery features 5"),
        (QUERY, np.ones((3, 2, 2)), r"shape \(3, 2, 2\)"),
        (QUERY, np.full((3, 2), "a"), r"pass real numbers"),
    ],
)
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_features_that_cannot_be_ranked_are_errors(query, gallery, message, metric):
    with pytest.raises(FeatureError, match=message):
        evaluate_ranking(query, gallery, [1], [1, 2, 3], [0], [1, 1, 1], metric=metric)


def test_message_names_the_index_before_junk_left():
    with pytest.raises(FeatureError, match="index 2"):
        score(np.concatenate([GALLERY, broken(np.nan)])[[0, 1, 4]], [-1, 2, 1])


def test_nearly_constant_features_count_as_constant():
    noise = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    labels = ([1], [1, 2, 3], [0], [1, 1, 1])
    with pytest.raises(FeatureError, match="collapsed"):
        evaluate_ranking(1 + 1e-7 * noise[:1], 1 + 1e-7 * noise[1:], *labels)
    assert evaluate_ranking(1 + 1e-3 * noise[:1], 1 + 1e-3 * noise[1:], *labels).n_valid == 1


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([1], [1, 2, 3], [0], [0, 0, 0]), {}, "have the same camera"),
        (([9], [1, 2, 3], [0], [1, 1, 1]), {}, "no pid in common"),
        (([1], [-1, -1, -1], [0], [1, 1, 1]), {}, "0 gallery images that are not junk"),
        (([1], [1, 2], [0], [1, 1]), {}, "3 gallery features but 2 gallery pids"),
        (([1], [1, 2, 3], [0], [1, 1]), {}, "3 gallery pids but 2 gallery camids"),
        (([1.5], [1, 2, 3], [0], [1, 1, 1]), {}, "not integers"),
        (([1], ["a", "b", "c"], [0], [1, 1, 1]), {}, "not integers"),
        (([1], [1, 2, 3], [0], [1, 1, 1]), {"metric": "cosin"}, "Did you mean 'cosine'"),
        (([1], [1, 2, 3], [0], [1, 1, 1]), {"max_rank": 0}, "max_rank must be at least 1, found 0"),
    ],
)
def test_what_cannot_be_ranked_is_said(arguments, options, message):
    with pytest.raises(HarnessError, match=message):
        evaluate_ranking(QUERY, GALLERY, *arguments, **options)


def test_distances_that_do_not_fit_are_said():
    with pytest.raises(ProtocolError, match=r"shape \(1, 2\)"):
        evaluate_distances(np.zeros((1, 2)), [1], [1, 2, 3], [0], [1, 1, 1])
    with pytest.raises(FeatureError, match="Row 0"):
        evaluate_distances(np.array([[0.0, np.nan]]), [1], [1, 2], [0], [1, 1])


def test_every_kind_of_input_gives_the_same():
    generator = np.random.default_rng(0)
    query, gallery = (generator.integers(-8, 9, size=(n, 16)) + 0.5 for n in (5, 40))
    pids, camids = generator.integers(4, size=45), generator.integers(3, size=45)
    labels = (pids[:5], pids[5:], camids[:5], camids[5:])
    expected = evaluate_ranking(query, gallery, *labels).average_precision
    frozen = gallery.astype(np.float32)
    frozen.flags.writeable = False
    tensors = [torch.from_numpy(array) for array in (query, gallery)]
    for left, right, given in [
        (query.astype(np.float32), frozen, labels),
        (query.astype(np.float16), gallery.astype(">f4"), labels),
        (query.tolist(), gallery.tolist(), [array.tolist() for array in labels]),
        (tensors[0].requires_grad_(), tensors[1].to(torch.bfloat16), [torch.from_numpy(array) for array in labels]),
        (query[:, ::-1], gallery[:, ::-1], labels),
    ]:
        np.testing.assert_array_equal(evaluate_ranking(left, right, *given).average_precision, expected)
