"""This machine: files, paths, processes, GPUs and seeds, and hiding secrets in what is printed."""
