"""Searching settings of a recipe or a backbone on held-out training identities; the test split is not read.

`space` says what is searched, `sampler` asks for the next point, `asha` stops bad trials early, `state` is what is
kept in `results/searches/`, `driver` turns points into jobs for a scheduler, `finals` trains the chosen points on the
whole training set.
"""
