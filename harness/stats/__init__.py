"""Confidence intervals, paired tests and corrections for multiple tests, clustered by identity.

All methods cluster queries by identity: the queries of one person share clothes and lighting, so the identities, not
the queries, are independent units. Every difference has an interval. With thousands of queries nearly every difference
is significant, so its size is given first and the p-value last (Ihemelandu and Ekstrand, SIGIR 2023). The randomisation
test follows Smucker, Allan and Carterette (CIKM 2007), with identities as blocks. Seeds are a different source of
variance, that of training, and are reported separately.

Scores are fractions as returned by `harness.metrics`, one per query, NaN for a query without a match. This package
needs only numpy and scipy.
"""

from harness.stats.best_of import expected_best, expected_best_of_studies
from harness.stats.comparison import Comparison, PairedTest, compare_many, holm, paired_test
from harness.stats.groups import StatsError
from harness.stats.intervals import RESAMPLES, bootstrap_interval
from harness.stats.prediction import another_run, another_run_of_one, difference_of_means
from harness.stats.resampling import jackknife_interval, percentile_interval
from harness.stats.studies import StudyTest, compare_studies

__all__ = [
    "RESAMPLES",
    "Comparison",
    "PairedTest",
    "StatsError",
    "StudyTest",
    "another_run",
    "another_run_of_one",
    "bootstrap_interval",
    "compare_many",
    "compare_studies",
    "difference_of_means",
    "expected_best",
    "expected_best_of_studies",
    "holm",
    "jackknife_interval",
    "paired_test",
    "percentile_interval",
]
