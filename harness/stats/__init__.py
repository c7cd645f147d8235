"""Confidence intervals, paired tests and their corrections, clustered by identity.

Everything is clustered by identity: the queries of one person share clothes, light and mistakes, so identities, not
queries, are the independent units. Differences come with an interval; with thousands of queries nearly every
difference is significant, so its size comes first and the p-value last (Ihemelandu and Ekstrand, SIGIR 2023). The
randomisation test follows Smucker, Allan and Carterette (CIKM 2007), with identities as blocks. Seeds are another
source of variance, that of training, and are reported apart.

Scores are fractions as `harness.metrics` gives them, one a query, NaN where a query has no match. numpy and scipy only.
"""

from harness.stats.comparison import Comparison, PairedTest, compare_many, holm, paired_test
from harness.stats.groups import StatsError
from harness.stats.intervals import bootstrap_interval

__all__ = [
    "Comparison",
    "PairedTest",
    "StatsError",
    "bootstrap_interval",
    "compare_many",
    "holm",
    "paired_test",
]
