"""What a run is, as data: run spec, job and recipe, with the recipes and presets of the harness."""
