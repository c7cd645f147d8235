"""System utilities: files, paths, processes, GPUs, seeds, and redaction of secrets in output."""
