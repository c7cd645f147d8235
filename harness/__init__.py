"""Benchmark harness for person re-identification backbones.

The harness owns the data, the metric and the clock; a plug-in declares and builds.
"""

__version__ = "0.1.0"

PROTOCOL_VERSION = "1.1"
"""Results with the same Major.Minor are comparable; a change that moves numbers raises it."""
