"""Hyperparameter search on held-out training identities: search spaces, samplers, early stopping.

space.py         what is searched: parameters and named points
sampler.py       the next point: named points, TPE, random search or a grid
asha.py          early stopping
state.py         the search file in `results/searches/`
trial_source.py  turns points into jobs and events into trials
final_runs.py    trains the chosen points on the whole training set
"""
