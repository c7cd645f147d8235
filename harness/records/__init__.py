"""Results on disk: schema, store, per-query values and the environment they came from."""
