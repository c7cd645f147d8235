"""Hyperparameter search on held-out training identities: search spaces, samplers, early stopping.

Trials do not read the test split; only the final runs of the chosen points do.

    space.py         search spaces: parameters and named points
    sampler.py       chooses the next point: named points, TPE, random search or a grid
    asha.py          early stopping by ASHA
    stopping.py      the stopping rules of a search: ASHA with three additions
    state.py         the search file in `results/searches/`
    trial_source.py  turns points into jobs and events into trials
    final_runs.py    plans the training of the chosen points on the whole training set
    studies.py       plans `--recipe tuned`: the same search for every backbone
    cost.py          what runs will cost, by measured images per second
"""
