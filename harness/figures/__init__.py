"""Plots and pictures: one style, pictures of ranked lists and curves of a run."""
