"""Plotting style, and figures of one run: ranked lists and distance histograms."""
