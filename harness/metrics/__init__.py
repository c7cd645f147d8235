"""Evaluation of re-identification features: protocols, CMC, mAP, mINP and re-ranking.

The standard protocol, which `evaluate_ranking` follows:

- Gallery images with a negative pid are junk and leave the gallery for everybody. Distractors (pid 0 in Market-1501,
  identities without a query elsewhere) stay, as ordinary wrong answers.
- For each query, gallery images of the same identity *and* the same camera are ignored. What is left of the same
  identity are its matches, everything else left is a negative.
- Ranked by similarity, the matches stand at r_1 < ... < r_n (from one, ignored images not counted). Then
  CMC at k is 1 if r_1 <= k, AP = (1/n) sum_i i / r_i, INP = n / r_n; CMC, mAP and mINP are means over queries.
- A query without a match is counted (`n_query - n_valid`) and enters no mean. If no query has one, that is an error.
- Beyond the length of the gallery the CMC curve goes on with its last value.
- Ties are pessimistic: a negative that ties with a match stands ahead of it, so that features which cannot tell
  images apart gain nothing. `harness.metrics.similarity` defines when two similarities tie; queries that lost by it
  are counted (`tied_queries`), and so is the loss (`tie_loss`).
- NaN, infinite, zero-norm and constant features are errors (`FeatureError`), never a low score.

AP is the mean of precisions (not the trapezoid of the first Market-1501 scripts, which is up to a point lower), as in
torchreid, fast-reid, TransReID and ReIDMamba. All scores are fractions. The CUHK03 767/700 protocol uses all this too;
only the classic protocol of 20 splits has a metric of its own, `evaluate_single_shot`.

Features are numpy arrays or torch tensors, on the CPU or a GPU. Importing this package does not import torch.
"""

from harness.metrics.protocol import ProtocolError
from harness.metrics.ranked_lists import DistanceHistogram, RankedLists, distance_histogram, ranked_list
from harness.metrics.ranking import Ranking, evaluate_distances, evaluate_ranking
from harness.metrics.reranking import rerank
from harness.metrics.single_shot import evaluate_single_shot

__all__ = [
    "DistanceHistogram",
    "ProtocolError",
    "RankedLists",
    "Ranking",
    "distance_histogram",
    "evaluate_distances",
    "evaluate_ranking",
    "evaluate_single_shot",
    "ranked_list",
    "rerank",
]
