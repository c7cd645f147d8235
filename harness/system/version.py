"""Version of the program, and of the rules that its results follow."""

__version__ = "0.1.0"

PROTOCOL_VERSION = "1.1"
"""Results with the same Major.Minor are comparable; a change that moves numbers raises it."""
