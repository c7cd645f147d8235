"""Hyperparameter search on held-out training identities: search spaces, samplers, early stopping.

The test split is not read before the choice is made.

    space.py         what is searched: parameters and named points
    sampler.py       the next point: named points, TPE, random search or a grid
    asha.py          early stopping by ASHA
    stopping.py      early stopping as it is done: ASHA, and three rules that are no part of it
    state.py         the search file in `results/searches/`
    trial_source.py  turns points into jobs and events into trials
    final_runs.py    trains the chosen points on the whole training set
"""
