"""Evaluation of re-identification features: protocols, CMC, mAP, mINP and re-ranking.

The standard protocol, which `evaluate_ranking` follows:

- Gallery images with a negative pid are junk and are removed from the gallery for all queries. Distractors (pid 0 in
  Market-1501; identities without a query in other datasets) stay in the gallery as negatives.
- For each query, gallery images of the same identity *and* the same camera are ignored. The remaining images of the
  same identity are its matches; all other remaining images are negatives.
- Let r_1 < ... < r_n be the ranks of the matches, counted from one without ignored images. Then CMC at k is 1 if
  r_1 <= k, AP = (1/n) sum_i i / r_i, and INP = n / r_n. CMC, mAP and mINP are means over queries.
- A query without a match is excluded from all means and counted (`n_query - n_valid`). It is an error if no query has
  a match.
- Beyond the length of the gallery the CMC curve keeps its last value.
- Ties are pessimistic: a negative that ties with a match ranks ahead of it, so features that do not distinguish
  images gain nothing. `harness.metrics.similarity` defines when two similarities tie. `tied_queries` counts the
  queries whose AP is lower because of ties; `tie_loss` is the effect on mAP.
- NaN, infinite, zero-norm and constant features are errors (`FeatureError`), never a low score.

AP is the mean of precisions, as in torchreid, fast-reid, TransReID and ReIDMamba. The first Market-1501 scripts used
the trapezoidal rule, which gives less; `trapezoid_average_precision` computes it from the same ranks. All scores are
fractions. The CUHK03 767/700 protocol is the standard protocol; only the classic CUHK03 protocol with 20 splits has its
own metric, `evaluate_single_shot`.

Features are numpy arrays or torch tensors, on the CPU or a GPU. Importing this package does not import torch.
"""

from harness.metrics.protocol import ProtocolError
from harness.metrics.ranked_lists import DistanceHistogram, RankedLists, distance_histogram, ranked_list
from harness.metrics.ranking import Ranking, evaluate_distances, evaluate_ranking
from harness.metrics.reranking import rerank
from harness.metrics.reranking_alone import rerank_alone
from harness.metrics.single_shot import evaluate_single_shot
from harness.metrics.trapezoid import trapezoid_average_precision

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
    "rerank_alone",
    "trapezoid_average_precision",
]
