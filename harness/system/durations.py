"""Durations as users write them: `90s`, `30m`, `10h` or `2d`."""

from __future__ import annotations

from harness.errors import UsageError

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(text: float | str) -> float:
    """Converts a number of seconds, or a text such as `30m`; empty and 0 give 0.

    Raises:
        UsageError: the text is no duration.
    """
    if not text:
        return 0.0
    word = str(text)
    number, unit = (word[:-1], UNITS[word[-1]]) if word[-1] in UNITS else (word, 1.0)
    try:
        found = float(number) * unit
    except ValueError:
        found = -1.0
    if not 0 < found < float("inf"):
        raise UsageError(f"Invalid duration '{text}'; write it as 90s, 30m, 10h or 2d.")
    return found


def text(seconds: float) -> str:
    """The one text of a duration, in the largest unit without a fraction."""
    unit = next((unit for unit in "dhm" if seconds % UNITS[unit] == 0), "s")
    return f"{seconds / UNITS[unit]:.15g}{unit}"
