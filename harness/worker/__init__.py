"""One run in one process: data, build, train, score, measure, record."""
