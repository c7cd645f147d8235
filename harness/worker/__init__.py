"""Executes one run in its own process: loads data, builds, trains, scores, measures, and writes the record."""
