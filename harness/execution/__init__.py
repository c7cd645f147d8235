"""Starts each planned run in its own process, with or without Ray, and shows progress."""
