"""What a run is, as data: run spec, job, recipe, with the recipes and presets that come with the harness."""
