"""The training loop, with its optimiser, schedule and checkpoints."""
