"""Starts planned runs, each in a process of its own, with Ray or without, and shows their progress."""
