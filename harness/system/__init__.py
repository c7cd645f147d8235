"""This machine: files, paths, processes, GPUs, seeds, and what must not be printed. Everything may import it."""
