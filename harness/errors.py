"""The exceptions of the harness: each says what happened, what was expected and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HarnessError(Exception):
    """Base of all errors that are the user's to fix; printed as one sentence, without a traceback."""

    exit_code = 2


class UsageError(HarnessError):
    """A name, option or value on the command line or in a recipe that does not exist or does not fit."""


class DataError(HarnessError):
    """A dataset that is missing, damaged, or not what its card says."""


class WeightsError(HarnessError):
    """A checkpoint that is missing, does not match its checksum, or does not fit the model."""


class RecordError(HarnessError):
    """A result record that is truncated, invalid or from a newer schema."""


class FeatureError(HarnessError):
    """Features that cannot be ranked: not finite, of zero norm, or constant."""

    exit_code = 1


class RunError(HarnessError):
    """A run that did not end well; its record holds the reason."""

    exit_code = 1


def suggestion(name: str, known: Iterable[str]) -> str:
    """Returns ' Did you mean ...?' for the nearest known name, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """Builds the error for a name nobody knows, with the nearest known one and the whole list."""
    known = sorted(known)
    return UsageError(f"Unknown {kind} '{name}'.{suggestion(name, known)} Known: {', '.join(known) or 'none'}.")


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, told by type, and by text where torch has no type; an illegal access is none."""
    text = str(error).lower()
    told = any(words in text for words in ("out of memory", "can't allocate memory", "cannot allocate memory"))
    return told or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
