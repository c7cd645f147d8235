"""Results on disk: records of runs, their schema, their store and per-query values."""
