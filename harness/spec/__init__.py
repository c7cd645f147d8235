"""Run specs, jobs and recipes as data, with the recipes and presets of the harness."""
