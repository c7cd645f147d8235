"""From a plan to records: starts each run in a process of its own, with Ray or locally, and shows progress."""
