"""Training a module: optimiser, schedule, checkpoints, and modules out of checkpoints."""
