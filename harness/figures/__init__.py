"""Plotting style, pictures of ranked lists, and the pictures of one run."""
