"""The exceptions of the harness. Each message says what happened, what was expected and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HarnessError(Exception):
    """Base class of errors that the user can fix. The command line prints the message without a traceback."""

    exit_code = 2


class UsageError(HarnessError):
    """An unknown name, or an invalid option or value, on the command line or in a file such as a recipe."""


class DataError(HarnessError):
    """A dataset is missing, is damaged, or contradicts its card."""


class WeightsError(HarnessError):
    """A checkpoint is missing, does not match its checksum, or does not fit the model."""


class RecordError(HarnessError):
    """A result record is truncated, invalid or written under a newer schema."""


class FeatureError(HarnessError):
    """Features cannot be ranked: they are not finite, have zero norm, or are all the same."""

    exit_code = 1


class RunError(HarnessError):
    """A run failed; its record holds the reason."""

    exit_code = 1


def suggestion(name: str, known: Iterable[str]) -> str:
    """Returns ' Did you mean ...?' with the most similar known name, or an empty string if none is similar."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""


def unknown(kind: str, name: str, known: Iterable[str], aliases: Iterable[str] = ()) -> UsageError:
    """Builds the error for an unknown name. It lists the known names, and suggests the most similar name or alias."""
    known = sorted(known)
    near = suggestion(name, [*known, *aliases])
    return UsageError(f"Unknown {kind} '{name}'.{near} Known: {', '.join(known) or 'none'}.")


def out_of_memory(error: BaseException) -> bool:
    """Returns whether the error means that memory ran out, on the CPU or a GPU.

    The message is checked too, because torch raises a plain `RuntimeError` for lack of CPU memory. An illegal memory
    access does not count.
    """
    text = str(error).lower()
    in_text = any(words in text for words in ("out of memory", "can't allocate memory", "cannot allocate memory"))
    return in_text or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
