"""The training loop, with its optimizer, schedule and checkpoints."""
