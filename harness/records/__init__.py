"""Results on disk: the record of a run, its schema, its store and its per-query values."""
