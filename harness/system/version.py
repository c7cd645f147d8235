"""Version of the program, and version of the rules that determine its results."""

__version__ = "0.1.0"

PROTOCOL_VERSION = "1.1"
"""Results with the same Major.Minor are comparable. Every change of the program that changes results raises it."""
